"""Distributed runs: set-up, gathering that gradients pass through, agreement between ranks.

Everything here also works in a single process, where gathering returns its input and a flag is just a flag.

The scale of gradients. B is the number of samples of this process (equal on all), G = W * B that of all W
processes. Each rank r computes a loss L_r that is the *mean over its own B samples* of terms that depend on
all G samples, so that the loss of the one big batch is L = (1/W) * sum_r L_r. Then

* `all_gather_rows` sends back to every rank the *sum* over all ranks of the gradients that its rows received:
  sum_s dL_s/dx_r = W * dL/dx_r;
* DistributedDataParallel (DDP) *averages* parameter gradients over the ranks:
  (1/W) * sum_r (W * dL/dx_r) * dx_r/dw = dL/dw.

The two factors cancel: no loss is multiplied by W anywhere, and parameters that every rank uses directly in
its own loss, such as a temperature, get their gradient by the average alone: (1/W) * sum_r dL_r/dt = dL/dt.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.parallel import DistributedDataParallel

from facevox.errors import UserError, one_line

_Result = TypeVar("_Result")

# Ports for SLURM jobs: below Linux's range for outgoing connections (32768 on), above the usual services.
FIRST_PORT = 12000
NUM_PORTS = 20000
THREADS_PAUSE_S = 0.1  # a thread that waits for the interpreter's lock gets it within 5 ms of a pause
TIMEOUT_S = 1800.0  # the longest wait is for rank 0, which writes a checkpoint to a busy file system


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Settings of this process by its launcher.

    Attributes:
        rank: 0 … size - 1, over all machines.
        size: Number of processes.
        local_rank: 0 … on this machine.
        init_method: The rendezvous of the processes, as `torch.distributed.init_process_group` takes it.
    """

    rank: int
    size: int
    local_rank: int
    init_method: str


@dataclass(frozen=True, kw_only=True)
class World:
    """Rank and device of this process.

    Attributes:
        rank: 0 … size - 1.
        size: Number of processes; 1 without a launcher.
        local_rank: 0 … on this machine.
        device: Device of this process.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True if this process writes files and prints."""
        return self.rank == 0


def read_launch(environment: Mapping[str, str]) -> Launch | None:
    """Settings of torchrun or srun in the environment; None for a program that was started without them.

    torchrun has precedence over SLURM, because it may itself run in a SLURM step. Of SLURM only the variables
    of a *step* count, which srun sets: a batch script that starts Python directly has SLURM_NTASKS but no
    other tasks to wait for.

    Raises:
        UserError: Variables are missing, not integers, or contradict each other.
    """
    if "RANK" in environment or "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        missing = [name for name in names if name not in environment]
        if missing:
            raise UserError(
                f"RANK or WORLD_SIZE is set but not {', '.join(missing)}: start with torchrun or unset both"
            )
        rank, size, local_rank, _ = (_integer(environment, name) for name in names if name != "MASTER_ADDR")
        return _checked(Launch(rank=rank, size=size, local_rank=local_rank, init_method="env://"))
    if "SLURM_PROCID" in environment and "SLURM_STEP_NUM_TASKS" in environment:
        size = _integer(environment, "SLURM_STEP_NUM_TASKS")
        if size == 1:
            return None
        return _checked(
            Launch(
                rank=_integer(environment, "SLURM_PROCID"),
                size=size,
                local_rank=_integer(environment, "SLURM_LOCALID"),
                init_method=f"tcp://{_slurm_address(environment)}",
            )
        )
    return None


def _integer(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not re.fullmatch(r"[0-9]+", text):
        raise UserError(
            f"environment variable {name} is {text!r}: it should be a number, as torchrun or srun sets it"
        )
    return int(text)


def _checked(launch: Launch) -> Launch:
    if not 0 <= launch.rank < launch.size:
        raise UserError(
            f"this process is rank {launch.rank} of {launch.size}: ranks go from 0 to {launch.size - 1}"
        )
    return launch


def _slurm_address(environment: Mapping[str, str]) -> str:
    """Host and port of rank 0, the same on every task and different for steps that run side by side."""
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    host = environment.get("MASTER_ADDR") or first_host(nodes)
    if "MASTER_PORT" in environment:
        return f"{host}:{_integer(environment, 'MASTER_PORT')}"
    job, step = _integer(environment, "SLURM_JOB_ID"), _integer(environment, "SLURM_STEP_ID")
    # 7: the first steps of a job and of the jobs after it get different ports.
    return f"{host}:{FIRST_PORT + (7 * job + step) % NUM_PORTS}"


def first_host(nodes: str) -> str:
    """The first host of a SLURM node list: `gpu[003-004,9],login` → `gpu003`.

    Raises:
        UserError: The list is empty or malformed.
    """
    entry = re.match(r"(?:[^,\[\]]|\[[^\[\]]+\])+", nodes)
    if entry is None:
        raise UserError(
            f"SLURM_STEP_NODELIST is {nodes!r}: it names no host; set MASTER_ADDR to that of rank 0"
        )
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", entry.group())


def init(device: str = "auto", *, timeout_s: float = TIMEOUT_S) -> World:
    """Joins the processes that a launcher started; returns this one's rank and device.

    Tensors on the CPU are sent by gloo, also in a group for GPUs: flags and sizes then never wait for the
    GPU. Without a launcher nothing is set up.

    Args:
        device: `auto` (CUDA where there is one), `cpu`, or `cuda`.
        timeout_s: Time that a rank waits for the others before it gives up.

    Raises:
        UserError: The environment of the launcher is broken, or there is no such device.
    """
    launch = read_launch(os.environ)
    local_rank = launch.local_rank if launch else 0
    torch_device = choose_device(device, local_rank)
    if launch is None:
        return World(device=torch_device)
    # NCCL for tensors on the GPU, gloo for those on the CPU.
    backend = "cpu:gloo,cuda:nccl" if torch_device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend,
        init_method=launch.init_method,
        rank=launch.rank,
        world_size=launch.size,
        timeout=timedelta(seconds=timeout_s),
    )
    return World(rank=launch.rank, size=launch.size, local_rank=local_rank, device=torch_device)


def choose_device(name: str, local_rank: int) -> torch.device:
    """The device of this process for `auto`, `cpu` or `cuda`; makes a GPU torch's current one.

    Raises:
        UserError: Another name, or there is no GPU for this process.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device is {name!r}: it should be auto, cpu or cuda")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    num_devices = torch.cuda.device_count()
    if num_devices == 0:
        raise UserError(
            "--device is cuda, but torch finds no GPU here: use --device cpu, or install with CUDA=1"
        )
    if num_devices > 1 and local_rank >= num_devices:
        raise UserError(
            f"process {local_rank} of this machine has no GPU: there are {num_devices}; start that many"
        )
    # A launcher that binds each task to its own GPU shows exactly one, number 0, to every task.
    device = torch.device("cuda", local_rank % num_devices)
    torch.cuda.set_device(device)
    return device


def cleanup() -> None:
    """Leaves the group of processes; has no effect in a single process, or when called again.

    It waits for no other rank, so it can be called in a `finally`.
    """
    if is_distributed():
        dist.destroy_process_group()
        # A model wrapped by DDP keeps gloo's threads alive. A thread that still has to release the last
        # reduction of a backward pass needs the interpreter's lock for that, and aborts the process if the
        # program ends first (in 8 of 50 exits).
        time.sleep(THREADS_PAUSE_S)


def is_distributed() -> bool:
    """True if `init` joined a group (also one of a single process that torchrun started)."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Rank of this process, 0 … world_size() - 1; 0 in a single process."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes; 1 without a launcher."""
    return dist.get_world_size() if is_distributed() else 1


def own_rows(num_local: int) -> slice:
    """Position of this process's `num_local` rows in the result of `all_gather_rows`."""
    return slice(rank() * num_local, (rank() + 1) * num_local)


def wrap(module: nn.Module, world: World) -> nn.Module:
    """`module` with its gradients averaged over all ranks (DDP); unchanged in a single process."""
    if world.size == 1:
        return module
    return DistributedDataParallel(module, device_ids=[world.device] if world.device.type == "cuda" else None)


class _AllGatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, rows_BX: Tensor) -> Tensor:
        return _gathered(rows_BX)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_GX: Tensor) -> Tensor:
        # A sum over ranks, then this rank's rows. Both backends have this collective, but not both have a
        # reduce-scatter; its G × X values are as many as were gathered before.
        total_GX = grad_GX.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total_GX, op=dist.ReduceOp.SUM)
        return total_GX[own_rows(len(total_GX) // world_size())]


def _gathered(rows_BX: Tensor) -> Tensor:
    rows_BX = rows_BX.contiguous()
    gathered_GX = rows_BX.new_empty(world_size() * rows_BX.shape[0], *rows_BX.shape[1:])
    dist.all_gather_single(gathered_GX, rows_BX)
    return gathered_GX


def all_gather_rows(rows_BX: Tensor) -> Tensor:
    """The rows of all ranks, in rank order; gradients are sent back to the rank of each row.

    Every rank calls it, with the same shape (`gather_identities` has checked the number of rows), and runs
    the backward pass too if it is differentiated. The gradient of a row is the *sum* over ranks; see the
    module.

    Args:
        rows_BX: (B, …) of any type.

    Returns:
        (G, …) with G = world size × B.
    """
    if not is_distributed():
        return rows_BX
    if rows_BX.requires_grad and torch.is_grad_enabled():
        # torch has no types for `apply`.
        gathered_GX: Tensor = _AllGatherRows.apply(rows_BX)  # type: ignore[no-untyped-call]
        return gathered_GX
    return _gathered(rows_BX)


def gather_identities(identity_B: Tensor) -> Tensor:
    """The identity of every sample of all ranks, in the order of `all_gather_rows`.

    Call it once a step, before the features are gathered: it refuses local batches of different sizes on all
    ranks, with which the collectives for features would hang or mix up rows.

    Args:
        identity_B: (B,) integers; the same number means the same person on every rank. On the CPU there is
            no wait for the GPU.

    Returns:
        (G,) on the device of `identity_B`.

    Raises:
        UserError: The processes have different numbers of samples.
    """
    if not is_distributed():
        return identity_B
    sizes_W = _gathered(torch.tensor([len(identity_B)])).tolist()
    if len(set(sizes_W)) > 1:
        raise UserError(
            f"the processes have batches of different sizes ({', '.join(map(str, sizes_W))} samples, by rank)"
            ": every process needs the same number; leave out the last, incomplete batch"
        )
    return _gathered(identity_B)


def any_rank(flag: bool) -> bool:
    """True if the flag is set on any rank; every rank gets the same result.

    Ranks agree by it to save and stop after a signal that reached only some of them: all call it at the same
    step boundary. It is one small reduction of CPU tensors: it does not wait for the GPU, and needs no
    additional barrier.
    """
    if not is_distributed():
        return flag
    highest = torch.tensor([int(flag)])
    dist.all_reduce(highest, op=dist.ReduceOp.MAX)
    return bool(highest.item())


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor over all ranks, detached: the loss of the big batch, from the local losses."""
    mean = value.detach().clone()
    if is_distributed():
        dist.all_reduce(mean, op=dist.ReduceOp.SUM)
        mean /= world_size()
    return mean


def sum_over_ranks(values: Sequence[float]) -> list[float]:
    """The sums of a few plain numbers over all ranks; one small reduction that does not wait for the GPU."""
    if not is_distributed():
        return list(values)
    total = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(total, op=dist.ReduceOp.SUM)
    summed: list[float] = total.tolist()
    return summed


def gather_objects(value: _Result) -> list[_Result]:
    """The values of all ranks, in rank order."""
    if not is_distributed():
        return [value]
    values = [value] * world_size()  # placeholders
    dist.all_gather_object(values, value)
    return values


def on_main(action: Callable[[], _Result]) -> _Result | None:
    """Runs `action` on rank 0 alone; if it fails there, all ranks end with the same error.

    Otherwise the others would wait for a rank that has long ended.

    Returns:
        The result of `action` on rank 0; None on the others.

    Raises:
        UserError: On the other ranks, if rank 0 failed; rank 0 raises the error itself.
    """
    result, error = None, None
    if rank() == 0:
        try:
            result = action()
        except Exception as caught:  # sent to the others below, then raised again
            error = caught
    reasons = gather_objects(one_line(error) if error else "")
    if error:
        raise error
    if reasons[0]:
        raise UserError(f"rank 0: {reasons[0]}")
    return result
