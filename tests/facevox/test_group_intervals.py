"""The interval over groups: against a slow bootstrap, and whatever it is computed in."""

import numpy as np
import pytest

from facevox import intervals
from facevox.intervals import LEVEL, NUM_DRAWS, Measure, bootstrap_over_groups, interval_text


def share(rights_G: np.ndarray, nums_G: np.ndarray, **options: int) -> Measure:
    return bootstrap_over_groups(
        lambda times_DG: times_DG @ rights_G / (times_DG @ nums_G), len(nums_G), **options
    )


def test_interval_is_that_of_a_slow_bootstrap_of_groups() -> None:
    rng = np.random.default_rng(0)
    groups = [rng.random(size) < 0.6 for size in (3, 9, 1, 5, 2, 8)]
    draws = np.random.default_rng(4)
    drawn = [
        np.concatenate([groups[k] for k in draws.integers(0, len(groups), len(groups))]).mean()
        for _ in range(NUM_DRAWS)
    ]
    found = share(np.array([g.sum() for g in groups]), np.array([len(g) for g in groups]), num=28, seed=4)
    assert found.value == np.concatenate(groups).mean()
    assert [found.low, found.high] == np.quantile(drawn, [0.025, 0.975]).tolist()
    assert found.standard_error == pytest.approx(np.std(drawn))
    assert (found.num, found.num_groups, LEVEL) == (28, 6, 0.95)


def test_interval_is_the_same_however_many_draws_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rights, nums = np.arange(50), np.full(50, 60)
    whole = share(rights, nums)
    for size in (1, 70, 999):
        monkeypatch.setattr(intervals, "DRAWN_AT_ONCE", size)
        assert share(rights, nums).to_plain() == whole.to_plain()  # nan is not equal to itself


def test_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(1), 0
    for _ in range(200):
        skill = rng.beta(6, 4, 40)  # people differ; 0.6 on average
        found = share(rng.binomial(10, skill), np.full(40, 10))
        held += found.low <= 0.6 <= found.high
    assert 180 <= held <= 198  # 95 % of 200, less a little for 40 people


def test_one_group_or_a_value_that_is_not_defined_has_no_interval() -> None:
    assert share(np.array([1]), np.array([4])).to_plain() == {"value": 0.25, "low": None, "high": None}
    with np.errstate(invalid="ignore"):
        assert share(np.zeros(3), np.zeros(3)).to_plain() == {"value": None, "low": None, "high": None}


def test_draws_where_the_statistic_is_not_defined_are_left_out() -> None:
    with np.errstate(invalid="ignore"):
        found = share(np.array([1, 0, 0]), np.array([2, 0, 0]))
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_plain_values_are_rounded_and_written_out() -> None:
    plain = Measure(0.81234, 0.5, 0.70006, 0.9).to_plain(3)
    assert plain == {"value": 0.812, "low": 0.7, "high": 0.9}
    assert interval_text(plain) == "0.700 to 0.900"
    assert interval_text(Measure(0.5).to_plain()) == interval_text({"value": 1.0}) == ""
