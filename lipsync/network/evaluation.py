"""Accuracy of an estimator on windows of takes whose offset is known, and what it would tell of them.

Where the best lag is, is measured on windows in which every lag of the search exists: otherwise the lags
that do exist would reveal the answer. Answers are measured on those in which every lag of ±600 ms exists;
a lag without sound is no evidence there. Shifting the sound of a take by whole rows of 10 ms gives the same
features as shifting its samples (tested), so that one matrix of similarities serves all shifts. "Found" means
that the best lag is within 40 ms of the known offset, which is known to about 20 ms itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from facevox.calibration import expected_calibration_error
from facevox.intervals import Measure, bootstrap_over_groups
from lipsync.network.takes import Take
from lipsync.network.windows import find_windows
from lipsync.sync.offset import LAG_MS, search_lags
from lipsync.sync.posterior import NEAR_MS, Example, SyncCalibration, block_evidence, find_posterior
from lipsync.sync.verdicts import AUDIO_EARLY, AUDIO_LATE, CANNOT_TELL, IN_SYNC, NO_MATCH, judge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lipsync.sync.estimators import SyncEstimator

WINDOW_FRAMES = (5, 7, 9, 11, 13, 15, 25, 50, 125, 250)  # 0.2 to 10 s
SCORED_FRAMES = (50, 125, 250)  # windows that are answered
SEARCHES_MS = (600.0, 1000.0)  # to each side; 15 frames is what the literature searches
SEARCH_MS = SEARCHES_MS[0]
LEAST_WIDE_FRAMES = 25  # windows that the wide search is reported for
NEAR_ROWS = round(NEAR_MS / LAG_MS)
SHIFTS_ROWS = (10, 48)  # of shifted windows: 100 to 480 ms
FAR_MS = 100.0  # a reported offset that is off by more is wrong
REACH_ROWS = round(SEARCHES_MS[-1] / LAG_MS) + SHIFTS_ROWS[1]  # of similarities that shifted windows need
SYNCED, SHIFTED, SWAPPED = KINDS = ("in sync", "shifted by 100 to 480 ms", "swapped sound")
NUM_BINS = 10  # of the calibration error: there are a hundred windows


@dataclass(frozen=True)
class Answer:
    """The answer on a window.

    Attributes:
        speaker: Whose window it is.
        score: Probability of being in sync.
        verdict: Its kind.
        error_ms: Reported offset less the true one; nan where none is or there is none.
        is_covered: Whether the interval of the offset holds the true one.
    """

    speaker: str
    score: float
    verdict: str
    error_ms: float
    is_covered: bool


@dataclass
class Measurements:
    """Measurements of one estimator on windows.

    Attributes:
        hits: By search (ms to each side), length of window and speaker: whether the offset was found.
        answers: By length and kind.
    """

    hits: dict[float, dict[int, dict[str, list[bool]]]] = field(
        default_factory=lambda: {search: {n: {} for n in WINDOW_FRAMES} for search in SEARCHES_MS}
    )
    answers: dict[tuple[int, str], list[Answer]] = field(
        default_factory=lambda: {(n, kind): [] for n in SCORED_FRAMES for kind in KINDS}
    )


def measure_take(
    measured: Measurements,
    take: Take,
    foreign: Take | None,
    estimator: SyncEstimator,
    calibration: SyncCalibration | None,
    rng: np.random.Generator,
) -> None:
    """Adds the windows of a take.

    Args:
        measured: Is added to.
        take: To measure.
        foreign: The take whose sound replaces its own; None: that is left out.
        estimator: Not fitted on any of their speakers.
        calibration: Likewise; None: only where the best lag is, is measured.
        rng: Draws the shifts; the same seed gives each estimator the same windows.
    """
    lags = np.arange(-REACH_ROWS, REACH_ROWS + 1, dtype=np.int64)
    matching = estimator.similarities(take.track, take.sound, take.lag + lags)
    for search, by_length in measured.hits.items():
        most = round(search / LAG_MS)
        inside = slice(REACH_ROWS - most, REACH_ROWS + most + 1)
        for length, by_speaker in by_length.items():
            hits = by_speaker.setdefault(take.speaker, [])
            for first in find_windows(take, length, lags_rows=most):
                hits.append(is_found(matching[first : first + length, inside]))
    if calibration is None:
        return
    for length, kind, example in cut_examples(take, matching, foreign, estimator, rng, SCORED_FRAMES):
        answer = answer_of(example, calibration)
        if answer is not None:
            measured.answers[length, kind].append(answer)


def is_found(similarities_TL: NDArray[np.float32]) -> bool:
    """True if the best lag of a window whose middle lag is the right one is within NEAR_MS of it."""
    curve = np.nanmean(similarities_TL, axis=0)
    return abs(int(np.argmax(curve)) - len(curve) // 2) <= NEAR_ROWS


def cut_examples(
    take: Take,
    matching: NDArray[np.float32],
    foreign: Take | None,
    estimator: SyncEstimator,
    rng: np.random.Generator,
    lengths: Sequence[int],
) -> Iterator[tuple[int, str, Example]]:
    """Windows in sync, shifted, and with another's sound: (frames, kind, similarities at the lags searched).

    Args:
        take: To cut from.
        matching: Its similarities at REACH_ROWS lags on either side of its own.
        foreign: The take whose sound replaces its own; None: that is left out.
        estimator: Of the similarities.
        rng: Draws the shifts.
        lengths: Of the windows, in frames.
    """
    lags = search_lags()
    half = len(lags) // 2
    swapped = None if foreign is None else estimator.similarities(take.track, foreign.sound, lags)
    for length in lengths:
        for first in find_windows(take, length, lags_rows=round(SEARCH_MS / LAG_MS)):
            part = slice(first, first + length)
            shift = int(rng.integers(SHIFTS_ROWS[0], SHIFTS_ROWS[1] + 1) * rng.choice((-1, 1)))
            for kind, lag in ((SYNCED, 0), (SHIFTED, shift)):
                # A shifted sound is the same matrix with another lag in the middle.
                middle = REACH_ROWS - lag
                window = matching[part, middle - half : middle + half + 1]
                yield length, kind, Example(window, lag, take.speaker)
            if swapped is not None and np.isfinite(swapped[part, half]).all():
                yield length, SWAPPED, Example(swapped[part], None, take.speaker)


def answer_of(example: Example, calibration: SyncCalibration) -> Answer | None:
    """The answer on a window; None where too little of it can be compared."""
    evidence, counts = block_evidence(example.similarities, calibration.sharpness)
    total = evidence.sum(axis=0, dtype=np.float64)
    posterior = find_posterior(total, int(counts.sum()), search_lags(), calibration)
    if posterior is None:
        return None
    verdict = judge(posterior)
    true_ms = float("nan") if example.lag is None else example.lag * LAG_MS
    low_ms, high_ms = posterior.interval_ms
    error_ms = posterior.offset_ms - true_ms if verdict.band else float("nan")
    is_covered = low_ms <= true_ms <= high_ms
    return Answer(example.person, posterior.in_sync, verdict.kind, error_ms, is_covered)


def foreign_of(takes: Sequence[Take], number: int) -> Take | None:
    """The take of another speaker whose sound replaces that of `takes[number]`.

    It is one of the longer half, so that most windows have a counterpart, and differs from take to take.
    """
    others = [take for take in takes if take.speaker != takes[number].speaker]
    others.sort(key=lambda take: (-len(take.sound.log_mel), take.name))
    return others[number % max(len(others) // 2, 1)] if others else None


def calibration_examples(
    takes: Sequence[Take], estimator: SyncEstimator, seed: int, lenders: Sequence[Take] = ()
) -> list[Example]:
    """Windows of takes of known offset to fit a calibration on (`lipsync.sync.posterior.fit_calibration`).

    Args:
        takes: Of people whom the estimator was not fitted on.
        estimator: Of the similarities.
        seed: Of the shifts.
        lenders: Whose sound is swapped in where the takes are all of one person.
    """
    rng = np.random.default_rng(seed)
    lags = np.arange(-REACH_ROWS, REACH_ROWS + 1, dtype=np.int64)
    examples = []
    for number, take in enumerate(takes):
        matching = estimator.similarities(take.track, take.sound, take.lag + lags)
        foreign = foreign_of(takes, number) or foreign_of([take, *lenders], 0)
        cut = cut_examples(take, matching, foreign, estimator, rng, SCORED_FRAMES)
        examples += [example for _, _, example in cut]
    return examples


def accuracy(measured: Measurements, length: int, search_ms: float = SEARCH_MS) -> Measure:
    """Share of windows whose offset was found."""
    return mean_over_speakers(measured.hits[search_ms][length])


def mean_over_speakers(values: Mapping[str, Sequence[int]]) -> Measure:
    """The mean of whole numbers, one for each window, by speaker."""
    groups = [values[speaker] for speaker in sorted(values) if values[speaker]]
    sums, nums = np.array([sum(group) for group in groups]), np.array([len(group) for group in groups])
    return bootstrap_over_groups(
        lambda times_DG: times_DG @ sums / (times_DG @ nums), len(groups), num=int(nums.sum())
    )


def share_of_answers(answers: Sequence[Answer], is_so: Callable[[Answer], bool]) -> Measure:
    """Share of answers that are so."""
    values: dict[str, list[int]] = {}
    for answer in answers:
        values.setdefault(answer.speaker, []).append(int(is_so(answer)))
    return mean_over_speakers(values)


def is_right(answer: Answer) -> bool:
    """True where an offset is reported that is right to NEAR_MS."""
    return abs(answer.error_ms) <= NEAR_MS


def is_wrong(answer: Answer) -> bool:
    """True where an offset is reported that is off by more than FAR_MS."""
    return abs(answer.error_ms) > FAR_MS


def says_match(answer: Answer) -> bool:
    """True where lips and sound are said to belong together, in sync or not."""
    return answer.verdict in (IN_SYNC, AUDIO_EARLY, AUDIO_LATE)


def answer_measures(measured: Measurements, length: int) -> dict[str, Measure]:
    """Shares of the answers on windows of a length, AUC, calibration error and cover, by name.

    Those without a window are left out.
    """
    synced, shifted, swapped = (measured.answers[length, kind] for kind in KINDS)
    measures = {}
    if shifted:
        measures["shifted: right offset reported"] = share_of_answers(shifted, is_right)
        measures['shifted: false "no match"'] = share_of_answers(
            shifted, lambda answer: answer.verdict == NO_MATCH
        )
        measures["shifted: wrong offset reported"] = share_of_answers(shifted, is_wrong)
        measures["shifted: cannot tell"] = share_of_answers(
            shifted, lambda answer: answer.verdict == CANNOT_TELL
        )
    if synced:
        measures["in sync: said to be"] = share_of_answers(synced, lambda answer: answer.verdict == IN_SYNC)
    if swapped:
        measures["swapped: said to match"] = share_of_answers(swapped, says_match)
        measures['swapped: said to be "no match"'] = share_of_answers(
            swapped, lambda answer: answer.verdict == NO_MATCH
        )
    if synced and shifted:
        measures["interval holds the offset"] = share_of_answers(
            [*synced, *shifted], lambda answer: answer.is_covered
        )
    for kind in (SHIFTED, SWAPPED):
        if synced and measured.answers[length, kind]:
            measures[f"AUC, in sync against {kind}"] = auc(measured, length, kind)
    if synced and shifted and swapped:
        measures["calibration error"] = calibration_error(measured, length)
    return measures


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


def auc(measured: Measurements, length: int, kind: str) -> Measure:
    """AUC of windows in sync against those of `kind`, by their score."""
    speakers = sorted({answer.speaker for answer in measured.answers[length, kind]})
    area = area_by_draw(measured, length, kind, speakers)
    return bootstrap_over_groups(area, len(speakers), num=len(measured.answers[length, kind]))


def area_by_draw(
    measured: Measurements, length: int, kind: str, speakers: Sequence[str]
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """The AUC as a function of how often each speaker comes up."""
    positives, positive_owners = with_owners(measured.answers[length, SYNCED], speakers)
    negatives, negative_owners = with_owners(measured.answers[length, kind], speakers)
    return lambda times_DG: area_under_roc(
        positives, negatives, times_DG[:, positive_owners], times_DG[:, negative_owners]
    )


def with_owners(
    answers: Sequence[Answer], speakers: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores of these speakers, and the index of each one's speaker among them."""
    numbers = {speaker: number for number, speaker in enumerate(speakers)}
    owned = [(answer.score, numbers[answer.speaker]) for answer in answers if answer.speaker in numbers]
    return np.array([score for score, _ in owned]), np.array([number for _, number in owned], np.int64)


def calibration_error(measured: Measurements, length: int) -> Measure:
    """ECE on as many windows in sync as out of sync, these shifted and swapped in turns."""
    synced = measured.answers[length, SYNCED]
    chosen = [*synced, *measured.answers[length, SHIFTED][0::2], *measured.answers[length, SWAPPED][1::2]]
    speakers = sorted({answer.speaker for answer in chosen})
    scores, owners = with_owners(chosen, speakers)
    is_sync = np.arange(len(chosen)) < len(synced)
    return bootstrap_over_groups(
        lambda times_DG: expected_calibration_error(scores, is_sync, NUM_BINS, times_DG[:, owners]),
        len(speakers),
        num=len(chosen),
    )
