"""Fit a lip-sync model to a folder of videos, without labels: to these people, rooms and cameras.

    python lipsync/fit.py --videos DIR --save_dir runs/fitted
    python lipsync/inference.py --checkpoint runs/fitted/best_model.pth --video talk.mp4

Nothing has to be known of the videos: by how much each is off is found by the model that comes with the
package and then by networks trained on other people of the folder; clips that are dubbed, silent or whose
offset moves are left out and named. Speakers come from the top sub-folder or data.speaker_regex; without
either each video counts as a person. Needs about 10 people and 90 s; some minutes on two cores.
Writes best_model.pth, MODEL_CARD.md (scores on people left out, beside the model of the package), clips.csv
(the offset of each clip, or why it is left out), clips/ and work/ (a stopped run continues from these).
Exit codes: 0 done; 1 too few people or seconds, or no better than the model of the package (no model is
written); 2 bad settings or input; 75 stopped by a signal (run the same command again to continue).
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from facevox import cli
from facevox.batch_options import BatchOptions
from facevox.cluster.job import RUN_AGAIN, Job
from facevox.errors import ExitCode
from facevox.files import VIDEO_PATTERNS, find_files, require_folder
from lipsync.data_processing import process_videos
from lipsync.settings import Settings, add_audio_options, add_config_arguments, load_settings

JOB = Job(join=RUN_AGAIN, inputs=("config", "videos"), output="save_dir", is_some_failed_done=False)
logger = logging.getLogger("lipsync.fit")  # also where the program is started by its path
CLIPS_DIR = "clips"


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python lipsync/fit.py --videos DIR --save_dir runs/fitted")
    add = parser.add_argument
    add("--videos", type=Path, required=True, metavar="DIR", help="searched in all sub-folders")
    add("--save_dir", type=Path, required=True, metavar="DIR", help="of the model, its card and the tables")
    add_config_arguments(parser)
    add_audio_options(parser, "features", "channel", "track")
    cli.add_options(parser, BatchOptions)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Processes the videos and fits a model to them; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    settings = load_settings(args.config, args.overrides)
    require_folder(args.videos, "--videos")
    outcome = fit_videos(args.videos, args.save_dir, settings, args)
    if outcome.message:
        logger.info(outcome.message)
    if outcome.model_file is not None:
        logger.info(f"model: {outcome.model_file}")
    return outcome.code


@dataclass(frozen=True)
class FitOutcome:
    """Result of `fit_videos`.

    Attributes:
        code: Exit code.
        model_file: The checkpoint; None: there is none.
        message: One line for people.
    """

    code: int
    model_file: Path | None = None
    message: str = ""


def fit_videos(videos: Path, save_dir: Path, settings: Settings, args: argparse.Namespace) -> FitOutcome:
    """Processes the videos of a folder and fits a model to them.

    Args:
        videos: The folder.
        save_dir: Of the model and of what a stopped run continues from.
        settings: All of them; `videos` and `save_dir` stand for their paths.
        args: With the options of `BatchOptions`.

    Raises:
        UserError: Settings or input are wrong, or another run writes there.
        SystemExit: A stop signal came while it trained.
    """
    find_files(videos, VIDEO_PATTERNS, exclude=[save_dir], what="--videos")  # none: a message with its option
    clips_dir = save_dir / CLIPS_DIR
    paths = replace(settings.paths, videos_dir=str(videos), processed_dir=str(clips_dir))
    code = process_videos(replace(settings, paths=paths), args)
    if code not in (ExitCode.DONE, ExitCode.SOME_FAILED):
        return FitOutcome(code)
    if args.dry_run or args.num_shards > 1:
        next_step = "the fit itself comes after this; it needs about twice the length of the clips on a core"
        if args.num_shards > 1:
            next_step = "when all shards are done, the same command without shards fits the model"
        return FitOutcome(code, message=next_step)
    from facevox.training.run_folder import run_folder  # torch takes seconds
    from lipsync.network.fitting import TooSmallError, fit_files

    with run_folder(save_dir):
        try:
            result = fit_files(clips_dir, save_dir, settings)
        except TooSmallError as error:
            return FitOutcome(ExitCode.SOME_FAILED, message=str(error))
    code = ExitCode.SOME_FAILED if result.model_file is None else ExitCode.DONE
    return FitOutcome(code, result.model_file, result.message)


if __name__ == "__main__":
    sys.exit(cli.run(main))
