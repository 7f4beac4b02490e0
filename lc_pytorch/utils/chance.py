"""Closed forms of ranking: random order inside ties, the level of chance, and matching one among N.

No random numbers are drawn: a value that depends on chance is replaced by its expectation.

Letters: r positives and T negatives of a query; H negatives above a positive, E level with it, L below it.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma

Floats = NDArray[np.float64]


def share_without(negatives: ArrayLike, items: ArrayLike, draws: ArrayLike) -> Floats:
    """Probability that `draws` of `items` hold negatives only: C(negatives, draws) / C(items, draws).

    Args:
        negatives: Number of negatives among the items, at most 2^53. May be fractional (falling factorials).
        items: Number of all items.
        draws: Number drawn without replacement; at most `items`.

    Returns:
        Probabilities 0-1 in the common (broadcast) shape.
    """
    arrays = (np.asarray(values, np.float64) for values in (negatives, items, draws))
    negative, total, drawn = np.broadcast_arrays(*arrays)
    share = np.ones(negative.shape)
    for j in range(int(drawn.max(initial=0))):
        # The j-th draw is a negative with (negatives - j) / (items - j), if all before it were.
        factor = np.maximum(negative - j, 0.0) / np.maximum(total - j, 1.0)
        share = np.where(j < drawn, share * factor, share)
    return share


def top_k_share(higher: ArrayLike, equal: ArrayLike, tied: ArrayLike, k: int) -> Floats:
    """Probability that the best positive is among the first k, ties in random order.

    Args:
        higher: (Q,) negatives above the best positive.
        equal: (Q,) negatives level with it.
        tied: (Q,) positives level with it, itself counted: at least 1.
        k: Length of the list.
    """
    above, level, ours = (np.asarray(v, np.float64) for v in (higher, equal, tied))
    places = np.clip(k - above, 0.0, level + ours)
    return 1.0 - share_without(level, level + ours, places)


def reciprocal_rank(higher: ArrayLike, equal: ArrayLike, tied: ArrayLike) -> Floats:
    """(Q,) expected 1 / rank of the best positive, ties in random order. Arguments as in `top_k_share`."""
    above, level, ours = (np.asarray(v, np.int64) for v in (higher, equal, tied))
    value: Floats = np.divide(1.0, above + 1.0, dtype=np.float64)
    has_ties = np.flatnonzero(level)
    # Most queries share a few cases of ties, so each case is computed once.
    cases, case_of = np.unique(np.stack([above, level, ours])[:, has_ties], axis=1, return_inverse=True)
    tied_values = np.array([_mean_reciprocal(int(h), int(e), int(r)) for h, e, r in cases.T])
    if len(has_ties):
        value[has_ties] = tied_values[case_of.ravel()]
    return value


def first_place(num_negatives: int, num_positives: int) -> Floats:
    """(T + 1,) probability that the first positive has rank 1, 2, … in a random order."""
    j = np.arange(num_negatives)
    beyond = np.cumprod((num_negatives - j) / (num_negatives + num_positives - j))
    beyond = np.concatenate([[1.0], beyond])  # the probability that the first j places hold no positive
    first: Floats = beyond - np.append(beyond[1:], 0.0)
    return first


def _mean_reciprocal(above: int, negatives: int, positives: int) -> float:
    places = first_place(negatives, positives)
    return float(np.sum(places / (above + np.arange(1, len(places) + 1))))


def expected_rank(higher: ArrayLike, equal: ArrayLike, tied: ArrayLike) -> Floats:
    """(Q,) expected rank (1 = first) of the best positive, ties in random order; see `top_k_share`."""
    above, level, ours = (np.asarray(v, np.float64) for v in (higher, equal, tied))
    return above + (level + ours + 1.0) / (ours + 1.0)  # the first of `ours` among `level + ours` places


def tie_precision(before: ArrayLike, positives: ArrayLike, tied: ArrayLike, equal: ArrayLike) -> Floats:
    """Expected sum of the precisions at the positives of one group of ties, in random order.

    Args:
        before: (C,) items ranked before the group.
        positives: (C,) positives among these.
        tied: (C,) positives in the group, at least 1.
        equal: (C,) negatives in the group.

    Returns:
        (C,) expectation: the j-th item of the group is a positive with the same probability for each j, and
        then there are 1 + (j - 1) (tied - 1) / (size - 1) positives of the group up to and with it.
    """
    ahead, ours, t, e = (np.asarray(v, np.float64) for v in (before, positives, tied, equal))
    size = t + e
    slope = np.where(size > 1, (t - 1) / np.maximum(size - 1, 1), 0.0)
    start = ours + 1.0
    harmonic = digamma(ahead + size + 1) - digamma(ahead + 1)
    summed = (t / size) * (slope * size + (start - slope * (ahead + 1)) * harmonic)
    return np.where(size == 1, start / (ahead + 1), summed)


def match_share(lower: ArrayLike, equal: ArrayLike, total: ArrayLike, num_choices: int) -> Floats:
    """Probability that a positive wins against `num_choices - 1` random negatives, ties drawn by lot.

    With n = num_choices - 1 distractors out of T without replacement, of which e are level with the positive,
    it wins with 1 / (e + 1). Summed over e (Vandermonde): (C(L+E+1, n+1) - C(L, n+1)) / ((E+1) C(T, n)).

    Args:
        lower: (P,) L, negatives below the positive.
        equal: (P,) E, negatives level with it.
        total: (P,) T, negatives of the query.
        num_choices: N of 1:N, at least 2.

    Returns:
        (P,) probability; NaN where there are fewer than N - 1 negatives.
    """
    below, level, everyone = (np.asarray(v, np.float64) for v in (lower, equal, total))
    n = num_choices - 1
    share = share_without(below, everyone, np.full(below.shape, n))
    ties = np.flatnonzero(level)
    if len(ties):
        L, E, T = below[ties], level[ties], everyone[ties]
        # C(L+E+1, n+1) - C(L, n+1) as a sum of E + 1 terms would not cancel; this loses 4 of 16 digits at
        # worst (L = 100,000).
        ahead, rest = np.ones(len(ties)), np.ones(len(ties))
        for j in range(n):
            ahead *= np.maximum(L + E - j, 0) / np.maximum(T - j, 1)
            rest *= np.maximum(L - 1 - j, 0) / np.maximum(T - j, 1)
        share[ties] = ((L + E + 1) * ahead - L * rest) / ((n + 1) * (E + 1))
    return np.where(everyone >= n, share, np.nan)


def chance_top_k(positives: ArrayLike, negatives: ArrayLike, k: int) -> Floats:
    """(Q,) probability that a random order has a positive among its first k."""
    return top_k_share(np.zeros(np.shape(positives)), negatives, positives, k)


def chance_average_precision(positives: ArrayLike, negatives: ArrayLike) -> Floats:
    """(Q,) expected average precision of a random order."""
    r = np.asarray(positives, np.float64)
    return tie_precision(np.zeros(r.shape), np.zeros(r.shape), r, negatives) / r


def chance_first_ranks(positives: ArrayLike, negatives: ArrayLike) -> tuple[float, float]:
    """Mean reciprocal rank and median rank of the best positive, by chance, over the queries.

    Args:
        positives: (Q,) r, at least 1; Q at least 1.
        negatives: (Q,) T.

    Returns:
        The expected mean of 1 / rank, and the median of the ranks of all queries together (the smallest rank
        that at least half of them reach in expectation).
    """
    pairs = np.stack([np.asarray(positives, np.int64), np.asarray(negatives, np.int64)])
    cases, counts = np.unique(pairs, axis=1, return_counts=True)
    places = np.zeros(int(cases[1].max()) + 1)
    for (r, total), count in zip(cases.T, counts, strict=True):
        mine = first_place(int(total), int(r))
        places[: len(mine)] += mine * (count / pairs.shape[1])
    reciprocal = float(np.sum(places / np.arange(1, len(places) + 1)))
    median = int(np.argmax(np.cumsum(places) >= 0.5 - 1e-12)) + 1
    return reciprocal, float(median)
