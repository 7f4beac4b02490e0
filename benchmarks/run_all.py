"""Run every benchmark, compare the figures with the kept ones, and report what became worse.

    python benchmarks/run_all.py                # compares with docs/benchmarks.json
    python benchmarks/run_all.py --update       # keeps the figures, and rewrites docs/benchmarks.md

Ratios within one run are compared; seconds depend on the machine and are only shown.

Exit codes: 0 every bar is reached and nothing dropped by more than a quarter; 1 otherwise; 2 bad usage.
"""

import argparse
import ast
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from facevox import cli
from facevox.errors import ExitCode
from facevox.files import read_json, write_json, write_text
from facevox_demo.figures import Figure, find_drops, load_figures

REPOSITORY = Path(__file__).resolve().parent.parent
KEPT_FILE = REPOSITORY / "docs" / "benchmarks.json"
TABLES_FILE = REPOSITORY / "docs" / "benchmarks.md"


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python benchmarks/run_all.py --only grouping extraction")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=program_names(), help="run only these (default: all)"
    )
    parser.add_argument("--update", action="store_true", help="keep the figures in docs/")
    return parser


def program_names() -> list[str]:
    """The benchmarks, by file name."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.name != Path(__file__).name)


def run_program(name: str) -> tuple[int, list[Figure]]:
    """Runs one benchmark; (its exit code, its figures)."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "figures.json")
        command = [sys.executable, f"benchmarks/{name}.py", "--json", str(file)]
        code = subprocess.run(command, cwd=REPOSITORY, check=False).returncode
        return code, load_figures(file) if file.exists() else []


def main(argv: Sequence[str] | None = None) -> int:
    """Runs and compares; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    kept_figures: dict[str, Any] = read_json(KEPT_FILE) if KEPT_FILE.exists() else {}
    is_good = True
    for name in args.only or program_names():
        print(f"\n== python benchmarks/{name}.py", flush=True)
        code, figures = run_program(name)
        is_good &= code == ExitCode.DONE
        drops = find_drops(figures, [Figure(**row) for row in kept_figures.get(name, [])])
        for now, before in drops:
            print(f"dropped: {now.name}: {now.value:.4g} {now.unit}, was {before.value:.4g} {before.unit}")
        is_good &= not drops
        if figures:
            kept_figures[name] = [asdict(figure) for figure in figures]
    if args.update:
        write_json(KEPT_FILE, dict(sorted(kept_figures.items())))
        write_tables(kept_figures)
        print(f"\nkept in {KEPT_FILE.relative_to(REPOSITORY)} and {TABLES_FILE.relative_to(REPOSITORY)}")
    return ExitCode.DONE if is_good else ExitCode.SOME_FAILED


def write_tables(figures: dict[str, Any]) -> None:
    """Writes docs/benchmarks.md: for each benchmark what it is, its command, and its figures."""
    parts = [
        "# Benchmarks",
        "",
        "Measured on two processor cores without a GPU. `make bench` measures again and reports what became",
        "worse than `benchmarks.json` beside this page; `python benchmarks/run_all.py --update` rewrites",
        "both.",
    ]
    for name, rows in sorted(figures.items()):
        text = ast.get_docstring(ast.parse((REPOSITORY / "benchmarks" / f"{name}.py").read_text())) or ""
        parts += [
            "",
            f"## {name}",
            "",
            text.split("\n\n")[0],
            "",
            "```bash",
            f"python benchmarks/{name}.py",
            "```",
        ]
        parts += ["", "| figure | value | bar |", "|---|---|---|"]
        for row in rows:
            figure = Figure(**row)
            parts.append(f"| {figure.name} | {figure.value:.4g} {figure.unit} | {figure.bar_text} |")
        explanation = "\n\n".join(p for p in text.split("\n\n")[2:] if not p.startswith("Exit codes"))
        if explanation:
            parts += ["", explanation]
    write_text(TABLES_FILE, "\n".join(parts) + "\n")


if __name__ == "__main__":
    sys.exit(cli.run(main))
