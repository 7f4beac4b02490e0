"""Train the landmark classifier, from archives of pictures or from landmarks extracted before.

    python emotion/landmarks/train.py --zips A.zip B.zip                      # extracts first, on all cores
    python emotion/landmarks/train.py --zips A.zip B.zip --limit 10000        # a trial on 10,000 pictures
    python emotion/landmarks/train.py --landmarks_dir runs/landmarks --class_names happy sad neutral
    python emotion/landmarks/train.py --landmarks_dir runs/landmarks --dry_run    # what it would take
    torchrun --nproc_per_node 2 emotion/landmarks/train.py --landmarks_dir runs/landmarks

Without torchrun one process uses every visible GPU. Nobody is both trained on and tested. Writes into
`--save_dir`: model.pth (lowest validation loss, calibrated), last.pth (to resume from), split.json,
history.json, curves.png, log.txt, events/ (TensorBoard), MODEL_CARD.md and evaluation/ (report.json,
classification_report.txt, confusion matrix, calibration, per class, predictions); with --zips also
landmarks/. Exit codes: 0 done; 1 more pictures failed than --max_failed allows, or the loss was not finite; 2
bad usage or input; 75 stopped by a signal (run the same command again to continue).
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from emotion.landmarks.extraction import run_extraction
from emotion.landmarks.features import Features
from emotion.landmarks.options import ExtractConfig, TrainConfig, add_log_dir_option
from emotion.logger_config import get_logger, log_hyperparameters, setup_logging
from facevox import cli
from facevox.batch_options import BatchOptions
from facevox.cluster.job import PER_GPU, Job
from facevox.errors import ExitCode, UserError
from facevox.options import default_of

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
    cli.add_options(source, ExtractConfig, only=("labels", "limit", "mesh"))
    cli.add_options(source, BatchOptions, only=("workers", "item_timeout_s", "max_failed"))
    cli.add_options(parser, TrainConfig)
    parser.group("training").add_argument(
        "--dry_run",
        action="store_true",
        help="count, try a few steps, say what time and disk it would take, and write nothing; with --zips "
        "of the extraction alone",
    )
    add_log_dir_option(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Extracts if asked to, trains; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    from facevox.training.distributed import read_launch  # torch: --help is quick without

    launch = read_launch(os.environ)
    if not args.zips and args.landmarks_dir is None:
        raise UserError("give --zips (archives to extract) or --landmarks_dir (what extract.py wrote)")
    if args.zips and launch is not None and launch.size > 1:
        # It takes hours, and the other processes would give up waiting.
        raise UserError(
            "--zips: several processes train but one extracts; run emotion/landmarks/extract.py first, then "
            "this with --landmarks_dir"
        )
    if not args.zips and args.mesh != default_of(ExtractConfig, "mesh"):
        raise UserError("--mesh: counts with --zips only; the landmarks in --landmarks_dir have theirs")
    if args.zips:
        Features(inputs=args.inputs, mesh=args.mesh)  # said now, and not after hours of extraction
    config = cli.build(TrainConfig, args, landmarks_dir=args.landmarks_dir or args.save_dir / "landmarks")
    if args.dry_run and args.zips:
        code = _extract(args, config.landmarks_dir)
        print("what training takes shows once they are extracted: --dry_run with --landmarks_dir")
        return code
    if not args.dry_run:
        setup_logging(args.log_dir)
    extract_code = _extract(args, config.landmarks_dir) if args.zips else ExitCode.DONE
    if extract_code == ExitCode.STOPPED:
        return extract_code
    code = _train(config, dry_run=args.dry_run)
    return extract_code if code == ExitCode.DONE else code


def _extract(args: argparse.Namespace, folder: Path) -> ExitCode:
    config = cli.build(ExtractConfig, args, output_dir=folder)
    extraction = run_extraction(config, cli.build(BatchOptions, args))
    for line in extraction.lines(folder):
        print(line)
    return extraction.exit_code


def _train(config: TrainConfig, *, dry_run: bool) -> ExitCode:
    import torch

    from emotion.landmarks.run import describe_result, run_training
    from facevox.training import distributed, trainer

    world = distributed.init(config.device)
    if world.device.type == "cpu":
        # Layers this small lose more than they gain by threads, and on a busy machine they lose most.
        torch.set_num_threads(1)
    logger = get_logger("landmarks.train")
    try:
        if world.is_main and not dry_run:
            values = {**config.lasting(), "device": str(world.device), "processes": world.size}
            log_hyperparameters(logger, values)
        result = run_training(config, world, dry_run=dry_run)
        if world.is_main and isinstance(result, trainer.TrainingResult):
            logger.info("training ended: %s", result.status)
            if result.status == trainer.DONE:
                print(describe_result(config.save_dir))
    finally:
        distributed.cleanup()
    return result.exit_code


if __name__ == "__main__":
    sys.exit(cli.run(main))
