"""history.json and curves.png."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from facevox.files import read_image
from facevox.training.history import draw_curves, write_curves, write_history

ROWS = [
    {"epoch": 1, "step": 5, "train_loss": 2.0, "val_loss": 3.0, "val_auc": math.nan, "items_per_s": 9.0},
    {"epoch": 2, "step": 10, "train_loss": 1.0, "val_loss": 2.5, "val_auc": 0.75, "items_per_s": 9.0},
    {"epoch": 3, "step": 15, "train_loss": 0.5, "val_loss": math.inf, "val_auc": 0.5, "items_per_s": 9.0},
]


def test_history_is_strict_json_with_null_for_what_is_not_finite(tmp_path: Path) -> None:
    write_history(tmp_path, ROWS)

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    found = json.loads((tmp_path / "history.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert [row["epoch"] for row in found] == [1, 2, 3]
    assert found[0]["val_auc"] is None
    assert found[2]["val_loss"] is None
    assert found[1] == ROWS[1]


def test_curves_hold_the_finite_numbers_losses_together() -> None:
    figure = draw_curves(ROWS, best_epoch=2)
    fields = {axes.get_title(): axes for axes in figure.axes}
    assert set(fields) == {"train_loss, val_loss", "val_auc"}
    drawn = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    np.testing.assert_array_equal(drawn["train_loss"].get_xydata(), [[1, 2.0], [2, 1.0], [3, 0.5]])
    np.testing.assert_array_equal(drawn["val_loss"].get_xydata(), [[1, 3.0], [2, 2.5]])
    np.testing.assert_array_equal(drawn["val_auc"].get_xydata(), [[2, 0.75], [3, 0.5]])
    marks = [line.get_xdata() for line in fields["val_auc"].lines if line.get_linestyle() == "--"]
    assert [list(mark) for mark in marks] == [[2, 2]]


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], [], [{"epoch": 1, "train_loss": math.nan}]])
def test_curves_are_a_picture_whatever_there_is(tmp_path: Path, rows: list[dict[str, float]]) -> None:
    write_curves(tmp_path, rows)
    assert read_image(tmp_path / "curves.png").shape[0] > 100
