"""Mel bands and cepstra: librosa's numbers, and equal rows wherever they stand."""

import librosa
import numpy as np
import pytest
import scipy.fft

from facevox import spectra
from facevox.spectra import cepstra, htk_bands, mel_power, slaney_bands

pytestmark = pytest.mark.numeric

WINDOW = np.pad(np.hanning(401)[:400], 56)


def noise(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, num).astype(np.float32)


def power(samples: np.ndarray) -> np.ndarray:
    return mel_power(samples, WINDOW, 512, 160, slaney_bands(16_000, 512, 40))


@pytest.mark.parametrize("num_bands", [20, 40, 80])
@pytest.mark.parametrize("rate_hz", [16_000, 22_050])
def test_bands_are_librosas(num_bands: int, rate_hz: int) -> None:
    slaney = librosa.filters.mel(sr=rate_hz, n_fft=512, n_mels=num_bands)
    np.testing.assert_allclose(slaney_bands(rate_hz, 512, num_bands), slaney, atol=1e-9, rtol=1e-6)
    htk = librosa.filters.mel(sr=rate_hz, n_fft=512, n_mels=num_bands, htk=True, norm=None)
    np.testing.assert_allclose(htk_bands(rate_hz, 512, num_bands), htk, atol=1e-6)


def test_power_is_a_matrix_product_of_librosas_spectrum() -> None:
    samples = noise(20_000)
    spectrum = librosa.stft(
        samples.astype(np.float64), n_fft=512, win_length=400, hop_length=160, center=False
    )
    expected = np.abs(spectrum.T) ** 2 @ slaney_bands(16_000, 512, 40).T
    np.testing.assert_allclose(power(samples), expected, rtol=1e-10)


def test_cepstra_are_an_orthonormal_cosine_transform() -> None:
    levels = np.random.default_rng(1).normal(-40, 10, (9, 40))
    np.testing.assert_allclose(cepstra(levels, 13), scipy.fft.dct(levels, norm="ortho")[:, :13], atol=1e-10)
    assert cepstra(np.zeros((0, 40)), 13).shape == (0, 13)


def test_short_sounds_have_no_row() -> None:
    assert power(noise(511)).shape == (0, 40)
    assert power(noise(512)).shape == (1, 40)


@pytest.mark.parametrize("block_rows", [1, 7, 64])
def test_equal_sounds_give_equal_rows_wherever_they_stand(block_rows: int, monkeypatch) -> None:
    samples = noise(16_000)
    whole = power(samples)
    monkeypatch.setattr(spectra, "BLOCK_ROWS", block_rows)
    np.testing.assert_array_equal(power(samples), whole)
    coefficients = cepstra(np.log(whole), 13)
    for first, last in [(0, 1), (3, 4), (5, 12), (17, 90), (96, 97)]:
        part = power(samples[160 * first : 160 * (last - 1) + 512])
        np.testing.assert_array_equal(part, whole[first:last])
        np.testing.assert_array_equal(cepstra(np.log(part), 13), coefficients[first:last])
