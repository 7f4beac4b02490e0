"""The values of each epoch: `history.json` for programs, `curves.png` for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from facevox.files import replacing, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HISTORY_FILE, CURVES_FILE = "history.json", "curves.png"
# About the machine, not about the model; in the JSON only.
_NOT_DRAWN = ("epoch", "step", "items_per_s", "data_wait_share")


def write_history(save_dir: Path, rows: Sequence[dict[str, float]]) -> None:
    """Writes `history.json` as a list of rows; numbers that are not finite become null."""
    write_json(
        save_dir / HISTORY_FILE,
        [{name: value if math.isfinite(value) else None for name, value in row.items()} for row in rows],
    )


def draw_curves(rows: Sequence[dict[str, float]], best_epoch: int = 0) -> Figure:
    """A matplotlib figure over epochs: all losses in one plot, every other value in its own.

    Args:
        rows: The rows of `Trainer.history`.
        best_epoch: Marked by a line; 0: no line.
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for row in rows for name in row if name not in _NOT_DRAWN))
    losses = [name for name in names if name.endswith("loss")]
    fields = [losses] * bool(losses) + [[name] for name in names if name not in losses]
    columns = min(len(fields), 3) or 1
    lines = max(math.ceil(len(fields) / columns), 1)
    figure = Figure(figsize=(4.2 * columns, 2.8 * lines), layout="constrained")
    for position, field in enumerate(fields, start=1):
        axes = figure.add_subplot(lines, columns, position)
        for name in field:
            points = [(row["epoch"], row[name]) for row in rows if math.isfinite(row.get(name, math.nan))]
            if points:
                axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 30 else "")
        if best_epoch:
            axes.axvline(best_epoch, color="0.6", linewidth=1, linestyle="--")
        axes.set_title(", ".join(field), fontsize=9)
        axes.set_xlabel("epoch", fontsize=8)
        axes.tick_params(labelsize=8)
        if len(field) > 1:
            axes.legend(fontsize=8)
    return figure


def write_curves(save_dir: Path, rows: Sequence[dict[str, float]], best_epoch: int = 0) -> None:
    """Writes `curves.png`."""
    with replacing(save_dir / CURVES_FILE) as file:
        draw_curves(rows, best_epoch).savefig(file, format="png", dpi=110)
