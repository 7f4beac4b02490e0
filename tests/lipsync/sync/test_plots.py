"""Pictures of a score."""

from pathlib import Path

import numpy as np
import pytest
from talking_clips import features_of, make_talking

from facevox.errors import UserError
from facevox.files import read_image
from lipsync.sync.calibration import LOUDNESS_CALIBRATION
from lipsync.sync.estimators import LoudnessEstimator
from lipsync.sync.plots import HEAT_ROWS, heat_map, sync_figure, write_sync_plot
from lipsync.sync.scoring import score_clip


@pytest.fixture(scope="module")
def talking(load_script, tmp_path_factory) -> tuple[Path, ...]:
    return make_talking(load_script, tmp_path_factory)


def test_heat_map_is_a_weighted_mean_over_time() -> None:
    rng = np.random.default_rng(0)
    similarities = rng.normal(size=(300, 5)).astype(np.float32)
    similarities[100:120, 2] = np.nan
    found = heat_map(similarities)
    weights = np.exp(-0.5 * ((np.arange(300) - 110) / 25) ** 2)
    weights[np.abs(np.arange(300) - 110) > 100] = 0  # the Gaussian ends after four deviations
    known = np.isfinite(similarities[:, 2])
    expected = (weights * np.where(known, similarities[:, 2], 0)).sum() / (weights * known).sum()
    assert found[110, 2] == pytest.approx(expected, abs=1e-3)


def test_heat_map_of_hours_is_small_and_what_is_unknown_stays_so() -> None:
    similarities = np.ones((5000, 3), np.float32)
    similarities[:1000] = np.nan
    found = heat_map(similarities)
    assert len(found) <= HEAT_ROWS
    assert np.isnan(found[0]).all()
    assert found[-1] == pytest.approx(1.0)


def test_figure_shows_offset_interval_and_seconds(talking: tuple[Path, ...], tmp_path: Path) -> None:
    score = score_clip(features_of(talking[0]), LoudnessEstimator(), LOUDNESS_CALIBRATION)
    figure = sync_figure(score, "a title")
    heat, by_lag, by_time = figure.axes
    curve = by_lag.lines[0].get_ydata()
    assert curve[int(np.nanargmax(curve))] == pytest.approx(np.nanmax(score.judgement.offset.curve.values))  # type: ignore[union-attr]
    assert by_time.lines[0].get_ydata().tolist() == [point.score for point in score.curve]
    assert "early" in heat.get_ylabel()
    for suffix in (".png", ".svg", ".pdf"):
        write_sync_plot(tmp_path / f"x{suffix}", score)
        assert (tmp_path / f"x{suffix}").stat().st_size > 1000
    assert read_image(tmp_path / "x.png").std() > 5


def test_figure_of_nothing_says_why(talking: tuple[Path, ...]) -> None:
    from dataclasses import replace

    score = score_clip(replace(features_of(talking[0]), tracks=()), LoudnessEstimator(), LOUDNESS_CALIBRATION)
    assert [text.get_text() for text in sync_figure(score).axes[0].texts] == ["cannot tell: no face is seen"]


def test_other_suffixes_are_refused(talking: tuple[Path, ...], tmp_path: Path) -> None:
    score = score_clip(features_of(talking[0]), LoudnessEstimator(), LOUDNESS_CALIBRATION)
    with pytest.raises(UserError, match=r"\.png"):
        write_sync_plot(tmp_path / "x.bmp", score)
    assert list(tmp_path.iterdir()) == []
