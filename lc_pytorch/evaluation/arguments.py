"""Options that every program that embeds files takes."""

import argparse
from pathlib import Path

from facevox import cli

CACHE_FOLDER = "embeddings"  # below the model's folder


def add_embedding_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds batch size, workers, device, precision and cache."""
    group = parser.add_argument_group("computation")
    group.add_argument("--batch_size", type=cli.positive_int, default=32, help="files at a time")
    group.add_argument(
        "--num_workers", type=cli.natural_int, default=2, help="processes that read files; 0: this one"
    )
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    group.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16: autocast")
    cache = group.add_mutually_exclusive_group()
    cache.add_argument(
        "--cache_dir",
        metavar="DIR",
        help=f"keeps embeddings for the next run (default: MODEL_DIR/{CACHE_FOLDER})",
    )
    cache.add_argument("--no_cache", action="store_true", help="neither read nor keep embeddings")
    group.add_argument(
        "--dry_run",
        action="store_true",
        help="count, try a few files, say what time and disk it would take, and write nothing",
    )


def cache_dir_of(args: argparse.Namespace) -> Path | None:
    """Where the options say that embeddings are kept; None: nowhere."""
    if args.no_cache:
        return None
    return Path(args.cache_dir or Path(args.model_dir) / CACHE_FOLDER)
