"""Reading and writing video and sound by presentation time: all media decoding of the project.

The clock: 0 is the moment at which a player starts the file, so pictures and sound of one file share
it whatever their own start times, edit lists or codec delays are. Where the time stamps jump back, as in
recordings that were joined byte by byte, each stream continues directly after the previous part.
"""

import contextlib
import math
import wave
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, overload

import av
import numpy as np
from av.error import FFmpegError

from facevox.errors import UserError, one_line
from facevox.files import replacing

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

MAX_FRAME_PIXELS = 8192 * 8192  # 8K film is 8192 x 4320; refused by the header, before decoding
# Sound that starts further than this from where all the sound before it ends leaves a real gap or
# overlap; below it the difference is the rounding of time stamps (1 ms in Matroska).
GAP_S = 0.02
RESET_S = 1.0  # stamps that jump back by more than this belong to another recording
# A longer gap before a picture or a sound is refused: it would be filled, and one wrong stamp would make
# days of silence or of a still picture.
MAX_GAP_S = 3600.0
# Formats that hold their media themselves. FFmpeg also reads play lists (concat, hls, dash, image2, ...),
# which would open other files of this machine under the name of a video.
FORMATS = (
    "mov", "matroska", "avi", "mpeg", "mpegts", "mpegvideo", "m4v", "asf", "flv", "rm", "mxf", "gxf",
    "dv", "nut", "nsv", "wtv", "h261", "h263", "h264", "hevc", "vvc", "av1", "obu", "ivf", "vc1", "dirac",
    "mjpeg", "yuv4mpegpipe", "ogg", "wav", "w64", "mp3", "flac", "aac", "ac3", "eac3", "dts", "truehd",
    "aiff", "au", "caf", "amr", "amrnb", "amrwb", "voc", "wv", "tta", "ape", "loas",
)  # fmt: skip
# Only these find the key frame before a time by an index. In others FFmpeg guesses a position by its
# stamp, which may be after the key frame, so that the pictures up to the next one would be lost.
INDEXED_FORMATS = frozenset({"mov", "mp4", "matroska", "webm", "avi"})
# A time between frames that differs from the median by more than this share of it is not rounding (1 ms in
# Matroska: 6 % at 60 frames a second). One in fifty may: files that were cut have an odd one.
RATE_TOLERANCE = 0.2
ODD_FRAMES = 0.02
MAX_TIMES_LOOKED_AT = 20_000
Colour = Literal["rgb", "bgr"]
_Packet = TypeVar("_Packet")

# Damaged files are common and reported in one line; FFmpeg's own lines would flood the log.
av.logging.set_level(av.logging.PANIC)


class MediaError(UserError):
    """A file whose pictures or sound cannot be read."""


@dataclass(frozen=True)
class MediaInfo:
    """Information from the headers of a media file; sizes are as displayed, after rotation."""

    has_video: bool
    has_audio: bool
    width: int
    height: int
    duration_s: float  # 0 if the headers do not have it; joined recordings are not added up
    rate_hz: float  # average frames a second; 0 if the headers do not have it
    num_frames: int  # 0 if the headers do not have it
    audio_rate_hz: int
    num_audio_tracks: int
    is_variable_rate: bool | None = None  # whether frames come at uneven times; None: not checked


@dataclass(frozen=True)
class Frame:
    """A picture of a video."""

    image: "NDArray[np.uint8]"  # (H, W, 3), RGB or BGR as requested, upright
    time_s: float  # presentation time
    index: int  # in presentation order, from 0; with a rate: the index at that rate


@contextlib.contextmanager
def open_media(path: str | Path) -> Iterator["InputContainer"]:
    """The opened container; every FFmpeg error inside becomes a MediaError naming the file."""
    file = Path(path)
    try:
        size = file.stat().st_size
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror or 'cannot be read'}") from None
    if size == 0:
        raise MediaError(f"{path}: the file is empty (0 bytes)")
    try:
        # "file:" keeps names such as "-x.mp4" or "http:x.mp4" from being read as options or addresses;
        # the whitelists keep play lists from reaching the network and other files.
        name = "file:" + str(file)
        options = {
            "protocol_whitelist": "file",
            "format_whitelist": ",".join(FORMATS),
            # Otherwise FFmpeg takes stamps of a joined recording that are far below the first for an
            # overflow and moves them 26 hours ahead. `Clock` also follows a true overflow.
            "correct_ts_overflow": "0",
        }
        with av.open(name, options=options, metadata_errors="ignore") as container:
            yield container
    except MediaError:
        raise
    except (FFmpegError, UnicodeError) as error:
        raise MediaError(f"{path}: not a readable media file: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or one_line(error)


@overload
def first_stream(container: "InputContainer", kind: Literal["video"], path: str | Path) -> "VideoStream": ...
@overload
def first_stream(container: "InputContainer", kind: Literal["audio"], path: str | Path) -> "AudioStream": ...
def first_stream(
    container: "InputContainer", kind: Literal["video", "audio"], path: str | Path
) -> "VideoStream | AudioStream":
    """The stream that a player plays. Raises MediaError if there is none."""
    streams: list[VideoStream] | list[AudioStream] = list(container.streams.audio)
    if kind == "video":
        # Cover pictures of sound files are streams of one frame; they are no video.
        cover = av.stream.Disposition.attached_pic
        streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        raise MediaError(f"{path}: no {kind} stream")
    if streams[0].codec_context is None:
        raise MediaError(f"{path}: there is no decoder for its {kind}")
    return streams[0]


def start_of(container: "InputContainer") -> float:
    """The presentation time, in the file's own stamps, at which a player starts.

    A negative start is codec delay that edit lists hide; it is never presented.
    """
    return max((container.start_time or 0) / av.time_base, 0.0)


def _seek(container: "InputContainer", time_s: float) -> None:
    """Moves to a key frame at or before `time_s` in files with an index; stays at the start in others."""
    if time_s > 0 and INDEXED_FORMATS.intersection(container.format.name.split(",")):
        container.seek(int((time_s + start_of(container)) * av.time_base), backward=True)


class Clock:
    """Turns the time stamps of one stream into presentation times, through stamps that jump back."""

    def __init__(self, path: str | Path, container: "InputContainer") -> None:
        self._path = path
        self._offset_s = self._previous_offset_s = -start_of(container)
        self._started = False

    def time_s(self, stamp_s: float | None, after_s: float, step_s: float = 0.0) -> float:
        """The presentation time of what is stamped `stamp_s`.

        Args:
            stamp_s: The stamp; None if the file has none.
            after_s: Current time of the stream: the end of the sound, the time of the last picture, at
                first the requested time.
            step_s: Time from `after_s` to the next picture or sound, used where there is no valid stamp.

        Raises:
            MediaError: A gap of more than `MAX_GAP_S`.
        """
        first, self._started = not self._started, True
        if stamp_s is None:
            return 0.0 if first else after_s + step_s
        time_s = stamp_s + self._offset_s
        if time_s < after_s - RESET_S and not first:  # after a seek the first may be far before
            self._previous_offset_s = self._offset_s
            self._offset_s = after_s + step_s - stamp_s
            return after_s + step_s
        if time_s > after_s + RESET_S and abs(stamp_s + self._previous_offset_s - after_s) <= RESET_S:
            self._offset_s = self._previous_offset_s  # that was not a jump but a few wrong stamps
            time_s = stamp_s + self._offset_s
        if time_s - after_s > MAX_GAP_S:
            raise MediaError(
                f"{self._path}: its time stamps leave a gap of {time_s - after_s:.0f} s at {after_s:.0f} s, "
                f"more than the {MAX_GAP_S:.0f} s that are filled; write the file again with correct ones"
            )
        return time_s


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
        has_audio = bool(sounds) and sounds[0].codec_context is not None  # as for pictures: decodable ones
        audio_rate_hz = sounds[0].rate if has_audio else 0
        duration_s = (container.duration or 0) / av.time_base
        try:
            stream = first_stream(container, "video", path)
        except MediaError:
            return MediaInfo(False, has_audio, 0, 0, duration_s, 0.0, 0, audio_rate_hz, len(sounds))
        width, height, rate = stream.width, stream.height, stream.average_rate
        num_frames = stream.frames
        frame: av.VideoFrame | None = None
        stamps: list[int] = []
        for packet in _until_damage(container.demux(stream)):
            if packet.pts is not None:
                stamps.append(packet.pts)
            if frame is None:
                with contextlib.suppress(FFmpegError):
                    frame = next(iter(packet.decode()), None)
            if frame is not None and not (with_times and len(stamps) < MAX_TIMES_LOOKED_AT):
                break
        if frame is not None and frame.rotation % 180:
            width, height = height, width
        return MediaInfo(
            True, has_audio, width, height, duration_s, float(rate or 0), num_frames, audio_rate_hz,
            len(sounds), _is_uneven(stamps) if with_times else None,
        )  # fmt: skip


def _is_uneven(stamps: list[int]) -> bool:
    steps = np.diff(np.sort(np.array(stamps, np.float64)))
    if len(steps) < 2:
        return False
    usual = float(np.median(steps))
    return bool((np.abs(steps - usual) > RATE_TOLERANCE * usual).mean() > ODD_FRAMES)


def _until_damage(packets: Iterator[_Packet], check: Callable[[], None] = lambda: None) -> Iterator[_Packet]:
    """The packets of a stream; a truncated file just ends."""
    while True:
        check()
        try:
            packet = next(packets)
        except (FFmpegError, StopIteration):
            return
        yield packet


@overload
def decoded_frames(
    container: "InputContainer", stream: "VideoStream", check: Callable[[], None] = ...
) -> Iterator[av.VideoFrame]: ...
@overload
def decoded_frames(
    container: "InputContainer", stream: "AudioStream", check: Callable[[], None] = ...
) -> Iterator[av.AudioFrame]: ...
def decoded_frames(
    container: "InputContainer", stream: "VideoStream | AudioStream", check: Callable[[], None] = lambda: None
) -> Iterator[object]:
    """The frames of a stream; damaged packets are skipped, a truncated file just ends."""
    for packet in _until_damage(container.demux(stream), check):
        try:
            yield from packet.decode()
        except FFmpegError:
            continue


def _frame_s(stream: "VideoStream") -> float:
    """Duration of a frame of the stream, from its average rate."""
    return min(float(1 / stream.average_rate), MAX_GAP_S) if stream.average_rate else 0.04


def _timed_frames(
    container: "InputContainer",
    stream: "VideoStream",
    path: str | Path,
    start_s: float,
    check: Callable[[], None],
) -> Iterator[tuple[float, av.VideoFrame]]:
    """The frames of a video stream with their presentation times in seconds, never going backwards."""
    if stream.width * stream.height > MAX_FRAME_PIXELS:
        raise MediaError(f"{path}: frames of {stream.width} x {stream.height} pixels are too large")
    clock = Clock(path, container)
    step_s = _frame_s(stream)
    last_s: float | None = None
    for frame in decoded_frames(container, stream, check):
        if frame.width * frame.height > MAX_FRAME_PIXELS:
            raise MediaError(f"{path}: frames of {frame.width} x {frame.height} pixels are too large")
        if last_s is None:
            last_s = clock.time_s(frame.time, start_s)
        else:
            last_s = max(clock.time_s(frame.time, last_s, step_s), last_s)
        yield last_s, frame


def _to_array(frame: av.VideoFrame, colour: Colour) -> "NDArray[np.uint8]":
    image = np.asarray(frame.to_ndarray(format=f"{colour}24"), np.uint8)
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def iter_frames(
    path: str | Path,
    *,
    rate_hz: float | None = None,
    start_s: float = 0.0,
    max_frames: int | None = None,
    colour: Colour = "rgb",
    threads: int = 1,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Frame]:
    """The frames of a video in presentation order, upright.

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
        stream = first_stream(container, "video", path)
        stream.codec_context.thread_count = threads
        _seek(container, start_s)
        timed = _timed_frames(container, stream, path, start_s, check)
        frames = _every(timed, start_s) if rate_hz is None else _at_rate(timed, rate_hz, start_s, stream)
        for index, time_s, frame in frames:
            yield Frame(_to_array(frame, colour), time_s, index)
            count += 1
            if max_frames is not None and count >= max_frames:
                return
    if count == 0 and start_s == 0:
        raise MediaError(f"{path}: no frame can be decoded")


def _every(
    timed: Iterator[tuple[float, av.VideoFrame]], start_s: float
) -> Iterator[tuple[int, float, av.VideoFrame]]:
    later = ((time_s, frame) for time_s, frame in timed if time_s >= start_s - 1e-6)
    for index, (time_s, frame) in enumerate(later):
        yield index, time_s, frame


def _at_rate(
    timed: Iterator[tuple[float, av.VideoFrame]], rate_hz: float, start_s: float, stream: "VideoStream"
) -> Iterator[tuple[int, float, av.VideoFrame]]:
    """The frame nearest to start_s + k / rate_hz for each k; the last frame is shown for its duration."""
    previous: tuple[float, av.VideoFrame] | None = None
    index = 0
    for time_s, frame in timed:
        if previous is not None:
            # Up to half way between two frames the earlier one is the nearer.
            middle_s = (previous[0] + time_s) / 2
            while start_s + index / rate_hz < middle_s - 1e-9:
                yield index, start_s + index / rate_hz, previous[1]
                index += 1
        previous = (time_s, frame)
    if previous is None:
        return
    while start_s + index / rate_hz < previous[0] + _frame_s(stream) - 1e-6:
        yield index, start_s + index / rate_hz, previous[1]
        index += 1


def read_first_frame(path: str | Path, colour: Colour = "rgb") -> Frame:
    """The first frame of a video; nothing more is decoded. Raises MediaError as `iter_frames`."""
    return next(iter_frames(path, max_frames=1, colour=colour))


def iter_audio(
    path: str | Path, rate_hz: int = 16000, start_s: float = 0.0
) -> Iterator["NDArray[np.float32]"]:
    """The sound of a file, mixed to mono, in blocks of (n,) float32 at `rate_hz`.

    The first sample is at presentation time `start_s`: sound that starts later is preceded by silence, gaps
    are filled with it and overlaps cut, so that sample k is within `GAP_S` of start_s + k / rate_hz.
    Blocks of silence have at most a second.

    Raises:
        MediaError: No such file, no sound, none of it can be decoded, or the time stamps leave a gap of
            more than `MAX_GAP_S`.
    """
    resampler: av.AudioResampler | None = None
    resampled_form: tuple[int, str, str] | None = None
    with open_media(path) as container:
        stream = first_stream(container, "audio", path)
        stream.codec_context.thread_count = 1
        clock = Clock(path, container)
        _seek(container, start_s - 1.0)  # one second ahead, so that the decoder has settled
        # End of the sound so far. It is counted from the samples, not taken from each packet's stamp:
        # differences too small to be a gap would add up unnoticed.
        end_s = start_s
        skip = 0  # samples at rate_hz still to be dropped: overlaps, and those before start_s
        for frame in decoded_frames(container, stream):
            missing_s = clock.time_s(frame.time, end_s) - end_s
            form = (frame.sample_rate, frame.layout.name, frame.format.name)  # joined parts may differ
            if resampler is None or form != resampled_form or abs(missing_s) > GAP_S:
                # A new resampler for each part; the old one still has samples in its filter.
                if resampler is not None:
                    rest = list(_samples(resampler.resample(None)))
                    yield from _without(skip, rest)
                    skip = max(skip - sum(map(len, rest)), 0)
                resampler, resampled_form = av.AudioResampler(format="fltp", rate=rate_hz), form
                missing = round(missing_s * rate_hz)
                end_s += missing / rate_hz
                yield from _silence(missing - skip, rate_hz)
                skip = max(skip - missing, 0)
            end_s += frame.samples / frame.sample_rate
            frame.pts = None  # times are handled here; the resampler must not add its own corrections
            for block in _samples(resampler.resample(frame)):
                yield from _without(skip, [block])
                skip = max(skip - len(block), 0)
        if resampler is not None:
            yield from _without(skip, _samples(resampler.resample(None)))
    if resampler is None:
        raise MediaError(f"{path}: no sample of its sound can be decoded")


def _silence(count: int, rate_hz: int) -> Iterator["NDArray[np.float32]"]:
    for start in range(0, count, rate_hz):
        yield np.zeros(min(rate_hz, count - start), np.float32)


def _samples(frames: Iterable[av.AudioFrame]) -> Iterator["NDArray[np.float32]"]:
    for frame in frames:
        # The mean of the channels, as in librosa. FFmpeg's own mix of float sound weights each by 0.71,
        # which takes a voice in both channels beyond full scale.
        samples = frame.to_ndarray().mean(axis=0, dtype=np.float32)
        # Damaged float streams hold NaN; a single one would spread through everything computed later.
        yield np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)


def _without(skip: int, blocks: Iterable["NDArray[np.float32]"]) -> Iterator["NDArray[np.float32]"]:
    for block in blocks:
        num_dropped = min(skip, len(block))
        skip -= num_dropped
        if num_dropped < len(block):
            yield block[num_dropped:]


def read_audio(
    path: str | Path, rate_hz: int = 16000, start_s: float = 0.0, duration_s: float | None = None
) -> "NDArray[np.float32]":
    """The sound of a file as (n,) float32 mono in [-1, 1]; sample k is at start_s + k / rate_hz.

    `duration_s` limits the decoding; the result is shorter if the sound ends earlier.
    Raises MediaError as `iter_audio`.
    """
    limit = math.inf if duration_s is None else round(duration_s * rate_hz)
    blocks: list[NDArray[np.float32]] = []
    count = 0
    for block in iter_audio(path, rate_hz, start_s):
        blocks.append(block)
        count += len(block)
        if count >= limit:
            break
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    return samples if math.isinf(limit) else samples[: int(limit)]


def write_video(
    path: str | Path,
    frames: Iterable["NDArray[np.uint8]"],
    rate_hz: float,
    audio: "NDArray[np.float32] | None" = None,
    audio_rate_hz: int = 16000,
    *,
    crf: int = 20,
    preset: str = "veryfast",
) -> None:
    """Writes an mp4 of H.264 (yuv420p) and AAC; frame k is presented at k / rate_hz, sample k at k / rate.

    Args:
        path: The file; it appears as a whole or not at all.
        frames: (H, W, 3) uint8 RGB, all of one size; an odd last row or column is cut off, because
            yuv420p has half of the colour resolution.
        rate_hz: Frames a second.
        audio: (n,) float in [-1, 1], mono; None writes no sound.
        audio_rate_hz: Its rate; AAC takes 8000, 16000, 22050, 44100, 48000 and some others.
        crf: x264's constant rate factor, 0 (lossless) to 51.
        preset: x264's speed.

    Raises:
        ValueError: There are no frames.
    """
    rate = Fraction(rate_hz).limit_denominator(100_000)
    with replacing(path) as file, av.open(file, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=rate)
        video.pix_fmt = "yuv420p"
        # One thread: the same bytes whatever the number of cores, and workers do not compete for them.
        video.codec_context.thread_count = 1
        video.options = {"crf": str(crf), "preset": preset}
        sound: AudioStream | None = None
        if audio is not None:
            sound = container.add_stream("aac", rate=audio_rate_hz)
            sound.layout = "mono"
        count = 0
        for image in frames:
            height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
            if count == 0:
                video.width, video.height = width, height
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="rgb24")
            frame.pts = count
            frame.time_base = 1 / rate
            container.mux(video.encode(frame))
            count += 1
        if count == 0:
            raise ValueError(f"{path}: a video needs at least one frame")
        container.mux(video.encode(None))
        if sound is not None and audio is not None:
            for packet in _encoded_audio(sound, audio, audio_rate_hz):
                container.mux(packet)


def _encoded_audio(
    stream: "AudioStream", audio: "NDArray[np.float32]", rate_hz: int
) -> Iterator["Packet[AudioStream]"]:
    samples = np.ascontiguousarray(audio, np.float32).reshape(1, -1)
    for start in range(0, samples.shape[1], 1024):  # the length of AAC's frames
        block = av.AudioFrame.from_ndarray(samples[:, start : start + 1024], format="fltp", layout="mono")
        block.sample_rate = rate_hz
        block.pts = start
        block.time_base = Fraction(1, rate_hz)
        yield from stream.encode(block)
    yield from stream.encode(None)


def write_wav(
    path: str | Path,
    blocks: "NDArray[np.float32] | Iterable[NDArray[np.float32]]",
    rate_hz: int,
    *,
    sync: bool = True,
) -> int:
    """Writes mono 16-bit PCM from (n,) float32 in [-1, 1], whole or in blocks; returns the number of samples.

    Louder samples are clipped. Blocks are written as they come, so that hours of sound need no memory.
    """
    count = 0
    parts = (blocks,) if isinstance(blocks, np.ndarray) else blocks
    with replacing(path, sync=sync) as file, wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(rate_hz)
        for block in parts:
            pcm = np.clip(np.rint(block * 32767.0), -32768, 32767).astype("<i2")
            wav.writeframes(pcm.tobytes())
            count += len(block)
    return count
