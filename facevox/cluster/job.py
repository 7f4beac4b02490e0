"""The description of a program for a cluster: its JOB, which is next to get_args_parser."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# One process; one for each GPU; one for each node, which uses all its GPUs.
ONE, PER_GPU, PER_NODE = "one", "per GPU", "per node"
# How the parts of a sharded job are joined: their manifests are merged; or the program runs once more without
# shards, which takes over their results.
MERGE, RUN_AGAIN = "merge", "run again"
MAX_SHARDS = 100_000  # of a job; SLURM's own limit is 1,001 unless its administrators raise it


@dataclass(frozen=True, kw_only=True)
class Job:
    """Properties of a program that a cluster needs.

    Attributes:
        processes: ONE, PER_GPU or PER_NODE.
        join: MERGE or RUN_AGAIN for programs that take --num_shards; "" for others.
        inputs: Options that name files or folders which must exist before it starts.
        output: The option that names the folder which it writes, with its manifests; or a function that
            returns that folder for the parsed options and the root of the repository, and raises UserError
            if settings are wrong.
        is_some_failed_done: Exit code 1 means that items failed, which must not stop later jobs.
    """

    processes: str = ONE
    join: str = ""
    inputs: tuple[str, ...] = ()
    output: str | Callable[[argparse.Namespace, Path], Path] = "output_dir"
    is_some_failed_done: bool = True
