"""Measures how long `--help` of every program takes: nobody should wait for imports to read options.

    python benchmarks/help_time.py

The best of three calls of each. Exit codes: 0 all within a second; 1 one is not; 2 bad usage.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.errors import ExitCode
from facevox_demo.figures import Figure, print_figures, write_figures

REPOSITORY = Path(__file__).resolve().parent.parent
LIMIT_S = 1.0


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python benchmarks/help_time.py --json figures.json")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the figures there (default: none)"
    )
    return parser


def help_s(program: Path) -> float:
    """Seconds of `program --help`, the best of three."""
    seconds = []
    for _ in range(3):
        start_s = time.perf_counter()
        subprocess.run([sys.executable, str(program), "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start_s)
    return min(seconds)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    programs = sorted(REPOSITORY.glob("scripts/*/*.py"))
    figures = [
        Figure(
            program.relative_to(REPOSITORY).as_posix(), round(help_s(program), 3), "s", LIMIT_S, False, False
        )
        for program in programs
    ]
    is_met = print_figures(figures)
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE if is_met else ExitCode.SOME_FAILED


if __name__ == "__main__":
    sys.exit(cli.run(main))
