"""A film of black pictures and silence in which white pictures and beeps meet, and two readers to measure it.

One reader goes by time stamps (`facevox.media`); the other only counts decoded pictures and samples, as
many programs do.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from facevox.media import iter_frames, read_audio

MOMENTS_S = (1.2, 2.0, 2.8)
DURATION_S = 4.0
BEEP_S = 0.02
FRAME_SHAPE = (64, 96, 3)
CODECS = {".mpg": ("mpeg2video", "mp2"), ".avi": ("mpeg4", "pcm_s16le"), ".webm": ("libvpx", "libopus")}


def write_flash_and_beep(
    path: Path,
    *,
    rate_hz: float = 25.0,
    times_s: Sequence[float] | None = None,
    sound_hz: int = 44100,
    layout: str = "mono",
    sound_s: float = DURATION_S,
    sound_from_s: float = 0.0,
    pictures_from_s: float = 0.0,
    num_tracks: int = 1,
    codec: str = "",
) -> None:
    """Flashes at the pictures nearest to MOMENTS_S, each with a beep that starts exactly with its picture.

    Args:
        path: Its suffix says the container and, without `codec`, the codecs.
        rate_hz: Pictures a second.
        times_s: Times of the pictures instead, for a variable rate.
        sound_hz, layout: Of the sound.
        sound_s: Its end.
        sound_from_s: Time of its first sample.
        pictures_from_s: Time of the first picture.
        num_tracks: Sound tracks; all but the first are silent.
        codec: Of the pictures.
    """
    video_codec, audio_codec = CODECS.get(path.suffix, ("libx264", "aac"))
    rate = Fraction(rate_hz).limit_denominator(1001)
    if times_s is None:
        count = round(DURATION_S * rate_hz)
        times_s = [float(k / rate) for k in range(count)]
    times = np.array([time_s for time_s in times_s if time_s >= pictures_from_s - 1e-9])
    flashes = {int(np.argmin(np.abs(times - moment_s))) for moment_s in MOMENTS_S}
    samples = np.zeros(round(sound_s * sound_hz), np.float32)
    beep = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(round(BEEP_S * sound_hz)) / sound_hz)
    for number in flashes:
        start = round(times[number] * sound_hz)
        samples[start : start + len(beep)] = beep[: max(len(samples) - start, 0)]
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(codec or video_codec, rate=rate)
        video.height, video.width, video.pix_fmt = FRAME_SHAPE[0], FRAME_SHAPE[1], "yuv420p"
        uneven = times_s is not None and len(times) > 1 and np.ptp(np.diff(times)) > 1e-3
        base = Fraction(1, 1000) if uneven else 1 / rate
        video.codec_context.time_base = base
        tracks: list[Any] = [container.add_stream(audio_codec, rate=sound_hz) for _ in range(num_tracks)]
        for track in tracks:
            track.layout = layout
        for number, time_s in enumerate(times):
            picture = np.full(FRAME_SHAPE, 255 if number in flashes else 0, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(Fraction(float(time_s)) / base), base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for number, track in enumerate(tracks):
            _mux_sound(container, track, samples * (number == 0), sound_hz, layout, sound_from_s)


def _mux_sound(
    container: Any, track: Any, samples: np.ndarray, sound_hz: int, layout: str, from_s: float
) -> None:
    channels = len(av.AudioLayout(layout).channels)
    for start in range(round(from_s * sound_hz), len(samples), 1024):
        block = np.repeat(samples[None, start : start + 1024], channels, axis=0).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = sound_hz, start, Fraction(1, sound_hz)
        container.mux(track.encode(frame))
    container.mux(track.encode(None))


def _onsets_s(samples: np.ndarray, sound_hz: int) -> np.ndarray:
    loud = np.flatnonzero(np.abs(samples) > 0.2)
    return loud[np.concatenate([[True], np.diff(loud) > sound_hz // 10])] / sound_hz


def sound_rate_hz(path: Path) -> int:
    with av.open(str(path)) as container:
        return int(container.streams.audio[0].rate)


def offsets_by_stamps_ms(path: Path) -> np.ndarray:
    """Delay of each beep after its flash, for a reader that uses time stamps."""
    flashes = [frame.time_s for frame in iter_frames(path) if frame.image.mean() > 128]
    sound_hz = sound_rate_hz(path)
    return (_onsets_s(read_audio(path, sound_hz), sound_hz) - flashes) * 1000


def offsets_by_counting_ms(path: Path) -> np.ndarray:
    """The same for a reader that ignores stamps: picture k is at k / rate, sample k at k / its rate."""
    with av.open(str(path)) as container:
        rate_hz = float(container.streams.video[0].average_rate or 0)
        pictures = [frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound_hz = int(container.streams.audio[0].rate)
        blocks = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]  # AAC: one row a channel
    flashes = np.flatnonzero(np.array(pictures) > 128) / rate_hz
    return (_onsets_s(np.concatenate(blocks), sound_hz) - flashes) * 1000
