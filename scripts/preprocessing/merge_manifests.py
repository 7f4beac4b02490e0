"""Join the manifests of shards into one manifest and one table, as a single run would have written.

    python scripts/preprocessing/merge_manifests.py --output_dir runs/extract

Writes `<output_dir>/manifests/<program>.jsonl` and the program's table (`faces.csv`, `voices.csv`, …) for
each program that ran there in shards. Exit codes: 0 all items done, 1 some failed, 2 a shard is missing.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.errors import ExitCode, UserError


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(
        __doc__, "python scripts/preprocessing/merge_manifests.py --output_dir runs/extract"
    )
    parser.add_argument(
        "--output_dir", required=True, metavar="DIR", help="the output folder that the shards wrote into"
    )
    parser.add_argument(
        "--program", metavar="NAME", help="join this program's shards only (default: every program found)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Joins; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    from facevox.files import require_folder
    from facevox.manifest import find_manifests, find_programs, merge_manifests, shard_of

    output_dir = require_folder(Path(args.output_dir), "--output_dir")
    programs = find_programs(output_dir)
    if args.program and args.program not in programs:
        raise UserError(
            f"--program {args.program}: not there; {output_dir} has: {' '.join(programs) or 'none'}"
        )
    sharded = [
        name
        for name in ([args.program] if args.program else programs)
        if any(shard_of(path)[1] > 1 for path in find_manifests(output_dir, name))
    ]
    if not sharded:
        raise UserError(f"--output_dir: no shards to join below {output_dir}")
    num_failed = 0
    for name in sharded:
        table, num_rows, counts = merge_manifests(output_dir, name)
        num_failed += counts.get("failed", 0)
        print(
            f"{name}: {counts.get('done', 0)} done, {counts.get('failed', 0)} failed, "
            f"{num_rows} rows: {table}"
        )
    return ExitCode.SOME_FAILED if num_failed else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main))
