r"""Train a model that tells which face goes with which voice, from a folder of faces and one of voices.

    python scripts/training/train_face_voice.py --image_folder faces --audio_folder voices \
        --save_dir runs/train
    torchrun --nproc_per_node 2 scripts/training/train_face_voice.py …    # one process for each GPU

A face and a voice whose paths differ in the suffix alone are a pair; see --identity_csv for whose they are.
The people are split into those to learn from, those to choose the best model by, and those for the test.

Writes into --save_dir: face_encoder.pth, face_projection.pth, audio_encoder.pth, audio_projection.pth,
full_model.pth, best_model.pth, config.json, split.json, history.json, curves.png, last.pth (to resume from),
events/ (TensorBoard), MODEL_CARD.md, log.txt, and bad_files.csv if some could not be read. Exit codes: 0
done, 1 ended because the loss was not finite, 2 bad usage or input, 75 stopped by a signal (run again to
resume).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.cluster.job import PER_GPU, Job
from lc_pytorch.training.options import add_face_voice_options

JOB = Job(
    processes=PER_GPU,
    inputs=("image_folder", "audio_folder", "identity_csv"),
    output="save_dir",
    is_some_failed_done=False,
)


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(
        __doc__,
        "python scripts/training/train_face_voice.py --image_folder faces --audio_folder voices "
        "--save_dir runs/train",
    )
    parser.add_argument(
        "--image_folder",
        type=Path,
        required=True,
        metavar="DIR",
        help="faces, searched for in all sub-folders",
    )
    parser.add_argument(
        "--audio_folder",
        type=Path,
        required=True,
        metavar="DIR",
        help="voices, with the paths of their faces",
    )
    add_face_voice_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Trains; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    # torch and transformers: not for --help
    from lc_pytorch.datasets.pairs import list_folder_pairs
    from lc_pytorch.training.face_voice import run_face_voice_training

    return run_face_voice_training(
        lambda: list_folder_pairs(
            args.image_folder,
            args.audio_folder,
            identity_csv=args.identity_csv,
            identity_regex=args.identity_regex,
        ),
        args,
    )


if __name__ == "__main__":
    sys.exit(cli.run(main))
