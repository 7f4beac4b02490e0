"""Score a video file or a camera with its microphone while it plays: a line a second on the last 4.5 s.

    python lipsync/realtime.py --video talk.mp4
    python lipsync/realtime.py --video talk.mp4 --json
    python lipsync/realtime.py --camera /dev/video0 --microphone default --max_duration_s 60

A camera is read through Video4Linux and a microphone through ALSA, so that works on Linux; pictures and
sound are put on one clock by when they arrive, so what the devices themselves delay counts as offset. A file
is read as fast as it can be. offset_ms > 0 says that the audio is early.
Writes nothing. Exit codes: 0 done, 1 not once could anything be told, 2 bad usage or input, 75 stopped by a
signal.
"""

from __future__ import annotations

import argparse
import json
import math
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facevox import cli
from facevox.errors import ExitCode, UserError
from lipsync.clips.clock import FRAME_HZ
from lipsync.clips.sounds import SAMPLE_RATE_HZ
from lipsync.settings import add_config_arguments, load_settings

if TYPE_CHECKING:
    from av.container import InputContainer
    from numpy.typing import NDArray

    from lipsync.sync.streaming import LiveScore, SyncStream

    Content = NDArray[Any]  # a picture or samples

BLOCK_S = 0.1  # of sound handed on at a time
QUEUE_SIZE = 64  # pictures and blocks that may wait; 2 s
GAP_S = 0.1  # a microphone that lags the clock by more has lost sound; silence takes its place

Piece = tuple[str, "Content"]  # "frame" or "sound", and the picture or the samples


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
        help="best_model.pth of train.py (default: none, lip movement against loudness)",
    )
    add(
        "--max_duration_s",
        type=cli.positive_float,
        metavar="S",
        help="stop after so many seconds of material (default: at the end, or at Ctrl-C)",
    )
    add("--json", action="store_true", help="print one JSON object a line on stdout")
    add_config_arguments(parser)
    return parser


def read_file(video: Path, audio: Path | None) -> Iterator[Piece]:
    """Pictures at 25 a second and blocks of sound of a file, in the order of their times."""
    from facevox.media import iter_audio, iter_frames

    sound = iter_audio(audio or video, SAMPLE_RATE_HZ)
    heard, is_over = 0, False
    for frame in iter_frames(video, rate_hz=FRAME_HZ):
        while not is_over and heard <= (frame.index + 1) / FRAME_HZ * SAMPLE_RATE_HZ:
            block = next(sound, None)
            is_over = block is None
            if block is not None:
                heard += len(block)
                yield "sound", block
        yield "frame", frame.image


class LiveDevices:
    """A camera and a microphone, each read by a thread; a context manager.

    Args:
        camera: An opened container with pictures.
        microphone: An opened container with sound.
    """

    def __init__(self, camera: InputContainer, microphone: InputContainer) -> None:
        self._camera, self._microphone = camera, microphone
        self._arrived: queue.Queue[tuple[str, float, Any]] = queue.Queue(QUEUE_SIZE)
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._read, args=(what, source), daemon=True)
            for what, source in (("frame", camera), ("sound", microphone))
        ]

    def __enter__(self) -> LiveDevices:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(timeout=2.0)
        for source in (self._camera, self._microphone):
            source.close()

    def _read(self, what: str, source: InputContainer) -> None:
        import av

        resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE_HZ)
        decoded = source.decode(video=0) if what == "frame" else source.decode(audio=0)
        try:
            for frame in decoded:
                now_s = time.monotonic()
                parts: list[Content]
                if isinstance(frame, av.AudioFrame):
                    frame.pts = None
                    parts = [part.to_ndarray()[0] for part in resampler.resample(frame)]
                else:
                    parts = [frame.to_ndarray(format="rgb24")]
                for part in parts:
                    self._put(what, now_s, part)
                if self._is_over.is_set():
                    return
        except Exception as error:
            self._put("error", time.monotonic(), error)
            return
        self._put("end", time.monotonic(), None)

    def _put(self, what: str, now_s: float, content: object) -> None:
        try:
            self._arrived.put((what, now_s, content), timeout=1.0)
        except queue.Full:  # the scorer does not keep up: the newest is dropped, the clock stays right
            return

    def pieces(self) -> Iterator[Piece]:
        """Pictures at 25 a second and sound, both from the first picture on, until a device ends.

        Raises:
            UserError: A device failed.
        """
        clock = _ArrivalClock()
        while True:
            try:
                what, now_s, content = self._arrived.get(timeout=5.0)
            except queue.Empty:
                raise UserError("camera and microphone gave nothing for 5 s") from None
            if what == "error":
                raise UserError(f"camera or microphone: {content}")
            if what == "end":
                return
            yield from clock.take(what, now_s, content)


class _ArrivalClock:
    """Puts pictures and sound that arrive at any pace on the clock that begins with the first picture."""

    def __init__(self) -> None:
        self._start_s: float | None = None
        self._num_frames = 0
        self._num_samples = 0

    def take(self, what: str, now_s: float, content: Content) -> Iterator[Piece]:
        """What belongs on the clock now that `content` arrived at `now_s`."""
        import numpy as np

        if self._start_s is None:
            if what == "sound":
                return  # before the first picture
            self._start_s = now_s
        elapsed_s = now_s - self._start_s
        if what == "frame":
            # The picture stands for every moment of the grid since the one before it.
            while self._num_frames <= elapsed_s * FRAME_HZ + 0.5:
                self._num_frames += 1
                yield "frame", content
            return
        start = round(elapsed_s * SAMPLE_RATE_HZ) - len(content)  # it arrives when its last sample was taken
        missing = start - self._num_samples
        if missing > GAP_S * SAMPLE_RATE_HZ or (self._num_samples == 0 and missing > 0):
            yield "sound", np.zeros(missing, np.float32)
            self._num_samples += missing
        elif self._num_samples == 0:
            content = content[-missing:] if missing else content
        if len(content):
            yield "sound", content
            self._num_samples += len(content)


def open_devices(camera: str, microphone: str) -> LiveDevices:
    """Opens a Video4Linux camera and an ALSA microphone.

    Raises:
        UserError: One of them is not there.
    """
    import av
    from av.error import FFmpegError

    opened = []
    for option, name, form in (("--camera", camera, "v4l2"), ("--microphone", microphone, "alsa")):
        try:
            opened.append(av.open(name, format=form))
        except (FFmpegError, ValueError, OSError) as error:
            for other in opened:
                other.close()
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(
                f"{option} {name}: cannot be opened ({reason}); see the devices of {form}"
            ) from None
    return LiveDevices(opened[0], opened[1])


def run_stream(
    pieces: Iterator[Piece], stream: SyncStream, max_duration_s: float | None
) -> Iterator[LiveScore]:
    """The verdicts on pieces as they come."""
    num_frames = 0
    for what, content in pieces:
        if what == "sound":
            yield from stream.push_sound(content)
            continue
        yield from stream.push_frame(content)
        num_frames += 1
        if max_duration_s is not None and num_frames >= max_duration_s * FRAME_HZ:
            break
    yield from stream.finish()


def as_plain(live: LiveScore) -> dict[str, object]:
    """A verdict as plain values."""
    from lipsync.sync.answers import without_nan

    judgement = live.score.judgement
    plain = {
        "start_s": live.start_s,
        "end_s": live.end_s,
        "score": round(judgement.score, 4),
        "offset_ms": round(judgement.offset_ms, 1) + 0.0,
        "verdict": judgement.verdict.kind,
        "reason": judgement.verdict.reason,
    }
    return {name: without_nan(value) for name, value in plain.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Scores until the end or a signal; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    if (args.video is None) == (args.camera is None):
        raise UserError("one of --video and --camera is wanted")
    if args.audio is not None and args.video is None:
        raise UserError("--audio goes with --video; the sound of a camera comes from --microphone")
    settings = load_settings(args.config, args.overrides)
    from contextlib import ExitStack

    from facevox.native_silence import native_silence
    from facevox.signals import StopFlag
    from lipsync.inference import LipSyncInference
    from lipsync.sync.streaming import SyncStream, live_text

    inference = LipSyncInference(args.checkpoint, settings=settings)
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
                inference.estimator,
                inference.calibration,
                max_faces=data.max_faces,
                crop_px=data.mouth_crop_px,
                num_mels=audio.num_mels,
                num_mfcc=audio.num_mfcc,
            )
        )
        start_s, end_s, num_told = time.monotonic(), 0.0, 0
        for live in run_stream(pieces, stream, args.max_duration_s):
            print(json.dumps(as_plain(live)) if args.json else live_text(live), flush=True)
            num_told += not math.isnan(live.score.judgement.score)
            end_s = live.end_s
            if stop:
                break
        seconds = time.monotonic() - start_s
        if args.video is not None:
            print(f"{end_s:.1f} s in {seconds:.1f} s, {end_s / seconds:.1f} x real time", file=sys.stderr)
    if stop:
        return ExitCode.STOPPED
    return ExitCode.DONE if num_told else ExitCode.SOME_FAILED


if __name__ == "__main__":
    sys.exit(cli.run(main))
