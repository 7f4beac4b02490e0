"""The shard of a task of an sbatch script, and a check that its allocation fits the program."""

import re
from collections.abc import Mapping
from pathlib import Path

from facevox.cluster.job import ONE, PER_GPU
from facevox.cluster.jobs import Request
from facevox.cluster.progress import manifest_places
from facevox.errors import UserError
from facevox.manifest import FOLDER, shard_of


def shard_of_task(environ: Mapping[str, str], request: Request) -> tuple[int, int]:
    """(index, number of shards) of this task of an array; (0, 1) outside of an array.

    The number is NUM_SHARDS. Without it, a part of an array (`--array=2`: a task that is run again alone)
    takes the number that its output folder was started with, and a whole array counts its own tasks.

    Raises:
        UserError: The program cannot be split, the variables contradict each other, or a whole array writes
            to a folder that was started with another number.
    """
    if not environ.get("SLURM_ARRAY_TASK_ID"):
        return 0, 1
    index, first, count = (
        _number(environ, f"SLURM_ARRAY_TASK_{name}", least=least)
        for name, least in (("ID", 0), ("MIN", 0), ("COUNT", 1))
    )
    if not request.takes("num_shards"):
        raise UserError(f"--array: {request.name} cannot be split into shards; submit it without --array")
    if environ.get("NUM_SHARDS"):
        num_shards = _number(environ, "NUM_SHARDS", least=1)
    else:
        before = _shards_before(Path(request.output_dir))
        num_shards = before if before > count else count
        last = _number(environ, "SLURM_ARRAY_TASK_MAX", least=0)
        is_whole = first == 0 and last == count - 1
        if is_whole and count > 1 and before not in (0, count):
            raise UserError(
                f"--array=0-{last}: {request.output_dir} was started with {before} shards, not {count}: use "
                f"--array=0-{before - 1} for all of them, NUM_SHARDS={before} for these tasks of them, "
                f"NUM_SHARDS={count} to split the rest again, or a new folder"
            )
        if num_shards == count and not is_whole:
            raise UserError(
                f"array tasks {first} to {last}: a part of how many? Set NUM_SHARDS=…, or start with a whole "
                f"array (there is nothing in {request.output_dir} to tell their number)"
            )
    # A whole array may be numbered from anywhere; a part of one is numbered as the whole was, from 0.
    shard = index - first if num_shards == count else index
    if shard >= num_shards:
        raise UserError(f"array task {index}: the {num_shards} shards are numbered 0 to {num_shards - 1}")
    return shard, num_shards


def _shards_before(output_dir: Path) -> int:
    """Number of shards of the work in a folder; 0 if there is none, or if it is unknown."""
    folders = manifest_places(output_dir)
    totals = {shard_of(file)[1] for folder in folders for file in (folder / FOLDER).glob("*.jsonl")} - {1}
    return totals.pop() if len(totals) == 1 else 0


def check_allocation(environ: Mapping[str, str], request: Request) -> None:
    """Refuses an allocation of which the program would leave a part unused, or use a part twice.

    Raises:
        UserError: With the option of sbatch to change.
    """
    num_tasks = _number({"SLURM_NTASKS": "1", **environ}, "SLURM_NTASKS", least=1)
    num_nodes = _number({"SLURM_JOB_NUM_NODES": "1", **environ}, "SLURM_JOB_NUM_NODES", least=1)
    processes = request.job.processes
    if processes == ONE and num_tasks * num_nodes > 1:
        raise UserError(
            f"{request.name} is one process, and the job has {num_tasks} tasks on {num_nodes} nodes: use "
            f"--nodes=1 --ntasks-per-node=1{' and --array' if request.takes('num_shards') else ''}"
        )
    if num_tasks % num_nodes or num_tasks < num_nodes:
        raise UserError(f"{num_tasks} tasks on {num_nodes} nodes: use --ntasks-per-node")
    num_gpus = _number({"SLURM_GPUS_ON_NODE": "0", **environ}, "SLURM_GPUS_ON_NODE", least=0)
    if processes == PER_GPU and num_gpus > 1 and num_tasks // num_nodes != num_gpus:
        raise UserError(
            f"{request.name} uses one GPU a task; the job has {num_gpus} GPUs and {num_tasks // num_nodes} "
            f"tasks on each node: use --ntasks-per-node={num_gpus}"
        )


def _number(environ: Mapping[str, str], name: str, *, least: int) -> int:
    text = environ.get(name, "")
    if not re.fullmatch("[0-9]+", text) or int(text) < least:
        raise UserError(f"environment variable {name}: {text!r} is not a whole number of at least {least}")
    return int(text)
