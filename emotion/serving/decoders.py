"""The server's side of the processes that decode: it starts, asks and ends them (see `decoding`)."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion.logger_config import get_logger
from emotion.serving.config import ServerConfig
from emotion.serving.memory import MemoryFile, SharedBlock
from emotion.serving.pictures import UPLOAD_LONGEST_PX, WHOLE_SHARE
from emotion.serving.refusals import CODES, Refusal
from facevox.limits import OUT_OF_MEMORY_CODE
from facevox.signals import STOP_SIGNALS

FRAME_S = 1.0  # of decoding a frame of a camera; a camera's own take milliseconds
PICTURE_S = 10.0  # of an uploaded picture, or of a video until its first frame; most take less than 1 s
# A video that takes longer than this many times the allowed length is given up: it may have thousands of
# frames a second, whatever its header states.
LARGEST_SLOWNESS = 2.0
LATE_S = 0.5  # a process that its own alarm did not end by then is ended from here
START_S = 60.0  # imports from a cold disk
ORDER_S = 10.0  # of a fork, or of ending a process
VIDEO_RATE_HZ = 5.0  # frames of a video that are analysed a second: expressions last longer
_PROGRAM = """
import sys
sys.path[:] = sys.argv[2:]
from emotion.serving.decoding import main
main(int(sys.argv[1]))
"""
# Decoders need no threads of NumPy, and a process with threads is forked badly; an arena of glibc for each
# thread would take address space that nobody uses.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
_PIXEL_BYTES = 3


class DecoderStarter:
    """The process that forks decoders; it is started when it is needed, and again if it ended.

    For any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: Connection | None = None
        self._is_ready = False
        self._generation = 0  # of the process: decoders of a former one are not known to the present one
        self.is_closed = False

    def start(self) -> None:
        """Starts the process unless it runs; others wait until it is ready, so that this takes no time."""
        with self._lock:
            if self._control is None and not self.is_closed:
                self._launch()

    def _launch(self) -> Connection:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), *sys.path]
        # Blocked until it ignores them: schedulers signal the whole group, but the server decides.
        former = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            self._process = subprocess.Popen(
                command,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, **_ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)
            theirs.close()
        self._control = Connection(ours.detach())
        self._is_ready = False
        self._generation += 1
        return self._control

    def _ready(self) -> Connection:
        """The connection to the process, once it is ready; raises Refusal (stopping), EOFError, OSError."""
        if self.is_closed:
            raise Refusal("stopping")
        control = self._control or self._launch()
        if not self._is_ready:
            _receive(control, START_S)
            self._is_ready = True
        return control

    def _drop(self) -> None:
        """Closes the connection, at which the process ends its decoders and itself."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LATE_S)
            self._process.kill()
            self._process.wait()
            self._process = None

    def fork(self, kind: str, descriptors: Sequence[int], numbers: Sequence[int]) -> tuple[int, int]:
        """Starts a decoder; returns its process and the generation of the starter.

        Raises:
            Refusal: stopping, failed.
        """
        with self._lock:
            for _ in range(2):  # the second time with a new process, if the former one was ended
                try:
                    control = self._ready()
                    control.send_bytes(json.dumps([kind, *numbers]).encode())
                    for descriptor in descriptors:
                        reduction.send_handle(control, descriptor, 0)
                    return int(_receive(control, ORDER_S)[1]), self._generation
                except (EOFError, OSError):
                    self._drop()
        get_logger("server").error("no process could be started to decode a picture")
        raise Refusal("failed")

    def end(self, pid: int, generation: int) -> int:
        """Ends a decoder, once for each; returns its exit code, that of its own end if it had ended."""
        with self._lock:
            if self._control is None or generation != self._generation:
                return -signal.SIGKILL  # it ended with its starter, or will by its own alarm
            try:
                self._control.send_bytes(json.dumps(["end", pid]).encode())
                return int(_receive(self._control, ORDER_S)[1])
            except (EOFError, OSError):
                self._drop()
                return -signal.SIGKILL

    def close(self) -> None:
        """Ends all decoders; none is started after this."""
        with self._lock:
            self.is_closed = True
            self._drop()


class Decoder:
    """A process that decodes, and the connection to it; for one thread, except for `end`."""

    def __init__(
        self, starter: DecoderStarter, kind: str, descriptors: Sequence[int], numbers: Sequence[int]
    ) -> None:
        self._starter = starter
        self._lock = threading.Lock()
        self._exit_code: int | None = None
        self.is_stopped = False  # by `end`
        ours, theirs = socket.socketpair()
        with theirs:
            self._pipe = Connection(ours.detach())
            try:
                self._process = starter.fork(kind, (theirs.fileno(), *descriptors), numbers)
            except BaseException:
                self._pipe.close()
                raise

    def ask(self, message: Sequence[int]) -> None:
        """Sends a message.

        Raises:
            OSError: The process has ended.
        """
        self._pipe.send_bytes(json.dumps(message).encode())

    def answer(self, limit_s: float) -> list[Any]:
        """The next answer of the process, which is ended if there is none.

        Raises:
            Refusal: That of the process; too_costly, failed where it ended; stopping where `end` was called.
        """
        try:
            kind, *numbers = _receive(self._pipe, limit_s)
        except TimeoutError:
            self._end()
            raise Refusal("too_costly") from None
        except (EOFError, OSError, ValueError):
            code = self._end()
            if self.is_stopped or self._starter.is_closed:
                raise Refusal("stopping") from None
            if code in (-signal.SIGALRM, OUT_OF_MEMORY_CODE):
                raise Refusal("too_costly") from None
            get_logger("server").warning("a process ended while it decoded: exit code %d", code)
            raise Refusal("failed") from None
        if kind == "refused":
            (code,) = numbers
            raise Refusal(code if code in CODES else "failed")
        return [kind, *numbers]

    @property
    def has_ended(self) -> bool:
        """True after the process ended."""
        return self._exit_code is not None

    def _end(self) -> int:
        with self._lock:
            if self._exit_code is None:
                self._exit_code = self._starter.end(*self._process)
            return self._exit_code

    def end(self) -> None:
        """Ends the process, for any thread: one that waits for an answer gets Refusal (stopping)."""
        self.is_stopped = True
        self._end()

    def close(self) -> None:
        """Ends the process and closes the connection."""
        self._end()
        self._pipe.close()


class FrameDecoder:
    """Decodes the frames of cameras in a process that is replaced when it ends; for one thread.

    Args:
        starter: Of the process.
        config: The limits.
    """

    def __init__(self, starter: DecoderStarter, config: ServerConfig) -> None:
        self._starter = starter
        self._limits = (config.max_frame_bytes, config.max_frame_pixels)
        self._block = SharedBlock(config.max_frame_bytes + _PIXEL_BYTES * config.max_frame_pixels)
        self._decoder: Decoder | None = None

    def start(self) -> Decoder:
        """The process, started if there is none; raises Refusal (stopping, failed)."""
        if self._decoder is None:
            decoder = Decoder(self._starter, "frames", (self._block.descriptor,), self._limits)
            try:
                decoder.answer(ORDER_S)
            except Refusal:
                decoder.close()
                raise
            self._decoder = decoder
        return self._decoder

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """A frame as (H, W, 3) uint8 RGB, upright; valid until the next one is decoded.

        Raises:
            Refusal: As `pictures.decode_frame`; too_costly, failed, stopping.
        """
        max_bytes = self._limits[0]
        if len(data) > max_bytes:
            raise Refusal("too_large")
        self._block.bytes[: len(data)] = data
        decoder = self._ask(len(data))
        try:
            _, height, width = decoder.answer(FRAME_S + LATE_S)
            return _pixels(self._block, max_bytes, height, width)
        finally:
            if decoder.has_ended:
                self.close()

    def _ask(self, num_bytes: int) -> Decoder:
        """Sends the order to the process, or to a new one where that has ended."""
        decoder = self.start()
        try:
            decoder.ask([num_bytes])
        except OSError:  # it was ended while it had nothing to do
            self.close()
            decoder = self.start()
            with contextlib.suppress(OSError):  # its answer is that it ended
                decoder.ask([num_bytes])
        return decoder

    def close(self) -> None:
        """Ends the process; a later frame has a new one."""
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None


class UploadDecoder:
    """Decodes one upload in a process of its own; for one thread, except for `end`.

    Args:
        starter: Of the process.
        file: The upload.
        config: The limits.
    """

    def __init__(self, starter: DecoderStarter, file: MemoryFile, config: ServerConfig) -> None:
        self._starter = starter
        self._limits = (config.max_upload_pixels, config.max_frame_pixels, config.max_video_s)
        # The largest pictures that `pictures.decode_upload` makes, and frames of a video.
        most_pixels = max(
            (2 * UPLOAD_LONGEST_PX) ** 2, config.max_upload_pixels // WHOLE_SHARE, config.max_frame_pixels
        )
        self._block = SharedBlock(_PIXEL_BYTES * most_pixels)
        self._descriptor = os.dup(file.descriptor)  # the file may be closed while a thread is in `open`
        self._decoder: Decoder | None = None
        self._is_stopped = False

    def open(self) -> tuple[NDArray[np.uint8], int, int] | float:
        """A picture with its upright width and height (see `pictures.decode_upload`); or a video's duration.

        The duration is that in the header, 0 where it has none.

        Raises:
            Refusal: It cannot be decoded, or not within the limits; stopping, failed.
        """
        self._decoder = Decoder(
            self._starter, "upload", (self._block.descriptor, self._descriptor), self._limits
        )
        if self._is_stopped:
            raise Refusal("stopping")
        kind, *numbers = self._decoder.answer(PICTURE_S + LATE_S)
        if kind == "video":
            return float(numbers[0])
        height, width, whole_width, whole_height = numbers
        return _pixels(self._block, 0, height, width), int(whole_width), int(whole_height)

    def next_frame(self) -> tuple[NDArray[np.uint8], float] | int:
        """The next frame of a video and its time, valid until the next call; at the end a number of frames.

        That number is of the video's length at `VIDEO_RATE_HZ`.

        Raises:
            Refusal: It cannot be decoded, or not within the limits.
        """
        assert self._decoder is not None, "opened before"
        with contextlib.suppress(OSError):  # a process that ended gives no answer
            self._decoder.ask([])
        kind, *numbers = self._decoder.answer(LARGEST_SLOWNESS * self._limits[-1] + PICTURE_S + LATE_S)
        if kind == "end":
            return int(numbers[0])
        height, width, time_s = numbers
        return _pixels(self._block, 0, height, width), float(time_s)

    def end(self) -> None:
        """Ends the process, for any thread: one that waits gets Refusal (stopping)."""
        self._is_stopped = True
        if self._decoder is not None:
            self._decoder.end()

    def close(self) -> None:
        """Ends the process and releases what it had."""
        os.close(self._descriptor)
        if self._decoder is not None:
            self._decoder.close()


def _receive(pipe: Connection, limit_s: float) -> list[Any]:
    """A message.

    Raises:
        TimeoutError: None came in time.
        EOFError, OSError: The other end is closed.
        ValueError: It is no message.
    """
    if not pipe.poll(limit_s):
        raise TimeoutError
    message = json.loads(pipe.recv_bytes())
    if not isinstance(message, list) or not message:
        raise ValueError("no message")
    return message


def _pixels(block: SharedBlock, start: int, height: Any, width: Any) -> NDArray[np.uint8]:
    """The picture in a block; raises Refusal (failed) for a size that it cannot have."""
    size = int(height) * int(width) * _PIXEL_BYTES
    if min(height, width) < 1 or size > len(block.bytes) - start:
        raise Refusal("failed")
    return np.frombuffer(block.bytes, np.uint8, size, start).reshape(int(height), int(width), _PIXEL_BYTES)
