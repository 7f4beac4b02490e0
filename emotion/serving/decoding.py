"""The processes that decode what strangers sent. They can be ended, and the system bounds their memory.

The server starts one of them, the starter, which imports the decoders and then forks a process for each
order: that takes milliseconds, so one that was ended is replaced at once. Nothing here imports a web server
or an interpreter of networks. Orders and answers are short JSON texts; pictures go through shared memory.
"""

import json
import math
import mmap
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import av
import numpy as np
from PIL import AvifImagePlugin, Image

from emotion.serving.decoders import (
    FRAME_S,
    LARGEST_SLOWNESS,
    PICTURE_S,
    VIDEO_RATE_HZ,
)
from emotion.serving.memory import MemoryFile
from emotion.serving.pictures import decode_frame, decode_upload, read_header
from emotion.serving.refusals import Refusal
from facevox.errors import UserError
from facevox.limits import MemoryLimit
from facevox.media import MediaError, iter_frames, open_media, played_stream
from facevox.media.display import pixel_aspect, square_size
from facevox.signals import ignore_stop_signals
from facevox.workers import reuse_large_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

UPLOAD_NICENESS = 5  # an upload leaves the processor to the frames of cameras
# Phones record up to 240. Else frames of a few bytes whose time stamps hardly advance would fill that time.
LARGEST_RATE_HZ = 250.0
# Memory of a decoder, on top of what it has at its start: 200 MB for frames and 600 MB for uploads with the
# limits of .env.example. Whole formats take up to 25 bytes a pixel, HEIC 13 (see pictures.py); a video keeps
# up to 16 pictures of at most 6 bytes a pixel.
SPARE_BYTES = 100_000_000
FRAME_PIXEL_BYTES, UPLOAD_PIXEL_BYTES, VIDEO_PIXEL_BYTES = 25, 13, 100
Answer = list[str | float]


def main(descriptor: int) -> None:
    """The starter: forks and ends decoders by order, until the server has closed its end or is gone.

    Args:
        descriptor: Of this end of the connection to the server.
    """
    ignore_stop_signals()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would have pictures in it
    reuse_large_blocks()
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.init()
    import pi_heif  # noqa: F401  # here once, and not in each process that reads a HEIC

    control = Connection(descriptor)
    pids: set[int] = set()
    try:
        _send(control, ["ready"])
        while True:
            kind, *numbers = json.loads(control.recv_bytes())
            if kind == "end":
                (pid,) = numbers
                pids.discard(pid)
                _send(control, ["ended", _end(pid)])
                continue
            descriptors = [reduction.recv_handle(control) for _ in range(2 + (kind == "upload"))]
            pid = os.fork()
            if pid == 0:
                control.close()
                _run_decoder(kind, descriptors, *numbers)
            pids.add(pid)
            for number in descriptors:
                os.close(number)
            _send(control, ["started", pid])
    except (EOFError, OSError):
        pass
    finally:
        for pid in pids:
            _end(pid)


def _end(pid: int) -> int:
    """Ends a process; its exit code is that of its own end, if that came before."""
    os.kill(pid, signal.SIGKILL)  # until it is waited for, the number is nobody else's
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _run_decoder(kind: str, descriptors: list[int], *numbers: int) -> None:
    code = 1
    try:
        pipe, block = Connection(descriptors[0]), mmap.mmap(descriptors[1], 0)
        if kind == "frames":
            serve_frames(pipe, block, *numbers)
        else:
            serve_upload(pipe, block, MemoryFile(descriptors[2]), *numbers)
        code = 0
    except (EOFError, OSError):
        code = 0  # the server closed its end
    finally:
        os._exit(code)


def serve_frames(pipe: Connection, block: mmap.mmap, max_bytes: int, max_pixels: int) -> None:
    """Decodes frames until the pipe is closed.

    Args:
        pipe: Brings the number of bytes of a frame; gets `["frame", height, width]` or `["refused", code]`.
        block: The frame at its start; its pixels from `max_bytes` on.
        max_bytes, max_pixels: Of a frame.
    """
    MemoryLimit().set(SPARE_BYTES + FRAME_PIXEL_BYTES * max_pixels)

    def answer(num_bytes: int) -> Answer:
        image = decode_frame(block[:num_bytes], max_pixels)
        return ["frame", *_put(image, block, max_bytes)]

    _send(pipe, ["ready"])
    while True:
        (num_bytes,) = json.loads(pipe.recv_bytes())
        _set_alarm(FRAME_S)
        reply = _checked(lambda: answer(num_bytes))  # noqa: B023  # called at once
        _set_alarm(0)
        _send(pipe, reply)


def serve_upload(
    pipe: Connection,
    block: mmap.mmap,
    file: MemoryFile,
    max_pixels: int,
    max_frame_pixels: int,
    max_video_s: int,
) -> None:
    """Decodes an upload; each further part of it when a message comes.

    Args:
        pipe: Gets `["picture", height, width, whole width, whole height]`; or `["video", duration_s]`, then
            `["frame", height, width, time_s]` of each frame and `["end", number of frames of its length]`; or
            `["refused", code]`.
        block: Gets the pixels.
        file: The upload.
        max_pixels: Of a picture.
        max_frame_pixels, max_video_s: Of a video.
    """
    os.nice(UPLOAD_NICENESS)
    needed = max(UPLOAD_PIXEL_BYTES * max_pixels, VIDEO_PIXEL_BYTES * max_frame_pixels)
    MemoryLimit().set(2 * SPARE_BYTES + 2 * file.size + needed)
    _set_alarm(PICTURE_S)
    answers = _decode_parts(block, file, max_pixels, max_frame_pixels, max_video_s)
    while True:
        reply = _checked(lambda: next(answers))
        _send(pipe, reply)
        if reply[0] in ("refused", "picture", "end"):
            return
        pipe.recv_bytes()


def _decode_parts(
    block: mmap.mmap, file: MemoryFile, max_pixels: int, max_frame_pixels: int, max_video_s: int
) -> Iterator[Answer]:
    data = file.read()
    try:
        read_header(data)
    except Refusal as refusal:
        if refusal.code != "not_an_image":
            raise
    else:
        image, width, height = decode_upload(data, max_pixels)
        yield ["picture", *_put(image, block, 0), width, height]
        return
    del data
    yield ["video", _check_video(file, max_frame_pixels, max_video_s)]
    _set_alarm(LARGEST_SLOWNESS * max_video_s + PICTURE_S)  # `VideoBounds` ends what can be ended before
    bounds = VideoBounds(max_video_s)
    # One frame more than is allowed shows that there are more.
    most = int(max_video_s * VIDEO_RATE_HZ) + 1
    index, last_s = 0, -math.inf
    try:
        for frame in iter_frames(file.path, rate_hz=VIDEO_RATE_HZ, max_frames=most, check=bounds):
            bounds.check_time()  # a frame that is repeated for long comes without packets
            index = frame.index
            if index >= max_video_s * VIDEO_RATE_HZ:
                raise Refusal("too_long")  # whatever its header states
            if frame.source_s == last_s:
                continue  # it is still shown, and was analysed
            last_s = frame.source_s
            height, width = frame.image.shape[:2]
            if width * height > max_frame_pixels:  # the size may change on the way
                raise Refusal("too_many_pixels")
            yield ["frame", *_put(frame.image, block, 0), last_s]
    except UserError:
        raise Refusal("not_media") from None
    yield ["end", index + 1]


class VideoBounds:
    """Called before each packet of a video is decoded: ends the decoding when it must not go on.

    There may be any number of packets between two of the frames that are analysed.

    Args:
        max_video_s: The allowed length; the limits count from now.
    """

    def __init__(self, max_video_s: float) -> None:
        self._end_s = time.perf_counter() + LARGEST_SLOWNESS * max_video_s
        self._most_packets = LARGEST_RATE_HZ * max_video_s
        self._num_packets = 0

    def __call__(self) -> None:
        """Counts a packet.

        Raises:
            Refusal: too_long.
        """
        self._num_packets += 1
        if self._num_packets > self._most_packets:
            raise Refusal("too_long")
        self.check_time()

    def check_time(self) -> None:
        """Raises Refusal (too_long) after the allowed time."""
        if time.perf_counter() > self._end_s:
            raise Refusal("too_long")


def _check_video(file: MemoryFile, max_frame_pixels: int, max_video_s: int) -> float:
    """The duration by the header, 0 where it has none; size and duration are compared with the limits.

    Raises:
        Refusal: not_media, too_many_pixels, too_long, odd_shape.
    """
    try:
        with open_media(file.path) as container:
            stream = played_stream(container, "video", file.path)
            width, height = square_size(stream.width, stream.height, pixel_aspect(stream))
            duration_s = (container.duration or 0) / av.time_base
    except MediaError as error:
        raise Refusal("too_costly" if isinstance(error.__context__, MemoryError) else "not_media") from None
    if width * height > max_frame_pixels:
        raise Refusal("too_many_pixels")
    if duration_s > max_video_s + 1 / VIDEO_RATE_HZ:
        raise Refusal("too_long")
    return duration_s


def _checked(work: Callable[[], Answer]) -> Answer:
    """The answer of `work`, or its refusal."""
    try:
        return work()
    except Refusal as refusal:
        return ["refused", refusal.code]
    except MemoryError:
        return ["refused", "too_costly"]
    except Exception:
        return ["refused", "failed"]


def _put(image: "NDArray[np.uint8]", block: mmap.mmap, start: int) -> tuple[int, int]:
    """Writes (H, W, 3) pixels into the block; returns height and width."""
    if image.nbytes > len(block) - start:
        raise Refusal("too_many_pixels")
    np.copyto(np.frombuffer(block, np.uint8, image.nbytes, start).reshape(image.shape), image)
    height, width = image.shape[:2]
    return height, width


def _send(pipe: Connection, message: Answer) -> None:
    pipe.send_bytes(json.dumps(message).encode())


def _set_alarm(seconds: float) -> None:
    """Lets the system end this process after that time, also within native code; 0: no more."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
