"""Measure how well a trained model finds the voice of a face and the face of a voice.

    python scripts/evaluation/evaluate_face_voice.py --image_folder faces --audio_folder voices \\
        --model_dir runs/model --output_file runs/model/results.csv
    torchrun --nproc_per_node 8 scripts/evaluation/evaluate_face_voice.py --matched_file pairs.txt …

Tests the test people of `model_dir/split.json`; where none of them is in the data, a share of the people that
the model has not seen. Writes results.csv (a row for each query: rank and best matches), and into the model's
folder evaluation_results.json, roc.png, rank_cdf.png, gallery.png; embeddings are kept in its embeddings/ for
the next run. Exit codes: 0 done, 1 done but some files could not be used, 2 bad usage or input, 75 stopped by
a signal (run the same command again to continue).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from facevox import cli
from facevox.cluster.job import PER_GPU, Job
from facevox.errors import ExitCode, UserError
from lc_pytorch.evaluation.options import (
    EvaluationConfig,
    add_allow_seen_option,
    add_embedding_options,
    add_metadata_option,
    add_model_options,
    cache_dir_of,
)

if TYPE_CHECKING:
    from lc_pytorch.datasets.pairs import PairList

JOB = Job(
    processes=PER_GPU,
    inputs=("image_folder", "audio_folder", "identity_csv", "matched_file", "metadata", "model_dir"),
    output="model_dir",
)


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(
        __doc__,
        "python scripts/evaluation/evaluate_face_voice.py --image_folder faces --audio_folder voices "
        "--model_dir runs/model",
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--image_folder", type=Path, metavar="DIR", help="faces; paired by file stem (default: none)"
    )
    data.add_argument(
        "--audio_folder", type=Path, metavar="DIR", help="voices, below the same sub-folders (default: none)"
    )
    data.add_argument(
        "--matched_file",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="lists of face<TAB>voice, instead of the two folders (default: none)",
    )
    data.add_argument(
        "--identity_csv",
        type=Path,
        metavar="CSV",
        help="groups.csv that says who is who (default: the folders say)",
    )
    data.add_argument(
        "--identity_regex", metavar="REGEX", help="its one group in the path is the person (default: none)"
    )
    add_metadata_option(data)
    people = parser.add_argument_group("people")
    people.add_argument(
        "--test_size",
        type=cli.unit_float,
        default=0.05,
        help="share 0-1 of the people not seen in training that is tested where the data hold no test person "
        "of split.json",
    )
    add_allow_seen_option(people)
    people.add_argument("--seed", type=cli.natural_int, default=0, help="of the draw by --test_size")
    model = parser.add_argument_group("model")
    add_model_options(model)
    model.add_argument(
        "--audio_duration_sec",
        type=cli.positive_float,
        help="seconds of each voice that are heard (default: as in training, 5 unless set)",
    )
    model.add_argument(
        "--target_sr",
        type=cli.positive_int,
        help="sample rate in Hz, to be checked against the model's (default: as in training, 16000)",
    )
    add_embedding_options(parser)
    cli.add_options(parser, EvaluationConfig, only=("top_k", "output_file"))
    return parser


def list_pairs(args: argparse.Namespace) -> "PairList":
    """The pairs of the folders or the lists.

    Raises:
        UserError: Options of both or neither, or no such pairs.
    """
    from lc_pytorch.datasets.pairs import list_folder_pairs, list_matched_pairs

    folders = (args.image_folder, args.audio_folder)
    if bool(args.matched_file) == any(folders) or (any(folders) and not all(folders)):
        raise UserError("give --image_folder and --audio_folder, or --matched_file")
    if args.matched_file:
        return list_matched_pairs(
            args.matched_file, identity_csv=args.identity_csv, identity_regex=args.identity_regex
        )
    return list_folder_pairs(*folders, identity_csv=args.identity_csv, identity_regex=args.identity_regex)


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    from lc_pytorch.evaluation import face_voice, run  # torch and transformers: not for --help

    config = cli.build(EvaluationConfig, args, cache_dir=cache_dir_of(args))
    pairs = list_pairs(args)
    report = run.run_evaluation(
        "evaluate_face_voice",
        config,
        lambda trained: face_voice.list_tested(
            trained,
            pairs,
            test_size=args.test_size,
            is_seen_allowed=args.allow_seen,
            seed=args.seed,
            audio_duration_sec=args.audio_duration_sec,
            target_sr=args.target_sr,
        ),
        model_dir=args.model_dir,
        checkpoint=args.checkpoint,
        device=args.device,
        metadata_file=args.metadata,
        is_dry_run=args.dry_run,
    )
    for line in report.lines:
        print(line, file=sys.stderr if report.exit_code == ExitCode.STOPPED else sys.stdout)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(cli.run(main))
