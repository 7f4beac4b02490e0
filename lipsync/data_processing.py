"""Turn videos and sounds into clips to train on: faces followed, mouths cut out, MFCC on the same clock.

    python lipsync/data_processing.py
    python lipsync/data_processing.py --set paths.videos_dir=/data/videos --set data.max_faces=1

Reads data/videos/ (sub-folders too) and data/audios/ (sounds of the same name; else the video's own track)
and writes data/processed/<same sub-folder>/<name>.npz, manifest.csv (used and skipped videos, with the
reason) and manifests/data_processing.jsonl there. Names of speakers, by which training splits, come from the
top sub-folder or data.speaker_regex. A video is processed again when it or its sound file was replaced, and
when a sound file was added or removed.
Exit codes: 0 done; 1 more videos failed than --max_failed allows, or none shows a face for long enough;
2 bad settings or input; 75 stopped by a signal (run the same command again to continue).
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from facevox import cli
from facevox.batch_options import BatchOptions
from facevox.cluster.job import MERGE, Job
from facevox.sound_choice import PLAYED
from lipsync.settings import (
    Settings,
    add_audio_options,
    add_config_arguments,
    folder_finder,
    load_settings,
)

JOB = Job(join=MERGE, inputs=("config",), output=folder_finder("processed_dir"))


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python lipsync/data_processing.py --workers 2")
    add_config_arguments(parser)
    add_audio_options(parser, "features", "channel", "track")
    cli.add_options(parser, BatchOptions)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Processes the videos; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    return process_videos(load_settings(args.config, args.overrides), args)


def process_videos(settings: Settings, args: argparse.Namespace) -> int:
    """Processes the videos of the settings; returns the exit code.

    Args:
        settings: All of them.
        args: With the options of `BatchOptions`.
    """
    from facevox.batch import BatchConfig, run_batch  # not before the arguments are read: they take a while
    from lipsync.clips.clip_task import COLUMNS, ClipTask, plan_clips

    batch = cli.build(
        BatchConfig,
        args,
        output_dir=Path(settings.paths.processed_dir),
        program="data_processing",
        table="manifest.csv",
        columns=COLUMNS,
        item_column="video",
        settings={
            "data": asdict(settings.data),
            "audio": settings.audio.sizes(),
            "sound": asdict(settings.audio.choice),
        },
        implied={"sound": asdict(PLAYED)},
        reads_media=True,
        unit="video",
    )
    return run_batch(ClipTask(settings.data, settings.audio), plan_clips(settings), batch).exit_code


if __name__ == "__main__":
    sys.exit(cli.run(main))
