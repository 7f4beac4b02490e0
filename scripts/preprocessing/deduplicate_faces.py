"""Group the face pictures of each person and pick the best one.

    python scripts/preprocessing/deduplicate_faces.py --faces_dir runs/faces \\
        --dedupe_dir runs/deduped --representative_dir runs/representatives

Writes into `dedupe_dir` each person's best face as `vid_123.jpg` and every other as
`vid_123_dedupe_vid_456.jpg` (in the sub-folder of the best face), `groups.csv` (file, group, representative,
distance to it, quality, file in dedupe_dir, status, reason), `manifests/deduplicate_faces.jsonl` and, in
`.embeddings`, the embeddings for the next run; into `representative_dir` one face per person under its own
path. Landmarks come from `faces.csv` in `faces_dir` where face extraction wrote it. With --num_shards a run
only embeds; a last run without it groups. Exit codes: 0 done; 1 more pictures failed than --max_failed
allows, or not one shows a face; 2 bad usage or input; 75 stopped by a signal (run the same command again to
continue).
"""

import argparse
import sys
from collections.abc import Sequence

from facevox import cli
from facevox.cluster.job import RUN_AGAIN, Job
from lc_pytorch.faces.options import DedupeConfig

JOB = Job(join=RUN_AGAIN, inputs=("faces_dir",), output="dedupe_dir")


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(
        __doc__,
        "python scripts/preprocessing/deduplicate_faces.py --faces_dir runs/faces "
        "--dedupe_dir runs/deduped --representative_dir runs/representatives",
    )
    cli.add_options(parser, DedupeConfig)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Groups; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    from lc_pytorch.faces.deduplicator import deduplicate  # OpenCV and PyAV: not for --help

    return deduplicate(cli.build(DedupeConfig, args)).exit_code


if __name__ == "__main__":
    sys.exit(cli.run(main))
