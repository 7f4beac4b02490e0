"""Extract the faces of videos and group them by person: extract_faces and deduplicate_faces in one go.

    python scripts/preprocessing/prepare_faces.py --dataset_path videos --output_base_dir runs/prepared \\
        --detector_backend mediapipe --model_name face_model.onnx --threshold 0.6

Writes below `output_base_dir`: `extracted_faces/` (a face per video, faces.csv), `deduped_faces/` (all of
them, named by person, groups.csv) and `representative_faces/` (the best face of each person), with the
manifests of both steps. With --num_shards a run only extracts; a last run without it groups. Exit codes:
0 done; 1 more videos or faces failed than --max_failed allows, or not one video gave a face; 2 bad usage or
input; 75 stopped by a signal (run the same command again to continue).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.cluster.job import RUN_AGAIN, Job
from lc_pytorch.faces.options import DedupeConfig, FaceConfig

JOB = Job(join=RUN_AGAIN, inputs=("dataset_path",), output="output_base_dir")


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program: its folders, those of both steps, those of every batch."""
    parser = cli.make_parser(
        __doc__,
        "python scripts/preprocessing/prepare_faces.py --dataset_path videos --output_base_dir runs/prepared "
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
        "--output_base_dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the three result folders",
    )
    cli.add_options(parser, FaceConfig)
    cli.add_video_arguments(parser)
    # --enforce_detection is an option of FaceConfig as well; the folders are below --output_base_dir.
    folders = ("faces_dir", "dedupe_dir", "representative_dir")
    cli.add_options(parser, DedupeConfig, skip=("enforce_detection", *folders))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Extracts and groups; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    from lc_pytorch.faces.preparation import prepare_faces, result_folders  # OpenCV and PyAV: not for --help

    config = cli.build(DedupeConfig, args, **result_folders(args.output_base_dir))
    return prepare_faces(cli.build(FaceConfig, args), config, args.dataset_path, args.video_extensions)


if __name__ == "__main__":
    sys.exit(cli.run(main))
