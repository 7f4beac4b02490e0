"""Options of a batch that its user chooses; cheap to import, for `--help`."""

import argparse
import os
from dataclasses import dataclass, fields
from typing import Any

from facevox import cli, spreadsheets
from facevox.errors import UserError
from facevox.options import Options, number, option, switch, whole


def _from_environment(name: str, default: int, low: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    try:
        return cli.argument_type(whole(low))(text)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"environment variable {name}: {error}") from None


def _num_shards() -> int:
    return _from_environment("NUM_SHARDS", 1, 1)


def _shard_index() -> int:
    """Position of this job in its SLURM array, so that one command serves all jobs of it."""
    first = _from_environment("SLURM_ARRAY_TASK_MIN", 0, 0)
    return max(_from_environment("SLURM_ARRAY_TASK_ID", 0, 0) - first, 0)


@dataclass(frozen=True, kw_only=True)
class BatchOptions(Options):
    """Options of every preprocessing program. Item k belongs to shard k % num_shards.

    Attributes:
        debug: Work in this process, without a time limit: a debugger sees the work; a decoder that crashes
            ends the batch.
    """

    workers: int = option(
        0,
        whole(0),
        "worker processes; 0: one item at a time in one of them (default: usable cores, %(default)s)",
        flag_default=cli.num_cores,
        group="batch",
    )
    num_shards: int = option(
        1,
        whole(1),
        "split the work into this many parts (default: NUM_SHARDS or 1)",
        flag_default=_num_shards,
        group="batch",
    )
    shard_index: int = option(
        0,
        whole(0),
        "which part to do, from 0 (default: SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN, or 0)",
        flag_default=_shard_index,
        group="batch",
    )
    overwrite: bool = option(False, switch(), "do finished items again", group="batch")
    dry_run: bool = option(
        False, switch(), "print counts and an estimate of time and disk; write nothing", group="batch"
    )
    item_timeout_s: float = option(
        60.0,
        number(is_above=True),
        "give an item up that makes no progress for this many seconds",
        group="batch",
    )
    max_failed: float = option(
        0.0,
        number(0, 1),
        "share of the items, 0 to 1, that may fail before the exit code is 1; where nobody was found "
        "(no_face, no_speech) counts neither as failed nor as an item",
        metavar="SHARE",
        group="batch",
    )

    spreadsheet_safe: bool = option(
        False,
        switch(),
        spreadsheets.HELP,
        group="batch",
    )

    debug: bool = False  # the flag is every program's

    def contradictions(self) -> list[str]:
        """A shard index beyond the number of shards."""
        if self.shard_index < self.num_shards:
            return []
        return [
            f"--shard_index {self.shard_index}: there are {self.num_shards} shards, "
            f"numbered 0 to {self.num_shards - 1}"
        ]

    def batch_options(self) -> dict[str, Any]:
        """These options alone, to hand them on."""
        return {info.name: getattr(self, info.name) for info in fields(BatchOptions)}
