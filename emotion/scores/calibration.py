"""The temperature: one number that logits are divided by, so that probabilities are shares of right answers.

Source: Guo et al. (2017), "On Calibration of Modern Neural Networks", section 4.2 (temperature scaling).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from facevox.calibration import expected_calibration_error, probability_bins

LOWEST, HIGHEST = 0.05, 20.0  # temperatures; without a mistake in the set the best one would be 0
NUM_BINS = 15
Floats = NDArray[np.float32] | NDArray[np.float64]


class Bin(NamedTuple):
    """The pictures whose confidence is in a range."""

    low: float
    high: float
    num_pictures: int
    confidence: float  # mean
    accuracy: float


def log_probabilities(logits_NC: Floats, temperature: float = 1.0) -> NDArray[np.float64]:
    """(N, C) natural logarithms of softmax(logits / temperature)."""
    scaled = logits_NC.astype(np.float64) / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return result


def cross_entropy(logits_NC: Floats, labels_N: NDArray[np.int64], temperature: float = 1.0) -> float:
    """Mean negative logarithm of the probability of the label, in nats."""
    logs = log_probabilities(logits_NC, temperature)
    return float(-logs[np.arange(len(labels_N)), labels_N].mean())


def fit_temperature(logits_NC: Floats, labels_N: NDArray[np.int64]) -> float:
    """The temperature with the lowest cross-entropy, between LOWEST and HIGHEST.

    The cross-entropy is convex in 1 / temperature. Its slope is the expected logit minus the true label's;
    the minimum is where that changes its sign, found by halving the range 60 times, to float64's last digits.
    """
    true_logits = logits_NC[np.arange(len(labels_N)), labels_N].astype(np.float64)

    def slope(inverse: float) -> float:
        shares = np.exp(log_probabilities(logits_NC, 1.0 / inverse))
        return float(((shares * logits_NC).sum(axis=1) - true_logits).mean())

    low, high = 1.0 / HIGHEST, 1.0 / LOWEST
    if slope(low) >= 0:
        return HIGHEST
    if slope(high) <= 0:
        return LOWEST
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 2.0 / (low + high)


def reliability_bins(probabilities_NC: Floats, labels_N: NDArray[np.int64]) -> list[Bin]:
    """Pictures by confidence, in bins of one width; bins without pictures are left out."""
    confidence, is_right = _confidence(probabilities_NC, labels_N)
    bin_N = probability_bins(confidence, NUM_BINS)
    bins = []
    for number in np.unique(bin_N):
        inside = bin_N == number
        bins.append(
            Bin(
                number / NUM_BINS,
                (number + 1) / NUM_BINS,
                int(inside.sum()),
                float(confidence[inside].mean()),
                float(is_right[inside].mean()),
            )
        )
    return bins


def calibration_error(probabilities_NC: Floats, labels_N: NDArray[np.int64]) -> float:
    """The mean gap between confidence and accuracy, over the bins of `reliability_bins`."""
    return float(expected_calibration_error(*_confidence(probabilities_NC, labels_N), NUM_BINS)[0])


def _confidence(probabilities_NC: Floats, labels_N: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_]]:
    """(N,) probability of each answer, and whether it is right."""
    return probabilities_NC.max(axis=1), probabilities_NC.argmax(axis=1) == labels_N


def cross_fitted(
    logits_NC: Floats, labels_N: NDArray[np.int64], people: Sequence[str]
) -> NDArray[np.float64]:
    """(N, C) probabilities of each half of the people at the temperature fitted on the other half.

    A temperature is too good for the people it was fitted on; this one shows its effect on others. Every
    second person in the order of their names is the other half; a single person gets the temperature fitted
    on that person.
    """
    rank_of = {person: rank for rank, person in enumerate(sorted(set(people)))}
    half = np.array([rank_of[person] % 2 for person in people])
    probabilities = np.empty(logits_NC.shape, np.float64)
    for side in (0, 1):
        others = half != side if (half != side).any() else half == side
        temperature = fit_temperature(logits_NC[others], labels_N[others])
        probabilities[half == side] = np.exp(log_probabilities(logits_NC[half == side], temperature))
    return probabilities
