"""The pictures of videos, by presentation time, as a player shows them."""

import contextlib
import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from av.error import FFmpegError

from facevox.media.container import (
    MAX_GAP_S,
    Clock,
    MediaError,
    decoded_frames,
    is_joined,
    open_media,
    seek,
    start_of,
    stream_packets,
)
from facevox.media.display import Colour, PictureMaker, Turn, pixel_aspect, square_size
from facevox.media.fields import deinterlaced, stated_order
from facevox.media.streams import played_stream

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

MAX_FRAME_PIXELS = 8192 * 8192  # 8K film is 8192 x 4320; refused by the header, before decoding
# High-speed recordings are played slower than that. A second of pictures of a few bytes could take hours.
MAX_RATE_HZ = 1000.0
# At any rate, as stamps of a damaged file may stand still: half a minute of decoding small packets.
FREE_PIXELS, FREE_FRAMES = 1.2e11, 100_000.0
# A time between frames that differs from the median by more than this share of it is not rounding (1 ms in
# Matroska: 6 % at 60 frames a second). One in fifty may: files that were cut have an odd one.
RATE_TOLERANCE = 0.2
ODD_FRAMES = 0.02
MAX_TIMES_LOOKED_AT = 20_000


@dataclass(frozen=True)
class MediaInfo:
    """Information from the headers of a media file; sizes are as displayed."""

    has_video: bool
    has_audio: bool
    width: int
    height: int
    duration_s: float  # 0 if the headers do not have it; joined recordings are not added up
    rate_hz: float  # average frames a second; 0 if the headers do not have it
    num_frames: int  # 0 if the headers do not have it
    audio_rate_hz: int
    num_audio_tracks: int
    first_picture_s: float = 0.0  # its presentation time
    is_variable_rate: bool | None = None  # whether frames come at uneven times; None: not checked
    time_base: Fraction = Fraction(1, 90_000)  # seconds of a tick of its pictures' time stamps


@dataclass(frozen=True)
class Frame:
    """A picture of a video."""

    image: "NDArray[np.uint8]"  # (H, W, 3), RGB or BGR as requested, as a player shows it
    time_s: float  # presentation time; with a rate: index / rate_hz after the start
    index: int  # in presentation order, from 0; with a rate: the index at that rate
    source_s: float  # its own presentation time, also with a rate
    duration_s: float  # by its packet, else by the average rate; the next picture may come at another time


def probe(path: str | Path, *, with_times: bool = False) -> MediaInfo:
    """Information from the headers of `path`; one frame is decoded for its rotation.

    Args:
        path: The file.
        with_times: Also read the time stamps of its pictures: the whole file is read, but not decoded.

    Raises:
        MediaError: Not a media file.
    """
    with open_media(path) as container:
        sounds = container.streams.audio
        has_audio, audio_rate_hz = False, 0
        with contextlib.suppress(MediaError):  # as for pictures: decodable ones
            audio_rate_hz = int(played_stream(container, "audio", path).rate or 0)
            has_audio = True
        duration_s = (container.duration or 0) / av.time_base
        if is_joined(container):  # the header counts from the first stamp to the last, across the joints
            duration_s = _read_duration_s(path)
        try:
            stream = played_stream(container, "video", path)
        except MediaError:
            return MediaInfo(False, has_audio, 0, 0, duration_s, 0.0, 0, audio_rate_hz, len(sounds))
        width, height, rate = stream.width, stream.height, stream.average_rate
        num_frames = stream.frames
        frame: av.VideoFrame | None = None
        stamps: list[int] = []
        for packet in stream_packets(container, stream):
            if packet.pts is not None:
                stamps.append(packet.pts)
            if frame is None:
                with contextlib.suppress(FFmpegError):
                    frame = next(iter(packet.decode()), None)
            if frame is not None and not (with_times and len(stamps) < MAX_TIMES_LOOKED_AT):
                break
        width, height = square_size(width, height, pixel_aspect(stream))
        if frame is not None and Turn.of(frame).is_transposed:
            width, height = height, width
        return MediaInfo(
            True, has_audio, width, height, duration_s, float(rate or 0), num_frames, audio_rate_hz,
            len(sounds), max(((frame and frame.time) or 0.0) - start_of(container), 0.0),
            _is_uneven(stamps) if with_times else None, stream.time_base or MediaInfo.time_base,
        )  # fmt: skip


def _read_duration_s(path: str | Path) -> float:
    """Duration by the time stamps of all packets of the pictures, or of the sound if there are none."""
    end_s = 0.0
    with open_media(path) as container:
        for kind in ("video", "audio"):
            with contextlib.suppress(MediaError):
                stream = played_stream(container, kind, path)
                for packet in stream_packets(container, stream):
                    if packet.pts is not None and packet.time_base is not None:
                        end = (packet.pts + (packet.duration or 0)) * packet.time_base
                        end_s = max(end_s, float(end) - start_of(container))
                break
    return end_s


def _is_uneven(stamps: list[int]) -> bool:
    steps = np.diff(np.sort(np.array(stamps, np.float64)))
    if len(steps) < 2:
        return False
    usual = float(np.median(steps))
    return bool((np.abs(steps - usual) > RATE_TOLERANCE * usual).mean() > ODD_FRAMES)


def _frame_s(stream: "VideoStream") -> float:
    """Duration of a frame of the stream, from its average rate."""
    return min(float(1 / stream.average_rate), MAX_GAP_S) if stream.average_rate else 0.04


def _check_size(path: str | Path, width: int, height: int, aspect: Fraction) -> None:
    shown_width, shown_height = square_size(width, height, aspect)
    if shown_width * shown_height > MAX_FRAME_PIXELS:
        raise MediaError(f"{path}: frames of {shown_width} x {shown_height} pixels are too large")


def _timed_frames(
    container: "InputContainer",
    stream: "VideoStream",
    path: str | Path,
    start_s: float,
    check: Callable[[], None],
) -> Iterator[tuple[float, av.VideoFrame]]:
    """The frames of a video stream with their presentation times in seconds, never going backwards."""
    _check_size(path, stream.width, stream.height, pixel_aspect(stream))
    clock = Clock(path, container)
    step_s = _frame_s(stream)
    last_s: float | None = None
    most = min(FREE_PIXELS / max(stream.width * stream.height, 1), FREE_FRAMES)  # frames up to here
    for count, frame in enumerate(
        deinterlaced(decoded_frames(container, stream, check), stated_order(stream))
    ):
        _check_size(path, frame.width, frame.height, pixel_aspect(stream))
        if last_s is None:
            last_s = clock.time_s(frame.time, start_s)
        else:
            time_s = max(clock.time_s(frame.time, last_s, step_s), last_s)
            most += MAX_RATE_HZ * (time_s - last_s)
            last_s = time_s
        if count > most:
            raise MediaError(f"{path}: more than {MAX_RATE_HZ:.0f} pictures a second at {last_s:.0f} s")
        yield last_s, frame


def iter_frames(
    path: str | Path,
    *,
    rate_hz: float | None = None,
    start_s: float = 0.0,
    max_frames: int | None = None,
    colour: Colour = "rgb",
    threads: int = 1,
    check: Callable[[], None] = lambda: None,
) -> Generator[Frame, None, None]:
    """The frames of a video in presentation order, as a player shows them: upright, with square pixels.

    Args:
        path: The video.
        rate_hz: None: every frame with its own time. A rate: frames at k / rate_hz, each the frame nearest
            in time, so that videos of any frame rate, even a variable one, are treated alike.
        start_s: Frames before this time are left out (skipped by seeking where the file has an index).
        max_frames: Stop after `max_frames` frames; the rest is not decoded.
        colour: Order of the channels.
        threads: Decoder threads; 1 suits worker processes.
        check: Called before each packet, of which many may pass between two frames at a low rate; an
            exception that it raises ends the reading.

    Raises:
        MediaError: No such file, no video stream, no frame can be decoded, or the time stamps leave a gap
            of more than `MAX_GAP_S`. A file that breaks off later gives the frames before that.
    """
    count = 0
    with open_media(path) as container:
        stream = played_stream(container, "video", path)
        stream.codec_context.thread_count = threads
        seek(container, start_s)
        maker = PictureMaker(stream, colour)
        timed = _timed_frames(container, stream, path, start_s, check)
        frames = _every(timed, start_s) if rate_hz is None else _at_rate(timed, rate_hz, start_s, stream)
        usual_s = _frame_s(stream)
        for index, time_s, source_s, frame in frames:
            duration_s = float(frame.duration * (frame.time_base or 0)) or usual_s
            yield Frame(maker.picture(frame), time_s, index, source_s, duration_s)
            count += 1
            if max_frames is not None and count >= max_frames:
                return
    if count == 0 and start_s == 0:
        raise MediaError(f"{path}: no frame can be decoded")


def _every(
    timed: Iterator[tuple[float, av.VideoFrame]], start_s: float
) -> Iterator[tuple[int, float, float, av.VideoFrame]]:
    later = ((time_s, frame) for time_s, frame in timed if time_s >= start_s - 1e-6)
    for index, (time_s, frame) in enumerate(later):
        yield index, time_s, time_s, frame


def _at_rate(
    timed: Iterator[tuple[float, av.VideoFrame]], rate_hz: float, start_s: float, stream: "VideoStream"
) -> Iterator[tuple[int, float, float, av.VideoFrame]]:
    """The frame nearest to start_s + k / rate_hz for each k; the last frame is shown for its duration."""
    previous: tuple[float, av.VideoFrame] | None = None
    index = 0
    for time_s, frame in timed:
        if previous is not None:
            # Up to half way between two frames the earlier one is the nearer.
            middle_s = (previous[0] + time_s) / 2
            while start_s + index / rate_hz < middle_s - 1e-9:
                yield index, start_s + index / rate_hz, *previous
                index += 1
        previous = (time_s, frame)
    if previous is None:
        return
    while start_s + index / rate_hz < previous[0] + _frame_s(stream) - 1e-6:
        yield index, start_s + index / rate_hz, *previous
        index += 1


def phase_s(info: MediaInfo, rate_hz: float) -> float:
    """The time from 0 to 1 / rate_hz at which frames of `iter_frames` at that rate are to start.

    Pictures that come at the rate, or at a multiple of it, are then shown at their own times, and not up to
    half a step late or early.
    """
    return math.fmod(info.first_picture_s, 1 / rate_hz)


def read_first_frame(path: str | Path, colour: Colour = "rgb") -> Frame:
    """The first frame of a video; nothing more is decoded. Raises MediaError as `iter_frames`."""
    return next(iter_frames(path, max_frames=1, colour=colour))
