"""F1 held against scikit-learn; the interval against a slow bootstrap of people."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from emotion.scores.measures import NUM_DRAWS, class_f1, confusion_counts, macro_f1, person_interval


def example(count: int = 60, num_people: int = 8) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, count)
    answers = np.where(rng.random(count) < 0.6, labels, rng.integers(0, 5, count))
    return labels, answers, [f"p{number}" for number in rng.integers(0, num_people, count)]


def test_counts_and_f1_are_scikit_learns() -> None:
    labels, answers, _ = example()
    counts = confusion_counts(labels, answers, 5)
    np.testing.assert_array_equal(counts, confusion_matrix(labels, answers, labels=range(5)))
    np.testing.assert_allclose(class_f1(counts), f1_score(labels, answers, average=None))
    assert macro_f1(counts) == pytest.approx(f1_score(labels, answers, average="macro"))


def test_class_that_is_neither_there_nor_answered_does_not_count() -> None:
    labels, answers = np.array([0, 0, 1]), np.array([0, 1, 1])
    expected = f1_score(labels, answers, average="macro")
    assert macro_f1(confusion_counts(labels, answers, 5)) == pytest.approx(expected)


def test_interval_is_that_of_a_slow_bootstrap_of_people() -> None:
    labels, answers, people = example()
    names = sorted(set(people))
    rng = np.random.default_rng(7)
    scores = []
    for _ in range(NUM_DRAWS):
        rows = [
            index
            for place in rng.integers(0, len(names), len(names))
            for index, person in enumerate(people)
            if person == names[place]
        ]
        scores.append(macro_f1(confusion_counts(labels[rows], answers[rows], 5)))
    expected = np.quantile(scores, [0.025, 0.975])
    interval = person_interval(labels, answers, people, 5, seed=7)
    np.testing.assert_allclose([interval.low, interval.high], expected)
    assert interval.low < interval.value < interval.high
    rows = rng.integers(0, 60, 60)
    assert macro_f1(confusion_counts(labels[rows], answers[rows], 5)) == pytest.approx(
        f1_score(labels[rows], answers[rows], average="macro")
    )


def test_pictures_that_are_copies_do_not_narrow_the_interval() -> None:
    labels, answers, people = example()
    once = person_interval(labels, answers, people, 5)
    often = person_interval(np.repeat(labels, 9), np.repeat(answers, 9), list(np.repeat(people, 9)), 5)
    assert often == once


def test_one_person_gives_no_interval() -> None:
    labels, answers, _ = example()
    interval = person_interval(labels, answers, ["p"] * 60, 5)
    assert np.isnan(interval.low)
    assert np.isnan(interval.high)
