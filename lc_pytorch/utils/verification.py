"""Same person or not, over all face-voice pairs: ROC, its area, the equal error rate, and their intervals."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facevox.intervals import Measure
from lc_pytorch.utils.intervals import share_measure
from lc_pytorch.utils.pair_counts import PairCounts, ThresholdCounter
from lc_pytorch.utils.similarity import Counts, Plan

ROC_POINTS = 513


@dataclass(frozen=True)
class Verification:
    """Measures of how well the similarity distinguishes pairs of one person from pairs of two.

    Attributes:
        num_positives: Number of pairs of one person.
        num_negatives: Number of pairs of two people (of the stratum).
        auc: Area under the ROC curve, exact; ties count half.
        equal_error_rate: Rate at which false acceptances and false rejections are equal, interpolated.
        threshold: Similarity at that rate; NaN if undefined.
        roc: (≤ 513, 2) false and true positive rate, from (0, 0) to (1, 1), for a plot.
    """

    num_positives: int
    num_negatives: int
    auc: Measure
    equal_error_rate: Measure
    threshold: float
    roc: NDArray[np.float64]


@dataclass(frozen=True)
class EqualError:
    """The equal error rate and the threshold (accept at or above) next to it. NaN if undefined."""

    rate: float
    threshold: float


def error_curve(pairs: PairCounts, stratum: int) -> NDArray[np.float64]:
    """(2 U + 2, 2) false acceptance and false rejection rate while the threshold rises past each positive.

    Only there does the false rejection rate change; between two of these points the curve is level, and
    across a positive that is level with negatives it is a straight line (ties in random order).
    """
    negatives, positives = int(pairs.totals[stratum]), int(pairs.counts.sum())
    curve = np.empty((2 * len(pairs.values) + 2, 2))
    curve[0], curve[-1] = (1.0, 0.0), (0.0, 1.0)
    lower, equal = pairs.lower[stratum], pairs.equal[stratum]
    passed = np.cumsum(pairs.counts)
    curve[1:-1:2, 0] = (negatives - lower) / negatives
    curve[1:-1:2, 1] = (passed - pairs.counts) / positives
    curve[2:-1:2, 0] = (negatives - lower - equal) / negatives
    curve[2:-1:2, 1] = passed / positives
    return curve


def equal_error(pairs: PairCounts, stratum: int) -> EqualError:
    """The point at which the error curve crosses the diagonal."""
    if not len(pairs.values) or not pairs.totals[stratum]:
        return EqualError(float("nan"), float("nan"))
    curve = error_curve(pairs, stratum)
    difference = curve[:, 0] - curve[:, 1]
    after = int(np.argmax(difference <= 0))
    before = after - 1
    share = difference[before] / (difference[before] - difference[after])
    rate = curve[before, 0] + share * (curve[after, 0] - curve[before, 0])
    value = pairs.values[min((after - 1) // 2, len(pairs.values) - 1)]
    return EqualError(float(rate), float(value))


def verify(
    pairs: PairCounts, counts: Counts, plan: Plan, stratum: int, error: EqualError, passing: ThresholdCounter
) -> Verification:
    """The measures of one stratum.

    Args:
        pairs: Counts over all pairs, faces as queries.
        counts: Counts of the direction face to voice.
        plan: Plan of that direction.
        stratum: Number of the stratum.
        error: Result of `equal_error`.
        passing: Negatives at or above `error.threshold`; its queries are the voices.
    """
    positives, negatives = int(pairs.counts.sum()), int(pairs.totals[stratum])
    if not positives or not negatives:
        nothing = Measure(float("nan"), 0.5)
        return Verification(positives, negatives, nothing, nothing, float("nan"), np.empty((0, 2)))
    # A positive wins against each negative below it, and half against one level with it; twice that is whole
    # numbers, summed without rounding.
    twice = 2 * pairs.lower[stratum] + pairs.equal[stratum]
    area = sum(int(n) * int(t) for n, t in zip(pairs.counts, twice, strict=True)) / (
        2 * positives * negatives
    )
    wins = twice[np.searchsorted(pairs.values, counts.scores)] / (2 * negatives)
    owners = plan.queries.identities[counts.queries]
    effects = _effects(
        plan,
        stratum,
        owners,
        wins - area,
        area,
        pairs.row_sums[stratum],
        pairs.column_sums[stratum],
        negatives,
    )
    curve = error_curve(pairs, stratum)
    # Rates at the threshold itself, so that the effects of all people sum to zero.
    is_missed = (counts.scores < error.threshold).astype(np.float64)
    false_rate = float(passing.row_sums[stratum].sum()) / negatives
    missed = _effects(plan, stratum, owners, is_missed - is_missed.mean(), 0.0, None, None, negatives)
    accepted = _effects(
        plan,
        stratum,
        np.empty(0, np.int64),
        np.empty(0),
        false_rate,
        passing.column_sums[stratum],
        passing.row_sums[stratum],
        negatives,
    )
    share = _slope_share(curve, error.rate)
    both = share * accepted + (1 - share) * missed
    is_part = np.zeros(len(effects), bool)
    is_part[plan.queries.identities] = True
    is_part[plan.gallery.identities] = True
    return Verification(
        num_positives=positives,
        num_negatives=negatives,
        auc=share_measure(area, 0.5, effects[is_part]),
        equal_error_rate=share_measure(error.rate, 0.5, both[is_part]),
        threshold=error.threshold,
        roc=_roc(curve),
    )


def _effects(
    plan: Plan,
    stratum: int,
    owners: NDArray[np.int64],
    gains: NDArray[np.float64],
    mean: float,
    row_sums: NDArray[np.float64] | None,
    column_sums: NDArray[np.float64] | None,
    num_negatives: int,
) -> NDArray[np.float64]:
    """(G,) effect of each identity: by its positive pairs, and by its faces and voices in negatives."""
    faces, voices = plan.queries.identities, plan.gallery.identities
    num_people = 1 + int(max(faces.max(), voices.max()))
    effects = np.zeros(num_people)
    if len(owners):
        effects += np.bincount(owners, gains, minlength=num_people) / len(owners)
    if row_sums is not None and column_sums is not None:
        rows, columns = _pair_totals(plan, stratum)
        effects += np.bincount(faces, row_sums - mean * rows, minlength=num_people) / num_negatives
        effects += np.bincount(voices, column_sums - mean * columns, minlength=num_people) / num_negatives
    return effects


def _pair_totals(plan: Plan, stratum: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Negative pairs of each face, and of each voice."""
    rows = np.zeros(len(plan.queries.identities), np.int64)
    columns = np.zeros(len(plan.gallery.identities), np.int64)
    for part, runs in plan.parts(plan.strata[stratum], 0, len(rows)):
        for run in runs:
            rows[part] += run.stop - run.start
            columns[run] += part.stop - part.start
    num_people = 1 + int(max(plan.queries.identities.max(), plan.gallery.identities.max()))
    positives = np.bincount(plan.queries.identities, minlength=num_people)[plan.gallery.identities]
    return rows - (plan.stops - plan.starts), columns - positives


def _slope_share(curve: NDArray[np.float64], rate: float) -> float:
    """Share of the positives in the density of both kinds around the crossing: f_pos / (f_pos + f_neg).

    Where the threshold is moved so that both errors stay equal, a change of the false acceptance rate counts
    with this share, one of the false rejection rate with the rest. Estimated over a span of the error rates
    that narrows with the number of positives.
    """
    num = (len(curve) - 2) // 2
    span = max(0.5 * num ** (-1 / 3), 2 / num) * np.sqrt(max(rate * (1 - rate), 1 / num))
    difference = curve[:, 0] - curve[:, 1]
    near = np.flatnonzero(np.abs(difference) <= 2 * span)
    first = max(int(near[0]) - 1, 0) if len(near) else 0
    last = min(int(near[-1]) + 1, len(curve) - 1) if len(near) else len(curve) - 1
    gained, lost = curve[last, 1] - curve[first, 1], curve[first, 0] - curve[last, 0]
    return float(gained / (gained + lost)) if gained + lost > 0 else 0.5


def _roc(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most 513 corners of the curve, evenly spread along it."""
    points = np.column_stack([curve[::-1, 0], 1.0 - curve[::-1, 1]])
    if len(points) > ROC_POINTS:
        length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(points, axis=0)).sum(axis=1))])
        spots = np.linspace(0.0, length[-1], ROC_POINTS)
        points = points[np.unique(np.clip(np.searchsorted(length, spots), 0, len(points) - 1))]
        points[0], points[-1] = (0.0, 0.0), (1.0, 1.0)
    return points
