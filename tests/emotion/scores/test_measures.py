"""F1 and balanced accuracy compared with scikit-learn; their interval with a slow bootstrap of people."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

from emotion.scores.measures import balanced_accuracy, class_f1, confusion_counts, macro_f1, over_people
from facevox.intervals import NUM_DRAWS


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
    interval = over_people(macro_f1, labels, answers, people, 5, seed=7)
    np.testing.assert_allclose([interval.low, interval.high], expected)
    assert interval.low < interval.value < interval.high
    rows = rng.integers(0, 60, 60)
    assert macro_f1(confusion_counts(labels[rows], answers[rows], 5)) == pytest.approx(
        f1_score(labels[rows], answers[rows], average="macro")
    )


def test_pictures_that_are_copies_do_not_narrow_the_interval() -> None:
    labels, answers, people = example()
    once = over_people(macro_f1, labels, answers, people, 5)
    often = over_people(macro_f1, np.repeat(labels, 9), np.repeat(answers, 9), list(np.repeat(people, 9)), 5)
    assert (often.value, often.low, often.high) == (once.value, once.low, once.high)


def test_one_person_gives_no_interval() -> None:
    labels, answers, _ = example()
    interval = over_people(macro_f1, labels, answers, ["p"] * 60, 5)
    assert np.isnan(interval.low)
    assert np.isnan(interval.high)


def test_balanced_accuracy_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = np.append(rng.choice(4, 56, p=(0.7, 0.1, 0.15, 0.05)), range(4))
        answers = np.where(rng.random(60) < 0.6, labels, rng.integers(0, 4, 60))
        found = float(balanced_accuracy(confusion_counts(labels, answers, 4)))
        assert found == pytest.approx(balanced_accuracy_score(labels, answers))


def test_interval_of_balanced_accuracy_is_that_of_drawing_people_one_by_one() -> None:
    rng = np.random.default_rng(1)
    people = [f"p{k // 6}" for k in range(180)]
    labels = rng.integers(0, 2, 180)
    skill = rng.random(30)  # people differ: drawing pictures would promise too much
    answers = np.where(rng.random(180) < skill[np.arange(180) // 6], labels, 1 - labels)
    found = over_people(balanced_accuracy, labels, answers, people, 2)
    names = sorted(set(people))
    rows = {name: [k for k, person in enumerate(people) if person == name] for name in names}
    scores = []
    for _ in range(800):
        drawn = [row for name in rng.choice(names, len(names)) for row in rows[name]]
        scores.append(balanced_accuracy_score(labels[drawn], answers[drawn]))
    low, high = np.quantile(scores, [0.025, 0.975])
    assert found.value == pytest.approx(balanced_accuracy_score(labels, answers))
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


def test_one_person_has_a_value_without_interval() -> None:
    found = over_people(balanced_accuracy, np.array([0, 1]), np.array([0, 0]), ["a", "a"], 2)
    assert found.value == 0.5
    assert np.isnan(found.low)
