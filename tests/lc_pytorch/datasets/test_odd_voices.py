"""Recordings as cameras and recorders leave them: training reads what `facevox.media` reads."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from facevox.errors import UserError
from facevox.media import MediaError, read_audio, write_wav
from lc_pytorch.datasets.face_voice import read_voice

RATE_HZ = 16000


def speech(seconds: float = 3.0, seed: int = 0) -> NDArray[np.float32]:
    """Noise with syllables."""
    times_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    noise = np.random.default_rng(seed).normal(0, 0.1, len(times_s))
    return (noise * (1 + np.sin(2 * np.pi * 4 * times_s)) / 2).astype(np.float32)


def likeness(samples: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.corrcoef(samples, other)[0, 1])


def whole(path: Path, num_samples: int = 3 * RATE_HZ) -> NDArray[np.float32]:
    return read_voice(path, num_samples, RATE_HZ, lambda total: 0)


@pytest.mark.parametrize("start", [0, 1000])
def test_opposite_channels_are_no_silence(tmp_path: Path, start: int) -> None:
    soundfile.write(tmp_path / "x.wav", np.stack([speech(), -0.9 * speech()], axis=1), RATE_HZ)
    samples = read_voice(tmp_path / "x.wav", RATE_HZ, RATE_HZ, lambda total: start)
    assert likeness(samples, speech()[start : start + RATE_HZ]) > 0.999
    assert np.abs(samples - read_audio(tmp_path / "x.wav")[start : start + RATE_HZ]).max() < 1e-4


def test_two_channels_are_averaged(tmp_path: Path) -> None:
    channels = np.stack([speech(seed=1), speech(seed=2)], axis=1)
    soundfile.write(tmp_path / "x.wav", channels, RATE_HZ, subtype="FLOAT")
    assert np.array_equal(whole(tmp_path / "x.wav"), channels.mean(axis=1, dtype=np.float32))


@pytest.mark.parametrize("form", ["WAV", "WAVEX", "FLAC"])
def test_centre_of_six_channels_is_kept(tmp_path: Path, form: str) -> None:
    channels = np.zeros((3 * RATE_HZ, 6), np.float32)
    channels[:, 2] = speech()
    channels[:, 3] = 0.5 * np.sin(2 * np.pi * 60 * np.arange(len(channels)) / RATE_HZ)
    path = tmp_path / ("x.flac" if form == "FLAC" else "x.wav")
    soundfile.write(path, channels, RATE_HZ, format=form)
    assert likeness(whole(path), speech()) > 0.999
    assert np.array_equal(whole(path), read_audio(path))


@pytest.mark.parametrize(("riff", "data"), [(0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFFFFF, 0x7FFFFFDB)])
def test_header_without_a_length_is_read_to_the_end(tmp_path: Path, riff: int, data: int) -> None:
    write_wav(tmp_path / "x.wav", speech(), RATE_HZ)
    content = bytearray((tmp_path / "x.wav").read_bytes())
    struct.pack_into("<I", content, 4, riff)
    struct.pack_into("<I", content, 40, data)
    (tmp_path / "x.wav").write_bytes(bytes(content))
    assert likeness(whole(tmp_path / "x.wav"), speech()) > 0.999


@pytest.mark.parametrize(("codec", "form"), [("aac", "mp4"), ("libmp3lame", "mp3"), ("flac", "flac")])
def test_name_that_does_not_fit_does_not_count(tmp_path: Path, codec: str, form: str) -> None:
    path = tmp_path / "x.wav"
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=RATE_HZ, layout="mono")
        block = (speech() * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE_HZ, 0
        resampler = av.AudioResampler(
            stream.format, "mono", RATE_HZ, frame_size=1152 if form == "mp3" else 1024
        )
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    assert likeness(whole(path), speech()) > 0.7


@pytest.mark.parametrize("rate_hz", [1, 999, 768_001])
def test_rate_that_nothing_has_is_refused(tmp_path: Path, rate_hz: int) -> None:
    write_wav(tmp_path / "x.wav", speech(0.1), RATE_HZ)
    content = bytearray((tmp_path / "x.wav").read_bytes())
    struct.pack_into("<II", content, 24, rate_hz, 2 * rate_hz)
    (tmp_path / "x.wav").write_bytes(bytes(content))
    with pytest.raises(UserError, match=f"a rate of {rate_hz} Hz"):
        whole(tmp_path / "x.wav")
    with pytest.raises(MediaError, match=f"a rate of {rate_hz} Hz"):
        read_audio(tmp_path / "x.wav")
