"""A score over people, and its 95 % interval: each person is one draw.

The answers about one person resemble each other: drawing single pictures, windows or pairs would make the
interval too narrow. So whole groups (people, or videos where the people are unknown) are drawn with
replacement, as many as there are groups.

Source: Efron and Tibshirani (1993), chapter 13; Field and Welsh (2007) for clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAN = float("nan")
LEVEL = 0.95
NUM_DRAWS = 2000  # the ends of a 95 % interval wander by about 1 % of its width
DRAWN_AT_ONCE = 1 << 18  # groups, summed over the draws of one call of the statistic


class PlainMeasure(TypedDict):
    """A measure in JSON; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Measure:
    """A score with its chance level and its uncertainty. NaN where a number is not defined.

    Attributes:
        value: The measure.
        chance: Expected value of random answers.
        low: Lower end of the 95 % interval; NaN with fewer than two groups.
        high: Upper end.
        standard_error: Standard deviation over draws of groups.
        num: Number of answers (windows, say); 0 where they are not counted.
        num_groups: Number of people; likewise.
    """

    value: float
    chance: float = NAN
    low: float = NAN
    high: float = NAN
    standard_error: float = NAN
    num: int = 0
    num_groups: int = 0

    def to_plain(self, digits: int | None = None) -> PlainMeasure:
        """Value and ends for JSON, rounded to `digits`; None where they are not defined."""

        def plain(number: float) -> float | None:
            if not np.isfinite(number):
                return None
            return float(number) if digits is None else round(float(number), digits)

        return {"value": plain(self.value), "low": plain(self.low), "high": plain(self.high)}


def interval_text(plain: Mapping[str, object]) -> str:
    """The ends of a measure's plain values, as "0.812 to 0.930"; "" where it has none."""
    low, high = plain.get("low"), plain.get("high")
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def bootstrap_over_groups(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    num_groups: int,
    *,
    num: int = 0,
    seed: int = 0,
) -> Measure:
    """A statistic with its interval from redrawing the groups (percentiles 2.5 and 97.5).

    Args:
        statistic: Takes (D, G) how often each group occurs in each draw, whole numbers; returns (D,). Sums
            of whole numbers are exact, whatever their order and the number of threads.
        num_groups: G, at least 1.
        num: `Measure.num`.
        seed: Seed of the draws.
    """
    value = float(statistic(np.ones((1, num_groups)))[0])
    if num_groups < 2 or np.isnan(value):
        return Measure(value, num=num, num_groups=num_groups)
    rng = np.random.default_rng(seed)
    at_once = max(DRAWN_AT_ONCE // num_groups, 1)
    blocks = []
    for first in range(0, NUM_DRAWS, at_once):
        num_draws = min(at_once, NUM_DRAWS - first)
        groups = rng.integers(0, num_groups, (num_draws, num_groups))
        # Each draw counts in a range of its own: one bincount for all draws of the block.
        groups += num_groups * np.arange(num_draws)[:, None]
        times = np.bincount(groups.ravel(), minlength=groups.size).reshape(groups.shape)
        blocks.append(statistic(times.astype(np.float64)))
    values = np.concatenate(blocks)
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Measure(value, NAN, float(low), float(high), float(np.nanstd(values)), num, num_groups)
