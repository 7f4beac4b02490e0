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
        "--output_file", metavar="CSV", help="the table of queries (default: MODEL_DIR/results.csv)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    from facevox.signals import StopFlag
    from facevox.training import distributed
    from facevox.training.run_folder import run_folder
    from lc_pytorch.evaluation.embedding_pass import Stopped, estimate_pass
    from lc_pytorch.evaluation.metadata import load_metadata
    from lc_pytorch.evaluation.model_evaluation import evaluate_model
    from lc_pytorch.hq.evaluation import list_tested
    from lc_pytorch.models import load_model

    output_file = Path(args.output_file or Path(args.model_dir) / "results.csv")
    config = cli.build(EvaluationConfig, args, output_file=output_file, cache_dir=cache_dir_of(args))
    world = distributed.init("cpu" if args.force_cpu else args.device)
    try:
        trained = load_model(args.model_dir, args.checkpoint, world.device)
        tested = list_tested(trained, cli.build(HQSource, args), is_seen_allowed=args.allow_seen)
        metadata = load_metadata(args.metadata) if args.metadata else None
        if args.dry_run:
            medias = (tested.faces, tested.mels)
            print("\n".join(estimate_pass(trained.model, medias, config, world.device)))
            return ExitCode.DONE
        with run_folder(trained.model_dir, option="--model_dir", work="evaluation"), StopFlag() as stop:
            result = evaluate_model(
                trained,
                tested.faces,
                tested.mels,
                config,
                tested.subjects,
                split_hash=tested.split_hash,
                metadata=metadata,
                notes=tested.notes,
                stop=stop,
            )
    except Stopped:
        print("evaluate_hq_voxceleb: stopped; run the same command again to continue", file=sys.stderr)
        return ExitCode.STOPPED
    finally:
        distributed.cleanup()
    if world.is_main:
        print("\n".join(["evaluate_hq_voxceleb: " + result.lines[0], *result.lines[1:], ""]))
        print("\n".join(f"wrote {file}" for file in result.files))
    return ExitCode.SOME_FAILED if result.num_left_out else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main))
