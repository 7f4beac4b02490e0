"""A copy of a video with its sound shifted: pictures copied by packets, sound shifted by samples and encoded.

The sign: offset_ms > 0 means that the audio is early by that much, and the correction delays it by as much.
To make a test clip whose audio is early by X ms, shift a good one by -X.

In the file that is written the first picture and the first sample are both at time 0. So readers that go by
time stamps and readers that only count pictures and samples see the same timing; moving the stamps of the
sound alone is lost on the second kind. AAC begins with a frame of padding, which MP4 hides by an edit list
and Matroska by CodecDelay; every decoder of FFmpeg drops it.
"""

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING

import av
import numpy as np
from av.container import Flags
from av.error import FFmpegError

from facevox.errors import UserError, one_line
from facevox.files import replacing
from facevox.media import (
    GAP_S,
    Clock,
    MediaError,
    checked_rate,
    decoded_frames,
    open_media,
    packed_samples,
    played_stream,
    start_of,
    stream_packets,
)
from facevox.media.streams import track_text
from lipsync.repair.retiming import at_rate, with_cuts
from lipsync.sync.timing import Cut

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

OUTPUT_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
MAX_OFFSET_MS = 3_600_000.0
MAX_DRIFT_PPM = 60_000.0
# Rates of AAC (ISO 14496-3, table 1.18); sounds of another rate are resampled to the next higher one.
AAC_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
AAC_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}  # by channels
AAC_FRAME = 1024
# Bits a second and channel: transparent for speech at 48 kHz, and not more than AAC's frames hold below.
BIT_RATE = 96_000
BITS_PER_SAMPLE = 5
BLOCK_S = 1.0  # length of the blocks of silence


@dataclass(frozen=True)
class ShiftedFile:
    """Result of `shift_audio`.

    Attributes:
        output_file: The file.
        offset_ms: By which the sound is later than in the input (negative: earlier).
        num_audio_tracks: Of the input; one of them is in the file.
        notes: Remarks for its user, each one sentence.
    """

    output_file: Path
    offset_ms: float
    num_audio_tracks: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Start:
    """Time of the first picture of a file."""

    stamp_s: float  # in the file's own stamps
    time_s: float  # on the clock of the file, which its sound is read by
    has_hidden: bool  # an edit list hides pictures before it


@dataclass(frozen=True)
class _Form:
    """Format of the written sound."""

    rate_hz: int
    layout: str
    num_channels: int


def shift_audio(
    video_path: str | Path,
    output_path: str | Path,
    offset_ms: float,
    *,
    audio_path: str | Path | None = None,
    track: str = "",
    drift_ppm: float = 0.0,
    cuts: Sequence[Cut] = (),
) -> ShiftedFile:
    """Writes `output_path` with the pictures of a video and its sound delayed by `offset_ms`.

    Delayed sound begins with silence; sound that is moved ahead loses its part before the first picture and
    ends with silence. Sample rate and channels stay. The file appears whole or not at all.

    The sound of time s of its file is then at s + offset_ms / 1000 plus what the cuts before s put in; with a
    drift, at (s + offset_ms / 1000) / (1 - drift_ppm / 1e6).

    Args:
        video_path: Any video that facevox reads.
        output_path: .mp4, .m4v, .mov or .mkv.
        offset_ms: As `offset_ms` of the score: positive, the audio is early and is delayed.
        audio_path: A sound (or video) file to take the sound from; None: the video's own.
        track: Of the sound: its number from 1, or its language; "": the one that a player plays.
        drift_ppm: Of the offset, up to MAX_DRIFT_PPM to each side: it is offset_ms where the file starts, and
            grows by drift_ppm / 1000 ms a second.
        cuts: Places where the offset changes, in the order of their times.

    Raises:
        MediaError: Not readable, no pictures, no sound.
        UserError: The container cannot hold these pictures, nothing of the sound would remain, the
            pictures' time stamps are missing or jump back, or the output is the input.
    """
    source, target = Path(video_path), Path(output_path)
    sound_file = source if audio_path is None else Path(audio_path)
    container_format = checked_format(target, (source, sound_file), offset_ms, drift_ppm)
    with open_media(source) as pictures, open_media(sound_file) as sounds:
        if not sounds.streams.audio:
            raise MediaError(f"{sound_file}: no audio stream; there is no sound to shift")
        video = played_stream(pictures, "video", source)
        start = _find_start(source, shows_hidden=container_format == "matroska")
        audio, num_tracks = played_stream(sounds, "audio", sound_file, track), len(sounds.streams.audio)
        form = _form_of(audio, sound_file)
        notes = _notes(video, audio, (source, sound_file), start, form)
        first_s = start.time_s * (1 - drift_ppm / 1e6) - offset_ms / 1000
        sound = _sound_from(sounds, audio, sound_file, first_s, form)
        blocks = _retimed(sound, form, (first_s, start.time_s), drift_ppm, cuts)
        first = next(blocks, None)
        if first is None:
            raise UserError(
                f"{sound_file}: nothing of its sound remains when it is moved ahead by {-offset_ms:g} ms"
            )
        samples = itertools.chain([first], blocks)
        with replacing(target) as file:
            _write(file, container_format, target, (pictures, video, start), (samples, form, audio.metadata))
    return ShiftedFile(target, offset_ms, num_tracks, tuple(notes))


def checked_format(
    target: Path, sources: Iterable[Path], offset_ms: float = 0.0, drift_ppm: float = 0.0
) -> str:
    """The name of the output's container; raises UserError where the output or the timing is impossible."""
    if target.suffix.lower() not in OUTPUT_FORMATS:
        raise UserError(f"{target}: a file name that ends in {', '.join(OUTPUT_FORMATS)} is expected")
    if not math.isfinite(offset_ms) or abs(offset_ms) > MAX_OFFSET_MS:
        raise UserError(
            f"offset_ms {offset_ms}: a number from {-MAX_OFFSET_MS:g} to {MAX_OFFSET_MS:g} is expected"
        )
    if not abs(drift_ppm) <= MAX_DRIFT_PPM:
        raise UserError(
            f"drift_ppm {drift_ppm}: a number from {-MAX_DRIFT_PPM:g} to {MAX_DRIFT_PPM:g} is expected"
        )
    if any(target.exists() and source.exists() and target.samefile(source) for source in sources):
        raise UserError(f"{target}: is the input; name another file for the output")
    return OUTPUT_FORMATS[target.suffix.lower()]


def _find_start(source: Path, shows_hidden: bool) -> _Start:
    """The first picture that a reader of the output sees.

    Args:
        source: The video.
        shows_hidden: Whether the output shows what an edit list hides: Matroska has none.

    Raises:
        MediaError: No picture can be decoded.
    """
    hidden: list[float] = []
    with open_media(source) as container:
        stream = played_stream(container, "video", source)
        stream.codec_context.thread_count = 1
        origin_s = start_of(container)
        for packet in stream_packets(container, stream):
            if packet.is_discard and packet.pts is not None:
                hidden.append(float(packet.pts * packet.time_base))
            try:
                frame = next(iter(packet.decode()), None)
            except FFmpegError:
                continue
            if frame is not None:
                stamp_s = float(frame.time or 0.0)
                if hidden and shows_hidden:
                    stamp_s = min(stamp_s, *hidden)
                return _Start(stamp_s, stamp_s - origin_s, bool(hidden))
    raise MediaError(f"{source}: no frame can be decoded")


def _form_of(audio: "AudioStream", sound_file: Path) -> _Form:
    rate_hz, channels = checked_rate(int(audio.rate or 0), sound_file), int(audio.channels or 0)
    if channels <= 0:
        raise MediaError(f"{sound_file}: its sound has no channels")
    aac_rate_hz = next((rate for rate in AAC_RATES_HZ if rate >= rate_hz), AAC_RATES_HZ[-1])
    layout = AAC_LAYOUTS.get(channels, "stereo")
    return _Form(aac_rate_hz, layout, next(n for n, name in AAC_LAYOUTS.items() if name == layout))


def _notes(
    video: "VideoStream", audio: "AudioStream", files: tuple[Path, Path], start: _Start, form: _Form
) -> list[str]:
    notes = []
    pictures, sounds = video.container.streams, audio.container.streams.audio
    if len(pictures.video) > 1:
        notes.append(
            f"{files[0]} has {len(pictures.video)} streams of pictures; "
            f"number {1 + pictures.video.index(video)} ({video.width} x {video.height}) is used"
        )
    if len(sounds) > 1:
        notes.append(
            f"{files[1]} has {len(sounds)} sound tracks; "
            f"number {1 + sounds.index(audio)} ({track_text(audio)}) is used"
        )
    others = sorted({stream.type for stream in pictures} - {"video", "audio"})
    if others:
        notes.append(f"streams of kind {', '.join(others)} are left out")
    if start.time_s > 0.001:
        notes.append(
            f"the pictures begin {start.time_s * 1000:.0f} ms after the file does; "
            "both streams now begin with them"
        )
    if start.has_hidden:
        notes.append("an edit list hides pictures before the first one")
    if form.rate_hz != audio.rate or form.num_channels != audio.channels:
        notes.append(
            f"AAC does not take {audio.rate} Hz with {audio.channels} channels: "
            f"written as {form.rate_hz} Hz {form.layout}"
        )
    return notes


def _silence(form: _Form, count: int) -> "NDArray[np.float32]":
    return np.zeros((form.num_channels, max(count, 0)), np.float32)


def _retimed(
    blocks: "Iterable[NDArray[np.float32]]",
    form: _Form,
    times_s: tuple[float, float],
    drift_ppm: float,
    cuts: Sequence[Cut],
) -> "Iterator[NDArray[np.float32]]":
    """The blocks after cuts and drift; silence at the end makes up for what they lost.

    Many readers expect the sound to reach the last picture.

    Args:
        blocks: Of the sound.
        form: Of its samples.
        times_s: Of the first sample and of the first picture, on the clocks of their files.
        drift_ppm, cuts: As `shift_audio` has them.
    """
    num_read = num_written = 0

    def counted() -> "Iterator[NDArray[np.float32]]":
        nonlocal num_read
        for block in blocks:
            num_read += block.shape[1]
            yield block

    first_s, start_s = times_s
    rate_hz = form.rate_hz
    for block in at_rate(with_cuts(counted(), rate_hz, first_s, cuts), rate_hz, form.layout, drift_ppm):
        if block.shape[1]:
            num_written += block.shape[1]
            yield block
    missing = num_read + round((first_s - start_s) * rate_hz) - num_written
    if num_written:
        for begin in range(0, missing, round(BLOCK_S * rate_hz)):
            yield _silence(form, min(missing - begin, round(BLOCK_S * rate_hz)))


def _sound_from(
    container: "InputContainer", stream: "AudioStream", path: Path, start_s: float, form: _Form
) -> "Iterator[NDArray[np.float32]]":
    """The sound as (channels, n) float32 blocks; the first sample is at presentation time `start_s`.

    Sound before that is cut, gaps (and a start before the sound) are filled with silence. As in
    `facevox.media.iter_audio`, samples are counted, and stamps count only where they differ by over `GAP_S`.
    """
    stream.codec_context.thread_count = 1
    clock = Clock(path, container)
    resampler: av.AudioResampler | None = None
    resampled_form: tuple[int, str, str] | None = None  # of the frames that the resampler was made for
    num_yielded = 0  # samples
    end: int | None = None  # of the sound so far, in samples after start_s; negative: all of it is cut
    block = round(BLOCK_S * form.rate_hz)
    for frame in decoded_frames(container, stream):
        after_s = start_s + (end or 0) / form.rate_hz
        at = (clock.time_s(frame.time, after_s) - start_s) * form.rate_hz
        frame_form = (frame.sample_rate, frame.layout.name, frame.format.name)
        if resampler is None or frame_form != resampled_form:
            resampler = av.AudioResampler("flt", form.layout, form.rate_hz)  # packed: see packed_samples
            resampled_form = frame_form
        if end is None or abs(at - end) > GAP_S * form.rate_hz:
            end = round(at)
        frame.pts = None
        for part in resampler.resample(frame):
            samples = packed_samples(part).T
            while num_yielded < end:  # a gap
                silence = _silence(form, min(end - num_yielded, block))
                num_yielded += silence.shape[1]
                yield silence
            new = samples[
                :, max(num_yielded - end, 0) :
            ]  # without what was yielded or comes before the start
            end += samples.shape[1]
            if new.shape[1]:
                num_yielded += new.shape[1]
                yield new


def _write(
    file: IO[bytes],
    container_format: str,
    target: Path,
    pictures: "tuple[InputContainer, VideoStream, _Start]",
    sound: "tuple[Iterable[NDArray[np.float32]], _Form, Mapping[str, str]]",
) -> None:
    container, video, start = pictures
    samples, form, names = sound
    advice = "" if container_format == "matroska" else "; .mkv holds any"
    with av.open(file, "w", format=container_format) as output:
        output.metadata.update(container.metadata)
        try:
            picture_track = output.add_stream_from_template(video, opaque=True)
        except (ValueError, FFmpegError) as error:
            codec = video.codec_context.name
            raise UserError(
                f"{target}: {container_format} cannot hold {codec} pictures ({one_line(error)}){advice}"
            ) from None
        sound_track = output.add_stream("aac", rate=form.rate_hz)
        sound_track.layout = form.layout
        for key in ("language", "title"):
            if key in names:
                sound_track.metadata[key] = names[key]
        sound_track.bit_rate = min(BIT_RATE, BITS_PER_SAMPLE * form.rate_hz) * form.num_channels
        # In the order of decoding across both streams: players read sound and pictures of a moment together.
        packets: Iterator[Packet[VideoStream] | Packet[AudioStream]] = heapq.merge(
            _picture_packets(container, video, picture_track, start),
            _sound_packets(sound_track, samples, form),
            key=lambda packet: (packet.dts or 0) * packet.time_base,
        )
        try:
            for packet in packets:
                output.mux(packet)
        except FFmpegError as error:
            raise UserError(
                f"{target}: these pictures cannot be copied into {container_format}: "
                f"{one_line(error)}{advice}"
            ) from None


def _picture_packets(
    container: "InputContainer", stream: "VideoStream", track: "VideoStream", start: _Start
) -> "Iterator[Packet[VideoStream]]":
    """The packets as they are, stamped so that the first picture is at 0.

    Raises:
        UserError: Stamps are missing or jump back.
    """
    # AVI and MPEG leave stamps out. PyAV's stubs do not know that the value is a number.
    container.flags |= Flags.gen_pts.value  # type: ignore[operator]
    name = container.name.removeprefix("file:")
    assert stream.time_base is not None, "opened streams have one"
    base = round(start.stamp_s / stream.time_base)
    last: int | None = None
    for packet in _with_decoding_times(container, stream):
        if packet.pts is None or packet.dts is None:
            raise UserError(
                f"{name}: pictures without time stamps cannot be copied; convert it to .mp4 first"
            )
        if last is not None and packet.dts < last:
            raise UserError(
                f"{name}: its time stamps jump back, as in joined recordings; convert it to .mp4 first"
            )
        last = packet.dts
        packet.pts -= base
        packet.dts -= base
        packet.stream = track
        yield packet


def _with_decoding_times(
    container: "InputContainer", stream: "VideoStream"
) -> Iterator["Packet[VideoStream]"]:
    """The packets of a stream, all with a decoding time.

    Matroska stores none, and FFmpeg's reader does not know those of the first packets where pictures are
    stored out of order. They are set one frame apart, up to the first that is known.
    """
    assert stream.time_base is not None, "opened streams have one"
    step = max(round(1 / (stream.average_rate or 25) / stream.time_base), 1)
    waiting: list[Packet[VideoStream]] = []
    last: int | None = None
    for packet in stream_packets(container, stream):
        if packet.size == 0:  # the end
            continue
        if packet.dts is None:
            if last is None:
                waiting.append(packet)
                continue
            packet.dts = last + step
        for number, early in enumerate(waiting):
            early.dts = packet.dts - step * (len(waiting) - number)
            yield early
        waiting.clear()
        last = packet.dts
        yield packet
    for packet in waiting:  # none is known: the pictures are in order
        packet.dts = packet.pts
        yield packet


def _sound_packets(
    track: "AudioStream", samples: "Iterable[NDArray[np.float32]]", form: _Form
) -> Iterator["Packet[AudioStream]"]:
    """(channels, n) blocks of any length as AAC."""
    position = 0
    rest = _silence(form, 0)
    ending = [None]
    for block in itertools.chain(samples, ending):
        if block is not None:
            rest = np.concatenate([rest, block], axis=1)
        while rest.shape[1] >= AAC_FRAME or (block is None and rest.shape[1]):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(rest[:, :AAC_FRAME]), format="fltp", layout=form.layout
            )
            frame.sample_rate, frame.pts, frame.time_base = form.rate_hz, position, Fraction(1, form.rate_hz)
            position += frame.samples
            rest = rest[:, AAC_FRAME:]
            yield from track.encode(frame)
    yield from track.encode(None)
