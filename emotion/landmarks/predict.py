"""Name the expression of the largest face in pictures, folders of pictures and ZIP archives.

    python emotion/landmarks/predict.py --inputs face.jpg --output_dir runs/predictions
    python emotion/landmarks/predict.py --inputs photos/ A.zip --output_dir runs/predictions --workers 8

Writes `<output_dir>/predictions.csv` (picture, expression, a probability for each class, number of faces,
status, reason) and `manifests/predict_landmarks.jsonl`. The model is the one that `train.py` wrote. Exit
codes: 0 done; 1 more pictures failed than --max_failed allows, or not one has a face; 2 bad usage or input;
75 stopped by a signal (run the same command again to continue).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from emotion.landmarks.options import TrainConfig, add_log_dir_option
from emotion.logger_config import get_logger, setup_logging
from facevox import cli
from facevox.batch import BatchConfig, run_batch
from facevox.batch_options import BatchOptions
from facevox.manifest import status_text
from facevox.options import default_of


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(
        __doc__, "python emotion/landmarks/predict.py --inputs photos/ --output_dir runs/predictions"
    )
    parser.add_argument(
        "--inputs", nargs="+", required=True, type=Path, metavar="PATH", help="pictures, folders, archives"
    )
    parser.add_argument(
        "--output_dir", required=True, type=Path, metavar="DIR", help="folder for predictions.csv"
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=default_of(TrainConfig, "save_dir"),
        metavar="PATH",
        help="folder of train.py, or its model.pth",
    )
    cli.add_options(parser, BatchOptions)
    add_log_dir_option(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Predicts; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    from emotion.landmarks import network, predictions  # torch: --help is quick without

    model = network.load_model(args.model)
    file = args.model / network.MODEL_FILE if args.model.is_dir() else args.model
    batch = cli.build(
        BatchConfig,
        args,
        program=predictions.PROGRAM,
        table=predictions.TABLE,
        columns=predictions.columns_of(model.class_names),
        item_column="picture",
        settings={"model": predictions.hash_file(file)},
        unit="picture",
    )
    items = predictions.plan_predictions(args.inputs)
    if not batch.dry_run:
        setup_logging(args.log_dir)
    summary = run_batch(predictions.PredictTask(file, model.features.mesh), items, batch)
    get_logger("landmarks.predict").info(
        "%s, %d finished before, in %.1f s",
        *(status_text(summary.counts), summary.skipped, summary.seconds),
    )
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(cli.run(main))
