"""Sounds as a second recorder has them: from further away, in noise, through a codec, by another clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
import numpy as np
import scipy.signal
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, uniform_filter1d

from facevox.files import replacing
from facevox.media import read_audio

if TYPE_CHECKING:
    from av.audio.stream import AudioStream

RATE_HZ = 16_000
SOUND_SUFFIXES = (".wav", ".flac", ".mp4", ".mov", ".avi", ".mpg")
CODECS = {"aac": ("mp4", ".m4a"), "libmp3lame": ("mp3", ".mp3")}  # name of FFmpeg: (container, suffix)
_BITS_PER_S = 48_000
_LEVEL = 0.06  # root mean square of each voice


@dataclass(frozen=True, kw_only=True)
class Recorder:
    """A second recorder.

    Attributes:
        snr_db: Speech to noise, in dB; None: no noise.
        drift_ppm: By how much the first recorder's clock runs ahead of its own.
        room_s: Reverberation time (by 60 dB) between the speaker and it; 0: none.
        is_phone: Transmits 300 to 3400 Hz alone.
        has_gain_control: Makes quiet passages as loud as others, and is quieter as a whole.
        codec: aac or libmp3lame (`through_codec`); "": none.
    """

    snr_db: float | None = None
    drift_ppm: float = 0.0
    room_s: float = 0.0
    is_phone: bool = False
    has_gain_control: bool = False
    codec: str = ""

    def record(self, samples: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """(n,) float32 of this recorder, without delay and codec; shorter where the first clock is fast."""
        sound = np.asarray(samples, np.float64)
        if self.drift_ppm:
            rate = 1 + self.drift_ppm / 1e6
            moments = np.arange(int((len(sound) - 1) / rate)) * rate
            sound = map_coordinates(sound, [moments], order=3, mode="nearest")
        if self.room_s:
            size = round(self.room_s * RATE_HZ)
            echoes = 0.05 * rng.standard_normal(size) * 10 ** (-3 * np.arange(size) / size)
            echoes[0] = 1.0
            sound = scipy.signal.fftconvolve(sound, echoes)[: len(sound)]
        if self.is_phone:
            band = scipy.signal.butter(4, (300, 3400), "band", fs=RATE_HZ, output="sos")
            sound = scipy.signal.sosfiltfilt(band, sound)
        if self.snr_db is not None:
            noise = scipy.signal.lfilter([1], [1, -0.9], rng.standard_normal(len(sound)))
            sound = sound + noise * (sound.std() / noise.std() * 10 ** (-self.snr_db / 20))
        if self.has_gain_control:
            level = np.sqrt(uniform_filter1d(sound**2, RATE_HZ // 2))
            sound = 0.01 * sound / (level + 0.1 * level.mean()) ** 0.7
        return sound.astype(np.float32)


def joined_voices(files: Sequence[Path], seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """(n,) float32 at 16 kHz: voices of equal loudness one after the other, in random order.

    Once all were used, they come again at other speeds: none repeats another.
    """
    voices = [read_audio(file, RATE_HZ) for file in files]
    parts: list[NDArray[np.float32]] = []
    num_parts = 0
    while sum(map(len, parts)) < seconds * RATE_HZ:
        voice = voices[num_parts % len(voices)]
        turn = num_parts // len(voices)
        speed_percent = 100 + 7 * (-1) ** turn * ((turn + 1) // 2)
        part = scipy.signal.resample_poly(voice, 100, speed_percent) if turn else voice
        parts.append((part / (part.std() + 1e-6) * _LEVEL).astype(np.float32))
        num_parts += 1
    order = np.random.default_rng(seed).permutation(num_parts)
    return np.concatenate([parts[index] for index in order])[: round(seconds * RATE_HZ)]


def synthetic_talk(seconds: float, seed: int) -> NDArray[np.float32]:
    """(n,) float32 at 16 kHz: syllables of random lengths and pitches, for where there are no voices."""
    rng = np.random.default_rng(seed)
    parts: list[NDArray[np.float64]] = []
    while sum(map(len, parts)) < seconds * RATE_HZ:
        size = int(rng.uniform(0.06, 0.3) * RATE_HZ)
        moments = np.arange(size) / RATE_HZ
        pitch_hz = rng.uniform(90, 260)
        waves = sum(rng.uniform() * np.sin(2 * np.pi * pitch_hz * k * moments) for k in range(1, 16))
        parts.append(waves * np.hanning(size) * rng.uniform(0.005, 0.03))
        parts.append(np.zeros(int(rng.uniform(0.0, 0.1) * RATE_HZ)))
    noise = 1e-4 * rng.standard_normal(int(seconds * RATE_HZ))
    return (np.concatenate(parts)[: len(noise)] + noise).astype(np.float32)


def voice_files(data_dir: Path) -> list[Path]:
    """The voices and talking clips of the real sample data."""
    folders = (data_dir / "voices", data_dir / "talking")
    files = (file for folder in folders for file in sorted(folder.rglob("*")))
    return [file for file in files if file.suffix in SOUND_SUFFIXES]


def through_codec(samples: NDArray[np.float32], codec: str, folder: Path) -> Path:
    """A file of (n,) samples in [-1, 1], encoded at 48 kbit/s.

    Args:
        samples: At 16 kHz.
        codec: A name of `CODECS`.
        folder: Gets the file.
    """
    form, suffix = CODECS[codec]
    path = folder / f"{codec}{suffix}"
    with replacing(path) as file, av.open(file, "w", format=form) as container:
        stream = cast("AudioStream", container.add_stream(codec, rate=RATE_HZ))
        stream.bit_rate = _BITS_PER_S
        stream.layout = "mono"
        for start in range(0, len(samples), RATE_HZ):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + RATE_HZ], "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, start, Fraction(1, RATE_HZ)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path
