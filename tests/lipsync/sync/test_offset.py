"""Lags, rows and the top of a curve between its steps."""

import numpy as np
import pytest

from lipsync.sync.offset import peak_lag, rows_of_frames, search_lags


def test_lags_go_to_both_sides_in_steps_of_ten_ms() -> None:
    assert search_lags(30.0).tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert len(search_lags()) == 201


def test_positive_lag_is_an_earlier_row_and_what_is_outside_does_not_exist() -> None:
    rows, exists = rows_of_frames(2, 2, 10, np.array([-3, 0, 9]))
    assert rows.tolist() == [[9, 8, 0], [9, 9, 3]]
    assert exists.tolist() == [[False, True, False], [False, False, True]]


def test_peak_between_steps_is_that_of_the_parabola() -> None:
    rng = np.random.default_rng(0)
    lags = np.arange(-20, 21)
    for top in rng.integers(2, 39, 50).tolist():
        values = rng.normal(size=41) * 0.05
        values[top] += 1
        bend, slope, _ = np.polyfit(np.arange(-2, 3), values[top - 2 : top + 3], 2)
        expected = lags[top] + (np.clip(-slope / (2 * bend), -2, 2) if bend < 0 else 0)
        assert peak_lag(values, lags) == pytest.approx(expected)


def test_peak_at_the_edge_is_the_step_itself() -> None:
    values = np.zeros(9)
    values[0] = 1.0
    assert peak_lag(values, np.arange(9)) == 0.0


def test_top_of_the_hill_that_is_meant_is_found_though_another_is_higher() -> None:
    steps = np.arange(-50.0, 51.0)
    values = np.exp(-0.5 * ((steps + 30) / 5) ** 2) + 2 * np.exp(-0.5 * ((steps - 25.3) / 5) ** 2)
    lags = np.arange(-50, 51)
    assert peak_lag(values, lags) == pytest.approx(25.3, abs=0.1)
    assert peak_lag(values, lags, at=50 - 28) == pytest.approx(-30, abs=0.1)
