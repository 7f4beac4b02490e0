"""Measure how well an HQ VoxCeleb model finds the voice of a face and the face of a voice.

    python scripts/hq/evaluate_hq_voxceleb.py --model_dir runs/hq
    python scripts/hq/evaluate_hq_voxceleb.py --model_dir runs/hq --force_cpu --dataset_type both

Tests the people of `test` in the split that the model was trained with, or in --split_json_path; somebody who
was trained on is an error. Writes results.csv and into the model's folder evaluation_results.json, roc.png,
rank_cdf.png, gallery.png and the scores into MODEL_CARD.md. Exit codes: 0 done, 1 done but some files could
not be used, 2 bad usage or input, 75 stopped by a signal (run the same command again to continue).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.cluster.job import PER_GPU, Job
from facevox.errors import ExitCode
from lc_pytorch.evaluation.options import (
    EvaluationConfig,
    add_allow_seen_option,
    add_embedding_options,
    add_metadata_option,
    add_model_options,
    cache_dir_of,
)
from lc_pytorch.hq.options import HQSource

JOB = Job(
    processes=PER_GPU,
    inputs=("split_json_path", "converted_dir", "metadata", "model_dir"),
    output="model_dir",
)


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python scripts/hq/evaluate_hq_voxceleb.py --model_dir runs/hq")
    cli.add_options(parser, HQSource)
    add_metadata_option(parser.group("data"))
    add_allow_seen_option(parser.group("data"))
    add_model_options(parser.group("model"))
    add_embedding_options(parser)
    parser.add_argument("--force_cpu", action="store_true", help="the same as --device cpu")
    cli.add_options(parser, EvaluationConfig, only=("top_k",))
    parser.group("output").add_argument(
        "--output_file",
        type=Path,
        metavar="CSV",
        help="the table of queries (default: MODEL_DIR/results.csv)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    from lc_pytorch.evaluation.run import run_evaluation  # torch and transformers: not for --help
    from lc_pytorch.hq.evaluation import list_tested

    output_file = Path(args.output_file or Path(args.model_dir) / "results.csv")
    config = cli.build(EvaluationConfig, args, output_file=output_file, cache_dir=cache_dir_of(args))
    source = cli.build(HQSource, args)
    report = run_evaluation(
        "evaluate_hq_voxceleb",
        config,
        lambda trained: list_tested(trained, source, is_seen_allowed=args.allow_seen),
        model_dir=args.model_dir,
        checkpoint=args.checkpoint,
        device="cpu" if args.force_cpu else args.device,
        metadata_file=args.metadata,
        is_dry_run=args.dry_run,
    )
    for line in report.lines:
        print(line, file=sys.stderr if report.exit_code == ExitCode.STOPPED else sys.stdout)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(cli.run(main))
