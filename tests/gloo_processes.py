"""Real processes in one gloo group, for tests of what several ranks do together."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facevox.training import distributed

TIMEOUT_S = 120


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def torchrun_variables(rank: int, size: int, port: int) -> dict[str, str]:
    values = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in values.items()}


def slurm_variables(rank: int, size: int, port: int) -> dict[str, str]:
    """Variables of an srun step; the job number is such that the port derived from it is the free one."""
    return {
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_STEP_NUM_TASKS": str(size),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_JOB_ID": "12",
        "SLURM_STEP_ID": str(port - distributed.FIRST_PORT - 7 * 12),
    }


def _run_rank(
    function: Callable[..., Any], rank: int, environment: dict[str, str], folder: Path, arguments: tuple
) -> None:
    try:
        os.environ.clear()
        os.environ.update(environment)
        np.random.seed()  # noqa: NPY002 - else all would begin with the random numbers of their server
        torch.set_num_threads(1)
        world = distributed.init("cpu", timeout_s=60)
        result = function(world, *arguments)
        distributed.cleanup()
        torch.save(result, folder / f"{rank}.pt")
    except BaseException:
        (folder / f"{rank}.error").write_text(traceback.format_exc(), encoding="utf-8")
        raise


def run_ranks(
    function: Callable[..., Any],
    size: int,
    folder: Path,
    *arguments: Any,
    variables: Callable[[int, int, int], dict[str, str]] = torchrun_variables,
) -> list[Any]:
    """Results of `function(world, *arguments)`, a function of a module, on each rank."""
    # Starting means importing torch (with all that DistributedDataParallel and optimizers load): one process
    # does it, and the ranks of all tests are forked from it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.nn.parallel", "torch._dynamo", "facevox.training.distributed"])
    port = free_port()
    processes = [
        context.Process(target=_run_rank, args=(function, rank, os.environ | own, folder, arguments))
        for rank, own in enumerate(variables(rank, size, port) for rank in range(size))
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT_S)
    hung = [rank for rank, process in enumerate(processes) if process.is_alive()]
    for rank in hung:
        processes[rank].kill()
    errors = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.error"))]
    assert not errors, "\n".join(errors)
    assert not hung, f"ranks {hung} did not end"
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]
