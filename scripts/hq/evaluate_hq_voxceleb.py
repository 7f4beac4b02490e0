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
from lc_pytorch.evaluation.arguments import add_embedding_arguments, cache_dir_of

JOB = Job(
    processes=PER_GPU,
    inputs=("split_json_path", "converted_dir", "metadata", "model_dir"),
    output="model_dir",
)


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python scripts/hq/evaluate_hq_voxceleb.py --model_dir runs/hq")
    data = parser.add_argument_group("data")
    data.add_argument(
        "--split_json_path", metavar="FILE", help="the split (default: the one of the training)"
    )
    data.add_argument(
        "--dataset_type",
        choices=("vox1", "vox2", "both"),
        help="which part of the data (default: that of the training)",
    )
    data.add_argument(
        "--converted_dir", metavar="DIR", help="output of convert_mels.py (default: that of the training)"
    )
    data.add_argument(
        "--pairs_per_identity",
        type=cli.positive_int,
        default=5,
        help="at most so many faces and spectrograms of each person",
    )
    data.add_argument(
        "--metadata",
        metavar="CSV",
        help="identity, gender, nationality, such as vox1_meta.csv: adds scores among people of the same "
        "gender and nationality, and what these alone would score (default: none)",
    )
    data.add_argument(
        "--allow_seen", action="store_true", help="test people who were trained on too; every output says so"
    )
    model = parser.add_argument_group("model")
    model.add_argument("--model_dir", required=True, metavar="DIR", help="folder of the trained model")
    model.add_argument("--checkpoint", choices=("best", "last"), default="best", help="which weights")
    add_embedding_arguments(parser)
    parser.add_argument("--force_cpu", action="store_true", help="the same as --device cpu")
    out = parser.add_argument_group("output")
    out.add_argument("--top_k", type=cli.positive_int, default=5, help="matches of each query in the CSV")
    out.add_argument(
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
    from lc_pytorch.evaluation.model_evaluation import EvaluationConfig, evaluate_model
    from lc_pytorch.hq.evaluation import HQSource, list_tested
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
