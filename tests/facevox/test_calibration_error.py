"""The expected calibration error: against a slow loop, and as weights say."""

import numpy as np
import pytest

from facevox.calibration import expected_calibration_error, probability_bins


def slow(probabilities: np.ndarray, is_true: np.ndarray, num_bins: int) -> float:
    total = 0.0
    for number in range(num_bins):
        low = -1.0 if number == 0 else number / num_bins
        inside = (probabilities > low) & (probabilities <= (number + 1) / num_bins)
        if inside.any():
            total += inside.sum() * abs(probabilities[inside].mean() - is_true[inside].mean())
    return total / len(probabilities)


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_error_is_that_of_a_slow_loop(num_bins: int) -> None:
    rng = np.random.default_rng(0)
    probabilities = np.append(rng.random(400), [0.0, 0.1, 0.5, 1.0])
    is_true = rng.random(404) < probabilities**2
    found = expected_calibration_error(probabilities, is_true, num_bins)
    assert found == pytest.approx([slow(probabilities, is_true, num_bins)], abs=1e-9)


def test_error_by_hand() -> None:
    probabilities = np.array([0.1, 0.12, 0.95, 0.92, 1.0])
    is_true = np.array([False, True, True, True, True])
    # 0.1 is on the border, and so in the first bin.
    expected = (0.1 + 0.88 + abs(0.95 + 0.92 + 1.0 - 3)) / 5
    assert expected_calibration_error(probabilities, is_true, 10) == pytest.approx([expected])
    assert probability_bins(probabilities, 10).tolist() == [0, 1, 9, 9, 9]


def test_weights_count_as_repetitions() -> None:
    rng = np.random.default_rng(1)
    probabilities, is_true = rng.random(30), rng.random(30) < 0.5
    times = rng.integers(0, 4, (5, 30))
    for row, found in zip(times, expected_calibration_error(probabilities, is_true, 10, times), strict=True):
        repeated = np.repeat(np.arange(30), row)
        assert found == pytest.approx(slow(probabilities[repeated], is_true[repeated], 10), abs=1e-9)
