"""Score a video file, a live stream or a camera with its microphone: a line a second on the last 4.5 s.

    python lipsync/realtime.py --video talk.mp4
    python lipsync/realtime.py --video talk.mp4 --json
    python lipsync/realtime.py --video rtsp://user:password@192.168.1.20/stream --max_retries 100
    python lipsync/realtime.py --camera /dev/video0 --microphone default --max_duration_s 60

A camera is read through Video4Linux and a microphone through ALSA, which needs Linux; pictures and sound are
put on one clock by the time of their arrival, so delays of the devices themselves count as offset. A file is
read as fast as possible, also one behind an http address, which is fetched first.

A live stream (rtsp, rtmp, http, https, udp, tcp) is read as it comes. Each line has the delay: how far the
verdict is behind the newest picture that has come. A connection that breaks, or sends nothing for 10 s, is
made again after 1, 2, 4 ... 30 s, with a fresh window. Where the scorer does not keep up, material is left
out between windows, with a message. Passwords in addresses are never printed.

offset_ms > 0 means that the audio is early.
Writes nothing. Exit codes: 0 done; 1 no stretch gave an answer, or a stream could not be connected again; 2
bad usage or input; 75 stopped by a signal.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from facevox import cli
from facevox.addresses import Address
from facevox.errors import ExitCode, UserError
from facevox.native_silence import native_silence
from facevox.signals import StopFlag
from lipsync.clips.clock import FRAME_HZ
from lipsync.inference import LipSyncInference
from lipsync.settings import (
    Settings,
    add_audio_options,
    add_config_arguments,
    add_method_option,
    load_settings,
)
from lipsync.sync.methods import check_method

if TYPE_CHECKING:
    from lipsync.clips.live import LiveAddress
    from lipsync.clips.sources import Piece
    from lipsync.sync.streaming import LiveScore, SyncStream


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python lipsync/realtime.py --video talk.mp4")
    add = parser.add_argument
    add(
        "--video",
        type=cli.media_argument,
        metavar="FILE|ADDRESS",
        help="a file or an address, as in rtsp://host/path (default: none; this or --camera is needed)",
    )
    add("--audio", type=Path, metavar="FILE", help="with a file: the sound (default: the video's own)")
    add(
        "--max_retries",
        type=cli.natural_int,
        default=10,
        metavar="N",
        help="tries in a row to connect to a live stream again before giving up; 0: none",
    )
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


def check_usage(args: argparse.Namespace) -> None:
    """Raises UserError with all options that exclude each other."""
    faults = []
    if (args.video is None) == (args.camera is None):
        faults.append("one of --video and --camera is required")
    if args.audio is not None and args.video is None:
        faults.append("--audio goes with --video; the sound of a camera comes from --microphone")
    if args.audio is not None and isinstance(args.video, Address) and not args.video.is_web:
        faults.append("--audio goes with a file; a live stream has its own sound")
    if faults:
        raise UserError("; ".join(faults))


class _Run:
    """Scores and prints what comes, until the end or a signal."""

    def __init__(self, args: argparse.Namespace, settings: Settings, stop: StopFlag) -> None:
        self._args, self._settings, self._stop = args, settings, stop
        self._method = LipSyncInference(args.checkpoint, settings=settings, method=args.method).method
        self.num_scored = 0
        self.end_s = 0.0  # of the last verdict

    def score(self, pieces: Iterator[Piece]) -> None:
        """Scores a file or devices."""
        for live in self._verdicts(pieces, self._args.max_duration_s):
            self._print(live)

    def score_live(self, source: LiveAddress) -> None:
        """Scores a live stream, stretch by stretch. Raises as `LiveAddress.stretches`."""
        remaining_s = self._args.max_duration_s
        for stretch in source.stretches():
            for live in self._verdicts(stretch.pieces(), remaining_s):
                delay_s = stretch.delay_s(live.end_s)
                start_s, end_s = stretch.start_s + live.start_s, stretch.start_s + live.end_s
                live = replace(live, start_s=round(start_s, 3), end_s=round(end_s, 3))
                self._print(live, delay_s, source.left_out_s)
            if remaining_s is not None:
                remaining_s -= stretch.num_frames / FRAME_HZ
                if remaining_s <= 0:
                    return
            if self._stop:
                return

    def _verdicts(self, pieces: Iterator[Piece], max_duration_s: float | None) -> Iterator[LiveScore]:
        from lipsync.sync.streaming import SyncStream

        data, audio = self._settings.data, self._settings.audio
        with SyncStream(
            self._method,
            max_faces=data.max_faces,
            crop_px=data.mouth_crop_px,
            num_mels=audio.num_mels,
            num_mfcc=audio.num_mfcc,
            features=audio.features,
        ) as stream:
            for live in run_stream(pieces, stream, max_duration_s):
                yield live
                if self._stop:
                    return

    def _print(self, live: LiveScore, delay_s: float | None = None, left_out_s: float = 0.0) -> None:
        from lipsync.sync.streaming import live_plain, live_text
        from lipsync.sync.verdicts import CANNOT_TELL

        if self._args.json:
            print(json.dumps(live_plain(live, delay_s, left_out_s)), flush=True)
        else:
            print(live_text(live, delay_s), flush=True)
        self.num_scored += live.score.judgement.verdict.kind != CANNOT_TELL
        self.end_s = live.end_s


def _score_file(run: _Run, video: Path, audio: Path | None) -> None:
    from lipsync.clips.sources import read_file

    start_s = time.monotonic()
    run.score(read_file(video, audio))
    seconds = time.monotonic() - start_s
    print(f"{run.end_s:.1f} s in {seconds:.1f} s, {run.end_s / seconds:.1f} x real time", file=sys.stderr)


def _score_address(run: _Run, args: argparse.Namespace, stop: StopFlag) -> None:
    from lipsync.clips.live import LiveAddress

    run.score_live(LiveAddress(args.video, args.max_retries, lambda: bool(stop)))


def main(argv: Sequence[str] | None = None) -> int:
    """Scores until the end or a signal; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    check_usage(args)
    check_method(args.method, args.checkpoint)
    settings = load_settings(args.config, args.overrides)
    # Not before the arguments are read: PyAV and OpenCV.
    from lipsync.clips.fetching import fetched_file
    from lipsync.clips.live import GaveUpError
    from lipsync.clips.sources import open_devices

    with ExitStack() as stack:
        # Fetched where a signal still ends the program at once.
        video = args.video
        if isinstance(video, Address):
            video = stack.enter_context(fetched_file(video)) or video
        stop = stack.enter_context(StopFlag())
        devices = stack.enter_context(open_devices(args.camera, args.microphone)) if args.camera else None
        stack.enter_context(native_silence())
        run = _Run(args, settings, stop)
        try:
            if devices is not None:
                run.score(devices.pieces())
            elif isinstance(video, Address):
                _score_address(run, args, stop)
            else:
                _score_file(run, video, args.audio)
        except GaveUpError as error:
            print(f"error: {error}", file=sys.stderr)
            return ExitCode.SOME_FAILED
    if stop:
        return ExitCode.STOPPED
    return ExitCode.DONE if run.num_scored else ExitCode.SOME_FAILED


if __name__ == "__main__":
    sys.exit(cli.run(main))
