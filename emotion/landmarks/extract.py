"""Extract face landmarks from ZIP archives of pictures, without unpacking them.

    python emotion/landmarks/extract.py --zips A.zip B.zip --output_dir runs/landmarks
    python emotion/landmarks/extract.py --zips video/Training video/Validation --output_dir runs/landmarks
    python emotion/landmarks/extract.py --zips A.zip B.zip --labels happy sad --output_dir runs/landmarks
    python emotion/landmarks/extract.py --zips video/Training --output_dir runs/landmarks --limit 10000

Finds the 478 points of FaceMesh in every picture. A folder is searched for archives; annotations (AIHub's
[라벨] archives, JSON files) among them give labels and the box of the face, where there are several. Writes
`<output_dir>/shards/*.npy` (raw landmarks), `index.csv` (a row for each picture: archive, member, shard, row,
label, person, width, height, reduction, faces, status, reason) and `manifests/extract_landmarks.jsonl`. Exit
codes: 0 done; 1 more pictures failed than --max_failed allows, or not one has a face (index.csv says which);
2 bad usage or input; 75 stopped by a signal (run the same command again to continue).
"""

import argparse
import sys
from collections.abc import Sequence

from emotion.landmarks.extraction import extract_landmarks_from_zip as extract_landmarks_from_zip
from emotion.landmarks.extraction import run_extraction
from emotion.landmarks.options import ExtractConfig, add_log_dir_option
from emotion.logger_config import get_logger, setup_logging
from facevox import cli
from facevox.batch_options import BatchOptions
from facevox.cluster.job import MERGE, Job

JOB = Job(join=MERGE, inputs=("zips",))


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(
        __doc__, "python emotion/landmarks/extract.py --zips A.zip B.zip --output_dir runs/landmarks"
    )
    cli.add_options(parser, ExtractConfig)
    cli.add_options(parser, BatchOptions)
    add_log_dir_option(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Extracts; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    config = cli.build(ExtractConfig, args)
    options = cli.build(BatchOptions, args)
    if not options.dry_run:
        setup_logging(args.log_dir)
    logger = get_logger("landmarks.extract")
    extraction = run_extraction(config, options)
    for line in extraction.lines(config.output_dir):
        print(line)
    summary = extraction.summary
    logger.info(
        "%d shards done, %d finished before, %d failed in %.1f s%s; pictures: %s",
        *(summary.done, summary.skipped, summary.failed, summary.seconds),
        f", stopped by {summary.stopped}" if summary.stopped else "",
        extraction.statuses or "none",
    )
    return extraction.exit_code


if __name__ == "__main__":
    sys.exit(cli.run(main))
