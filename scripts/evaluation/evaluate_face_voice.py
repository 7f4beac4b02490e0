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
import os
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
    from lc_pytorch.evaluation.subjects import Subjects
    from lc_pytorch.models.store import TrainedModel


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
    data.add_argument("--image_folder", metavar="DIR", help="faces; paired by file stem (default: none)")
    data.add_argument(
        "--audio_folder", metavar="DIR", help="voices, below the same sub-folders (default: none)"
    )
    data.add_argument(
        "--matched_file",
        nargs="+",
        metavar="FILE",
        help="lists of face<TAB>voice, in place of the two folders (default: none)",
    )
    data.add_argument(
        "--identity_csv", metavar="CSV", help="groups.csv that says who is who (default: the folders say)"
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
    """The pairs of the folders or the lists."""
    from lc_pytorch.datasets.pairs import list_folder_pairs, list_matched_pairs

    folders = (args.image_folder, args.audio_folder)
    if bool(args.matched_file) == any(folders) or (any(folders) and not all(folders)):
        raise UserError("give --image_folder and --audio_folder, or --matched_file")
    if args.matched_file:
        return list_matched_pairs(
            args.matched_file, identity_csv=args.identity_csv, identity_regex=args.identity_regex
        )
    return list_folder_pairs(*folders, identity_csv=args.identity_csv, identity_regex=args.identity_regex)


def choose(args: argparse.Namespace, trained: "TrainedModel", listed: "PairList") -> "tuple[Subjects, str]":
    """Who is tested, and the hash of the split that says so."""
    from lc_pytorch.datasets.splits import load_split
    from lc_pytorch.evaluation.subjects import choose_subjects, require_same_people

    file = Path(args.model_dir) / "split.json"
    if not file.is_file() and not args.allow_seen:
        raise UserError(
            f"{file}: no such file: nobody knows whom the model was trained on; --allow_seen to test all the "
            "same"
        )
    split = load_split(file) if file.is_file() else None
    if split is not None and not args.allow_seen:
        require_same_people(split, trained.config["data"], listed.identities, listed.rule)
    subjects = choose_subjects(
        listed.identities,
        test=split.test if split else (),
        seen={*split.train, *split.val} if split else set(listed.identities),
        test_size=args.test_size,
        is_seen_allowed=args.allow_seen,
        seed=args.seed,
    )
    return subjects, split.hash if split else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    from facevox.signals import StopFlag
    from facevox.training import distributed
    from facevox.training.run_folder import run_folder
    from lc_pytorch.evaluation.embedding_pass import Stopped, estimate_pass
    from lc_pytorch.evaluation.metadata import load_metadata
    from lc_pytorch.evaluation.model_evaluation import evaluate_model
    from lc_pytorch.evaluation.readers import make_readers, media_of_pairs
    from lc_pytorch.models import load_model

    config = cli.build(EvaluationConfig, args, cache_dir=cache_dir_of(args))
    world = distributed.init(args.device)
    try:
        trained = load_model(args.model_dir, args.checkpoint, world.device)
        readers = make_readers(trained, args.audio_duration_sec, args.target_sr)
        listed = list_pairs(args)
        subjects, split_hash = choose(args, trained, listed)
        metadata = load_metadata(args.metadata) if args.metadata else None
        tested = set(subjects.identities)
        pairs = [pair for pair in listed.pairs if pair.identity in tested]
        medias = media_of_pairs(pairs, *readers)
        if args.dry_run:
            print("\n".join(estimate_pass(trained.model, medias, config, world.device)))
            return ExitCode.DONE
        with run_folder(trained.model_dir, option="--model_dir", work="evaluation"), StopFlag() as stop:
            result = evaluate_model(
                trained,
                *medias,
                config,
                subjects,
                split_hash=split_hash,
                metadata=metadata,
                notes=[f"identities by {listed.rule}", *listed.warnings],
                stop=stop,
            )
    except Stopped:
        print("evaluate_face_voice: stopped; run the same command again to continue", file=sys.stderr)
        return ExitCode.STOPPED
    finally:
        distributed.cleanup()
    if world.is_main:
        print("\n".join(["evaluate_face_voice: " + result.lines[0], *result.lines[1:], ""]))
        print("\n".join(f"wrote {file}" for file in result.files))
    refused = [file for pair in listed.refused for file in (pair.face, pair.voice)]
    is_missing = not all(map(os.path.exists, refused))  # Path.exists raises on names that are too long
    return ExitCode.SOME_FAILED if result.num_left_out or is_missing else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main))
