"""Train the small face embedder of the demo on example people, and write it as an ONNX file.

    python scripts/demo/train_demo_embedder.py --output_dir runs/demo/embedder

Writes `demo_embedder.onnx` (for `--model_name` of deduplicate_faces.py) and `demo_embedder.json` (the
threshold that grouped held-out example people best). It has never seen a real person: use one of the real
models for your own videos. Exit codes: 0 done, 2 bad usage, 75 stopped by a signal.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.batch import BatchConfig, run_batch
from facevox.batch_options import BatchOptions
from facevox.errors import ExitCode
from facevox.progress import Progress
from facevox.signals import StopFlag
from facevox_demo.options import DemoEmbedderConfig


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(
        __doc__, "python scripts/demo/train_demo_embedder.py --output_dir runs/demo/embedder"
    )
    parser.add_argument(
        "--output_dir", type=Path, required=True, metavar="DIR", help="folder for pictures and model"
    )
    cli.add_options(parser, DemoEmbedderConfig)
    cli.add_options(parser, BatchOptions)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Trains the embedder; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    from facevox_demo.embedder import train_and_export  # imports torch
    from facevox_demo.example.face_pictures import FacePictures, picture_items  # imports OpenCV

    config = cli.build(DemoEmbedderConfig, args)
    batch = cli.build(
        BatchConfig,
        args,
        output_dir=Path(args.output_dir),
        program="face_pictures",
        table="face_pictures.csv",
        columns=("person", "pictures"),
        item_column="person",
        # Only what changes the pictures: other options of the training leave them valid.
        settings={"pictures_per_person": config.pictures_per_person, "seed": config.seed},
        unit="person",
    )
    summary = run_batch(FacePictures(config), picture_items(config), batch)
    if summary.stopped or args.dry_run or args.num_shards > 1:
        return summary.exit_code
    with StopFlag() as stop, Progress(config.num_epochs, "train_demo_embedder", "epoch") as progress:

        def report(epoch: int, loss: float) -> None:
            progress.update(1, f"loss {loss:.3f}")
            if stop:
                print(f"stopped by {stop.signal_name}; run the same command again", file=sys.stderr)
                raise SystemExit(int(ExitCode.STOPPED))

        facts = train_and_export(Path(args.output_dir), config, report)
    print(
        f"train_demo_embedder: {args.output_dir}/demo_embedder.onnx, threshold {facts['threshold']} "
        f"(B-cubed F1 {facts['held_out_bcubed_f1']} on {facts['held_out_people']} people held out)"
    )
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(cli.run(main))
