"""Counts of right and wrong answers, macro-F1, and how sure it is when each person is one draw."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_DRAWS = 2000  # the ends of a 95 % interval wander by about 1 % of its width


@dataclass(frozen=True)
class Interval:
    """A measure with its 95 % interval; the ends are NaN where fewer than two people are there."""

    value: float
    low: float
    high: float


def confusion_counts(
    labels_N: "NDArray[np.int64]", answers_N: "NDArray[np.int64]", num_classes: int
) -> "NDArray[np.int64]":
    """(C, C): row the true class, column the answer."""
    flat = np.bincount(labels_N * num_classes + answers_N, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes).astype(np.int64)


def class_f1(counts: "NDArray[np.integer]") -> "NDArray[np.float64]":
    """(…, C) F1 of each class from (…, C, C) counts; NaN for a class that is neither there nor answered."""
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    both = counts.sum(axis=-1) + counts.sum(axis=-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: NDArray[np.float64] = 2.0 * right / both
    return result


def macro_f1(counts: "NDArray[np.integer]") -> "NDArray[np.float64]":
    """(…) mean F1 over the classes that are there or answered, from (…, C, C) counts."""
    scores = class_f1(counts)
    known = ~np.isnan(scores)
    total = np.where(known, scores, 0.0).sum(axis=-1)
    result: NDArray[np.float64] = total / np.maximum(known.sum(axis=-1), 1)
    return result


def person_interval(
    labels_N: "NDArray[np.int64]",
    answers_N: "NDArray[np.int64]",
    people: Sequence[str],
    num_classes: int,
    seed: int = 0,
) -> Interval:
    """Macro-F1 with the interval that drawing people anew gives (percentiles 2.5 and 97.5).

    Pictures of one person are alike, and one upload shows a face several times: drawing pictures would
    promise too much. People are drawn with replacement, each with all pictures.

    Source: Efron and Tibshirani (1993), chapter 13; Field and Welsh (2007) for clusters.
    """
    names, member = np.unique(np.asarray(people, dtype=object).astype(str), return_inverse=True)
    num_people = len(names)
    by_person = np.zeros((num_people, num_classes, num_classes), np.int64)
    np.add.at(by_person, (member, labels_N, answers_N), 1)
    value = float(macro_f1(by_person.sum(axis=0)))
    if num_people < 2:
        return Interval(value, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    flat = by_person.reshape(num_people, -1)
    scores = np.empty(NUM_DRAWS)
    for draw in range(NUM_DRAWS):
        # How often each person comes up, without an array of draws by people for tens of thousands.
        times = np.bincount(rng.integers(0, num_people, num_people), minlength=num_people)
        scores[draw] = macro_f1((times @ flat).reshape(num_classes, num_classes))
    low, high = np.quantile(scores, [0.025, 0.975])
    return Interval(value, float(low), float(high))
