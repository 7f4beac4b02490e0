"""Train the classifier of facial expressions: the head, then the backbone with it; export and evaluate it.

    python emotion/main.py                                        # all settings from .env
    python emotion/main.py --batch_size 64 --epochs_finetune 20
    python emotion/main.py --backbone_weights none --epochs_head 0 --freeze_bn_mode none --unfreeze_from 0

Reads DATA_DIR_TRAIN and DATA_DIR_VAL (emotion/preprocess.py makes them). Writes below MODEL_DIR
`emotion_classifier_<n>_classes` as .h5, _savedmodel/, .tflite, .json (classes, preprocessing, temperature),
MODEL_CARD.md, `evaluation/` (report, confusion matrix, classes, slices, reliability) and `training/` (state,
history, curves, log.txt, TensorBoard). A stopped run resumes with the same command, at the step where it
was. Exit codes: 0 done; 1 done, but some pictures could not be read (training/unreadable.csv); 2 bad
usage or input; 75 stopped by a signal (run the same command again to continue).
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from emotion.classifier.start import DEVICES, check_start
from emotion.logger_config import get_logger, setup_logging
from emotion.settings import add_setting_arguments, folder_finder, load_settings
from facevox import cli, spreadsheets
from facevox.cluster.job import PER_NODE, Job
from facevox.errors import ExitCode
from facevox.files import set_run_token
from facevox.locks import OutputLock
from facevox.logs import LOG_FILE, log_file
from facevox.native_silence import native_silence
from facevox.signals import StopFlag

# Exit code 1: trained and evaluated without pictures that could not be read.
JOB = Job(
    processes=PER_NODE,
    inputs=("data_dir_train", "data_dir_val"),
    output=folder_finder("model_dir"),
)


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python emotion/main.py --batch_size 64")
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where; auto: all visible GPUs, or else the CPU"
    )
    parser.add_argument("--overwrite", action="store_true", help="start from scratch in the folder of a run")
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="count, try a few steps, say what time and disk it would take, and write nothing",
    )
    parser.add_argument("--spreadsheet_safe", action="store_true", help=spreadsheets.HELP)
    add_setting_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, exports, evaluates; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    settings = load_settings(args)
    start = check_start(settings, overwrite=args.overwrite, dry_run=args.dry_run)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if args.dry_run:
        with native_silence():  # TensorFlow takes seconds to load, and writes notes to stderr
            from emotion.classifier.run import estimate_run
        print("\n".join(estimate_run(settings, start, args.device)))
        return ExitCode.DONE
    setup_logging(settings.log_dir)
    if start.is_complete:
        get_logger("main").info(
            "%s: trained already with these settings; --overwrite starts again", settings.model_dir
        )
        return ExitCode.DONE
    with contextlib.ExitStack() as stack:
        # Of the processes of a SLURM step the first one holds the lock and writes the log.
        if os.environ.get("SLURM_PROCID", "0") == "0":
            lock = stack.enter_context(OutputLock(start.save_dir / "train.lock"))
            stack.enter_context(log_file(start.save_dir / LOG_FILE))
            lock.clear_dead_run("training", settings.model_dir)
            set_run_token(lock.token)
            stack.callback(set_run_token, "")
        stop = stack.enter_context(StopFlag())
        with native_silence():
            from emotion.classifier.run import train_and_evaluate
        return train_and_evaluate(settings, start, args.device, stop, spreadsheet_safe=args.spreadsheet_safe)


if __name__ == "__main__":
    sys.exit(cli.run(main))
