"""Write the face of each video: the first frame that has one, its best face cut out and turned upright.

    python scripts/preprocessing/extract_faces.py --dataset_path videos --output_dir runs/faces \\
        --detector_backend mediapipe

Writes `<output_dir>/<same sub-folder>/vid_123.jpg` for `vid_123.mp4` (with --all_faces also
`vid_123_1.jpg` …), `faces.csv` (its columns are described in lc_pytorch/faces/extractor.py) and
`manifests/extract_faces.jsonl`. opencv and mediapipe need no downloaded weights. Exit codes: 0 done; 1 more
videos failed than --max_failed allows, or not one gave a face; 2 bad usage or input; 75 stopped by a signal
(run the same command again to continue).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.batch_options import BatchOptions
from facevox.cluster.job import MERGE, Job
from lc_pytorch.faces.options import FaceConfig

JOB = Job(join=MERGE, inputs=("dataset_path",))


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(
        __doc__,
        "python scripts/preprocessing/extract_faces.py --dataset_path videos --output_dir runs/faces "
        "--detector_backend mediapipe",
    )
    parser.add_argument(
        "--dataset_path",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of videos, searched recursively",
    )
    parser.add_argument(
        "--output_dir", type=Path, required=True, metavar="DIR", help="folder for the faces and faces.csv"
    )
    cli.add_options(parser, FaceConfig)
    cli.add_video_arguments(parser)
    cli.add_options(parser, BatchOptions)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Extracts; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    from lc_pytorch.faces.extractor import extract_faces  # OpenCV and PyAV: not for --help

    config, options = cli.build(FaceConfig, args), cli.build(BatchOptions, args)
    return extract_faces(config, args.dataset_path, args.output_dir, args.video_extensions, options).exit_code


if __name__ == "__main__":
    sys.exit(cli.run(main))
