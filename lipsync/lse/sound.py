"""The sound features of SyncNet: 13 mel-frequency cepstral coefficients, 100 rows a second.

Those of `mfcc` in the package python_speech_features with its defaults, of 16-bit values: pre-emphasis, rows
of 25 ms without a window function, 26 mel bands whose edges are rounded down to whole bins, lifter 22, and
the logarithm of the row's energy as the first coefficient. Row j is of the samples from j / 100 s on.

Letters: T rows, F bins of the spectrum, B bands, K coefficients.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from facevox.signs import report_progress
from facevox.spectra import Floats, cepstra, mel_power
from lipsync.clips.sounds import SAMPLE_RATE_HZ

HOP = 160  # 10 ms
ROW = 400  # 25 ms
FFT = 512
NUM_BANDS, NUM_COEFFICIENTS = 26, 13
PRE_EMPHASIS = 0.97
LIFTER = 22
FULL_SCALE = 32768.0  # of 16-bit samples
BLOCK_ROWS = 6000  # a minute: 16 MB of spectra, however long the sound is
# Without a window function; the transform is longer than the row.
_WINDOW = np.pad(np.ones(ROW), (0, FFT - ROW))


def sound_rows(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T, 13) coefficients of (n,) samples at 16 kHz, -1 to 1; T = 1 + ceil((n - 400) / 160), at least 1.

    The last row has silence after the end of the sound.
    """
    num_rows = 1 + max(-(-(len(samples) - ROW) // HOP), 0)
    rows_TK = np.empty((num_rows, NUM_COEFFICIENTS), np.float32)
    for start in range(0, num_rows, BLOCK_ROWS):
        report_progress()
        stop = min(start + BLOCK_ROWS, num_rows)
        rows_TK[start:stop] = _block_rows(samples, start, stop)
    return rows_TK


def _block_rows(samples: NDArray[np.float32], start: int, stop: int) -> Floats:
    """Rows from `start` to before `stop`."""
    first = start * HOP
    emphasised = _emphasised(samples, first, first + (stop - 1 - start) * HOP + FFT)
    power_TB = mel_power(emphasised, _WINDOW, FFT, HOP, _bands_and_energy()) / FFT
    power_TB = np.where(power_TB == 0, np.finfo(np.float64).eps, power_TB)
    logs_TB = np.log(power_TB)
    order_K = np.arange(NUM_COEFFICIENTS)
    rows_TK = cepstra(logs_TB[:, :NUM_BANDS], NUM_COEFFICIENTS)
    rows_TK = rows_TK * (1 + LIFTER / 2 * np.sin(np.pi * order_K / LIFTER))
    rows_TK[:, 0] = logs_TB[:, NUM_BANDS]
    return rows_TK


def _emphasised(samples: NDArray[np.float32], start: int, stop: int) -> Floats:
    """16-bit values after pre-emphasis from sample `start` to before `stop`; 0 after the end."""
    values = samples[max(start - 1, 0) : stop].astype(np.float64)
    values = np.clip(np.rint(values * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1)
    before = np.concatenate([np.zeros(int(start == 0)), values])[:-1]
    emphasised = values[int(start > 0) :] - PRE_EMPHASIS * before
    return np.pad(emphasised, (0, stop - start - len(emphasised)))


@lru_cache(maxsize=1)
def _bands_and_energy() -> Floats:
    """(B + 1, F) weights: triangles between whole bins, then a row that adds all bins up."""
    highest_mel = 2595 * np.log10(1 + SAMPLE_RATE_HZ / 2 / 700)
    edges_hz = 700 * (10 ** (np.linspace(0, highest_mel, NUM_BANDS + 2) / 2595) - 1)
    edges = np.floor((FFT + 1) * edges_hz / SAMPLE_RATE_HZ)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.arange(FFT // 2 + 1)
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    triangles = np.clip(np.minimum(rising, falling), 0, None)
    return np.vstack([triangles, np.ones(len(bins))])
