"""SyncNet's cepstral coefficients, compared with sums written out."""

from pathlib import Path

import numpy as np
import pytest

from facevox.media import read_audio
from lipsync.lse import sound
from lipsync.lse.sound import sound_rows


def slow_bands() -> np.ndarray:
    """(26, 257) weights, bin by bin."""
    mels = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 28)
    edges = [int(513 * 700 * (10 ** (mel / 2595) - 1) / 16000) for mel in mels]
    bands = np.zeros((26, 257))
    for band in range(26):
        low, middle, high = edges[band : band + 3]
        for bin_ in range(low, middle):
            bands[band, bin_] = (bin_ - low) / (middle - low)
        for bin_ in range(middle, high):
            bands[band, bin_] = (high - bin_) / (high - middle)
    return bands


def slow_rows(samples: np.ndarray) -> np.ndarray:
    """Row by row: an explicit Fourier sum, filters, logarithm, cosine sum, lifter."""
    values = [min(max(round(float(sample) * 32768), -32768), 32767) for sample in samples]
    emphasised = [value - 0.97 * before for value, before in zip(values, [0, *values[:-1]], strict=True)]
    num_rows = 1 if len(samples) <= 400 else 1 + int(np.ceil((len(samples) - 400) / 160))
    emphasised += [0.0] * (160 * (num_rows - 1) + 400 - len(emphasised))
    waves = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512)
    eps, bands, rows = np.finfo(float).eps, slow_bands(), []
    for row in range(num_rows):
        power = np.abs(waves @ np.array(emphasised[160 * row : 160 * row + 400])) ** 2 / 512
        logs = [np.log(float(band @ power) or eps) for band in bands]
        cepstrum = [
            np.sqrt((1 if k == 0 else 2) / 26)
            * sum(level * np.cos(np.pi * k * (2 * band + 1) / 52) for band, level in enumerate(logs))
            * (1 + 11 * np.sin(np.pi * k / 22))
            for k in range(13)
        ]
        rows.append([np.log(float(power.sum()) or eps), *cepstrum[1:]])
    return np.array(rows)


@pytest.mark.parametrize("num_samples", [1, 399, 400, 401, 560, 561, 4000])
def test_rows_are_those_of_slow_sums_whatever_the_length(num_samples: int) -> None:
    rng = np.random.default_rng(num_samples)
    samples = (0.3 * rng.standard_normal(num_samples)).astype(np.float32)  # some beyond full scale
    rows, expected = sound_rows(samples), slow_rows(samples)
    assert rows.shape == expected.shape
    np.testing.assert_allclose(rows, expected, atol=2e-4)


def test_silence_is_finite_and_equal_to_slow_sums() -> None:
    samples = np.zeros(1600, np.float32)
    np.testing.assert_allclose(sound_rows(samples), slow_rows(samples), rtol=1e-5, atol=1e-4)


def test_rows_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(5).uniform(-1, 1, 16_000).astype(np.float32)
    whole = sound_rows(samples)
    monkeypatch.setattr(sound, "BLOCK_ROWS", 7)
    np.testing.assert_array_equal(sound_rows(samples), whole)


@pytest.mark.real_data
def test_rows_of_a_real_voice_are_those_of_slow_sums(real_data_dir: Path) -> None:
    samples = read_audio(real_data_dir / "talking/syncnet_example.avi", 16_000, 2.0, 0.5)
    np.testing.assert_allclose(sound_rows(samples), slow_rows(samples), atol=2e-4)
