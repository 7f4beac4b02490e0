"""Train the lip-sync network on the clips of data_processing.py, with the settings of lipsync/config.yaml.

    python lipsync/train.py
    python lipsync/train.py --config lipsync/small.yaml            # minutes of clips instead of hours
    python lipsync/train.py --set training.num_epochs=30 --set model.visual_frontend=mouth_cnn
    torchrun --nproc_per_node 2 lipsync/train.py                   # one process for each GPU
    tensorboard --logdir logs                                      # curves

Clips are split 8:1:1 into training, validation and test: by speaker where the manifest names one, else by
video. Writes into paths.checkpoint_dir (checkpoints/): best_model.pth (lowest validation loss, with the
calibration of its score, fitted on the validation speakers), epoch_0010.pth, … every 10 epochs, last.pth (to
resume from), history.json, curves.png, split.json, log.txt and MODEL_CARD.md; into paths.log_dir (logs/):
TensorBoard's events. Exit codes: 0 done, 1 ended because the loss was not finite, 2 bad settings or input, 75
stopped by a signal (run the same command again to continue).
"""

import argparse
import sys
from collections.abc import Sequence

from facevox import cli
from facevox.cluster.job import PER_GPU, Job
from lipsync.settings import add_audio_options, add_config_arguments, folder_finder, load_settings

JOB = Job(
    processes=PER_GPU,
    inputs=("config",),
    output=folder_finder("checkpoint_dir"),
    is_some_failed_done=False,
)


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python lipsync/train.py --set training.batch_size=8")
    add_config_arguments(parser)
    add_audio_options(parser, "features")
    parser.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|FILE",
        help="auto: resume from last.pth in paths.checkpoint_dir if it exists; never: start from scratch; or "
        "a checkpoint to resume from",
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="count, try a few steps, estimate time and disk space, and write nothing",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Trains; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    settings = load_settings(args.config, args.overrides)
    from lipsync.network.run import start_training  # torch takes seconds: not before the arguments are read

    return start_training(settings, args.resume, dry_run=args.dry_run)


if __name__ == "__main__":
    sys.exit(cli.run(main))
