"""The place of one recording's sound in that of another: sound against sound.

    index = index_sound("master.wav")
    for clip in clips:
        alignment = align_sounds(clip, index)

First the whole master is searched for the clip's onsets (`places`), then lags are measured by GCC-PHAT along
each place (`lags`). A place is reported only where the lags agree beyond chance and no second place has
more than half as many: music that repeats, a jingle, fits in several.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facevox.errors import UserError
from facevox.sound_choice import PLAYED, SoundChoice
from lipsync.repair.lags import LEAST_OVERLAP_S, Lags, measure_lags
from lipsync.repair.places import find_places
from lipsync.repair.recordings import Recording, SoundIndex, read_recording

if TYPE_CHECKING:
    from lipsync.repair.places import Line

# In 935 comparisons of unrelated voices, some with the same hum or in noise, the least chance was 1.2e-4.
MOST_CHANCE = 1e-5
AMBIGUOUS_SHARE = 0.5  # of the best place's agreeing lags, at a second place


@dataclass(frozen=True)
class SoundAlignment:
    """Position of a clip on the clock of the master.

    A moment t of the clip, in s from its presentation time 0, is at start_s + t * (1 + drift_ppm / 1e6) of
    the master, whatever of either exists there. All but the last four are nan where no place stands out.

    Attributes:
        start_s: Time in the master at which the clip begins; negative: before the master does.
        drift_ppm: Positive: the master's clock runs ahead, the clip lasts longer there than in its own file.
        residual_ms: Standard deviation of the lags that agree around the line, in ms.
        overlap_s: Length of what both have, in s of the clip.
        confidence: 0 to 1: 1 less the probability of chance, shared with a second place that fits.
        agreement: Share of the compared windows, 0 to 1, whose lag is within 1 ms of the line; the best
            place's, also where it does not stand out.
        other_start_s: Start at the second place, where one fits too; else nan.
        duration_s: Length of the clip's sound.
        reason: Why no place stands out, or "".
    """

    start_s: float
    drift_ppm: float
    residual_ms: float
    overlap_s: float
    confidence: float
    agreement: float
    other_start_s: float
    duration_s: float
    reason: str

    @property
    def is_aligned(self) -> bool:
        """True if a place stands out."""
        return not self.reason

    @property
    def end_s(self) -> float:
        """Time in the master at which the clip's sound ends."""
        return self.start_s + self.duration_s * (1 + self.drift_ppm / 1e6)

    @property
    def overlap_share(self) -> float:
        """Share of the clip, 0 to 1, that the master has too."""
        return self.overlap_s / self.duration_s if self.duration_s else np.nan


def index_sound(path: str | Path, choice: SoundChoice = PLAYED) -> SoundIndex:
    """The master's sound, prepared for any number of clips.

    Raises:
        MediaError: It cannot be read, or is too long.
        UserError: It is silent, steady or too short, so that nothing can be aligned to it.
    """
    recording = read_recording(path, choice)
    if fault := _fault(recording):
        raise UserError(f"{path}: its sound is {fault}; nothing can be aligned to it")
    return SoundIndex.of(recording)


def align_sounds(
    clip: str | Path, master: str | Path | SoundIndex, choice: SoundChoice = PLAYED
) -> SoundAlignment:
    """The position of a clip's sound in a master's.

    Args:
        clip: A file with sound.
        master: A file, or its index where several clips are aligned to it.
        choice: Track and channel of the clip.

    Raises:
        MediaError: A file that cannot be read, has no sound, or is too long.
        UserError: As `index_sound`.
    """
    index = master if isinstance(master, SoundIndex) else index_sound(master)
    return align_recordings(read_recording(clip, choice), index)


def align_recordings(clip: Recording, index: SoundIndex) -> SoundAlignment:
    """The position of one recording in another."""
    if fault := _fault(clip):
        return _nowhere(clip, f"its sound is {fault}")
    places = [measure_lags(clip, index.recording, line) for line in find_places(clip, index)]
    places.sort(key=lambda lags: (lags.chance, -lags.num_agreeing))
    if not places:
        return _nowhere(clip, "no place in the reference stands out")
    best = places[0]
    agreement = best.num_agreeing / best.num_windows if best.num_windows else 0.0
    if best.chance > MOST_CHANCE:
        return _nowhere(clip, "no place in the reference stands out", agreement)
    others = [lags for lags in places[1:] if lags.chance <= MOST_CHANCE and not _is_same(lags, best)]
    num_others = max((lags.num_agreeing for lags in others), default=0)
    other_start_s = _start_s(max(others, key=lambda lags: lags.num_agreeing).line) if others else np.nan
    confidence = (1 - best.chance) * best.num_agreeing / (best.num_agreeing + num_others)
    reason = ""
    if num_others > AMBIGUOUS_SHARE * best.num_agreeing:
        reason = f"it fits at {_start_s(best.line):z.2f} s and at {other_start_s:z.2f} s of the reference"
        return _nowhere(clip, reason, agreement, confidence, other_start_s)
    return SoundAlignment(
        start_s=_start_s(best.line),
        drift_ppm=best.line.slope * 1e6,
        residual_ms=best.residual_s * 1e3,
        overlap_s=best.overlap_s,
        confidence=confidence,
        agreement=agreement,
        other_start_s=other_start_s,
        duration_s=clip.duration_s,
        reason=reason,
    )


def _fault(recording: Recording) -> str:
    if recording.duration_s < LEAST_OVERLAP_S:
        return f"shorter than {LEAST_OVERLAP_S:.1f} s"
    return recording.fault


def _is_same(lags: Lags, best: Lags) -> bool:
    """True if both are one place: their fine lines are the same, whatever the rough ones were."""
    return abs(lags.line.lag_s - best.line.lag_s) < 0.05


def _start_s(line: Line) -> float:
    return line.lag_s - line.slope * line.middle_s


def _nowhere(
    clip: Recording,
    reason: str,
    agreement: float = 0.0,
    confidence: float = 0.0,
    other_start_s: float = np.nan,
) -> SoundAlignment:
    nan = np.nan
    return SoundAlignment(nan, nan, nan, nan, confidence, agreement, other_start_s, clip.duration_s, reason)
