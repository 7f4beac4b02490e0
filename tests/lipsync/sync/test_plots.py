"""Pictures of a score."""

from pathlib import Path

import numpy as np
import pytest
from talking_clips import features_of, make_talking

from facevox.errors import UserError
from facevox.files import read_image
from lipsync.sync.estimators import UNTRAINED_CALIBRATION, LoudnessEstimator
from lipsync.sync.plots import HEAT_ROWS, heat_map, sync_figure, write_sync_plot
from lipsync.sync.scoring import score_clip


@pytest.fixture(scope="module")
def talking(load_script, tmp_path_factory) -> tuple[Path, ...]:
    return make_talking(load_script, tmp_path_factory)


def test_heat_map_is_a_weighted_mean_over_time() -> None:
    rng = np.random.default_rng(0)
    evidence = rng.normal(size=(100, 5)).astype(np.float32)
    evidence[40:44] = 0  # nobody speaks
    found = heat_map(evidence)
    weights = np.exp(-0.5 * ((np.arange(100) - 42) / 2.5) ** 2)  # a second is two blocks and a half
    weights[np.abs(np.arange(100) - 42) > 10] = 0  # the Gaussian ends after four deviations
    known = evidence.any(axis=1)
    expected = (weights[:, None] * evidence).sum(axis=0) / (weights * known).sum()
    assert found[42] == pytest.approx(expected, abs=1e-3)


def test_heat_map_of_hours_is_small_and_what_is_unknown_stays_so() -> None:
    evidence = np.ones((5000, 3), np.float32)
    evidence[:1000] = 0
    found = heat_map(evidence)
    assert len(found) <= HEAT_ROWS
    assert np.isnan(found[0]).all()
    assert found[-1] == pytest.approx(1.0)


def test_figure_shows_offset_interval_and_seconds(talking: tuple[Path, ...], tmp_path: Path) -> None:
    score = score_clip(features_of(talking[0]), LoudnessEstimator(), UNTRAINED_CALIBRATION)
    figure = sync_figure(score, "a title")
    heat, by_lag, by_time = figure.axes
    curve = by_lag.lines[0].get_ydata()
    assert score.judgement.posterior is not None
    assert curve.tolist() == score.judgement.posterior.evidence.tolist()
    assert by_time.lines[0].get_ydata().tolist() == [point.score for point in score.curve]
    assert "early" in heat.get_ylabel()
    for suffix in (".png", ".svg", ".pdf"):
        write_sync_plot(tmp_path / f"x{suffix}", score)
        assert (tmp_path / f"x{suffix}").stat().st_size > 1000
    assert read_image(tmp_path / "x.png").std() > 5


def test_figure_of_nothing_says_why(talking: tuple[Path, ...]) -> None:
    from dataclasses import replace

    score = score_clip(
        replace(features_of(talking[0]), tracks=()), LoudnessEstimator(), UNTRAINED_CALIBRATION
    )
    assert [text.get_text() for text in sync_figure(score).axes[0].texts] == ["cannot tell: no face is seen"]


def test_other_suffixes_are_refused(talking: tuple[Path, ...], tmp_path: Path) -> None:
    score = score_clip(features_of(talking[0]), LoudnessEstimator(), UNTRAINED_CALIBRATION)
    with pytest.raises(UserError, match=r"\.png"):
        write_sync_plot(tmp_path / "x.bmp", score)
    assert list(tmp_path.iterdir()) == []
