"""Rank many voices by how well they fit one face, or many faces by how well they fit one voice.

    python scripts/evaluation/match.py --model_dir runs/model --face anna.jpg --voices recordings
    python scripts/evaluation/match.py --model_dir runs/model --voice anna.wav --faces pictures

Prints rank, similarity (cosine, -1 to 1) and file; with --output_file a CSV too. Embeddings are kept in the
model's embeddings/ for the next run. Exit codes: 0 done, 1 done but some files could not be used, 2 bad usage
or input, 75 stopped by a signal (run the same command again to continue).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.errors import ExitCode, UserError, printable
from facevox.signals import StopFlag
from lc_pytorch.evaluation.options import PassOptions, add_embedding_options, add_model_options, cache_dir_of

SHOWN_FAILURES = 5


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(
        __doc__,
        "python scripts/evaluation/match.py --model_dir runs/model --face anna.jpg --voices recordings",
    )
    add_model_options(parser)
    parser.add_argument(
        "--face", type=Path, metavar="FILE", help="picture to find the voice of (default: none)"
    )
    parser.add_argument(
        "--voices", type=Path, metavar="DIR", help="recordings to rank for --face (default: none)"
    )
    parser.add_argument(
        "--voice", type=Path, metavar="FILE", help="recording to find the face of (default: none)"
    )
    parser.add_argument(
        "--faces", type=Path, metavar="DIR", help="pictures to rank for --voice (default: none)"
    )
    parser.add_argument("--top_k", type=cli.positive_int, default=10, help="how many of the best to show")
    parser.add_argument(
        "--output_file", type=Path, metavar="CSV", help="the same table as a file (default: none)"
    )
    parser.add_argument(
        "--audio_duration_sec",
        type=cli.positive_float,
        help="seconds of each voice that are heard (default: as in training, 5 unless set)",
    )
    add_embedding_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Ranks; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    options = {name for name in ("face", "voices", "voice", "faces") if getattr(args, name) is not None}
    if options not in ({"face", "voices"}, {"voice", "faces"}):
        raise UserError("give --face FILE with --voices DIR, or --voice FILE with --faces DIR")
    # torch and transformers: not for --help
    from facevox.training import distributed
    from lc_pytorch.evaluation import embedding_pass, ranking, readers
    from lc_pytorch.models import load_model

    config = cli.build(PassOptions, args, cache_dir=cache_dir_of(args))
    output_file = Path(args.output_file) if args.output_file else None
    if output_file:
        embedding_pass.require_writable(output_file, "--output_file")
    world = distributed.init(args.device)
    try:
        trained = load_model(args.model_dir, args.checkpoint, world.device)
        pair = readers.make_readers(trained, args.audio_duration_sec)
        query_reader, gallery_reader = pair if args.face is not None else pair[::-1]
        gallery = ranking.list_gallery(args.voices if args.face is not None else args.faces, gallery_reader)
        query = Path(args.voice if args.face is None else args.face)
        if args.dry_run:
            print("\n".join(embedding_pass.estimate_pass(trained.model, [gallery], config, world.device)))
            return ExitCode.DONE
        with StopFlag() as stop:
            ranked = ranking.rank_files(trained, query, query_reader, gallery, config, args.top_k, stop)
    except embedding_pass.Stopped:
        print("match: stopped; run the same command again to continue", file=sys.stderr)
        return ExitCode.STOPPED
    finally:
        distributed.cleanup()
    if world.is_main:
        print(f"match: {query} against {ranked.num_ranked} {gallery.kind}s")
        print("rank  similarity  file")
        matches = zip(ranked.similarities, ranked.files, strict=True)
        for rank, (similarity, file) in enumerate(matches, start=1):
            print(f"{rank:>4}  {similarity:>10.4f}  {printable(str(file))}")
        for file, reason in ranked.failures[:SHOWN_FAILURES]:
            print(f"left out: {printable(str(file))}: {reason}")
        if len(ranked.failures) > SHOWN_FAILURES:
            print(f"left out: {len(ranked.failures) - SHOWN_FAILURES} more")
        if output_file:
            ranking.write_ranking(output_file, ranked, spreadsheet_safe=config.spreadsheet_safe)
            print(f"wrote {output_file}")
    return ExitCode.SOME_FAILED if ranked.failures else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main))
