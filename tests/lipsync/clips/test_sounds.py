"""Log-mel and MFCC: librosa's numbers, on the clock of the pictures, in blocks or whole."""

import itertools
import sys
import tracemalloc
from pathlib import Path

import librosa
import numpy as np
import pytest

from facevox.errors import UserError
from facevox.media import read_audio, write_wav
from facevox_demo.example.clips import plan_clip
from facevox_demo.example.people import make_person
from facevox_demo.example.voice import speak
from lipsync.clips import sounds
from lipsync.clips.sounds import (
    FLOOR_DB,
    HOP,
    LIBROSA,
    NUMPY,
    SAMPLE_RATE_HZ,
    SoundFeatures,
    SoundFeatureStream,
    features_of_blocks,
    mfcc_of,
    require_features,
    sound_features,
)

pytestmark = pytest.mark.numeric


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, num_samples).astype(np.float32)


def librosas(samples: np.ndarray, num_mels: int = 40, num_mfcc: int = 13) -> SoundFeatures:
    """Features of the whole sound at once, by librosa, with silence around it."""
    num_rows = -(-len(samples) // HOP)
    mel = librosa.feature.melspectrogram(
        y=np.pad(samples.astype(np.float64), (0, 512)), sr=16000, n_fft=512, win_length=400,
        hop_length=160, center=True, pad_mode="constant", n_mels=num_mels, fmin=0, fmax=8000,
    )  # fmt: skip
    log_mel = librosa.power_to_db(mel[:, :num_rows], top_db=None)
    return SoundFeatures(log_mel.T, librosa.feature.mfcc(S=log_mel, n_mfcc=num_mfcc).T)


def assert_alike(features: SoundFeatures, expected: SoundFeatures) -> None:
    """Every value is within 1e-4 dB."""
    assert features.log_mel.shape == expected.log_mel.shape
    assert features.mfcc.shape == expected.mfcc.shape
    assert np.abs(features.log_mel - expected.log_mel).max() < 1e-4
    assert np.abs(features.mfcc - expected.mfcc).max() < 1e-4


def tone(num_samples: int, hz: float = 440.0, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz / SAMPLE_RATE_HZ * np.arange(num_samples))).astype(np.float32)


SOUNDS = {
    "noise": noise(16_001),
    "a tone: other bands are 100 dB below it": tone(16_000),
    "clipped": np.clip(tone(16_000, amplitude=9.0), -1, 1),
    "above full scale": noise(8_000) * np.float32(50),
    "silence": np.zeros(4_000, np.float32),
    "silence of a codec": noise(8_000) * np.float32(1e-5),
    "speech after silence": np.concatenate([np.zeros(5_000, np.float32), noise(5_000)]),
    "a click": np.eye(1, 3_000, 1_234, dtype=np.float32)[0],
    "a constant": np.full(4_000, 0.3, np.float32),
    **{
        f"{num} samples": noise(num, num)
        for num in (1, 2, 80, 159, 160, 161, 255, 256, 257, 400, 511, 512, 513)
    },
    "several blocks": noise(150 * SAMPLE_RATE_HZ + 77),
}


@pytest.mark.parametrize("features", [NUMPY, LIBROSA])
@pytest.mark.parametrize("name", SOUNDS)
def test_rows_are_those_of_librosa(name: str, features: str) -> None:
    assert_alike(sound_features(SOUNDS[name], features=features), librosas(SOUNDS[name]))


@pytest.mark.parametrize(("num_mels", "num_mfcc"), [(8, 2), (20, 20), (80, 13), (128, 128)])
def test_other_sizes_are_those_of_librosa(num_mels: int, num_mfcc: int) -> None:
    samples = noise(8_000)
    assert_alike(sound_features(samples, num_mels, num_mfcc), librosas(samples, num_mels, num_mfcc))


def test_example_voices_have_librosas_rows_at_every_rate_that_they_come_in(tmp_path: Path) -> None:
    voice = speak(plan_clip(make_person(0, 3), 0, 2.0))
    for rate_hz in (8_000, 11_025, 22_050, 44_100, 48_000, 96_000):
        write_wav(tmp_path / "voice.wav", voice, rate_hz)  # faster or slower: other sounds, resampled
        samples = read_audio(tmp_path / "voice.wav", SAMPLE_RATE_HZ)
        assert_alike(sound_features(samples), librosas(samples))


@pytest.mark.slow
@pytest.mark.real_data
def test_real_voices_have_librosas_rows(real_data_dir: Path) -> None:
    files = [file for folder in ("voices", "talking") for file in (real_data_dir / folder).rglob("*.*")]
    assert len(files) > 40
    for file in files:
        samples = read_audio(file, SAMPLE_RATE_HZ)
        assert_alike(sound_features(samples), librosas(samples))


def test_working_memory_does_not_grow_with_the_sound() -> None:
    samples = np.zeros(30 * 60 * SAMPLE_RATE_HZ, np.float32)
    tracemalloc.start()
    features = sound_features(samples)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    result = features.log_mel.nbytes + features.mfcc.nbytes
    assert peak < 2.2 * result + 16e6, "the result, its parts, and the spectra of a block"


def test_coefficients_of_given_levels_are_librosas() -> None:
    levels = np.maximum(np.random.default_rng(3).normal(-40, 20, (50, 40)), -55).astype(np.float32)
    by_librosa = mfcc_of(levels, 13, LIBROSA)
    assert np.abs(mfcc_of(levels, 13, NUMPY) - by_librosa).max() < 1e-10
    assert mfcc_of(levels[:0], 13, LIBROSA).shape == (0, 13)


def test_librosa_that_does_not_load_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "librosa.feature", None)
    require_features(NUMPY)
    with pytest.raises(UserError, match=r"--features librosa .*pip install librosa") as caught:
        require_features(LIBROSA)
    assert "\n" not in str(caught.value)


def test_rows_agree_with_a_slow_transform_written_out() -> None:
    samples = noise(3000, 1)
    padded = np.concatenate([np.zeros(256), samples, np.zeros(512)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)  # periodic Hann
    bank = librosa.filters.mel(sr=16000, n_fft=512, n_mels=20, fmin=0, fmax=8000)
    times, bins = np.arange(512), np.arange(257)
    basis = np.exp(-2j * np.pi * np.outer(bins, times) / 512)
    found = sound_features(samples, num_mels=20).log_mel
    for row in (0, 5, 18):
        part = padded[row * HOP : row * HOP + 512].copy()
        part[56:456] *= window
        part[:56] = part[456:] = 0
        power = np.abs(basis @ part) ** 2
        assert np.abs(10 * np.log10(bank @ power) - found[row]).max() < 1e-3


@pytest.mark.parametrize("num_samples", [0, 1, 159, 160, 161, 500, 4001])
@pytest.mark.parametrize("block", [1000, 7, 160])
def test_blocks_give_the_rows_of_the_whole(num_samples: int, block: int) -> None:
    samples = noise(num_samples)
    whole = sound_features(samples)
    assert len(whole.log_mel) == len(whole.mfcc) == -(-num_samples // HOP)
    stream = SoundFeatureStream()
    parts = [stream.push(samples[k : k + block]) for k in range(0, num_samples, block)] + [stream.finish()]
    np.testing.assert_array_equal(np.concatenate([part.log_mel for part in parts]), whole.log_mel)
    np.testing.assert_array_equal(np.concatenate([part.mfcc for part in parts]), whole.mfcc)


@pytest.mark.parametrize("block", [512, 1000, 7 * HOP, 4001])
def test_blocks_of_a_whole_sound_do_not_show(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = noise(20_001)
    whole = sound_features(samples)
    monkeypatch.setattr(sounds, "BLOCK_SAMPLES", block)
    np.testing.assert_array_equal(sound_features(samples).log_mel, whole.log_mel)
    np.testing.assert_array_equal(sound_features(samples).mfcc, whole.mfcc)
    # librosa's products are BLAS's: the same up to rounding.
    assert_alike(sound_features(samples, features=LIBROSA), whole)


@pytest.mark.parametrize("sizes", [(7, 1), (160, 0, 999), (70_000,)])
def test_blocks_of_any_sizes_are_features_of_the_whole(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sounds, "BLOCK_SAMPLES", 1000)
    samples, blocks, start = noise(20_001), [], 0
    for size in itertools.cycle(sizes):
        blocks.append(samples[start : start + size])
        start += size
        if start >= len(samples):
            break
    found, whole = features_of_blocks(iter(blocks)), sound_features(samples)
    np.testing.assert_array_equal(found.log_mel, whole.log_mel)
    np.testing.assert_array_equal(found.mfcc, whole.mfcc)
    assert [part.shape for part in (features_of_blocks([]).log_mel, features_of_blocks([]).mfcc)] == [
        (0, 40),
        (0, 13),
    ]


def test_row_is_centred_on_its_moment() -> None:
    samples = np.zeros(SAMPLE_RATE_HZ, np.float32)
    samples[5000] = 1.0  # 312.5 ms
    energy = (10 ** (sound_features(samples).log_mel / 10)).sum(axis=1)
    centre = (energy * np.arange(100)).sum() / energy.sum()
    assert centre == pytest.approx(31.25, abs=0.3)


def test_silence_is_at_the_floor_and_finite() -> None:
    found = sound_features(np.zeros(1600, np.float32))
    assert np.all(found.log_mel == pytest.approx(FLOOR_DB))
    assert np.isfinite(found.mfcc).all()


def test_rows_do_not_depend_on_the_rest_of_the_clip() -> None:
    samples = noise(8000)
    loud = samples.copy()
    loud[6000:] *= 100
    assert np.array_equal(sound_features(samples).log_mel[:30], sound_features(loud).log_mel[:30])
