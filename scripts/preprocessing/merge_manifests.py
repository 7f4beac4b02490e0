"""Join the manifests of shards into one manifest and one table, as a single run would have written.

    python scripts/preprocessing/merge_manifests.py --output_dir runs/extract

Writes `<output_dir>/manifests/<program>.jsonl` and the program's table (`faces.csv`, `voices.csv`, …) for
each program that ran there in shards. Exit codes: 0 done; 1 more items failed than --max_failed allows, or
not one gave a result; 2 a shard is missing.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.batch_options import BatchOptions
from facevox.cluster.job import Job
from facevox.errors import ExitCode, UserError
from facevox.files import require_folder
from facevox.manifest import (
    empty_text,
    find_manifests,
    find_programs,
    shard_of,
    status_text,
)
from facevox.shards import merge_manifests

JOB = Job(inputs=("output_dir",))


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(
        __doc__, "python scripts/preprocessing/merge_manifests.py --output_dir runs/extract"
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="the output folder that the shards wrote into",
    )
    parser.add_argument(
        "--program", metavar="NAME", help="join this program's shards only (default: every program found)"
    )
    cli.add_options(parser, BatchOptions, only=("max_failed", "spreadsheet_safe"))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Joins; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    output_dir = require_folder(Path(args.output_dir), "--output_dir")
    programs = find_programs(output_dir)
    if args.program and args.program not in programs:
        raise UserError(
            f"--program {args.program}: not in {output_dir}, which has: {' '.join(programs) or 'none'}"
        )
    sharded = [
        name
        for name in ([args.program] if args.program else programs)
        if any(shard_of(path)[1] > 1 for path in find_manifests(output_dir, name))
    ]
    if not sharded:
        raise UserError(f"--output_dir: no shards to join below {output_dir}")
    is_bad = False
    for name in sharded:
        merged = merge_manifests(output_dir, name, spreadsheet_safe=args.spreadsheet_safe)
        print(f"{name}: {status_text(merged.counts)}, {merged.num_rows} rows: {merged.table}")
        if merged.is_empty:
            print(empty_text(name, merged.settings))
        is_bad |= merged.is_empty or merged.has_failed(args.max_failed)
    return ExitCode.SOME_FAILED if is_bad else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main))
