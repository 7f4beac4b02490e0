"""One number that makes probabilities mean what they say: the temperature that logits are divided by.

Source: Guo et al. (2017), "On Calibration of Modern Neural Networks", section 4.2 (temperature scaling).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from facevox.calibration import expected_calibration_error, probability_bins

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOWEST, HIGHEST = 0.05, 20.0  # temperatures; a set without mistakes would ask for 0
NUM_BINS = 15


class Bin(NamedTuple):
    """The pictures whose confidence lies in a range."""

    low: float
    high: float
    num_pictures: int
    confidence: float  # mean
    accuracy: float


def log_probabilities(logits_NC: "NDArray[np.floating]", temperature: float = 1.0) -> "NDArray[np.float64]":
    """(N, C) natural logarithms of softmax(logits / temperature)."""
    scaled = logits_NC.astype(np.float64) / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return result


def cross_entropy(
    logits_NC: "NDArray[np.floating]", labels_N: "NDArray[np.int64]", temperature: float = 1.0
) -> float:
    """Mean negative logarithm of the probability of the label, in nats."""
    logs = log_probabilities(logits_NC, temperature)
    return float(-logs[np.arange(len(labels_N)), labels_N].mean())


def fit_temperature(logits_NC: "NDArray[np.floating]", labels_N: "NDArray[np.int64]") -> float:
    """The temperature with the lowest cross-entropy, between LOWEST and HIGHEST.

    By 1 / temperature the cross-entropy is convex; its slope is the expected minus the true label's logit,
    and where that changes its sign the minimum lies.
    """
    own = logits_NC[np.arange(len(labels_N)), labels_N].astype(np.float64)

    def slope(inverse: float) -> float:
        shares = np.exp(log_probabilities(logits_NC, 1.0 / inverse))
        return float(((shares * logits_NC).sum(axis=1) - own).mean())

    low, high = 1.0 / HIGHEST, 1.0 / LOWEST
    if slope(low) >= 0:
        return HIGHEST
    if slope(high) <= 0:
        return LOWEST
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 2.0 / (low + high)


def reliability_bins(probabilities_NC: "NDArray[np.floating]", labels_N: "NDArray[np.int64]") -> list[Bin]:
    """Pictures by confidence, in bins of one width; bins without pictures are left out."""
    confidence, is_right = _confidence(probabilities_NC, labels_N)
    place = probability_bins(confidence, NUM_BINS)
    bins = []
    for number in np.unique(place):
        inside = place == number
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


def calibration_error(probabilities_NC: "NDArray[np.floating]", labels_N: "NDArray[np.int64]") -> float:
    """The mean gap between confidence and accuracy, over the bins of `reliability_bins`."""
    return float(expected_calibration_error(*_confidence(probabilities_NC, labels_N), NUM_BINS)[0])


def _confidence(
    probabilities_NC: "NDArray[np.floating]", labels_N: "NDArray[np.int64]"
) -> "tuple[NDArray[np.floating], NDArray[np.bool_]]":
    """(N,) probability of each answer, and whether it is right."""
    return probabilities_NC.max(axis=1), probabilities_NC.argmax(axis=1) == labels_N


def cross_fitted(
    logits_NC: "NDArray[np.floating]", labels_N: "NDArray[np.int64]", people: Sequence[str]
) -> "NDArray[np.float64]":
    """(N, C) probabilities of each half of the people at the temperature that the other half gave.

    A temperature is too good for the people it was fitted on; this is what it does to others. Every second
    person in the order of their names is the other half; with one person alone it is that one's own.
    """
    ordered = {person: place for place, person in enumerate(sorted(set(people)))}
    half = np.array([ordered[person] % 2 for person in people])
    probabilities = np.empty(logits_NC.shape, np.float64)
    for side in (0, 1):
        others = half != side if (half != side).any() else half == side
        temperature = fit_temperature(logits_NC[others], labels_N[others])
        probabilities[half == side] = np.exp(log_probabilities(logits_NC[half == side], temperature))
    return probabilities
