"""Write each video's sound as a mono wav file, on the clock of its pictures.

    python scripts/preprocessing/extract_voices.py --dataset_path videos --output_dir runs/voices

Writes `<output_dir>/<same sub-folder>/vid_123.wav` for `vid_123.mp4`, `voices.csv` (video, wav, start,
duration, loudness, share of speech, status, reason) and `manifests/extract_voices.jsonl`. With
extract_faces.py it makes the two folders that training reads. Exit codes: 0 done; 1 more videos failed than
--max_failed allows, or not one gave a voice; 2 bad usage or input; 75 stopped by a signal (run the same
command again to continue).
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from facevox import cli
from facevox.batch import BatchConfig, run_batch
from facevox.batch_options import BatchOptions
from facevox.cluster.job import MERGE, Job
from facevox.files import find_files
from facevox.sound_choice import MIX
from lc_pytorch.voices import COLUMNS, VoiceConfig, VoiceTask, plan_voices

JOB = Job(join=MERGE, inputs=("dataset_path",))


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(
        __doc__,
        "python scripts/preprocessing/extract_voices.py --dataset_path videos --output_dir runs/voices",
    )
    parser.add_argument(
        "--dataset_path",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of videos, searched recursively",
    )
    parser.add_argument(
        "--output_dir", type=Path, required=True, metavar="DIR", help="folder for the wavs and voices.csv"
    )
    cli.add_options(parser, VoiceConfig)
    cli.add_video_arguments(parser)
    cli.add_options(parser, BatchOptions)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Extracts; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    config = cli.build(VoiceConfig, args)
    root = Path(args.dataset_path)
    videos = find_files(
        root, args.video_extensions, [args.output_dir], what="--dataset_path", option="--video_extensions"
    )
    batch = cli.build(
        BatchConfig,
        args,
        output_dir=Path(args.output_dir),
        program="extract_voices",
        table="voices.csv",
        columns=COLUMNS,
        item_column="video",
        settings=asdict(config),
        implied={"audio_channel": MIX, "audio_track": ""},
        reads_media=True,
        unit="video",
    )
    return run_batch(VoiceTask(config), plan_voices(videos, root), batch).exit_code


if __name__ == "__main__":
    sys.exit(cli.run(main))
