"""Mel bands and cepstra in NumPy: the numbers of a row depend neither on its position nor on other rows.

A matrix product would be shorter, but BLAS adds in an order that depends on the processor, on the threads and
on a row's position in a block, so equal sounds got unequal features. Here each row is transformed alone, and
the weighted bins of a band are added one by one, lowest first.

Letters: T rows (moments), F bins of a spectrum, B mel bands, K cepstral coefficients.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Reals = NDArray[np.float32 | np.float64]

BLOCK_ROWS = 2048  # transformed at a time: 8 MiB for rows of 512 samples, however long the sound is
# The scale of Slaney's Auditory Toolbox, librosa's default: linear below 1 kHz, logarithmic above.
_LINEAR_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0


def mel_power(samples: Reals, window: Floats, fft_size: int, hop: int, bands_BF: Floats) -> Floats:
    """(T, B) power in mel bands of every frame that is wholly within the samples.

    Args:
        samples: (n,) real samples; T = 1 + (n - fft_size) // hop, none where n is less.
        window: (fft_size,) factors.
        fft_size: Number of samples of a frame.
        hop: Samples from one frame to the next.
        bands_BF: Weights, F = fft_size // 2 + 1; see `slaney_bands` and `htk_bands`.
    """
    if len(samples) < fft_size:
        return np.zeros((0, len(bands_BF)))
    frames_TN = np.lib.stride_tricks.sliding_window_view(samples, fft_size)[::hop]
    power_TB = np.empty((len(frames_TN), len(bands_BF)))
    for start in range(0, len(frames_TN), BLOCK_ROWS):
        spectrum_TF = np.fft.rfft(frames_TN[start : start + BLOCK_ROWS] * window)
        power_TB[start : start + BLOCK_ROWS] = _band_sums(spectrum_TF.real**2 + spectrum_TF.imag**2, bands_BF)
    return power_TB


def _band_sums(power_TF: Floats, bands_BF: Floats) -> Floats:
    """(T, B) `power_TF @ bands_BF.T`, the products of each band added in ascending order of the bins."""
    first_B, count_B = _spans(bands_BF)
    sums_BT = np.zeros((len(bands_BF), len(power_TF)))
    power_FT = np.ascontiguousarray(power_TF.T)
    for band, (first, count) in enumerate(zip(first_B.tolist(), count_B.tolist(), strict=True)):
        for bin_ in range(first, first + count):
            sums_BT[band] += power_FT[bin_] * bands_BF[band, bin_]
    return sums_BT.T


def _spans(bands_BF: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First bin with a weight of each band, and the number of bins up to its last one."""
    has_BF = bands_BF != 0
    first_B = has_BF.argmax(axis=1)
    last_B = bands_BF.shape[1] - has_BF[:, ::-1].argmax(axis=1)
    return first_B, np.where(has_BF.any(axis=1), last_B - first_B, 0)


def cepstra(levels_TB: Reals, num_coefficients: int) -> Floats:
    """(T, K) orthonormal DCT-II of the levels of each row: MFCC, if these are decibels of mel bands.

    Args:
        levels_TB: Levels in B bands.
        num_coefficients: K, at most B.
    """
    basis_KB = _cosines(levels_TB.shape[1])[:num_coefficients]
    levels_BT = np.ascontiguousarray(levels_TB.T, np.float64)
    lowest_T = levels_BT[0]
    sums_KT = np.zeros((len(basis_KB), len(lowest_T)))
    # Relative to the lowest band: where all are equal, the coefficients above the first are 0, not 1e-14.
    for band, level_T in enumerate(levels_BT):
        sums_KT += basis_KB[:, band, None] * (level_T - lowest_T)
    sums_KT[:1] += np.sqrt(len(levels_BT)) * lowest_T
    cepstra_TK: Floats = sums_KT.T
    return cepstra_TK


@lru_cache(maxsize=8)
def _cosines(num: int) -> Floats:
    """(num, num) rows of the orthonormal DCT-II."""
    angles = np.pi / num * np.outer(np.arange(num), np.arange(num) + 0.5)
    basis: Floats = np.sqrt(2.0 / num) * np.cos(angles)
    basis[0] /= np.sqrt(2.0)
    return basis


@lru_cache(maxsize=8)
def slaney_bands(rate_hz: float, fft_size: int, num_bands: int) -> Floats:
    """(B, F) triangles of equal area from 0 Hz to half the rate, as in librosa's `filters.mel`.

    Source: Slaney 1998, Auditory Toolbox; rounded to float32, as librosa rounds its own.
    """
    highest_mel = _BREAK_MEL + np.log(rate_hz / 2 / _BREAK_HZ) / _LOG_STEP
    mels = np.linspace(0.0, highest_mel, num_bands + 2)
    above = _BREAK_HZ * np.exp(_LOG_STEP * (mels - _BREAK_MEL))
    edges_hz = np.where(mels < _BREAK_MEL, _LINEAR_HZ_PER_MEL * mels, above)
    areas = 2.0 / (edges_hz[2:] - edges_hz[:-2])
    bands_BF: Floats = _triangles(edges_hz, rate_hz, fft_size) * areas[:, None]
    return bands_BF.astype(np.float32).astype(np.float64)


@lru_cache(maxsize=8)
def htk_bands(rate_hz: float, fft_size: int, num_bands: int) -> Floats:
    """(B, F) triangles of height 1 from 0 Hz to half the rate, evenly spaced in 2595 log10(1 + f / 700).

    Source: Davis and Mermelstein 1980; the scale as in HTK.
    """
    highest_mel = 2595.0 * np.log10(1.0 + rate_hz / 2 / 700.0)
    edges_hz = 700.0 * (10.0 ** (np.linspace(0.0, highest_mel, num_bands + 2) / 2595.0) - 1.0)
    return _triangles(edges_hz, rate_hz, fft_size)


def _triangles(edges_hz: Floats, rate_hz: float, fft_size: int) -> Floats:
    low, middle, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    bins_hz = np.fft.rfftfreq(fft_size, 1.0 / rate_hz)
    rising, falling = (bins_hz - low) / (middle - low), (high - bins_hz) / (high - middle)
    return np.clip(np.minimum(rising, falling), 0.0, None)
