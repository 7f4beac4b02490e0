"""Counts of right and wrong answers, macro-F1 and balanced accuracy, and their intervals."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from facevox.intervals import Measure, bootstrap_over_groups

Number = np.int64 | np.float64  # counts; of people drawn several times too


def confusion_counts(
    labels_N: NDArray[np.int64], answers_N: NDArray[np.int64], num_classes: int
) -> NDArray[np.int64]:
    """(C, C): row the true class, column the answer."""
    flat = np.bincount(labels_N * num_classes + answers_N, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes).astype(np.int64)


def class_f1(counts: NDArray[Number]) -> NDArray[np.float64]:
    """(…, C) F1 of each class from (…, C, C) counts; NaN for a class without pictures and answers."""
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    both = counts.sum(axis=-1) + counts.sum(axis=-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: NDArray[np.float64] = 2.0 * right / both
    return result


def macro_f1(counts: NDArray[Number]) -> NDArray[np.float64]:
    """(…) mean F1 over the classes with pictures or answers, from (…, C, C) counts."""
    scores = class_f1(counts)
    is_defined = ~np.isnan(scores)
    total = np.where(is_defined, scores, 0.0).sum(axis=-1)
    result: NDArray[np.float64] = total / np.maximum(is_defined.sum(axis=-1), 1)
    return result


def balanced_accuracy(counts: NDArray[Number]) -> NDArray[np.float64]:
    """(…) mean recall over the classes with pictures, from (…, C, C) counts (row true class, column answer).

    The same as scikit-learn's; chance is one over the number of classes, however unequal they are.
    """
    pictures = counts.sum(axis=-1)
    recall = np.diagonal(counts, axis1=-2, axis2=-1) / np.maximum(pictures, 1)
    result: NDArray[np.float64] = recall.sum(axis=-1) / np.maximum((pictures > 0).sum(axis=-1), 1)
    return result


def over_people(
    score: Callable[[NDArray[Number]], NDArray[np.float64]],
    labels_N: NDArray[np.int64],
    answers_N: NDArray[np.int64],
    people: Sequence[str],
    num_classes: int,
    seed: int = 0,
) -> Measure:
    """`macro_f1` or `balanced_accuracy` of all pictures, with its interval over people."""
    names, member = np.unique(np.asarray(people, dtype=object).astype(str), return_inverse=True)
    # Row: person; column: cell of the confusion matrix.
    cells_PC = np.zeros((len(names), num_classes**2))
    np.add.at(cells_PC, (member, labels_N * num_classes + answers_N), 1)
    return bootstrap_over_groups(
        lambda times_DP: score((times_DP @ cells_PC).reshape(-1, num_classes, num_classes)),
        len(names),
        num=len(labels_N),
        seed=seed,
    )
