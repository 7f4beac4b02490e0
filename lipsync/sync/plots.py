"""Pictures of a score: evidence by lag and time, by lag, and the score second by second."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facevox.errors import UserError
from facevox.files import replacing
from lipsync.clips.clock import FRAME_HZ
from lipsync.sync.estimators import smoothed
from lipsync.sync.offset import LAG_MS
from lipsync.sync.posterior import BLOCK_FRAMES, IN_SYNC_MS
from lipsync.sync.verdicts import DETECTABLE_MS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from lipsync.sync.scoring import ClipScore

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
HEAT_SMOOTH_S = 1.0  # deviation of the Gaussian over time: single syllables are noise
HEAT_ROWS = 400  # at most, whatever the length of the clip


def heat_map(evidence: NDArray[np.float32]) -> NDArray[np.float64]:
    """(rows, L) of at most HEAT_ROWS: evidence a block, smoothed over time.

    NaN where no block with evidence is near enough in time.
    """
    has_value = (evidence != 0).any(axis=1)
    sigma = HEAT_SMOOTH_S * FRAME_HZ / BLOCK_FRAMES
    # A mean over the blocks there are: smoothed sums over smoothed weights, both zero where one is missing.
    sums = smoothed(evidence.astype(np.float64), sigma, mode="reflect")
    weights = smoothed(has_value.astype(np.float64), sigma, mode="reflect")
    with np.errstate(invalid="ignore", divide="ignore"):
        smooth = np.where(weights[:, None] > 0.1, sums / weights[:, None], np.nan)
    step = -(-len(smooth) // HEAT_ROWS)
    return smooth[::step]


def sync_figure(score: ClipScore, title: str = "") -> Figure:
    """A matplotlib figure of a score; without an answer it shows the reason alone."""
    from matplotlib.figure import Figure  # a second: only those wait for it who draw

    figure = Figure(figsize=(9, 8), layout="constrained")
    if title:
        figure.suptitle(title)
    heat_axis, lag_axis, time_axis = figure.subplots(3, 1, height_ratios=(2, 1.3, 1))
    if not len(score.evidence):
        for axis in (heat_axis, lag_axis, time_axis):
            axis.set_axis_off()
        heat_axis.text(0.5, 0.5, score.judgement.verdict.text, ha="center", va="center", wrap=True)
        return figure
    lags_ms = np.multiply(score.lags, LAG_MS, dtype=np.float64)
    total_s = score.num_frames / FRAME_HZ
    _draw_heat(heat_axis, score, lags_ms, total_s)
    _draw_lags(lag_axis, score, lags_ms)
    times = [point.time_s for point in score.curve]
    time_axis.plot(times, [point.score for point in score.curve], marker=".", color="C0")
    time_axis.set(xlim=(0, total_s), ylim=(-0.03, 1.03), xlabel="time (s)", ylabel="score")
    time_axis.axhline(0.5, color="0.7", linewidth=0.8)
    return figure


def _draw_heat(axis: Axes, score: ClipScore, lags_ms: NDArray[np.float64], total_s: float) -> None:
    heat = heat_map(score.evidence)
    values = heat[np.isfinite(heat)]
    low, high = np.percentile(values, [2, 99.5]) if len(values) else (0.0, 1.0)
    extent = (0.0, total_s, float(lags_ms[0]), float(lags_ms[-1]))
    axis.imshow(
        heat.T, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=low, vmax=high,
        interpolation="nearest",
    )  # fmt: skip
    points = [(p.time_s, p.offset_ms) for p in score.curve if not math.isnan(p.offset_ms)]
    if points:
        axis.plot(*zip(*points, strict=True), "c.", markersize=4)
    axis.axhline(0, color="w", linewidth=0.6, linestyle=":")
    axis.set(xlabel="time (s)", ylabel="lag (ms), + = audio early", title="evidence for each lag")


def _draw_lags(axis: Axes, score: ClipScore, lags_ms: NDArray[np.float64]) -> None:
    posterior = score.judgement.posterior
    axis.axvspan(*DETECTABLE_MS, color="C2", alpha=0.12, label="not detectable (BT.1359)")
    axis.axvspan(-IN_SYNC_MS, IN_SYNC_MS, color="C0", alpha=0.12, label="in sync here")
    if posterior is not None:
        axis.plot(lags_ms, posterior.evidence, color="C0")
        axis.axvspan(*posterior.interval_ms, color="C1", alpha=0.15, label="90 % interval")
        axis.axvline(posterior.offset_ms, color="C1", label=f"{posterior.offset_ms:+.0f} ms")
    axis.set(
        xlim=(lags_ms[0], lags_ms[-1]),
        xlabel="lag (ms), + = audio early",
        ylabel="evidence (log)",
        title=score.judgement.verdict.text[:110],
    )
    axis.legend(fontsize="small", loc="upper right")


def check_plot_name(path: str | Path) -> None:
    """Raises UserError where `path` does not name a picture that can be written."""
    if Path(path).suffix.lower() not in PLOT_SUFFIXES:
        raise UserError(f"--plot {path}: a file name that ends in {', '.join(PLOT_SUFFIXES)} is expected")


def write_sync_plot(path: str | Path, score: ClipScore, title: str = "") -> None:
    """Writes `sync_figure` as PNG, SVG or PDF by the suffix, whole or not at all."""
    check_plot_name(path)
    figure = sync_figure(score, title)
    with replacing(path) as file:
        figure.savefig(file, format=Path(path).suffix.lower().lstrip("."), dpi=110)
