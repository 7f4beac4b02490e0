"""Write a small ViT and a small Wav2Vec2 with random weights, for tests, the demo and dry runs.

    python scripts/demo/make_tiny_encoders.py --output_dir runs/encoders

Writes `<output_dir>/vit-tiny/` and `<output_dir>/wav2vec2-tiny/` in transformers' own format: untrained
models, to be trained from scratch. Exit codes: 0 done, 2 bad usage or input.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.errors import ExitCode


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python scripts/demo/make_tiny_encoders.py --output_dir runs/encoders")
    parser.add_argument(
        "--output_dir", type=Path, required=True, metavar="DIR", help="folder for the two models"
    )
    parser.add_argument(
        "--image_size", type=cli.positive_int, default=112, help="side of the ViT's pictures, in pixels"
    )
    parser.add_argument(
        "--dropout", type=cli.unit_float, default=0.0, help="share dropped between layers while training, 0-1"
    )
    parser.add_argument("--seed", type=cli.natural_int, default=0, help="of the random weights")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the models; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    from facevox_demo.tiny_encoders import write_tiny_encoders  # imports transformers

    folders = write_tiny_encoders(
        args.output_dir, image_size=args.image_size, seed=args.seed, dropout=args.dropout
    )
    print(f"make_tiny_encoders: random weights, to be trained from scratch: {folders[0]} {folders[1]}")
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main))
