"""Fit the numbers that turn a curve of similarities by lag into the probability that a clip is in sync.

    python lipsync/calibration.py --set paths.processed_dir=data/processed --output outputs/calibration.json

Reads the clips of data_processing.py and writes the calibration of the untrained estimator as JSON; clips
must be in sync. The shipped one (`LOUDNESS_CALIBRATION`) was fitted with it on example data: 12 people with
two clips of 10 s of `scripts/demo/make_example_data.py --num_people 12 --clip_s 10 --seed 7`. Training fits
that of a network on people held out and saves it in the checkpoint.
Exit codes: 0 done, 2 bad settings or input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.files import find_files, write_json
from lipsync.settings import add_config_arguments, load_settings


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python lipsync/calibration.py --output outputs/calibration.json")
    add_config_arguments(parser)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="JSON file that is written"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Fits a calibration on the clips of the settings; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    settings = load_settings(args.config, args.overrides)
    # Not before the arguments are read: PyAV and OpenCV.
    from lipsync.clips.clip_files import load_clip
    from lipsync.sync.calibration import fit_calibration
    from lipsync.sync.estimators import LoudnessEstimator

    files = find_files(Path(settings.paths.processed_dir), ("*.npz",), what="paths.processed_dir")
    calibration = fit_calibration([load_clip(file)[0] for file in files], LoudnessEstimator())
    write_json(args.output, calibration.to_plain())
    print(f"{args.output}: fitted on {len(files)} clips: {calibration.to_plain()}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
