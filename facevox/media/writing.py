"""Videos and wavs, written whole or not at all."""

import math
import wave
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from av.codec.context import Flags

from facevox.files import replacing
from facevox.media.container import MediaError
from facevox.media.pictures import Frame, MediaInfo
from facevox.signs import report_progress

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet
    from numpy.typing import NDArray

# Of an mp4's clock: the rate of MPEG, and a bound because its durations and x264's clock have 32 bits.
LEAST_TICKS_PER_S, MOST_TICKS_PER_S = 90_000, 10_000_000
# For x264's choice of a level alone: where headers have no rate, and where they exaggerate.
DEFAULT_RATE_HZ, MAX_RATE_HZ = 25.0, 240.0
AAC_SAMPLES = 1024  # of a frame
_MOST_WAV_BYTES = 4_294_967_000  # its header counts in 32 bits


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
        frames: (H, W, 3) uint8 RGB, all of one size; an odd last row or column is repeated, because
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
    stamped = ((image, number, 1) for number, image in enumerate(frames))
    options = {"crf": str(crf), "preset": preset}
    with replacing(path) as file, av.open(file, "w", format="mp4") as container:
        blocks = None if audio is None else [np.asarray(audio, np.float32).ravel()]
        _write(container, path, stamped, 1 / rate, rate, blocks, audio_rate_hz, options)


def write_timed_video(
    path: str | Path,
    frames: Iterable[Frame],
    info: MediaInfo,
    audio: "Iterable[NDArray[np.float32]] | None" = None,
    audio_rate_hz: int = 16000,
) -> None:
    """Writes frames of a video as `write_video` does, each at its own time, to a tick of the video's clock.

    Args:
        path: The file; it appears as a whole or not at all.
        frames: In presentation order, with RGB pictures.
        info: Of the video that they are from.
        audio: Blocks of (n,) mono samples; read after the pictures.
        audio_rate_hz: Its rate.

    Raises:
        ValueError: There are no frames.
    """
    base = _fine_time_base(info.time_base)
    rate = Fraction(min(info.rate_hz or DEFAULT_RATE_HZ, MAX_RATE_HZ)).limit_denominator(100_000)
    # The muxer keeps the time before the first picture in ticks of the film, of 1 ms otherwise.
    # An mp4 keeps the times between packets. Without B-frames they are those between pictures; else players
    # would take a film of uneven steps for shorter than it is.
    options = {"crf": "20", "preset": "veryfast", "bf": "0"}
    muxer_options = {"movie_timescale": str(base.denominator)}
    with replacing(path) as file, av.open(file, "w", format="mp4", options=muxer_options) as container:
        _write(container, path, _stamped(frames, base), base, rate, audio, audio_rate_hz, options)


def _fine_time_base(time_base: Fraction) -> Fraction:
    """A tick of at most 1/90000 s of which a tick of `time_base` has a whole number, if that is possible."""
    ticks = time_base.denominator
    ticks *= math.ceil(LEAST_TICKS_PER_S / ticks)
    return Fraction(1, ticks if ticks <= MOST_TICKS_PER_S else LEAST_TICKS_PER_S)


def _stamped(frames: Iterable[Frame], base: Fraction) -> Iterator[tuple["NDArray[np.uint8]", int, int]]:
    last = -1
    for frame in frames:
        last = max(round(frame.time_s / base), last + 1)  # frames of one and the same time: each has a tick
        yield frame.image, last, max(round(frame.duration_s / base), 1)


def _write(
    container: "OutputContainer",
    path: str | Path,
    stamped: Iterable[tuple["NDArray[np.uint8]", int, int]],
    time_base: Fraction,
    rate: Fraction,
    audio: "Iterable[NDArray[np.float32]] | None",
    audio_rate_hz: int,
    options: dict[str, str],
) -> None:
    """Writes (picture, time, duration), in ticks of `time_base`, and the sound; `rate` is x264's hint."""
    video = container.add_stream("libx264", rate=rate)
    video.pix_fmt = "yuv420p"
    video.codec_context.time_base = video.time_base = time_base
    video.codec_context.flags |= Flags.frame_duration  # of the last frame; the others end with the next one
    # One thread: the same bytes whatever the number of cores, and workers do not compete for them.
    video.codec_context.thread_count = 1
    video.options = {**options}
    sound: AudioStream | None = None
    if audio is not None:
        sound = container.add_stream("aac", rate=audio_rate_hz)
        sound.layout = "mono"
    count = 0
    for image, ticks, duration in stamped:
        odd = [(0, side % 2) for side in image.shape[:2]]
        even = np.pad(image, [*odd, (0, 0)], mode="edge") if odd != [(0, 0)] * 2 else image
        if count == 0:
            video.height, video.width = even.shape[:2]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        frame.pts, frame.duration, frame.time_base = ticks, duration, time_base
        container.mux(video.encode(frame))
        report_progress()
        count += 1
    if count == 0:
        raise ValueError(f"{path}: a video needs at least one frame")
    container.mux(video.encode(None))
    if sound is not None and audio is not None:
        for packet in _encoded_audio(sound, audio, audio_rate_hz):
            container.mux(packet)


def _encoded_audio(
    stream: "AudioStream", audio: Iterable["NDArray[np.float32]"], rate_hz: int
) -> Iterator["Packet[AudioStream]"]:
    start = 0
    for samples in _aac_blocks(audio):
        block = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        block.sample_rate = rate_hz
        block.pts = start
        block.time_base = Fraction(1, rate_hz)
        yield from stream.encode(block)
        start += len(samples)
    yield from stream.encode(None)


def _aac_blocks(audio: Iterable["NDArray[np.float32]"]) -> Iterator["NDArray[np.float32]"]:
    """The same samples in blocks of AAC_SAMPLES; the last one may be shorter."""
    rest = np.zeros(0, np.float32)
    for samples in audio:
        rest = np.concatenate([rest, samples], dtype=np.float32)
        num_whole = len(rest) // AAC_SAMPLES * AAC_SAMPLES
        yield from rest[:num_whole].reshape(-1, AAC_SAMPLES)
        rest = rest[num_whole:]
    if len(rest):
        yield rest


def write_wav(
    path: str | Path,
    blocks: "NDArray[np.float32] | Iterable[NDArray[np.float32]]",
    rate_hz: int,
    *,
    sync: bool = True,
) -> int:
    """Writes mono 16-bit PCM from (n,) float32 in [-1, 1], whole or in blocks; returns the number of samples.

    Louder samples are clipped. Blocks are written as they come, so that hours of sound need no memory.

    Raises:
        MediaError: Longer than a WAV can be.
    """
    count = 0
    parts = (blocks,) if isinstance(blocks, np.ndarray) else blocks
    with replacing(path, sync=sync) as file, wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(rate_hz)
        for block in parts:
            pcm = np.clip(np.rint(block * 32767.0), -32768, 32767).astype("<i2")
            count += len(block)
            if 2 * count > _MOST_WAV_BYTES:
                raise MediaError(
                    f"{path}: longer than the {_MOST_WAV_BYTES / 2 / rate_hz / 3600:.0f} h that a WAV of "
                    f"{rate_hz} Hz can hold; take a lower rate, or parts of the recording"
                )
            wav.writeframes(pcm.tobytes())
    return count
