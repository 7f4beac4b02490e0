"""Sound features: log-mel and MFCC, 100 a second, on the clock of the pictures.

Row j is centred on presentation time j / 100 s, so rows 4k to 4k + 3 belong to frame k of the 25 frames a
second (row 4k is centred on its moment). Each row depends on the 32 ms around it and on nothing else of the
clip: the same sound gives the same numbers to the last bit whole, in blocks, moved by whole rows, or cut out.
They are librosa's within 1e-4 dB.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facevox.spectra import cepstra, mel_power, slaney_bands

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
HOP = 160  # 10 ms
WINDOW = 400  # 25 ms, Hann, in the middle of the transform
FFT = 512
FLOOR_DB = -100.0  # of an all-zero row
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
    """

    log_mel: "NDArray[np.float32]"
    mfcc: "NDArray[np.float32]"


class SoundFeatureStream:
    """Features of sound that comes in blocks; the rows do not depend on how it is cut into blocks.

    Args:
        num_mels: Bands.
        num_mfcc: Coefficients, at most `num_mels`.
    """

    def __init__(self, num_mels: int = 40, num_mfcc: int = 13) -> None:
        self._num_mels = num_mels
        self._num_mfcc = num_mfcc
        # Row 0 is centred on the first sample: half a transform of silence comes before it.
        self._rest: NDArray[np.float32] = np.zeros(FFT // 2, np.float32)
        self._num_samples = 0
        self._num_rows = 0

    def push(self, samples: "NDArray[np.float32]") -> SoundFeatures:
        """The rows that are complete with these (n,) further samples; none for a short block."""
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
            return SoundFeatures(
                np.zeros((0, self._num_mels), np.float32), np.zeros((0, self._num_mfcc), np.float32)
            )
        samples = self._rest[: (num_rows - 1) * HOP + FFT]
        power = mel_power(samples, _WINDOW, FFT, HOP, slaney_bands(SAMPLE_RATE_HZ, FFT, self._num_mels))
        # No limit below the loudest: it would bind each row to the rest of the clip.
        log_mel = 10.0 * np.log10(np.maximum(power, 10 ** (FLOOR_DB / 10)))
        mfcc = cepstra(log_mel, self._num_mfcc)
        self._rest = self._rest[num_rows * HOP :]
        self._num_rows += num_rows
        return SoundFeatures(log_mel.astype(np.float32), mfcc.astype(np.float32))


def sound_features(samples: "NDArray[np.float32]", num_mels: int = 40, num_mfcc: int = 13) -> SoundFeatures:
    """The features of (n,) samples at `SAMPLE_RATE_HZ`: ceil(n / HOP) rows."""
    stream = SoundFeatureStream(num_mels, num_mfcc)
    parts = [stream.push(samples), stream.finish()]
    return SoundFeatures(
        np.concatenate([part.log_mel for part in parts]), np.concatenate([part.mfcc for part in parts])
    )
