"""Clean a data set of talking videos: clips of one face in one shot, in sync, large, sharp, talking.

    python lipsync/clean.py --videos DIR --output_dir OUT --table_only
    python lipsync/clean.py --videos DIR --output_dir OUT --crop face --fps 25

Each shot is cut where another face comes or goes, at jumps of the offset and, into clips of 2 to 10 s, at
pauses of the speech. By how much lips and sound are off is measured over all of a face in a shot. A clip
whose face is large and sharp enough, which is speech for the most part and whose offset is sure, is written
without that offset. Others are dropped with all reasons: too_short, too_small, blurred, several_faces,
no_face, no_match (other words, another voice), cannot_tell, low_confidence, drift, little_speech, not_in_sync
(--check). Writes clips/<video>_<number>.mp4, clips.csv (a row for each candidate) and manifests/clean.jsonl.
offset_ms > 0 means that the audio of the video is early: in the clip it is later by that much.
Exit codes: 0 done; 1 more videos failed than --max_failed allows, or nothing was kept; 2 bad settings or
input; 75 stopped by a signal (run the same command again to continue).
"""

import argparse
import functools
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from facevox import cli
from facevox.batch_options import BatchOptions
from facevox.cluster.job import MERGE, Job
from facevox.errors import ExitCode
from facevox.files import require_folder
from lipsync.cleaning.options import CleanOptions
from lipsync.settings import add_audio_options, add_config_arguments, add_method_option, load_settings
from lipsync.sync.methods import check_method
from lipsync.sync.offset import MAX_OFFSET_MS
from lipsync.sync.opening import open_method

JOB = Job(join=MERGE, inputs=("config", "videos", "checkpoint"))
PROGRAM = "clean"
logger = logging.getLogger("lipsync.clean")  # also where the program is started by its path


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python lipsync/clean.py --videos DIR --output_dir OUT")
    add = parser.add_argument
    add("--videos", type=Path, required=True, metavar="DIR", help="searched in all sub-folders")
    add("--output_dir", type=Path, required=True, metavar="DIR", help="of the clips and the table")
    cli.add_options(parser, CleanOptions)
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="best_model.pth of train.py or fit.py (default: none, the model that comes with the package)",
    )
    add_method_option(parser)
    add_config_arguments(parser)
    add_audio_options(parser, "features", "channel", "track")
    cli.add_options(parser, BatchOptions)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Cleans the videos of a folder; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    check_method(args.method, args.checkpoint)
    options = cli.build(CleanOptions, args)
    settings = load_settings(args.config, args.overrides)
    require_folder(args.videos, "--videos")
    from facevox.batch import BatchConfig, run_batch  # not before the arguments are read: they take a while
    from facevox.manifest import read_manifest
    from lipsync.cleaning.clean_task import COLUMNS, KEPT, CleanTask, plan_videos, summary_lines
    from lipsync.sync.pair_task import batch_settings

    batch = cli.build(
        BatchConfig,
        args,
        program=PROGRAM,
        table="clips.csv",
        columns=COLUMNS,
        item_column="video",
        settings=asdict(options) | batch_settings(settings, args.method, args.checkpoint, MAX_OFFSET_MS),
        reads_media=True,
        unit="video",
    )
    make_method = functools.partial(open_method, args.method, args.checkpoint, settings.training.device)
    task = CleanTask(make_method, settings, options, uses_torch=args.checkpoint is not None)
    summary = run_batch(task, plan_videos(args.videos, args.output_dir), batch)
    if batch.dry_run or batch.num_shards > 1 or summary.stopped:
        return summary.exit_code
    for line in summary_lines(read_manifest(args.output_dir, PROGRAM)):
        logger.info(line)
    records = read_manifest(args.output_dir, PROGRAM)
    is_empty = not any(row["kept"] == KEPT for record in records for row in record["rows"])
    return ExitCode.SOME_FAILED if is_empty else summary.exit_code


if __name__ == "__main__":
    sys.exit(cli.run(main))
