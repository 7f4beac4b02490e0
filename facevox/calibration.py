"""The expected calibration error: how far probabilities are from the frequencies that they predict.

Source: Naeini, Cooper and Hauskrecht (2015), equation 3; the bins of Guo et al. (2017), equation 3: of equal
width and open at their lower end, so that a probability on a border belongs to the bin below it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRID = 2.0**-32  # of probabilities: sums of up to two million are exact in any order


def probability_bins(probabilities_N: NDArray[np.float32 | np.float64], num_bins: int) -> NDArray[np.int64]:
    """(N,) the bin of each probability, from 0."""
    bins_N: NDArray[np.int64] = np.ceil(probabilities_N * num_bins).astype(np.int64) - 1
    return bins_N.clip(0, num_bins - 1)


def expected_calibration_error(
    probabilities_N: NDArray[np.float32 | np.float64],
    is_true_N: NDArray[np.bool_],
    num_bins: int,
    times_DN: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """(D,) mean gap between a bin's probability and its share of true cases, weighted by its size.

    Args:
        probabilities_N: From 0 to 1.
        is_true_N: Whether each case is true.
        num_bins: Bins of equal width.
        times_DN: How often each case counts, in each of D draws; None: one draw, each once.
    """
    times = np.ones((1, len(probabilities_N))) if times_DN is None else times_DN
    gaps_NB = np.zeros((len(probabilities_N), num_bins))
    rows = np.arange(len(probabilities_N))
    gaps_NB[rows, probability_bins(probabilities_N, num_bins)] = np.rint(
        (probabilities_N.astype(np.float64) - is_true_N) / GRID
    )
    error: NDArray[np.float64] = np.abs(times @ gaps_NB).sum(axis=1) * GRID / times.sum(axis=1)
    return error
