"""Show submitted jobs: state, progress, log.

    python scripts/cluster/status.py
    python scripts/cluster/status.py --last 3 --json

Reads the records that submit.py and pipeline.py left below --log_dir, asks SLURM about those that are not
over, and reads progress from the manifests and history.json that the jobs write. Exit codes: 0 no job failed;
1 a job failed or is gone; 2 bad usage or input.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.cluster.progress import GONE, statuses
from facevox.cluster.records import DEFAULT_LOG_DIR, FAILED, load_records
from facevox.errors import ExitCode
from facevox.files import require_folder


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python scripts/cluster/status.py --last 3")
    parser.add_argument(
        "--log_dir", type=Path, default=DEFAULT_LOG_DIR, help="where the submissions are kept"
    )
    parser.add_argument("--last", type=cli.positive_int, default=20, help="number of the latest submissions")
    parser.add_argument("--json", action="store_true", help="one JSON list on stdout instead of lines")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the states; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    latest = statuses(load_records(require_folder(args.log_dir, "--log_dir"))[-args.last :])
    if args.json:
        rows = [
            {
                "name": status.record.name,
                "job": status.record.job,
                "job_ids": status.record.job_ids,
                "states": status.states,
                "starts": status.starts,
                "progress": status.progress,
                "log": str(status.log_file),
            }
            for status in latest
        ]
        print(json.dumps(rows))
    for status in latest if not args.json else ():
        again = f", started {max(status.starts)} times" if max(status.starts) > 1 else ""
        print(f"{status.record.name}  job {status.record.job_numbers}  {status.state_text}{again}")
        print(f"    {status.progress or 'no progress yet'}; log {status.log_file}")
    if not latest and not args.json:
        print(f"{args.log_dir}: nothing was submitted")
    is_bad = any(state in (FAILED, GONE) for status in latest for state in status.states)
    return ExitCode.SOME_FAILED if is_bad else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main))
