"""Recordings to be aligned: their samples, and the onsets in mel bands by which they are searched.

Letters: T frames of 10 ms, B mel bands, C stretches of a recording, F bins of their spectra.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.fft
from scipy.ndimage import uniform_filter1d

from facevox.growing import GrowingArray
from facevox.media import MediaError, iter_audio
from facevox.signs import report_progress
from facevox.sound_choice import PLAYED, SoundChoice
from facevox.spectra import mel_power, slaney_bands

if TYPE_CHECKING:
    from numpy.typing import NDArray

RATE_HZ = 16_000
FRAME_HZ = 100
HOP = RATE_HZ // FRAME_HZ
FFT_SIZE = 512  # 32 ms
MAX_SOUND_S = 12 * 3600.0  # 1.4 GB of samples
# Of 32 bands up to 8 kHz those from 200 to 3700 Hz, which a telephone transmits.
_BANDS = slice(2, 22)
NUM_BANDS = _BANDS.stop - _BANDS.start
_SLOW_FRAMES, _SMOOTH_FRAMES = 101, 5  # 1 s: slower changes are gain; 50 ms: faster ones are noise
_LEVEL_FRAMES = 1001  # 10 s, over which the onsets of each band get one and the same power
_MOST_ONSET = 3.0  # of their standard deviation: one bang must not outweigh a sentence
_FLOOR_QUANTILE, _FLOOR_SHARE = 20, 1e-6
SILENCE_POWER = 1e-8  # -80 dB
STEADY_DB = 1.0  # between the 5th and the 95th percentile of the level; white noise has 0.9, speech 30
BLOCK_FRAMES = 2400  # longest piece that is searched for as a whole
STRETCH_FRAMES = 16_384


@dataclass(frozen=True)
class Recording:
    """The sound of a file, ready to be compared.

    Attributes:
        samples: (n,) float16 in [-1, 1] at 16 kHz, mono: full precision at any level, in half the memory.
        onsets_TB: (T, B) float32, changes of the level in each band, of unit power; frame k is centred at
            k / 100 + 0.016 s.
        fault: Why nothing can be compared ("silent"), or "".
    """

    samples: NDArray[np.float16]
    onsets_TB: NDArray[np.float32]
    fault: str = ""

    @property
    def duration_s(self) -> float:
        """Its length in s."""
        return len(self.samples) / RATE_HZ


def read_recording(path: str | Path, choice: SoundChoice = PLAYED) -> Recording:
    """The sound of a file, from its presentation time 0 on.

    Raises:
        MediaError: As `iter_audio`, or longer than `MAX_SOUND_S`.
    """
    bands = slaney_bands(RATE_HZ, FFT_SIZE, 32)[_BANDS]
    window = np.hanning(FFT_SIZE)
    samples, power_TB = GrowingArray(np.float16), GrowingArray(np.float32, (NUM_BANDS,))
    rest: NDArray[np.float32] = np.zeros(0, np.float32)
    for blocks in _second_blocks(path, choice):
        samples.add(np.clip(blocks, -60_000, 60_000))  # the largest float16 is 65504
        if len(samples) > MAX_SOUND_S * RATE_HZ:
            raise MediaError(f"{path}: longer than {MAX_SOUND_S / 3600:.0f} h; cut it into parts")
        block = np.concatenate([rest, blocks])
        power = mel_power(block, window, FFT_SIZE, HOP, bands)
        power_TB.add(power)
        rest = block[len(power) * HOP :]
        report_progress()
    return _prepared(samples.take(), power_TB.take())


def _second_blocks(path: str | Path, choice: SoundChoice) -> Iterator[NDArray[np.float32]]:
    """The sound in blocks of a second and more: those of the decoder are of 20 ms."""
    blocks: list[NDArray[np.float32]] = []
    count = 0
    for block in iter_audio(path, RATE_HZ, choice=choice):
        blocks.append(block)
        count += len(block)
        if count >= RATE_HZ:
            yield np.concatenate(blocks)
            blocks, count = [], 0
    if blocks:
        yield np.concatenate(blocks)


def recording_of(samples: NDArray[np.float32]) -> Recording:
    """A recording of (n,) mono samples in [-1, 1] at 16 kHz."""
    bands = slaney_bands(RATE_HZ, FFT_SIZE, 32)[_BANDS]
    power_TB = mel_power(samples, np.hanning(FFT_SIZE), FFT_SIZE, HOP, bands).astype(np.float32)
    return _prepared(samples.astype(np.float16), power_TB)


def _prepared(samples: NDArray[np.float16], power_TB: NDArray[np.float32]) -> Recording:
    fault = _fault_of(power_TB)
    return Recording(samples, np.zeros_like(power_TB) if fault else _onsets(power_TB), fault)


def _fault_of(power_TB: NDArray[np.float32]) -> str:
    level_T = power_TB.sum(axis=1, dtype=np.float64) / FFT_SIZE
    # Pauses are no sound: a tone that is keyed in Morse code has onsets, which count.
    if level_T.max(initial=0.0) < SILENCE_POWER:
        return "silent"
    low, high = np.percentile(10 * np.log10(level_T + SILENCE_POWER), (5, 95))
    return "steady (a tone, a hum or noise)" if high - low < STEADY_DB else ""


def _onsets(power_TB: NDArray[np.float32]) -> NDArray[np.float32]:
    """Changes of the level in each band, in units of their own deviation; in place of the powers."""
    for power_T in power_TB.T:
        floor = np.percentile(power_T, _FLOOR_QUANTILE) + _FLOOR_SHARE * power_T.mean() + 1e-12
        level = np.log(power_T + floor)
        level = uniform_filter1d(level, _SMOOTH_FRAMES)
        onset = level - uniform_filter1d(level, _SLOW_FRAMES)
        scale = np.sqrt(uniform_filter1d(onset**2, _LEVEL_FRAMES))
        onset /= np.maximum(scale, 0.2 * onset.std()) + 1e-9
        power_T[:] = np.clip(onset, -_MOST_ONSET, _MOST_ONSET)
    return power_TB


@dataclass(frozen=True)
class SoundIndex:
    """A recording in which many others are searched for: prepared once.

    Attributes:
        recording: Its samples and onsets.
        spectra_CBF: complex64 spectra of overlapping stretches of its onsets, with silence of
            `BLOCK_FRAMES` before and after.
        energies: (T + 2 BLOCK_FRAMES + 1,) power of the onsets up to each frame.
    """

    recording: Recording
    spectra_CBF: NDArray[np.complex64]
    energies: NDArray[np.float64]

    STEP = STRETCH_FRAMES - BLOCK_FRAMES

    @classmethod
    def of(cls, recording: Recording) -> SoundIndex:
        """The index of a recording."""
        padded_TB = np.pad(recording.onsets_TB, ((BLOCK_FRAMES, BLOCK_FRAMES), (0, 0)))
        energies = np.concatenate([[0.0], np.cumsum((padded_TB**2).sum(axis=1, dtype=np.float64))])
        starts = range(0, len(padded_TB), cls.STEP)
        spectra = np.empty((len(starts), NUM_BANDS, STRETCH_FRAMES // 2 + 1), np.complex64)
        for number, start in enumerate(starts):
            stretch = padded_TB[start : start + STRETCH_FRAMES].T
            spectra[number] = scipy.fft.rfft(stretch, STRETCH_FRAMES)
        return cls(recording, spectra, energies)

    def save(self, folder: Path) -> None:
        """Writes the arrays into a folder, from which several processes can share them."""
        recording = self.recording
        for name, array in (
            ("samples", recording.samples),
            ("onsets", recording.onsets_TB),
            ("spectra", self.spectra_CBF),
            ("energies", self.energies),
        ):
            np.save(folder / f"{name}.npy", array, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> SoundIndex:
        """The index that `save` wrote; its arrays are read from the files where they are used."""
        samples, onsets, spectra, energies = (
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("samples", "onsets", "spectra", "energies")
        )
        return cls(Recording(samples, onsets), spectra, energies)
