"""95 % intervals of measures over people: the variance is that between identities, not between pairs.

Photographs and recordings of one person resemble each other, so each person counts as one draw. The interval
is what resampling identities would give, without resampling: the effect d_a of identity a on the measure (the
derivative of the measure by the weight of a: the influence function) is summed as sqrt(G / (G - 1) Σ d_a²).
An identity that is drawn twice has double weight; its two copies are never compared with each other.

Source: Hájek projection of a U-statistic; cluster-robust ("sandwich") variance; Wilson (1927) with the
effective number of people for measures between 0 and 1; Woodruff (1952) for the median.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from facevox.intervals import LEVEL, Measure

# With fewer people the deviation itself depends on luck, and by symmetry may be zero.
FEW_PEOPLE = 10
LEAST_ERROR = 1e-9  # below this it is rounding


def share_measure(value: float, chance: float, effects: NDArray[np.float64]) -> Measure:
    """A measure between 0 and 1 with its interval.

    Args:
        value: The measure.
        chance: Its level of chance.
        effects: (G,) effect of each identity in it; they sum to about 0.
    """
    num = len(effects)
    if num < 2 or not np.isfinite(value):
        return Measure(value, chance)
    error = float(np.sqrt(num / (num - 1) * np.sum(np.square(effects))))
    spread = value * (1.0 - value)
    # Number of people that would have this deviation if each were one toss of a coin. Without any deviation
    # (all right, all wrong) there are as many tosses as people: ten people prove no certainty.
    tosses = spread / error**2 if error > LEAST_ERROR and spread > 0 else float(num)
    if num < FEW_PEOPLE:
        tosses = min(tosses, float(num))
    quantile = float(student.ppf(0.5 + LEVEL / 2, num - 1))
    pull = quantile**2 / tosses
    centre = (value + pull / 2) / (1 + pull)
    half = np.sqrt(pull * spread + pull**2 / 4) / (1 + pull)
    return Measure(value, chance, max(0.0, float(centre - half)), min(1.0, float(centre + half)), error)


def mean_measure(values: NDArray[np.float64], identities: NDArray[np.int64], chance: float) -> Measure:
    """Mean of values between 0 and 1, one per query, with the interval of its identities.

    Args:
        values: (Q,) value of each query.
        identities: (Q,) person of each query.
        chance: Level of chance.
    """
    if not len(values):
        return Measure(float("nan"), float("nan"))
    value = float(values.mean())
    return share_measure(value, chance, mean_effects(values, identities))


def mean_effects(values: NDArray[np.float64], identities: NDArray[np.int64]) -> NDArray[np.float64]:
    """(G,) effect of each identity on the mean of the values of its queries."""
    _, member = np.unique(identities, return_inverse=True)
    effects: NDArray[np.float64] = np.bincount(member, values - values.mean()) / len(values)
    return effects


def median_measure(values: NDArray[np.float64], identities: NDArray[np.int64], chance: float) -> Measure:
    """Median of the queries' values; the interval is between the quantiles 0.5 ± the error of that share."""
    if not len(values):
        return Measure(float("nan"), float("nan"))
    value = float(np.median(values))
    effects = mean_effects((values < value) + 0.5 * (values == value), identities)
    num = len(effects)
    if num < 2:
        return Measure(value, chance)
    error = float(np.sqrt(num / (num - 1) * np.sum(effects**2)))
    # Where half of the values are ties the share does not vary: then one toss per identity is assumed.
    error = error or 0.5 / float(np.sqrt(num))
    half = float(student.ppf(0.5 + LEVEL / 2, num - 1)) * error
    low, high = np.quantile(values, [max(0.0, 0.5 - half), min(1.0, 0.5 + half)])
    return Measure(value, chance, float(low), float(high), float((high - low) / 2 / (half / error)))
