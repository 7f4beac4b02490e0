"""Measured figures: bars, drops, round trip."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from facevox_demo.figures import (
    Figure,
    find_drops,
    load_figures,
    peak_memory_gb,
    print_figures,
    write_figures,
)


@pytest.mark.parametrize(
    ("value", "bar", "is_better_higher", "expected"),
    [(2.0, 2.0, True, True), (1.9, 2.0, True, False), (1.3, 1.3, False, True), (1.31, 1.3, False, False)],
)
def test_bar_is_a_lower_or_an_upper_limit(
    value: float, bar: float, is_better_higher: bool, expected: bool
) -> None:
    assert Figure("x", value, "x", bar, is_better_higher).is_met is expected


def test_missed_bar_is_shown_and_returned(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_figures([Figure("fine", 3, "x", 2)])
    assert not print_figures([Figure("fine", 3, "x", 2), Figure("slow", 9, "s", 5, False)])
    assert "MISSED" in capsys.readouterr().out


def test_drop_by_more_than_a_quarter_is_found_in_both_directions() -> None:
    before = [
        Figure("speed", 2.0, "x"),
        Figure("over floor", 1.0, "x", None, False),
        Figure("s", 1, "s", 9, False, False),
    ]
    same = [
        Figure("speed", 1.7, "x"),
        Figure("over floor", 1.2, "x", None, False),
        Figure("s", 5, "s", 9, False, False),
    ]
    worse = [Figure("speed", 1.5, "x"), Figure("over floor", 1.3, "x", None, False), Figure("new", 1.0, "x")]
    assert find_drops(same, before) == []
    assert [now.name for now, _ in find_drops(worse, before)] == ["speed", "over floor"]
    assert find_drops(before, worse) == []


def test_figures_come_back_from_their_file(tmp_path: Path) -> None:
    figures = [Figure("a", 1.5, "x", 1.0), Figure("b", 2.5)]
    write_figures(tmp_path / "f.json", figures)
    assert load_figures(tmp_path / "f.json") == figures


def test_peak_memory_is_that_of_the_process_and_not_of_the_one_that_started_it() -> None:
    ballast = np.ones(60_000_000)  # half a gigabyte
    code = "from facevox_demo.figures import peak_memory_gb; print(peak_memory_gb())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(shown) < 0.3
    assert peak_memory_gb() > ballast.nbytes / 1e9
