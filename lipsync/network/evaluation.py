"""Accuracy of an estimator on windows of takes whose offset is known.

Everything is measured on windows in which every lag of the search exists: otherwise the lags that do exist
would reveal the answer. Shifting the sound of a take by whole rows of 10 ms gives the same features
as shifting its samples (tested), so that one matrix of similarities serves all shifts. "Within a frame"
means that the offset, rounded to whole frames, is at most one frame off: known offsets are known to a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from facevox.intervals import Measure, bootstrap_over_groups
from lipsync.clips.clock import ROWS_PER_FRAME
from lipsync.network.takes import Take
from lipsync.network.windows import find_windows
from lipsync.sync.calibration import SyncCalibration, curve_features
from lipsync.sync.estimators import SyncEstimator
from lipsync.sync.offset import lag_curve

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW_FRAMES = (5, 10, 15, 25, 50, 125)  # 0.2 to 5 s
SCORED_FRAMES = (50, 125)  # windows whose score is measured too
MAX_FRAMES = 15  # of the search, to each side
SEARCH_ROWS = MAX_FRAMES * ROWS_PER_FRAME
FAR_FRAMES, MOST_FRAMES = 7, 12  # "shifted by 7 frames and more"
NEAR_FRAMES = (3, 4)
REACH_ROWS = SEARCH_ROWS + MOST_FRAMES * ROWS_PER_FRAME  # of similarities that shifted windows need
KINDS = ("in sync", "shifted by 7+ frames", "shifted by 3-4 frames", "swapped sound")


@dataclass
class Measurements:
    """Measurements of one estimator on windows.

    Attributes:
        hits: By length of window and speaker: whether the offset was found within a frame.
        features: By length and kind: (speaker, features of the curve) of each window.
    """

    hits: dict[int, dict[str, list[bool]]] = field(default_factory=lambda: {n: {} for n in WINDOW_FRAMES})
    features: dict[tuple[int, str], list[tuple[str, NDArray[np.float64]]]] = field(
        default_factory=lambda: {(n, kind): [] for n in SCORED_FRAMES for kind in KINDS}
    )


def measure_take(
    measured: Measurements,
    take: Take,
    foreign: Take | None,
    estimator: SyncEstimator,
    rng: np.random.Generator,
) -> None:
    """Adds the windows of a take.

    Args:
        measured: Is added to.
        take: To measure.
        foreign: The take whose sound replaces its own; None: that is left out.
        estimator: Not fitted on any of their speakers.
        rng: Draws the shifts; the same seed gives each estimator the same windows.
    """
    lags = np.arange(-REACH_ROWS, REACH_ROWS + 1, dtype=np.int64)
    matching = estimator.similarities(take.track, take.sound, take.lag + lags)
    search = slice(REACH_ROWS - SEARCH_ROWS, REACH_ROWS + SEARCH_ROWS + 1)
    for length in WINDOW_FRAMES:
        hits = measured.hits[length].setdefault(take.speaker, [])
        for first in find_windows(take, length, lags_rows=SEARCH_ROWS):
            hits.append(is_within_a_frame(matching[first : first + length, search]))
    swapped = None
    if foreign is not None:
        swapped = estimator.similarities(take.track, foreign.sound, lags[search])
    for length in SCORED_FRAMES:
        for first in find_windows(take, length, lags_rows=REACH_ROWS):
            window = matching[first : first + length]
            shifts = {
                KINDS[0]: 0,
                KINDS[1]: int(rng.integers(FAR_FRAMES, MOST_FRAMES + 1) * rng.choice((-1, 1))),
                KINDS[2]: int(rng.choice(NEAR_FRAMES) * rng.choice((-1, 1))),
            }
            for kind, shift in shifts.items():
                # A shifted sound is the same matrix with another lag in the middle.
                middle = REACH_ROWS + shift * ROWS_PER_FRAME
                part = window[:, middle - SEARCH_ROWS : middle + SEARCH_ROWS + 1]
                measured.features[length, kind].append((take.speaker, _features(part)))
            if swapped is not None and np.isfinite(swapped[first : first + length]).any(axis=0).all():
                features = _features(swapped[first : first + length])
                measured.features[length, KINDS[3]].append((take.speaker, features))


def is_within_a_frame(similarities_TL: NDArray[np.float32]) -> bool:
    """True if the best lag of a window whose middle lag is the right one is right to a frame."""
    curve = np.nanmean(similarities_TL, axis=0)
    best = int(np.argmax(curve)) - len(curve) // 2
    return abs(round(best / ROWS_PER_FRAME)) <= 1


def _features(similarities_TL: NDArray[np.float32]) -> NDArray[np.float64]:
    lags = np.arange(-SEARCH_ROWS, SEARCH_ROWS + 1, dtype=np.int64)
    return curve_features(lag_curve(similarities_TL, lags))


def foreign_of(takes: Sequence[Take], number: int) -> Take | None:
    """The take of another speaker whose sound replaces that of `takes[number]`.

    It is one of the longer half, so that most windows have a counterpart, and differs from take to take.
    """
    others = [take for take in takes if take.speaker != takes[number].speaker]
    others.sort(key=lambda take: (-len(take.sound.log_mel), take.name))
    return others[number % max(len(others) // 2, 1)] if others else None


def accuracy(measured: Measurements, length: int) -> Measure:
    """Share of windows whose offset was found within a frame."""
    return mean_over_speakers(measured.hits[length])


def mean_over_speakers(values: Mapping[str, Sequence[int]]) -> Measure:
    """The mean of whole numbers, one for each window, by speaker."""
    groups = [values[speaker] for speaker in sorted(values) if values[speaker]]
    sums, nums = np.array([sum(group) for group in groups]), np.array([len(group) for group in groups])
    return bootstrap_over_groups(
        lambda times_DG: times_DG @ sums / (times_DG @ nums), len(groups), num=int(nums.sum())
    )


Probabilities = Mapping[tuple[int, str], Sequence[tuple[str, float]]]


def probabilities_by(measured: Measurements, calibration: SyncCalibration) -> Probabilities:
    """Probabilities of being in sync by one calibration, fitted on other speakers."""
    return {
        key: [(speaker, float(calibration.probabilities(row[None])[0])) for speaker, row in entries]
        for key, entries in measured.features.items()
    }


def area_under_roc(
    positives_P: NDArray[np.float64],
    negatives_N: NDArray[np.float64],
    positive_times_DP: NDArray[np.float64],
    negative_times_DN: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(D,) share of pairs with the positive above the negative, ties half, in each draw; NaN without pairs.

    Args:
        positives_P: Scores of the positives.
        negatives_N: Scores of the negatives.
        positive_times_DP: How often each positive counts, in each draw.
        negative_times_DN: Likewise.
    """
    # Negatives below a score are a running sum over the sorted ones; the left and the right side of equal
    # ones, added, count a tie as half of two.
    order = np.argsort(negatives_N)
    ordered = negatives_N[order]
    counts = np.cumsum(np.pad(negative_times_DN[:, order], ((0, 0), (1, 0))), axis=1)
    twice_below = sum(counts[:, np.searchsorted(ordered, positives_P, side)] for side in ("left", "right"))
    pairs = positive_times_DP.sum(axis=1) * negative_times_DN.sum(axis=1)
    with np.errstate(invalid="ignore"):
        area: NDArray[np.float64] = (positive_times_DP * twice_below).sum(axis=1) / 2 / pairs
    return area


def auc(likely: Probabilities, length: int, kind: str) -> Measure:
    """AUC of windows in sync against those of `kind`, by their probability."""
    speakers = sorted({speaker for speaker, _ in likely[length, kind]})
    area = area_by_draw(likely, length, kind, speakers)
    return bootstrap_over_groups(area, len(speakers), num=len(likely[length, kind]))


def area_by_draw(
    likely: Probabilities, length: int, kind: str, speakers: Sequence[str]
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """The AUC as a function of how often each speaker comes up."""
    positives, positive_owners = with_owners(likely[length, KINDS[0]], speakers)
    negatives, negative_owners = with_owners(likely[length, kind], speakers)
    return lambda times_DG: area_under_roc(
        positives, negatives, times_DG[:, positive_owners], times_DG[:, negative_owners]
    )


def with_owners(
    entries: Sequence[tuple[str, float]], speakers: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Values of these speakers, and the index of each one's speaker among them."""
    numbers = {speaker: number for number, speaker in enumerate(speakers)}
    owned = [(value, numbers[speaker]) for speaker, value in entries if speaker in numbers]
    return np.array([value for value, _ in owned]), np.array([number for _, number in owned], np.int64)
