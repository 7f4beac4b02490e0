"""The learning rate over the steps, and how often a checkpoint is written."""

import math
import subprocess
import sys
from itertools import pairwise

import pytest

from facevox.errors import UserError
from facevox.training.schedule import Interval, warmup_cosine, warmup_steps


@pytest.mark.parametrize(("num_steps", "num_warmup"), [(100, 10), (37, 0), (5, 1), (1, 0), (1000, 999)])
def test_rate_is_a_line_and_then_half_a_cosine(num_steps: int, num_warmup: int) -> None:
    for step in range(num_steps):
        if step < num_warmup:
            expected = (step + 1) / num_warmup
        else:  # the double-angle form of the half cosine
            expected = math.cos(math.pi / 2 * (step - num_warmup) / (num_steps - num_warmup)) ** 2
        assert warmup_cosine(step, num_steps, num_warmup) == pytest.approx(expected, abs=1e-12), step


def test_rate_has_no_jump_and_is_highest_once_at_the_end_of_the_warm_up() -> None:
    rates = [warmup_cosine(step, 400, 20) for step in range(401)]
    assert rates[0] == 1 / 20  # the first step already trains
    assert rates[19] == rates[20] == 1.0
    assert max(abs(b - a) for a, b in pairwise(rates[19:])) < math.pi / 2 / 380 + 1e-9
    assert max(abs(b - a) for a, b in pairwise(rates[:20])) < 1 / 20 + 1e-9
    assert all(a > b for a, b in pairwise(rates[20:]))
    assert rates[400] == pytest.approx(0, abs=1e-15)
    assert rates[210] == pytest.approx(0.5)  # half-way
    assert warmup_cosine(10**6, 400, 20) == pytest.approx(0, abs=1e-15)  # never rises again


@pytest.mark.parametrize(
    ("warmup", "expected"), [(0, 0), (0.05, 10), (0.999, 200), (0.124, 25), (1, 1), (1.0, 1), (300, 300)]
)
def test_warm_up_is_a_share_below_one_and_a_number_from_one_on(warmup: float, expected: int) -> None:
    assert warmup_steps(warmup, 200) == expected


@pytest.mark.parametrize("warmup", [-1, -0.1, 1.5, math.inf, math.nan])
def test_a_warm_up_that_is_neither_is_refused(warmup: float) -> None:
    with pytest.raises(UserError, match="--warmup is"):
        warmup_steps(warmup, 200)


def test_a_warm_up_longer_than_the_run_never_comes_down() -> None:
    rates = [warmup_cosine(step, 10, 300) for step in range(10)]
    assert rates == [pytest.approx((step + 1) / 300) for step in range(10)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500", Interval(steps=500)),
        (" 1 ", Interval(steps=1)),
        ("30s", Interval(seconds=30)),
        ("10m", Interval(seconds=600)),
        ("2h", Interval(seconds=7200)),
    ],
)
def test_a_number_is_steps_and_a_unit_makes_it_time(text: str, expected: Interval) -> None:
    assert Interval.parse(text) == expected
    assert str(expected) == text.strip()


@pytest.mark.parametrize("text", ["", "0", "0m", "-5", "1.5h", "10 m", "m", "5d", "10M", "five"])
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match=r"neither a number of steps \(500\) nor a time"):
        Interval.parse(text)


def test_steps_count_steps_and_not_time() -> None:
    interval = Interval(steps=3)
    assert [step for step in range(1, 11) if interval.is_due(step, 1e9)] == [3, 6, 9]


def test_time_counts_time_and_not_steps() -> None:
    interval = Interval(seconds=60)
    assert [seconds for seconds in (0, 59.9, 60, 61, 1e6) if interval.is_due(7, seconds)] == [60, 61, 1e6]


def test_options_that_use_it_need_no_torch() -> None:
    program = "import sys; import lc_pytorch.training.options; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
