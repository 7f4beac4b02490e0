"""Sound features: log-mel and MFCC, 100 a second, on the clock of the pictures.

Row j is centred on presentation time j / 100 s, so rows 4k to 4k + 3 belong to frame k of the 25 frames a
second (row 4k is centred on its moment). Each row depends on the 32 ms around it and on nothing else of the
clip: the same sound gives the same numbers to the last bit whole, in blocks, moved by whole rows, or cut out.
They are librosa's within 1e-4 dB. librosa itself computes them where `features` is `LIBROSA`: after an import
of seconds, and in blocks the same up to rounding only.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from facevox.errors import UserError, one_line
from facevox.growing import GrowingArray
from facevox.signs import report_progress
from facevox.spectra import cepstra, mel_power, slaney_bands

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
HOP = 160  # 10 ms
WINDOW = 400  # 25 ms, Hann, in the middle of the transform
FFT = 512
FLOOR_DB = -100.0  # of an all-zero row
BLOCK_SAMPLES = 60 * SAMPLE_RATE_HZ  # of a whole sound at a time: 2 MB of spectra, however long it is
NUMPY, LIBROSA = "numpy", "librosa"  # `features`: the library that computes them
SILENCE_DB = -70.0  # of the loudest band; codec residue is below, a whisper far above
# Periodic, in the middle of the transform, as librosa pads it.
_WINDOW = np.pad(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW), (FFT - WINDOW) // 2)


@dataclass(frozen=True)
class SoundFeatures:
    """Features of a stretch of sound.

    Attributes:
        log_mel: (rows, bands) float32: 10 log10 of the mel power (librosa's, of samples in [-1, 1]), from
            FLOOR_DB up; 0 to 8000 Hz.
        mfcc: (rows, coefficients) float32: librosa's MFCC of that; the 0th grows with the loudness.
        features: `NUMPY` or `LIBROSA`, for what is computed from these later as well.
    """

    log_mel: "NDArray[np.float32]"
    mfcc: "NDArray[np.float32]"
    features: str = NUMPY


class SoundFeatureStream:
    """Features of sound that comes in blocks; the rows do not depend on how it is cut into blocks.

    Args:
        num_mels: Bands.
        num_mfcc: Coefficients, at most `num_mels`.
        features: `NUMPY` or `LIBROSA`.
    """

    def __init__(self, num_mels: int = 40, num_mfcc: int = 13, features: str = NUMPY) -> None:
        self._nothing = SoundFeatures(
            np.zeros((0, num_mels), np.float32), np.zeros((0, num_mfcc), np.float32), features
        )
        # Row 0 is centred on the first sample: half a transform of silence comes before it.
        self._rest: NDArray[np.float32] = np.zeros(FFT // 2, np.float32)
        self._num_samples = 0
        self._num_rows = 0

    def push(self, samples: "NDArray[np.float32]") -> SoundFeatures:
        """The rows that are complete with these (n,) further samples; none for a short block."""
        report_progress()
        self._num_samples += len(samples)
        self._rest = np.concatenate([self._rest, samples.astype(np.float32)])
        return self._rows(max((len(self._rest) - FFT) // HOP + 1, 0))

    def finish(self) -> SoundFeatures:
        """The last rows: those centred on samples that came, with silence after the end."""
        num_rows = -(-self._num_samples // HOP) - self._num_rows
        missing = (num_rows - 1) * HOP + FFT - len(self._rest)
        self._rest = np.concatenate([self._rest, np.zeros(max(missing, 0), np.float32)])
        return self._rows(num_rows)

    def _rows(self, num_rows: int) -> SoundFeatures:
        if num_rows <= 0:
            return self._nothing
        samples = self._rest[: (num_rows - 1) * HOP + FFT]
        num_mels, num_mfcc = self._nothing.log_mel.shape[1], self._nothing.mfcc.shape[1]
        power = _power(samples, num_mels, self._nothing.features)
        # No limit below the loudest: it would bind each row to the rest of the clip.
        log_mel = 10.0 * np.log10(np.maximum(power, 10 ** (FLOOR_DB / 10)))
        mfcc = mfcc_of(log_mel, num_mfcc, self._nothing.features)
        self._rest = self._rest[num_rows * HOP :]
        self._num_rows += num_rows
        return replace(self._nothing, log_mel=log_mel.astype(np.float32), mfcc=mfcc.astype(np.float32))


def sound_features(
    samples: "NDArray[np.float32]", num_mels: int = 40, num_mfcc: int = 13, features: str = NUMPY
) -> SoundFeatures:
    """The features of (n,) samples at `SAMPLE_RATE_HZ`: ceil(n / HOP) rows."""
    return features_of_blocks([samples], num_mels, num_mfcc, features)


def features_of_blocks(
    blocks: Iterable["NDArray[np.float32]"], num_mels: int = 40, num_mfcc: int = 13, features: str = NUMPY
) -> SoundFeatures:
    """The features of samples in blocks of any sizes; few blocks are in memory at a time."""
    stream = SoundFeatureStream(num_mels, num_mfcc, features)
    log_mel, mfcc = GrowingArray(np.float32, (num_mels,)), GrowingArray(np.float32, (num_mfcc,))

    def add(part: SoundFeatures) -> None:
        log_mel.add(part.log_mel)
        mfcc.add(part.mfcc)

    for block in _of_size(blocks, BLOCK_SAMPLES):
        add(stream.push(block))
    add(stream.finish())
    return SoundFeatures(log_mel.take(), mfcc.take(), features)


def _of_size(blocks: Iterable["NDArray[np.float32]"], size: int) -> Iterator["NDArray[np.float32]"]:
    """The samples in blocks of one size; the last may be shorter."""
    waiting = GrowingArray(np.float32)
    for block in blocks:
        for start in range(0, len(block), size):
            part = block[start : start + size]
            missing = size - len(waiting)
            waiting.add(part[:missing])
            if len(waiting) == size:
                yield waiting.take()
                waiting.add(part[missing:])
    yield waiting.take()


def first_samples(blocks: Iterable["NDArray[np.float32]"], count: int) -> Iterator["NDArray[np.float32]"]:
    """The first `count` samples of (n,) blocks; the blocks after them are not asked for."""
    for block in blocks:
        yield block[:count]
        count -= len(block)
        if count <= 0:
            return


def mfcc_of(
    levels_TB: "NDArray[np.float32 | np.float64]", num_mfcc: int, features: str
) -> "NDArray[np.float64]":
    """(T, K) MFCC of levels in decibels."""
    if features != LIBROSA:
        return cepstra(levels_TB, num_mfcc)
    import librosa.feature

    levels_BT = levels_TB.T.astype(np.float64)
    coefficients_KT: NDArray[np.float64] = librosa.feature.mfcc(S=levels_BT, n_mfcc=num_mfcc)
    return coefficients_KT.T


def _power(samples: "NDArray[np.float32]", num_mels: int, features: str) -> "NDArray[np.float64]":
    """(T, B) power in mel bands of every frame that is wholly within the samples."""
    if features != LIBROSA:
        return mel_power(samples, _WINDOW, FFT, HOP, slaney_bands(SAMPLE_RATE_HZ, FFT, num_mels))
    import librosa.feature

    # In double precision, as NumPy's: coefficients are sums of 40 levels, rounded ones differ by 1e-4.
    power_BT: NDArray[np.float64] = librosa.feature.melspectrogram(
        y=samples.astype(np.float64), sr=SAMPLE_RATE_HZ, n_fft=FFT, win_length=WINDOW, hop_length=HOP,
        center=False, n_mels=num_mels, fmin=0.0, fmax=SAMPLE_RATE_HZ / 2,
    )  # fmt: skip
    return power_BT.T


def require_features(features: str) -> None:
    """Imports what computes the features, before the first slow step.

    Raises:
        UserError: librosa is to compute them, and is not installed or does not load.
    """
    if features != LIBROSA:
        return
    try:
        from librosa.feature import melspectrogram  # noqa: F401
    except (ImportError, RuntimeError) as error:  # RuntimeError: numba finds no folder for its cache
        raise UserError(
            f"--features librosa (audio.features): {one_line(error)}; pip install librosa, or leave the "
            "option out: NumPy computes the same numbers"
        ) from None
