"""Balanced accuracy, and how sure it is when each person is one draw."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from emotion.scores.measures import NUM_DRAWS, Interval, confusion_counts

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAWS_AT_ONCE = 50  # of 70,000 people: 28 MB


def balanced_accuracy(counts: "NDArray[np.integer]") -> "NDArray[np.float64]":
    """(…) mean recall over the classes that are there, from (…, C, C) counts (row true class, column answer).

    The same as scikit-learn's; chance is one over the number of classes, however unequal they are.
    """
    there = counts.sum(axis=-1)
    recall = np.diagonal(counts, axis1=-2, axis2=-1) / np.maximum(there, 1)
    result: NDArray[np.float64] = recall.sum(axis=-1) / np.maximum((there > 0).sum(axis=-1), 1)
    return result


def balanced_accuracy_interval(
    labels_N: "NDArray[np.int64]",
    answers_N: "NDArray[np.int64]",
    people: Sequence[str],
    num_classes: int,
    seed: int = 0,
) -> Interval:
    """Balanced accuracy with the interval that drawing people anew gives (percentiles 2.5 and 97.5).

    Source: as `emotion.scores.measures.person_interval`, which does the same for macro-F1.
    """
    names = {name: place for place, name in enumerate(dict.fromkeys(people))}
    member_N = np.array([names[person] for person in people], np.int64)
    # Row: person; column: cell of the confusion matrix.
    cells = confusion_counts(labels_N, answers_N, num_classes).size
    flat_PC = np.zeros((len(names), cells), np.int64)
    np.add.at(flat_PC, (member_N, labels_N * num_classes + answers_N), 1)
    value = float(balanced_accuracy(flat_PC.sum(axis=0).reshape(num_classes, num_classes)))
    if len(names) < 2:
        return Interval(value, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    even = np.full(len(names), 1 / len(names))
    scores = np.concatenate(
        [
            balanced_accuracy(
                (rng.multinomial(len(names), even, DRAWS_AT_ONCE) @ flat_PC).reshape(
                    DRAWS_AT_ONCE, num_classes, num_classes
                )
            )
            for _ in range(NUM_DRAWS // DRAWS_AT_ONCE)
        ]
    )
    low, high = np.quantile(scores, [0.025, 0.975])
    return Interval(value, float(low), float(high))
