"""Balanced accuracy against scikit-learn, its interval against brute force."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from emotion.landmarks.scores import balanced_accuracy, balanced_accuracy_interval
from emotion.scores.measures import confusion_counts


def test_balanced_accuracy_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = np.append(rng.choice(4, 56, p=(0.7, 0.1, 0.15, 0.05)), range(4))
        answers = np.where(rng.random(60) < 0.6, labels, rng.integers(0, 4, 60))
        found = float(balanced_accuracy(confusion_counts(labels, answers, 4)))
        assert found == pytest.approx(balanced_accuracy_score(labels, answers))


def test_interval_is_that_of_drawing_people_one_by_one():
    rng = np.random.default_rng(1)
    people = [f"p{k // 6}" for k in range(180)]
    labels = rng.integers(0, 2, 180)
    skill = rng.random(30)  # people differ: drawing pictures would promise too much
    answers = np.where(rng.random(180) < skill[np.arange(180) // 6], labels, 1 - labels)
    found = balanced_accuracy_interval(labels, answers, people, 2)
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


def test_one_person_has_no_interval():
    found = balanced_accuracy_interval(np.array([0, 1]), np.array([0, 0]), ["a", "a"], 2)
    assert found.value == 0.5
    assert np.isnan(found.low)
