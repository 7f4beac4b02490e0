"""Speech in a recording, by its loudness: levels of short frames, and which of them are speech."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAME_S = 0.02  # loudness is measured over 20 ms: shorter than a syllable, longer than a pitch period
# Speech is louder than the noise floor (10th percentile) by this, or by half of the way up to the
# loud parts (95th percentile) where that is less, and within 40 dB of them: room noise of steady level
# counts as silence however loud it is.
ABOVE_FLOOR_DB = 9.0
# Less between floor and loud parts is a recording without pauses: its quietest tenth is speech too.
MIN_RANGE_DB = 12.0
BELOW_LOUD_DB = 40.0
SILENCE_DB = -60.0  # below this nothing counts as speech: 16-bit noise and codec residue


class LevelMeter:
    """Loudness of the sound that passes through, block by block.

    It keeps one level for each frame: 700 kB an hour.

    Args:
        rate_hz: Samples a second.
    """

    def __init__(self, rate_hz: int) -> None:
        self._frame = max(round(FRAME_S * rate_hz), 1)
        self._pending = np.zeros(0, np.float32)
        self._levels = array("f")
        self._sum = 0.0
        self.count = 0  # samples so far
        self._peak = 0.0

    def watch(self, blocks: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yields the blocks of (n,) samples as they are, and measures them."""
        # A block rarely ends with a frame: the samples after its last whole frame wait for the next block.
        for block in blocks:
            self._sum += float(np.square(block, dtype=np.float64).sum())
            self.count += len(block)
            self._peak = max(self._peak, float(np.abs(block).max(initial=0.0)))
            joined = np.concatenate([self._pending, block])
            whole = len(joined) // self._frame * self._frame
            self._levels.frombytes(frame_levels_db(joined[:whole], self._frame).tobytes())
            self._pending = joined[whole:]
            yield block

    def levels_db(self) -> NDArray[np.float32]:
        """The level of each whole frame of FRAME_S so far, as `frame_levels_db` has them."""
        return np.array(self._levels, np.float32)

    def values(self) -> dict[str, float]:
        """Loudness and share of speech of the sound so far, by the names of the columns."""
        levels = self.levels_db()
        rms = (self._sum / max(self.count, 1)) ** 0.5
        return {
            "rms_db": round(20 * float(np.log10(max(rms, 1e-6))), 2),
            "peak": round(self._peak, 4),
            "speech_share": round(float(speech_frames(levels).mean()), 4) if len(levels) else 0.0,
        }


def frame_levels_db(samples: NDArray[np.float32], frame: int) -> NDArray[np.float32]:
    """The level of each whole frame of `frame` samples, in dB of full scale (0 is the loudest)."""
    whole = len(samples) // frame
    power: NDArray[np.float32] = np.square(samples[: whole * frame].reshape(whole, frame)).mean(
        axis=1, dtype=np.float32
    )
    levels_db: NDArray[np.float32] = (10 * np.log10(np.maximum(power, 1e-12))).astype(np.float32)
    return levels_db


def speech_frames(levels_db: NDArray[np.float32]) -> NDArray[np.bool_]:
    """True for frames loud enough for speech, by the noise floor and the loud parts of this recording."""
    if not len(levels_db):
        return np.zeros(0, np.bool_)
    loud_db = float(np.percentile(levels_db, 95))
    floor_db = float(np.percentile(levels_db, 10))
    bar_db = max(loud_db - BELOW_LOUD_DB, SILENCE_DB)
    if loud_db - floor_db >= MIN_RANGE_DB:
        bar_db = max(floor_db + min(ABOVE_FLOOR_DB, (loud_db - floor_db) / 2), bar_db)
    return levels_db > bar_db
