"""Containers: opening them, the clock of a stream, frames past damage."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, overload

import av
from av.error import FFmpegError

from facevox.errors import UserError, one_line
from facevox.file_kinds import boxed_picture, file_fault
from facevox.media.tables import table_fault
from facevox.picture_headers import MAX_SCANS
from facevox.signs import report_progress

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import Container, InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

# As FFmpeg does it: in formats that are cut and joined byte by byte a jump ahead by more is a joint as well
# (advertisements, captures that were put together), and not a gap.
JUMP_S = 10.0
JOINED_FORMATS = frozenset({"mpegts", "mpeg"})
# In these a jump back by more than this is a joint: no track of the next part overlaps the one before it.
BACK_S = 0.1
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
    "aiff", "au", "caf", "amr", "amrnb", "amrwb", "voc", "wv", "tta", "ape", "loas", "dhav",
)  # fmt: skip
SEEK_FROM_S = 1.0  # before it a seek costs more than it saves
# Only these find the key frame before a time by an index. In others FFmpeg guesses a position by its
# stamp, which may be after the key frame, so that the pictures up to the next one would be lost.
INDEXED_FORMATS = frozenset({"mov", "mp4", "matroska", "webm", "avi"})
_MOST_BOXES = 10_000
_Packet = TypeVar("_Packet")
# Damaged files are common and reported in one line; FFmpeg's own lines would flood the log.
av.logging.set_level(av.logging.PANIC)


class MediaError(UserError):
    """A file whose pictures or sound cannot be read."""


@contextlib.contextmanager
def open_media(path: str | Path) -> Iterator["InputContainer"]:
    """The opened container; every FFmpeg error inside becomes a MediaError naming the file."""
    file = Path(path)
    try:
        size = file.stat().st_size
    except (OSError, ValueError) as error:  # a name with a NUL character
        raise MediaError(f"{path}: {getattr(error, 'strerror', None) or 'cannot be read'}") from None
    if size == 0:
        raise MediaError(f"{path}: the file is empty (0 bytes)")
    _refuse_by_header(file, size)
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
        raise MediaError(f"{path}: not a readable media file: {_kind_of(file) or _reason(error)}") from None


def _refuse_by_header(file: Path, size: int) -> None:
    """Raises MediaError for a HEIC or AVIF picture, and for an index that would take gigabytes."""
    try:
        with file.open("rb") as opened:
            picture = boxed_picture(opened.read(12))
            fault = "" if picture else table_fault(opened, size)
    except OSError:
        return  # FFmpeg's message
    if picture:
        raise MediaError(f"{file}: {picture}, not a video")
    if fault:
        raise MediaError(f"{file}: {fault}")


def _kind_of(file: Path) -> str:
    """A line about what a file is that FFmpeg cannot read as media; "" where its bytes do not say."""
    if fault := file_fault(file, "video or sound"):
        return fault
    try:
        with file.open("rb") as opened:
            if opened.read(8)[4:] == b"ftyp" and not _has_index(opened):
                return "the mp4 has no index (moov): the recording was cut off; untrunc or ffmpeg may save it"
    except OSError:
        pass
    return ""


def _has_index(file: BinaryIO) -> bool:
    """True if an mp4 has a box moov, or is so broken that its boxes cannot be counted."""
    position = 0
    for _ in range(_MOST_BOXES):
        file.seek(position)
        header = file.read(16)
        if len(header) < 8:
            return False
        size, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if kind in (b"moov", b"moof"):
            return True
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        if size < 8:
            return size != 0  # 0: this box reaches to the end
        position += size
    return True


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or one_line(error)


def start_of(container: "InputContainer") -> float:
    """The presentation time, in the file's own stamps, at which a player starts.

    A negative start is codec delay that edit lists hide; it is never presented.
    """
    return max((container.start_time or 0) / av.time_base, 0.0)


def seek(container: "InputContainer", time_s: float) -> None:
    """Moves to a key frame at or before `time_s` in files with an index; stays at the start in others."""
    if time_s > SEEK_FROM_S and INDEXED_FORMATS.intersection(container.format.name.split(",")):
        with contextlib.suppress(FFmpegError):  # an index that leads nowhere: it is read from the start
            container.seek(int((time_s + start_of(container)) * av.time_base), backward=True)


def is_joined(container: "Container") -> bool:
    """True for a format in which recordings are joined byte by byte."""
    return bool(JOINED_FORMATS.intersection(container.format.name.split(",")))


class Clock:
    """Turns the time stamps of one stream into presentation times, through stamps that jump."""

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


def until_damage(packets: Iterator[_Packet], check: Callable[[], None] = lambda: None) -> Iterator[_Packet]:
    """The packets of a stream; a truncated file just ends."""
    while True:
        check()
        try:
            packet = next(packets)
        except (FFmpegError, StopIteration):
            return
        yield packet


@overload
def stream_packets(
    container: "InputContainer", stream: "VideoStream", check: Callable[[], None] = ...
) -> "Iterator[Packet[VideoStream]]": ...
@overload
def stream_packets(
    container: "InputContainer", stream: "AudioStream", check: Callable[[], None] = ...
) -> "Iterator[Packet[AudioStream]]": ...
def stream_packets(
    container: "InputContainer", stream: "VideoStream | AudioStream", check: Callable[[], None] = lambda: None
) -> Iterator[Any]:
    """The packets of a stream; a truncated file just ends.

    In recordings that were joined byte by byte the stamps of the parts follow one another. As FFmpeg does it,
    the first packet after a joint, of whatever track, moves all tracks: pictures and sound stay together.
    """
    if not is_joined(container):
        yield from until_damage(container.demux(stream), check)
        return
    tracks = [*container.streams.video, *container.streams.audio]
    expected_s: dict[int, float] = {}  # by track: where its next packet is to be
    offset_s = 0.0
    for packet in until_damage(container.demux(tracks), check):
        index, base = packet.stream.index, packet.time_base
        if packet.dts is not None and base:
            time_s = float(packet.dts * base) + offset_s
            jump_s = time_s - expected_s.get(index, time_s)
            if jump_s > JUMP_S or jump_s < -BACK_S:
                offset_s -= jump_s
                time_s -= jump_s
            expected_s[index] = time_s + float((packet.duration or 0) * base)
        if index == stream.index:
            ticks = round(offset_s / base) if base else 0
            if ticks:
                packet.pts = None if packet.pts is None else packet.pts + ticks
                packet.dts = None if packet.dts is None else packet.dts + ticks
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
    is_jpeg = stream.codec_context.name == "mjpeg"
    for packet in stream_packets(container, stream, check):
        if is_jpeg and bytes(packet).count(b"\xff\xda") > MAX_SCANS:
            continue  # it would take minutes
        report_progress()
        try:
            yield from packet.decode()
        except FFmpegError:
            continue
