"""Write lists of matched faces and voices from a VoxCeleb-shaped tree.

    python scripts/preprocessing/create_matched_file.py -d vox -m vox/metadata.json -o runs/pairs -l 10

The tree is `<dataset>/<id>/faces/<clip>/<frame>.jpg` and `<dataset>/<id>/voices/<clip>.wav`; the top-level
keys of the metadata JSON are the identities. Writes `matched_files-0.txt` … `matched_files-<limit-1>.txt`:
file i holds pair i of each identity that has that many, as `face<TAB>voice`. Exit codes: 0 done, 2 bad usage
or input.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.cluster.job import Job
from facevox.errors import ExitCode

SHOWN_NAMES = 5

JOB = Job(inputs=("dataset_path", "meta_path"), output="output")


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(
        __doc__,
        "python scripts/preprocessing/create_matched_file.py -d vox -m vox/metadata.json -o runs/pairs -l 10",
    )
    parser.add_argument(
        "-d",
        "--dataset_path",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of identities, each with faces/ and voices/",
    )
    parser.add_argument(
        "-m",
        "--meta_path",
        type=Path,
        required=True,
        metavar="JSON",
        help="metadata file whose top-level keys are the identities",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the lists; made if missing",
    )
    parser.add_argument(
        "-l",
        "--limit",
        required=True,
        type=cli.positive_int,
        metavar="N",
        help="number of lists: pairs per identity",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the lists; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    from lc_pytorch.datasets.matched_files import write_matched_files  # torch, by its package: not for --help

    summary = write_matched_files(args.dataset_path, args.meta_path, args.output, args.limit)
    print(
        f"create_matched_file: {sum(summary.pairs_per_file)} pairs of {summary.pairs_per_file[0]} identities "
        f"in {len(summary.files)} lists below {args.output}"
    )
    # Later lists lack ever more people: after the first ones a line only where their number changes.
    for number, count in enumerate(summary.pairs_per_file):
        if number < SHOWN_NAMES or count != summary.pairs_per_file[number - 1]:
            skipped = summary.num_identities - count
            print(f"  {summary.files[number].name}: {count} pairs, {skipped} identities skipped")
    _print_names("without a folder", summary.without_folder)
    _print_names("without a face or a voice", summary.without_pairs)
    _print_names("pairs left out, a tab or line break in their path", summary.refused)
    return ExitCode.DONE


def _print_names(fault: str, names: list[str]) -> None:
    if names:
        more = f" … and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        print(f"  {len(names)} {fault}: {', '.join(names[:SHOWN_NAMES])}{more}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
