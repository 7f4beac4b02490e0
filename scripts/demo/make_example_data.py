"""Makes example people who speak: videos, voices and a VoxCeleb-shaped tree, from two free portraits.

Nothing is downloaded. The voice of a person follows from the face (the law is in metadata.json), so a
face-voice model can learn it. Run again after an interruption, the command goes on where it stopped.

    python scripts/demo/make_example_data.py --output_dir runs/example
    python scripts/demo/make_example_data.py --output_dir runs/talk --num_people 12 --clip_s 10

Files: videos/<person>/<clip>.mp4, voices/<person>/<clip>.wav, vox/<person>/…, vox/metadata.json,
metadata.json, people.csv and manifests/ (`facevox.example_data.dataset` describes them).
Exit codes: 0 done; 1 some people failed; 2 bad options; 75 stopped by a signal, run again to continue.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli

SHAPES = ("videos", "vox")  # of facevox.example_data.dataset, whose import would make --help slow


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(
        __doc__, "python scripts/demo/make_example_data.py --output_dir runs/example --num_people 16"
    )
    add = parser.add_argument
    add("--output_dir", type=Path, required=True, metavar="DIR", help="folder to write the set into")
    add("--num_people", type=cli.positive_int, default=120, help="how many people")
    add("--clips_per_person", type=cli.positive_int, default=2, help="clips of each person")
    add("--clip_s", type=cli.positive_float, default=2.0, help="length of a clip in seconds")
    add("--fps", type=cli.positive_float, default=25.0, help="frames a second")
    add("--size", type=cli.positive_int, default=256, help="width and height of the videos in pixels")
    add("--seed", type=cli.natural_int, default=0, help="another seed gives other people")
    add(
        "--shape",
        nargs="+",
        choices=SHAPES,
        default=list(SHAPES),
        help="what to write: videos (and their voices), vox (a VoxCeleb-shaped tree of faces and voices)",
    )
    cli.add_batch_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the set that the arguments ask for; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    from facevox.batch import BatchConfig, run_batch
    from facevox.example_data import dataset

    config = cli.build(dataset.SetConfig, args, shapes=tuple(args.shape))
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
    return int(summary.exit_code)


if __name__ == "__main__":
    sys.exit(cli.run(main))
