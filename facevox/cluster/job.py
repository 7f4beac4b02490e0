"""What a program tells a cluster about itself: its JOB, which stands beside get_args_parser."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# One process; one for each GPU; one for each node, which takes all its GPUs.
ONE, PER_GPU, PER_NODE = "one", "per GPU", "per node"
# How the parts of a sharded job come together: their manifests are merged; or the program runs once more
# without shards, which takes over what they have done.
MERGE, RUN_AGAIN = "merge", "run again"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A program as a cluster sees it.

    Attributes:
        processes: ONE, PER_GPU or PER_NODE.
        join: MERGE or RUN_AGAIN for programs that take --num_shards; "" for others.
        inputs: Options that name files or folders which must be there before it starts.
        output: The option whose folder it writes, manifests and all; or a function that finds that folder
            from the parsed options and the root of the repository; UserError where settings are wrong.
        is_some_failed_done: Exit code 1 says that items failed, which must not end what comes after.
    """

    processes: str = ONE
    join: str = ""
    inputs: tuple[str, ...] = ()
    output: str | Callable[[argparse.Namespace, Path], Path] = "output_dir"
    is_some_failed_done: bool = True
