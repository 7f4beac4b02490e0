"""Train the landmark classifier, from archives of pictures or from landmarks extracted before.

    python emotion/landmarks/train.py --zips A.zip B.zip                      # extracts first, on all cores
    python emotion/landmarks/train.py --zips A.zip B.zip --limit 10000        # a trial on 10,000 pictures
    python emotion/landmarks/train.py --landmarks_dir runs/landmarks --class_names happy sad neutral
    python emotion/landmarks/train.py --landmarks_dir runs/landmarks --dry_run    # what it would take
    torchrun --nproc_per_node 2 emotion/landmarks/train.py --landmarks_dir runs/landmarks

Without torchrun one process uses every visible GPU. Nobody is both trained on and tested. Writes into
`--save_dir`: model.pth (lowest validation loss, calibrated), last.pth (to go on from), split.json,
history.json, curves.png, events/ (TensorBoard), MODEL_CARD.md and evaluation/ (report.json, confusion
matrix, calibration, per class, predictions); with --zips also landmarks/. Exit codes: 0 done; 1 more
pictures failed than --max_failed allows, or the loss was not finite; 2 bad usage or input; 75 stopped by a
signal (run the same command again to go on).
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotion.landmarks.normalisation import NORMALISATIONS, SCALED
from emotion.logger_config import get_logger, log_hyperparameters, setup_logging
from facevox import cli
from facevox.cluster.job import PER_GPU, Job
from facevox.errors import ExitCode, UserError

if TYPE_CHECKING:
    from emotion.landmarks.task import TrainConfig

SAVE_DIR = Path("models/emotion_landmarks")


JOB = Job(
    processes=PER_GPU,
    inputs=("zips", "landmarks_dir"),
    output="save_dir",
    is_some_failed_done=False,
)


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python emotion/landmarks/train.py --zips A.zip B.zip")
    source = parser.add_argument_group("landmarks")
    source.add_argument(
        "--zips",
        nargs="+",
        type=Path,
        default=[],
        metavar="ZIP",
        help="extract these archives, or folders of archives, first (default: none)",
    )
    source.add_argument(
        "--landmarks_dir",
        type=Path,
        metavar="DIR",
        help="what extract.py wrote, or is to write (default with --zips: landmarks/ in --save_dir)",
    )
    source.add_argument(
        "--labels", nargs="+", default=[], metavar="LABEL", help="as of extract.py (default: from names)"
    )
    source.add_argument("--limit", type=cli.natural_int, default=0, help="pictures in all; 0: every one")
    source.add_argument(
        "--workers",
        type=cli.natural_int,
        default=cli.num_cores(),
        help="processes that extract; 0: this one (default: usable cores, %(default)s)",
    )
    source.add_argument(
        "--item_timeout_s",
        type=cli.positive_float,
        default=60.0,
        help="seconds after which a picture is given up",
    )
    cli.add_max_failed_argument(source)
    _add_training_arguments(parser.add_argument_group("training"))
    parser.add_argument("--log_dir", type=Path, default=Path("logs"), metavar="DIR", help="of the day's log")
    return parser


def _add_training_arguments(train: argparse._ArgumentGroup) -> None:
    """Adds how to train."""
    train.add_argument("--save_dir", type=Path, default=SAVE_DIR, metavar="DIR", help="folder of the run")
    train.add_argument(
        "--class_names",
        nargs="+",
        default=["neutral", "anxiety"],
        metavar="NAME",
        help="labels, in the order of the outputs",
    )
    train.add_argument(
        "--normalisation",
        choices=NORMALISATIONS,
        default=SCALED,
        help="of the landmarks; each does what the one before it does and one thing more",
    )
    train.add_argument("--num_epochs", type=cli.positive_int, default=60, help="epochs at most")
    train.add_argument("--batch_size", type=cli.positive_int, default=64, help="faces, of each process")
    train.add_argument("--learning_rate", type=cli.positive_float, default=1e-3, help="at its peak")
    train.add_argument("--weight_decay", type=cli.unit_float, default=1e-2, help="of AdamW")
    train.add_argument("--val_share", type=cli.unit_float, default=0.2, help="of the people, for validation")
    train.add_argument(
        "--patience",
        type=cli.natural_int,
        default=15,
        help="epochs without a lower validation loss after which training ends; 0: never",
    )
    train.add_argument(
        "--class_balance",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let rare classes weigh as much as frequent ones",
    )
    train.add_argument("--seed", type=cli.natural_int, default=0, help="of weights, split and order")
    train.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where it computes")
    train.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|FILE",
        help="auto: go on from last.pth in --save_dir if it is there; never: begin anew; or a checkpoint",
    )
    train.add_argument(
        "--dry_run",
        action="store_true",
        help="count, try a few steps, say what time and disk it would take, and write nothing; with --zips "
        "of the extraction alone",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Extracts if asked to, trains; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    from emotion.landmarks.task import TrainConfig
    from facevox.training.distributed import read_launch

    launch = read_launch(os.environ)
    if not args.zips and args.landmarks_dir is None:
        raise UserError("give --zips (archives to extract) or --landmarks_dir (what extract.py wrote)")
    if args.zips and launch is not None and launch.size > 1:
        # It takes hours, and the other processes would give up waiting.
        raise UserError(
            "--zips: several processes train but one extracts; run emotion/landmarks/extract.py first, then "
            "this with --landmarks_dir"
        )
    config = cli.build(
        TrainConfig,
        args,
        landmarks_dir=args.landmarks_dir or args.save_dir / "landmarks",
        class_names=tuple(args.class_names),
    )
    if args.dry_run and args.zips:
        code = _extract(args, config.landmarks_dir)
        print("what training takes shows once they are extracted: --dry_run with --landmarks_dir")
        return code
    if not args.dry_run:
        setup_logging(args.log_dir)
    extracted = _extract(args, config.landmarks_dir) if args.zips else ExitCode.DONE
    if extracted == ExitCode.STOPPED:
        return extracted
    code = _train(config, args.device, dry_run=args.dry_run)
    return extracted if code == ExitCode.DONE else code


def _extract(args: argparse.Namespace, folder: Path) -> ExitCode:
    from emotion.landmarks.extraction import ExtractConfig, run_extraction
    from facevox.batch import BatchOptions

    config = ExtractConfig(
        zips=tuple(args.zips), labels=tuple(args.labels), limit=args.limit, output_dir=folder
    )
    return run_extraction(config, cli.build(BatchOptions, args)).exit_code


def _train(config: "TrainConfig", device: str, *, dry_run: bool) -> ExitCode:
    from emotion.landmarks.run import run_training
    from facevox.training import distributed
    from facevox.training.trainer import DONE, STOPPED

    world = distributed.init(device)
    if world.device.type == "cpu":
        import torch

        # Layers this small lose more by handing work to threads than they gain, beside other work all of it.
        torch.set_num_threads(1)
    logger = get_logger("landmarks.train")
    try:
        if world.is_main and not dry_run:
            shown: dict[str, Any] = config.lasting() | {"device": str(world.device), "processes": world.size}
            log_hyperparameters(logger, shown)
        status = run_training(config, world, dry_run=dry_run)
        if world.is_main and not dry_run:
            logger.info("training ended: %s", status)
    finally:
        distributed.cleanup()
    return {DONE: ExitCode.DONE, STOPPED: ExitCode.STOPPED}.get(status, ExitCode.SOME_FAILED)


if __name__ == "__main__":
    sys.exit(cli.run(main))
