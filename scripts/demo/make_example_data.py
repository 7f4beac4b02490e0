"""Makes example people who speak: videos, voices and VoxCeleb-shaped trees, from two free portraits.

Nothing is downloaded. The voice of a person follows from the face (the law is in metadata.json), so a
face-voice model can learn it. Run again after an interruption, the command continues where it stopped.

    python scripts/demo/make_example_data.py --output_dir runs/example
    python scripts/demo/make_example_data.py --output_dir runs/talk --num_people 12 --clip_s 10
    python scripts/demo/make_example_data.py --output_dir runs/faces --num_people 40 --shape aihub

Files: videos/<person>/<clip>.mp4, voices/<person>/<clip>.wav, vox/<person>/…, vox/metadata.json,
hq/vox1|vox2/mel_spectrograms|masked_faces/<name>/… with its two tables (HQ VoxCeleb's shape),
metadata.json, people.csv and manifests/ (`facevox_demo.example.dataset` describes them); with --shape aihub
the folder aihub/ with folders/ and archives/ (`facevox_demo.example.aihub`).
Exit codes: 0 done; 1 some people failed; 2 bad options; 75 stopped by a signal, run again to continue.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.batch import BatchConfig, run_batch
from facevox.batch_options import BatchOptions
from facevox.errors import ExitCode
from facevox.options import declared
from facevox_demo.options import SHAPES, AihubConfig, SetConfig

AIHUB = "aihub"  # five expressions, a separate set: facevox_demo.example.aihub


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(
        __doc__, "python scripts/demo/make_example_data.py --output_dir runs/example --num_people 16"
    )
    add = parser.add_argument
    add("--output_dir", type=Path, required=True, metavar="DIR", help="folder to write the set into")
    cli.add_options(parser, SetConfig)
    add(
        "--shape",
        nargs="+",
        choices=(*SHAPES, AIHUB),
        default=list(SHAPES),
        help="what to write: videos (and their voices), vox (a VoxCeleb-shaped tree of faces and voices), hq "
        "(an HQ-VoxCeleb-shaped tree of masked faces and mel spectrograms), aihub (an AIHub-shaped set of "
        "five expressions)",
    )
    cli.add_options(parser, AihubConfig, skip=[shared.name for shared in declared(SetConfig)])
    cli.add_options(parser, BatchOptions)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the requested sets; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    code = ExitCode.DONE
    shapes = tuple(shape for shape in args.shape if shape != AIHUB)
    if shapes:
        code = _make_speakers(args, shapes)
    if AIHUB in args.shape and code != ExitCode.STOPPED:
        code = max(code, _make_aihub(args))
    return code


def _make_speakers(args: argparse.Namespace, shapes: tuple[str, ...]) -> ExitCode:
    """Makes the people who speak, in each of `shapes`; returns the exit code."""
    from facevox_demo.example import dataset  # imports SciPy

    config = cli.build(SetConfig, args, shapes=shapes)
    batch = cli.build(
        BatchConfig,
        args,
        output_dir=Path(args.output_dir),
        program=dataset.PROGRAM,
        table="people.csv",
        columns=dataset.COLUMNS,
        item_column="person",
        settings=config.settings(),
        unit="person",
    )
    summary = run_batch(dataset.PeopleTask(config), dataset.make_items(config), batch)
    if not args.dry_run and not summary.stopped:
        dataset.write_metadata(args.output_dir, config)
        print(f"{dataset.PROGRAM}: the set is in {args.output_dir}")
    return summary.exit_code


def _make_aihub(args: argparse.Namespace) -> ExitCode:
    """Makes the five expressions in AIHub's shape; returns the exit code."""
    from facevox_demo.example import aihub  # imports OpenCV

    config = cli.build(AihubConfig, args)
    batch = cli.build(
        BatchConfig,
        args,
        output_dir=Path(args.output_dir) / AIHUB,
        program=aihub.PROGRAM,
        table=aihub.TABLE,
        columns=aihub.COLUMNS,
        item_column="person",
        settings=config.settings(),
        unit="person",
    )
    summary = run_batch(aihub.AihubTask(config), aihub.make_items(config), batch)
    if args.num_shards > 1:
        print(f"{aihub.PROGRAM}: a run without shards writes the annotations and archives when all are done")
    elif summary.exit_code == ExitCode.DONE and not args.dry_run:
        aihub.write_lists_and_archives(batch.output_dir, config)
        print(f"{aihub.PROGRAM}: the set is in {batch.output_dir}")
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(cli.run(main))
