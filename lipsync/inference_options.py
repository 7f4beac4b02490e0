"""The options of inference.py, and which of them exclude each other."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from facevox import cli
from facevox.batch_options import BatchOptions
from facevox.errors import UserError
from lipsync.lse.weights import DEFAULT_FILE, VARIABLE
from lipsync.repair.timelines import FRAME_DURATIONS
from lipsync.settings import add_audio_options, add_config_arguments, add_method_option
from lipsync.sync.methods import AUTO
from lipsync.sync.offset import MAX_OFFSET_MS

SYNC, LSE = "sync", "lse"  # --metric


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add = parser.add_argument
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="best_model.pth of train.py (default: none, the model that comes with the package)",
    )
    add_method_option(parser)
    add(
        "--metric",
        choices=(SYNC, LSE),
        default=SYNC,
        help="sync: score, offset and verdict; lse: LSE-C, LSE-D and offset by SyncNet",
    )
    add(
        "--syncnet",
        type=Path,
        metavar="FILE",
        help=f"with --metric lse: SyncNet's weights (default: ${VARIABLE} or {DEFAULT_FILE})",
    )
    add(
        "--video",
        type=cli.media_argument,
        metavar="FILE|ADDRESS",
        help="the video (default: none; this or --batch is needed)",
    )
    add(
        "--audio",
        type=cli.media_argument,
        metavar="FILE|ADDRESS",
        help="the sound (default: the video's own track)",
    )
    add("--score-only", "--score_only", action="store_true", help="score and write no video")
    add("--output", type=Path, metavar="FILE", help="corrected .mp4, .m4v, .mov or .mkv (default: none)")
    add(
        "--offset_ms",
        type=float,
        metavar="MS",
        help="with --output: a known offset, in ms, positive: the audio is early (default: it is measured)",
    )
    add(
        "--max_offset_ms",
        type=float,
        default=MAX_OFFSET_MS,
        metavar="MS",
        help="the largest offset to search for, to each side, in ms; up to 10000, and half of a clip",
    )
    add("--json", action="store_true", help="print one JSON object on stdout")
    add(
        "--plot",
        type=Path,
        metavar="FILE",
        help="picture of lag and time, .png, .svg or .pdf (default: none)",
    )
    add(
        "--batch",
        type=Path,
        metavar="CSV|DIR",
        help="score the pairs of a table, or all videos below a folder (default: none)",
    )
    add(
        "--adapt",
        action="store_true",
        help="with --batch DIR: first fit a model to these videos, as fit.py does, and score with it",
    )
    add(
        "--output_dir",
        type=Path,
        metavar="DIR",
        help="with --batch: folder of the results (default: paths.output_dir of the settings)",
    )
    add(
        "--reference",
        type=Path,
        metavar="FILE",
        help="with --batch: align the sound of all videos to that of this file (default: none)",
    )
    add(
        "--timeline_fps",
        choices=list(FRAME_DURATIONS),
        help="with --reference: frames a second of the timelines (default: the most usual of the videos)",
    )
    add_config_arguments(parser)
    add_audio_options(parser, "features", "channel", "track")
    cli.add_options(parser, BatchOptions)


def check_usage(args: argparse.Namespace) -> None:
    """Raises UserError with all options that exclude each other."""
    faults = []
    if (args.video is None) == (args.batch is None):
        faults.append("one of --video and --batch is required")
    if args.batch is not None:
        single = [
            name for name in ("audio", "output", "offset_ms", "plot") if getattr(args, name) is not None
        ]
        faults += [f"--{name} does not go with --batch" for name in single]
        if args.json:
            faults.append("--json does not go with --batch, which writes a JSON file a pair")
    elif args.output_dir is not None:
        faults.append("--output_dir goes with --batch; one file is named by --output")
    if args.adapt:
        if args.batch is None or args.batch.is_file():
            faults.append("--adapt fits a model to a folder: give it as --batch DIR")
        if args.checkpoint is not None or args.method != AUTO:
            faults.append("--adapt makes its own model: leave --checkpoint and --method out")
    if args.reference is not None:
        faults += [] if args.batch is not None else ["--reference goes with --batch"]
        faults += ["--checkpoint does not go with --reference"] if args.checkpoint is not None else []
        faults += ["--adapt does not go with --reference"] if args.adapt else []
    elif args.timeline_fps is not None:
        faults.append("--timeline_fps goes with --reference")
    if args.output is not None and args.score_only:
        faults.append("--score-only writes no video; leave it or --output out")
    if args.offset_ms is not None:
        if args.output is None:
            faults.append("--offset_ms needs --output")
        if args.plot is not None:
            faults.append("--plot needs a score, which --offset_ms does not measure")
        if not math.isfinite(args.offset_ms):
            faults.append(f"--offset_ms {args.offset_ms} is not a number of ms")
    faults += _lse_faults(args)
    if faults:
        raise UserError("; ".join(faults))


def _lse_faults(args: argparse.Namespace) -> list[str]:
    """Options that do not go with --metric lse, or need it."""
    if args.metric != LSE:
        return ["--syncnet goes with --metric lse"] if args.syncnet is not None else []
    unused = [
        name for name in ("checkpoint", "output", "offset_ms", "plot") if getattr(args, name) is not None
    ]
    unused += ["method"] if args.method != AUTO else []
    unused += ["adapt"] if args.adapt else []
    unused += ["reference"] if args.reference is not None else []
    unused += ["max_offset_ms"] if args.max_offset_ms != MAX_OFFSET_MS else []
    return [f"--{name} does not go with --metric lse, which only scores, by SyncNet" for name in unused]
