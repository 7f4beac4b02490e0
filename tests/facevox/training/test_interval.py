"""How often a checkpoint is written."""

import subprocess
import sys

import pytest

from facevox.training.interval import Interval


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
