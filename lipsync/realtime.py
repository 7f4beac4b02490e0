"""Score a video file or a camera with its microphone while it plays: a line a second on the last 4.5 s.

    python lipsync/realtime.py --video talk.mp4
    python lipsync/realtime.py --video talk.mp4 --json
    python lipsync/realtime.py --camera /dev/video0 --microphone default --max_duration_s 60

A camera is read through Video4Linux and a microphone through ALSA, which needs Linux; pictures and sound are
put on one clock by the time of their arrival, so delays of the devices themselves count as offset. A file is
read as fast as possible. offset_ms > 0 means that the audio is early.
Writes nothing. Exit codes: 0 done, 1 no stretch gave an answer, 2 bad usage or input, 75 stopped by a signal.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from facevox import cli
from facevox.errors import ExitCode, UserError
from facevox.native_silence import native_silence
from facevox.signals import StopFlag
from lipsync.clips.clock import FRAME_HZ
from lipsync.inference import LipSyncInference
from lipsync.settings import add_audio_options, add_config_arguments, add_method_option, load_settings
from lipsync.sync.methods import check_method

if TYPE_CHECKING:
    from lipsync.clips.sources import Piece
    from lipsync.sync.streaming import LiveScore, SyncStream


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python lipsync/realtime.py --video talk.mp4")
    add = parser.add_argument
    add("--video", type=Path, metavar="FILE", help="a file (default: none; this or --camera is needed)")
    add("--audio", type=Path, metavar="FILE", help="with --video: the sound (default: the video's own)")
    add("--camera", metavar="DEVICE", help="a camera, as in /dev/video0 (default: none)")
    add("--microphone", default="default", metavar="DEVICE", help="with --camera: ALSA device of the sound")
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="best_model.pth of train.py (default: none, the model that comes with the package)",
    )
    add_method_option(parser)
    add(
        "--max_duration_s",
        type=cli.positive_float,
        metavar="S",
        help="stop after that many seconds of material (default: at the end, or at Ctrl-C)",
    )
    add("--json", action="store_true", help="print one JSON object a line on stdout")
    add_config_arguments(parser)
    add_audio_options(parser, "features")
    return parser


def run_stream(
    pieces: Iterator[Piece], stream: SyncStream, max_duration_s: float | None
) -> Iterator[LiveScore]:
    """The verdicts on pieces as they come."""
    num_frames = 0
    for kind, content in pieces:
        if kind == "sound":
            yield from stream.push_sound(content)
            continue
        yield from stream.push_frame(content)
        num_frames += 1
        if max_duration_s is not None and num_frames >= max_duration_s * FRAME_HZ:
            break
    yield from stream.finish()


def main(argv: Sequence[str] | None = None) -> int:
    """Scores until the end or a signal; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    if (args.video is None) == (args.camera is None):
        raise UserError("one of --video and --camera is required")
    if args.audio is not None and args.video is None:
        raise UserError("--audio goes with --video; the sound of a camera comes from --microphone")
    check_method(args.method, args.checkpoint)
    settings = load_settings(args.config, args.overrides)
    # Not before the arguments are read: PyAV and OpenCV.
    from lipsync.clips.sources import open_devices, read_file
    from lipsync.sync.streaming import SyncStream, live_plain, live_text
    from lipsync.sync.verdicts import CANNOT_TELL

    inference = LipSyncInference(args.checkpoint, settings=settings, method=args.method)
    data, audio = settings.data, settings.audio
    with ExitStack() as stack:
        stop = stack.enter_context(StopFlag())
        if args.video is not None:
            pieces = read_file(args.video, args.audio)
        else:
            pieces = stack.enter_context(open_devices(args.camera, args.microphone)).pieces()
        stack.enter_context(native_silence())
        stream = stack.enter_context(
            SyncStream(
                inference.method,
                max_faces=data.max_faces,
                crop_px=data.mouth_crop_px,
                num_mels=audio.num_mels,
                num_mfcc=audio.num_mfcc,
                features=audio.features,
            )
        )
        start_s, end_s, num_scored = time.monotonic(), 0.0, 0
        for live in run_stream(pieces, stream, args.max_duration_s):
            print(json.dumps(live_plain(live)) if args.json else live_text(live), flush=True)
            num_scored += live.score.judgement.verdict.kind != CANNOT_TELL
            end_s = live.end_s
            if stop:
                break
        seconds = time.monotonic() - start_s
        if args.video is not None:
            print(f"{end_s:.1f} s in {seconds:.1f} s, {end_s / seconds:.1f} x real time", file=sys.stderr)
    if stop:
        return ExitCode.STOPPED
    return ExitCode.DONE if num_scored else ExitCode.SOME_FAILED


if __name__ == "__main__":
    sys.exit(cli.run(main))
