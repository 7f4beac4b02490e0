"""Pictures and sound of a file, or of a camera and a microphone, as pieces in the order of their times."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.error import FFmpegError

from facevox.errors import UserError
from facevox.media import iter_audio, iter_frames, phase_s, probe
from lipsync.clips.clock import FRAME_HZ
from lipsync.clips.sounds import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from av.container import InputContainer
    from numpy.typing import NDArray

    Content = NDArray[Any]  # a picture or samples

QUEUE_SIZE = 64  # pictures and blocks of sound that may wait; 2 s
GAP_S = 0.1  # a microphone that lags the clock by more has lost sound; silence replaces it

Piece = tuple[str, "Content"]  # "frame" or "sound", and the picture or the samples


def read_file(video: Path, audio: Path | None) -> Iterator[Piece]:
    """Pictures at 25 a second and blocks of sound of a file, in the order of their times."""
    start_s = phase_s(probe(video), FRAME_HZ)
    sound = iter_audio(audio or video, SAMPLE_RATE_HZ, start_s)
    num_samples, is_over = 0, False
    for frame in iter_frames(video, rate_hz=FRAME_HZ, start_s=start_s):
        while not is_over and num_samples <= (frame.index + 1) / FRAME_HZ * SAMPLE_RATE_HZ:
            block = next(sound, None)
            is_over = block is None
            if block is not None:
                num_samples += len(block)
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
        self._arrived: queue.Queue[tuple[str, float, Content | Exception | None]] = queue.Queue(QUEUE_SIZE)
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._read, args=(kind, source), daemon=True)
            for kind, source in (("frame", camera), ("sound", microphone))
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

    def _read(self, kind: str, source: InputContainer) -> None:
        """Queues what a device sends, then its error or None; runs in its own thread."""
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE_HZ)
        decoded = source.decode(video=0) if kind == "frame" else source.decode(audio=0)
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
                    self._put(kind, now_s, part)
                if self._is_over.is_set():
                    return
        except Exception as error:  # raised again by the thread that reads the pieces
            self._put(kind, time.monotonic(), error)
            return
        self._put(kind, time.monotonic(), None)

    def _put(self, kind: str, now_s: float, content: Content | Exception | None) -> None:
        try:
            self._arrived.put((kind, now_s, content), timeout=1.0)
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
                kind, now_s, content = self._arrived.get(timeout=5.0)
            except queue.Empty:
                raise UserError("camera and microphone sent nothing for 5 s") from None
            if isinstance(content, Exception):
                raise UserError(f"camera or microphone: {content}")
            if content is None:
                return
            yield from clock.take(kind, now_s, content)


class _ArrivalClock:
    """Puts pictures and sound that arrive at any pace on the clock that begins with the first picture."""

    def __init__(self) -> None:
        self._start_s: float | None = None
        self._num_frames = 0
        self._num_samples = 0

    def take(self, kind: str, now_s: float, content: Content) -> Iterator[Piece]:
        """The pieces up to `now_s`, at which `content` arrived."""
        if self._start_s is None:
            if kind == "sound":
                return  # before the first picture
            self._start_s = now_s
        elapsed_s = now_s - self._start_s
        if kind == "frame":
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
        UserError: One of them cannot be opened.
    """
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
