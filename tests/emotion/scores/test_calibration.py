"""Temperature scaling compared with SciPy, the calibration error with a slow loop."""

import numpy as np
import pytest
from scipy import optimize, special

from emotion.scores.calibration import (
    HIGHEST,
    LOWEST,
    calibration_error,
    cross_entropy,
    cross_fitted,
    fit_temperature,
    log_probabilities,
    reliability_bins,
)


def drawn(temperature: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose labels are drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (count, 5)).astype(np.float32)
    shares = special.softmax(logits / temperature, axis=1)
    labels = np.array([rng.choice(5, p=row / row.sum()) for row in shares.astype(np.float64)])
    return logits, labels


@pytest.mark.parametrize("true", [0.6, 1.0, 2.5])
def test_fitted_temperature_is_scipys_and_near_the_one_that_drew_the_labels(true: float) -> None:
    logits, labels = drawn(true)
    fitted = fit_temperature(logits, labels)
    expected = optimize.minimize_scalar(
        lambda t: cross_entropy(logits, labels, t), bounds=(LOWEST, HIGHEST), method="bounded"
    ).x
    assert fitted == pytest.approx(expected, rel=1e-3)
    assert fitted == pytest.approx(true, rel=0.1)


def test_cross_entropy_is_scipys() -> None:
    logits, labels = drawn(1.0, 50)
    expected = -special.log_softmax(logits.astype(float) / 1.7, axis=1)[np.arange(50), labels].mean()
    assert cross_entropy(logits, labels, 1.7) == pytest.approx(expected, rel=1e-6)


def test_set_without_mistakes_and_set_of_chance_stay_in_the_range() -> None:
    logits = np.eye(5, dtype=np.float32) * 3
    assert fit_temperature(logits, np.arange(5)) == LOWEST
    assert fit_temperature(logits, (np.arange(5) + 1) % 5) == HIGHEST


def test_calibration_error_is_that_of_a_slow_loop() -> None:
    logits, labels = drawn(2.0, 500)
    probabilities = special.softmax(logits, axis=1)
    total = 0.0
    for number in range(15):
        inside = [
            (row.max(), int(row.argmax() == label))
            for row, label in zip(probabilities, labels, strict=True)
            if number / 15 < row.max() <= (number + 1) / 15
        ]
        if inside:
            confidence, accuracy = np.mean(inside, axis=0)
            total += len(inside) / 500 * abs(confidence - accuracy)
    bins = reliability_bins(probabilities, labels)
    assert calibration_error(probabilities, labels) == pytest.approx(total, abs=1e-6)
    assert sum(one.num_pictures for one in bins) == 500


def test_temperature_mends_the_calibration_of_people_it_was_not_fitted_on() -> None:
    logits, labels = drawn(3.0)
    people = [f"p{index % 40}" for index in range(len(labels))]
    raw = np.exp(log_probabilities(logits))
    fitted = cross_fitted(logits, labels, people)
    assert calibration_error(raw, labels) > 0.15
    assert calibration_error(fitted, labels) < 0.03
    # A half depends on the other half's labels alone.
    half = np.array([sorted(set(people)).index(person) % 2 for person in people])
    expected = special.softmax(
        logits[half == 0] / fit_temperature(logits[half == 1], labels[half == 1]), axis=1
    )
    np.testing.assert_allclose(fitted[half == 0], expected, rtol=1e-4, atol=1e-6)


def test_one_person_alone_is_calibrated_by_itself() -> None:
    logits, labels = drawn(2.0, 100)
    expected = special.softmax(logits / fit_temperature(logits, labels), axis=1)
    np.testing.assert_allclose(cross_fitted(logits, labels, ["p"] * 100), expected, rtol=1e-4, atol=1e-6)
