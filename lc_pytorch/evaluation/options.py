"""Options of every program that embeds files. Importing this costs no torch: `--help` is quick."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from facevox import cli, spreadsheets
from facevox.options import DEVICE, Options, choice, option, path, switch, whole
from lc_pytorch.choices import CHECKPOINTS, PRECISIONS

CACHE_FOLDER = "embeddings"  # below the model's folder


@dataclass(frozen=True, kw_only=True)
class PassOptions(Options):
    """Settings of embedding.

    Attributes:
        cache_dir: Folder that keeps embeddings for the next run; None: they are not kept.
    """

    batch_size: int = option(32, whole(1), "files at a time", group="computation")
    num_workers: int = option(
        0,
        whole(0),
        "processes that read files; 0: this one",
        flag_default=lambda: 2,
        group="computation",
    )
    device: str = option("auto", DEVICE, "where to compute", group="computation")
    precision: str = option("fp32", choice(*PRECISIONS), "bf16: autocast", group="computation")
    spreadsheet_safe: bool = option(False, switch(), spreadsheets.HELP, group="output")
    cache_dir: Path | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(PassOptions):
    """Settings of an evaluation."""

    top_k: int = option(5, whole(1), "matches of each query in the CSV", group="output")
    output_file: Path = option(
        Path("results.csv"), path(), "the table of queries", metavar="CSV", group="output"
    )


def add_embedding_options(parser: cli.Parser) -> None:
    """Adds batch size, workers, device, precision and cache."""
    cli.add_options(parser, PassOptions)
    group = parser.group("computation")
    cache = group.add_mutually_exclusive_group()
    cache.add_argument(
        "--cache_dir",
        type=Path,
        metavar="DIR",
        help=f"keeps embeddings for the next run (default: MODEL_DIR/{CACHE_FOLDER})",
    )
    cache.add_argument("--no_cache", action="store_true", help="neither read nor keep embeddings")
    group.add_argument(
        "--dry_run",
        action="store_true",
        help="count, try a few files, report what time and disk it would take, and write nothing",
    )


def add_model_options(parser: argparse._ActionsContainer) -> None:
    """Adds the options that choose the model."""
    parser.add_argument(
        "--model_dir", type=Path, required=True, metavar="DIR", help="folder of the trained model"
    )
    parser.add_argument("--checkpoint", choices=CHECKPOINTS, default="best", help="which weights")


def add_metadata_option(parser: argparse._ActionsContainer) -> None:
    """Adds the option for a table of gender and nationality."""
    parser.add_argument(
        "--metadata",
        type=Path,
        metavar="CSV",
        help="identity, gender, nationality, such as vox1_meta.csv: adds scores among people of the same "
        "gender and nationality, and what these alone would score (default: none)",
    )


def add_allow_seen_option(parser: argparse._ActionsContainer) -> None:
    """Adds the option that allows people of the training to be tested."""
    parser.add_argument(
        "--allow_seen", action="store_true", help="test people who were trained on too; every output says so"
    )


def cache_dir_of(args: argparse.Namespace) -> Path | None:
    """The folder that keeps embeddings, by the options; None: they are not kept."""
    if args.no_cache:
        return None
    return Path(args.cache_dir or Path(args.model_dir) / CACHE_FOLDER)
