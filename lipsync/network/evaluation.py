"""How well an estimator does on windows of takes whose offset is known.

Everything is measured on windows in which every lag that is looked at exists: otherwise the lags that are
left would give the answer away. Shifting the sound of a take by whole rows of 10 ms gives the same features
as shifting its samples (tested), so that one matrix of similarities serves all shifts. "Within a frame"
means that the offset, rounded to whole frames, is at most one frame off: known offsets are known to a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lipsync.clips.clock import ROWS_PER_FRAME
from lipsync.clips.features import ClipFeatures
from lipsync.clips.sounds import SoundFeatures
from lipsync.network.takes import Take
from lipsync.network.windows import find_windows
from lipsync.sync.calibration import (
    SyncCalibration,
    calibration_examples,
    curve_features,
    expected_calibration_error,
)
from lipsync.sync.estimators import SyncEstimator
from lipsync.sync.offset import lag_curve

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW_FRAMES = (5, 10, 15, 25, 50, 125)  # 0.2 to 5 s
SCORED_FRAMES = (50, 125)  # windows that are also told apart by their score
MAX_FRAMES = 15  # of the search, to each side
SEARCH_ROWS = MAX_FRAMES * ROWS_PER_FRAME
FAR_FRAMES, MOST_FRAMES = 7, 12  # "shifted by 7 frames and more"
NEAR_FRAMES = (3, 4)
REACH_ROWS = SEARCH_ROWS + MOST_FRAMES * ROWS_PER_FRAME  # of similarities that shifted windows need
KINDS = ("in sync", "shifted by 7+ frames", "shifted by 3-4 frames", "swapped sound")
NUM_RESAMPLES = 1000


@dataclass
class Measurements:
    """What was measured on the windows of one estimator.

    Attributes:
        hits: By length of window and speaker: whether the offset was found within a frame.
        features: By length and kind: (speaker, features of the curve) of each window.
        examples: By fold: (features, is in sync) of what training would calibrate on.
    """

    hits: dict[int, dict[str, list[bool]]] = field(default_factory=lambda: {n: {} for n in WINDOW_FRAMES})
    features: dict[tuple[int, str], list[tuple[str, NDArray[np.float64]]]] = field(
        default_factory=lambda: {(n, kind): [] for n in SCORED_FRAMES for kind in KINDS}
    )
    examples: dict[int, list[tuple[NDArray[np.float64], bool]]] = field(default_factory=dict)


def add_examples(
    found: Measurements, fold: int, takes: Sequence[Take], lender: Take, estimator: SyncEstimator
) -> None:
    """Adds the calibration examples of a fold, made as training makes them of its validation clips.

    Args:
        found: Grows.
        fold: Its number.
        takes: Of the fold.
        lender: Lends its sound to swap where the fold has one take alone.
        estimator: Not fitted on `takes`.
    """
    clips = [clip_in_sync(take) for take in (takes if len(takes) > 1 else [*takes, lender])]
    found.examples[fold] = list(calibration_examples(clips, estimator, seed=fold))


def clip_in_sync(take: Take) -> ClipFeatures:
    """A clip of one face whose sound is moved by its known offset, in whole rows."""
    rows = np.arange(len(take.sound.log_mel)) - take.lag
    exists = (rows >= 0) & (rows < len(rows))
    # What would lie before the recording is its first row, again and again: less than half a second.
    rows = np.clip(rows[: len(rows) if take.lag >= 0 else int(exists.sum())], 0, len(rows) - 1)
    sound = SoundFeatures(take.sound.log_mel[rows], take.sound.mfcc[rows])
    return ClipFeatures(take.track.start + len(take.track), (0,), (take.track,), sound)


def measure_take(
    found: Measurements,
    take: Take,
    foreign: Take | None,
    estimator: SyncEstimator,
    rng: np.random.Generator,
) -> None:
    """Adds the windows of a take.

    Args:
        found: Grows.
        take: To measure.
        foreign: Whose sound is put in the place of its own; None: that is left out.
        estimator: Not fitted on any of their speakers.
        rng: Draws the shifts; the same seed gives each estimator the same windows.
    """
    lags = np.arange(-REACH_ROWS, REACH_ROWS + 1, dtype=np.int64)
    own = estimator.similarities(take.track, take.sound, take.lag + lags)
    search = slice(REACH_ROWS - SEARCH_ROWS, REACH_ROWS + SEARCH_ROWS + 1)
    for length in WINDOW_FRAMES:
        hits = found.hits[length].setdefault(take.speaker, [])
        for first in find_windows(take, length, lags_rows=SEARCH_ROWS):
            hits.append(is_within_a_frame(own[first : first + length, search]))
    swapped = None
    if foreign is not None:
        swapped = estimator.similarities(take.track, foreign.sound, lags[search])
    for length in SCORED_FRAMES:
        for first in find_windows(take, length, lags_rows=REACH_ROWS):
            window = own[first : first + length]
            shifts = {
                KINDS[0]: 0,
                KINDS[1]: int(rng.integers(FAR_FRAMES, MOST_FRAMES + 1) * rng.choice((-1, 1))),
                KINDS[2]: int(rng.choice(NEAR_FRAMES) * rng.choice((-1, 1))),
            }
            for kind, shift in shifts.items():
                middle = REACH_ROWS + shift * ROWS_PER_FRAME
                part = window[:, middle - SEARCH_ROWS : middle + SEARCH_ROWS + 1]
                found.features[length, kind].append((take.speaker, _features(part)))
            if swapped is not None and np.isfinite(swapped[first : first + length]).any(axis=0).all():
                features = _features(swapped[first : first + length])
                found.features[length, KINDS[3]].append((take.speaker, features))


def is_within_a_frame(similarities_TL: NDArray[np.float32]) -> bool:
    """Whether the best lag of a window, its middle being the right one, is right to a frame."""
    curve = np.nanmean(similarities_TL, axis=0)
    best = int(np.argmax(curve)) - len(curve) // 2
    return abs(round(best / ROWS_PER_FRAME)) <= 1


def _features(similarities_TL: NDArray[np.float32]) -> NDArray[np.float64]:
    lags = np.arange(-SEARCH_ROWS, SEARCH_ROWS + 1, dtype=np.int64)
    return curve_features(lag_curve(similarities_TL, lags))


def foreign_of(takes: Sequence[Take], number: int) -> Take | None:
    """The take of another speaker whose sound is put in the place of that of `takes[number]`.

    Of the longer half, so that most windows have a counterpart, another one for each take.
    """
    others = [take for take in takes if take.speaker != takes[number].speaker]
    others.sort(key=lambda take: (-len(take.sound.log_mel), take.name))
    return others[number % max(len(others) // 2, 1)] if others else None


@dataclass(frozen=True)
class Value:
    """A figure with its 90 % interval over speakers, and how many windows of how many speakers it is of."""

    value: float
    low: float
    high: float
    num: int
    num_speakers: int


def over_speakers(
    statistic: Callable[[Sequence[str]], float], speakers: Sequence[str], num: int, seed: int = 0
) -> Value:
    """A statistic of speakers (with repetitions), and its bootstrap interval over them."""
    rng = np.random.default_rng(seed)
    drawn = [
        statistic([speakers[k] for k in rng.integers(0, len(speakers), len(speakers))])
        for _ in range(NUM_RESAMPLES)
    ]
    low, high = np.nanpercentile(drawn, (5, 95))
    return Value(statistic(speakers), float(low), float(high), num, len(speakers))


def accuracy(found: Measurements, length: int) -> Value:
    """Share of windows whose offset was found within a frame."""
    hits = {speaker: np.array(own) for speaker, own in found.hits[length].items() if own}

    def share(speakers: Sequence[str]) -> float:
        return float(np.concatenate([hits[name] for name in speakers]).mean())

    return over_speakers(share, sorted(hits), sum(map(len, hits.values())))


def accuracy_difference(one: Measurements, other: Measurements, length: int) -> Value:
    """Accuracy of `one` less that of `other` on the same windows."""
    paired = {
        speaker: np.array(own, np.float64) - np.array(other.hits[length][speaker], np.float64)
        for speaker, own in one.hits[length].items()
        if own
    }

    def share(speakers: Sequence[str]) -> float:
        return float(np.concatenate([paired[name] for name in speakers]).mean())

    return over_speakers(share, sorted(paired), sum(map(len, paired.values())))


Probabilities = Mapping[tuple[int, str], Sequence[tuple[str, float]]]


def calibrated(found: Measurements, folds: Sequence[Sequence[str]]) -> Probabilities:
    """Probabilities of being in sync, each by a calibration fitted on the speakers of the other folds."""
    fitted = []
    for fold in folds:
        rows = [
            (features, kind == KINDS[0])
            for (_, kind), entries in found.features.items()
            for speaker, features in entries
            if speaker not in fold and kind != KINDS[2]
        ]
        features, labels = zip(*rows, strict=True)
        fitted.append(SyncCalibration.fit(np.stack(features), np.array(labels)))
    number_of = {speaker: number for number, fold in enumerate(folds) for speaker in fold}
    return {
        key: [
            (speaker, float(fitted[number_of[speaker]].probabilities(features[None])[0]))
            for speaker, features in entries
        ]
        for key, entries in found.features.items()
    }


def calibrated_as_trained(found: Measurements, folds: Sequence[Sequence[str]]) -> Probabilities:
    """As `calibrated`, but fitted as training does it: on what `add_examples` made of the other folds."""
    likely: dict[tuple[int, str], list[tuple[str, float]]] = {key: [] for key in found.features}
    for number, fold in enumerate(folds):
        rows = [row for other, own in found.examples.items() if other != number for row in own]
        features, labels = zip(*rows, strict=True)
        fitted = SyncCalibration.fit(np.stack(features), np.array(labels))
        for key, entries in probabilities_by(found, fitted).items():
            likely[key] += [(speaker, value) for speaker, value in entries if speaker in fold]
    return likely


def probabilities_by(found: Measurements, calibration: SyncCalibration) -> Probabilities:
    """Probabilities of being in sync by one calibration, fitted on other speakers."""
    return {
        key: [(speaker, float(calibration.probabilities(row[None])[0])) for speaker, row in entries]
        for key, entries in found.features.items()
    }


def area(positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> float:
    """Area under the ROC curve: how often a positive is above a negative, ties counted half."""
    if not len(positives) or not len(negatives):
        return float("nan")
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, positives, "left") + np.searchsorted(ordered, positives, "right")
    return float(below.mean() / 2 / len(negatives))


def auc(likely: Probabilities, length: int, kind: str) -> Value:
    """Windows in sync against those of `kind`, by their probability."""
    speakers = sorted({speaker for speaker, _ in likely[length, kind]})
    return over_speakers(_area_of(likely, length, kind), speakers, len(likely[length, kind]))


def auc_difference(one: Probabilities, other: Probabilities, length: int, kind: str) -> Value:
    """AUC of `one` less that of `other`, on the same windows and the same draws of speakers."""
    speakers = sorted({speaker for speaker, _ in one[length, kind]})
    first, second = (_area_of(likely, length, kind) for likely in (one, other))
    return over_speakers(lambda names: first(names) - second(names), speakers, len(one[length, kind]))


def _area_of(likely: Probabilities, length: int, kind: str) -> Callable[[Sequence[str]], float]:
    """The AUC as a function of speakers."""
    sides = [_by_speaker(likely, length, side) for side in (KINDS[0], kind)]

    def of_speakers(names: Sequence[str]) -> float:
        positives, negatives = (
            np.concatenate([own[name] for name in names if name in own] or [np.zeros(0)]) for own in sides
        )
        return area(positives, negatives)

    return of_speakers


def _by_speaker(likely: Probabilities, length: int, kind: str) -> dict[str, NDArray[np.float64]]:
    values: dict[str, list[float]] = {}
    for speaker, value in likely[length, kind]:
        values.setdefault(speaker, []).append(value)
    return {speaker: np.array(own) for speaker, own in values.items()}


def calibration_error(likely: Probabilities, length: int) -> Value:
    """ECE on as many windows in sync as out of sync, these shifted by 7+ frames and swapped in turns."""
    chosen: dict[str, list[tuple[float, bool]]] = {}
    for speaker, value in likely[length, KINDS[0]]:
        chosen.setdefault(speaker, []).append((value, True))
    for turn, kind in enumerate((KINDS[1], KINDS[3])):
        for speaker, value in likely[length, kind][turn::2]:
            chosen.setdefault(speaker, []).append((value, False))

    def error(speakers: Sequence[str]) -> float:
        values, labels = zip(*(row for name in speakers for row in chosen[name]), strict=True)
        return expected_calibration_error(np.array(values), np.array(labels))

    return over_speakers(error, sorted(chosen), sum(map(len, chosen.values())))
