"""Compares one face with one voice, by a trained model.

    python examples/embed_and_compare.py --model_dir runs/train --face face.jpg --voice voice.wav

Prints the cosine similarity, from -1 to 1. It is only meaningful in comparison with other voices: see
scripts/evaluation/match.py for a ranking.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this example."""
    parser = cli.make_parser(
        __doc__, "python examples/embed_and_compare.py --model_dir runs/train --face f.jpg --voice v.wav"
    )
    parser.add_argument("--model_dir", required=True, metavar="DIR", help="folder of the trained model")
    parser.add_argument("--face", required=True, type=Path, metavar="FILE", help="picture of a face")
    parser.add_argument("--voice", required=True, type=Path, metavar="FILE", help="recording of a voice")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the similarity; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    import torch

    from lc_pytorch.evaluation.readers import make_readers
    from lc_pytorch.models import load_model

    trained = load_model(args.model_dir)
    read_face, read_voice = make_readers(trained)
    with torch.inference_mode():
        face_BD = trained.model.embed_faces(read_face(args.face)[None])
        voice_BD = trained.model.embed_voices(read_voice(args.voice)[None])
    print(f"{float((face_BD * voice_BD).sum()):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
