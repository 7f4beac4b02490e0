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
