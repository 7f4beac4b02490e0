"""Intervals at the ends of their range."""

import math

import numpy as np
import pytest

from lc_pytorch.utils.intervals import mean_effects, mean_measure, median_measure, share_measure


def test_an_interval_is_never_certain_and_never_leaves_the_range():
    perfect = mean_measure(np.ones(10), np.arange(10), 0.1)
    assert perfect.value == perfect.high == 1.0
    assert 0.6 < perfect.low < 0.8
    assert share_measure(0.02, 0.5, np.array([0.1, -0.1])).low >= 0
    assert math.isnan(mean_measure(np.ones(3), np.zeros(3, np.int64), 0.1).low)
    assert math.isnan(median_measure(np.empty(0), np.empty(0, np.int64), 1.0).value)
    assert mean_effects(np.array([1.0, 0.0, 1.0]), np.array([0, 0, 1])).sum() == pytest.approx(0)


def test_three_people_never_make_a_narrow_interval() -> None:
    balanced = np.array([1e-17, -1e-17, 0.0])  # effects that cancel by symmetry, but for rounding
    found = share_measure(2 / 3, 0.5, balanced)
    assert found.low < 0.2
    assert found.high > 0.9
    many = share_measure(2 / 3, 0.5, np.full(400, 0.02 / 400) * np.resize([1, -1], 400))
    assert many.high - many.low < 0.02
