"""Options of the face programs, defined once for the single steps and for both at once.

Imports nothing heavy: `--help` must answer at once.
"""

import argparse

from facevox import cli

BACKENDS = ("opencv", "ssd", "dlib", "mtcnn", "retinaface", "mediapipe")


def add_extract_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of face extraction, without its folders and without the batch options."""
    group = parser.add_argument_group("face extraction")
    group.add_argument(
        "--detector_backend",
        choices=BACKENDS,
        default="retinaface",
        help="face detector; opencv and mediapipe need no downloaded weights",
    )
    group.add_argument(
        "--align_faces",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="turn each face so that its eyes lie level",
    )
    cli.add_video_arguments(group)
    group.add_argument(
        "--min_confidence",
        type=cli.unit_float,
        default=0.0,
        help="faces below this confidence of the detector are passed over, 0 to 1",
    )
    group.add_argument(
        "--max_frames",
        type=cli.positive_int,
        default=60,
        help="frames tried before a video is given up: the first 25 one after the other, "
        "the others at growing distance (60 reach 27 s into a video of 25 frames a second)",
    )
    group.add_argument(
        "--expand_percentage",
        type=cli.natural_int,
        default=0,
        help="make the box larger by this percentage of its sides before cutting",
    )
    group.add_argument(
        "--all_faces", action="store_true", help="write every face of the frame, not only the best"
    )
    group.add_argument(
        "--enforce_detection",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="record a video without a face as no_face; off: write the middle square of its first frame",
    )


def add_dedupe_arguments(parser: argparse.ArgumentParser, *, with_enforce_detection: bool = True) -> None:
    """Adds the options of deduplication, without its folders and without the batch options.

    Args:
        parser: To which they are added.
        with_enforce_detection: Off where the parser has `--enforce_detection` already (both steps at once).
    """
    group = parser.add_argument_group("deduplication")
    group.add_argument(
        "--model_name",
        default="Facenet",
        metavar="MODEL",
        help="face-embedding model: Facenet, Facenet512, VGG-Face, OpenFace, DeepFace, DeepID, ArcFace, "
        "SFace, GhostFaceNet, Dlib, Buffalo_L, or the path of an .onnx file (input 1 x 3 x 112 x 112, "
        "five-point aligned)",
    )
    group.add_argument(
        "--threshold",
        type=float,
        help="largest mean cosine distance inside a group, 0 to 2 (default: DeepFace's for the model, 0.4 "
        "for Facenet; needed with an .onnx file)",
    )
    group.add_argument(
        "--batch_size",
        type=cli.positive_int,
        default=32,
        help="faces handed to a worker (and on a GPU embedded) at a time",
    )
    group.add_argument(
        "--onnx_preprocessing",
        choices=("auto", "insightface", "imagenet", "raw"),
        default="auto",
        help="pixel values an .onnx file wants: insightface ((x - 127.5) / 127.5), imagenet (its mean and "
        "deviation), raw (0 to 255); auto: by the file's metadata and first operations, else insightface",
    )
    group.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where it runs; auto: GPU if any",
    )
    if with_enforce_detection:
        group.add_argument(
            "--enforce_detection",
            action=argparse.BooleanOptionalAction,
            default=True,
            help="leave out pictures in which no face is found; off: embed the whole picture",
        )
