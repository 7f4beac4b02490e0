"""Show the Python interface of the lip-sync package on a video of your own.

    python lipsync/example_usage.py --video talk.mp4
    python lipsync/example_usage.py --video talk.mp4 --checkpoint checkpoints/best_model.pth

Scores the video, then makes a copy whose audio is 200 ms early, scores that, corrects it, and draws the plot:
writes early.mp4, mended.mp4 and sync.png into the output folder. Exit codes: 0 done, 1 the copy could not be
corrected (a message has the reason), 2 bad usage or input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from facevox import cli
from facevox.errors import ExitCode
from lipsync.inference import LipSyncInference

EARLY_MS = 200.0


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python lipsync/example_usage.py --video talk.mp4")
    add = parser.add_argument
    add("--video", type=Path, required=True, metavar="FILE", help="somebody who talks, with sound")
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="best_model.pth of train.py (default: none, the model that comes with the package)",
    )
    add("--output_dir", type=Path, default=Path("outputs"), metavar="DIR", help="folder for the results")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the example; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    # Not before the arguments are read: both take a while to import.
    from lipsync.repair.shift import shift_audio
    from lipsync.sync.plots import write_sync_plot

    inference = LipSyncInference(checkpoint_path=args.checkpoint)

    # 1. A score, and all details of it.
    score, details = inference.compute_sync_score(args.video)
    print(f"{args.video.name}: score {score:.3f}, {details['text']} (by {details['method']})")
    for second in details["curve"]:
        print(f"  {second['time_s']:5.1f} s  score {second['score']:.2f}  {second['offset_ms']:+.0f} ms")

    # 2. A copy with a known offset: audio early by 200 ms, so its sound is shifted by -200 ms.
    early_file = args.output_dir / "early.mp4"
    shift_audio(args.video, early_file, -EARLY_MS)
    early, early_details = inference.analyse(early_file)
    print(f"{early_file.name}: score {early_details['score']:.3f}, {early_details['text']}")
    write_sync_plot(args.output_dir / "sync.png", early, early_file.name)

    # 3. A corrected file. None: the video's own sound.
    success, message = inference.sync_video_audio(early_file, None, args.output_dir / "mended.mp4")
    print(message)
    return ExitCode.DONE if success else ExitCode.SOME_FAILED


if __name__ == "__main__":
    sys.exit(cli.run(main))
