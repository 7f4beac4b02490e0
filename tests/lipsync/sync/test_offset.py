"""From similarities to one offset, its interval, drifts and jumps: on similarities whose answer is known."""

import numpy as np
import pytest

from lipsync.sync.offset import Drift, Jump, find_change, find_offset, lag_curve, peak_lags

LAGS = np.arange(-100, 101)


def similar(offsets: np.ndarray, noise: float, seed: int = 0, width: float = 5.0) -> np.ndarray:
    """(frames, L): a hill at each frame's lag (in rows) in noise that is alike for half a second."""
    rng = np.random.default_rng(seed)
    rough = rng.normal(size=(-(-len(offsets) // 12), len(LAGS)))
    smooth = np.array([np.convolve(row, np.ones(7) / np.sqrt(7), "same") for row in rough])
    hill = np.exp(-0.5 * ((LAGS[None] - offsets[:, None]) / width) ** 2)
    return (hill + noise * np.repeat(smooth, 12, axis=0)[: len(offsets)]).astype(np.float32)


def test_peak_between_steps_is_that_of_the_parabola() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 41)) * 0.05
    tops = rng.integers(2, 39, 50)
    values[np.arange(50), tops] += 1
    lags = np.arange(-20, 21)
    for row, top, found in zip(values, tops, peak_lags(values, lags), strict=True):
        bend, slope, _ = np.polyfit(np.arange(-2, 3), row[top - 2 : top + 3], 2)
        expected = lags[top] + (np.clip(-slope / (2 * bend), -2, 2) if bend < 0 else 0)
        assert found == pytest.approx(expected)


def test_peak_at_the_edge_or_beside_nan_is_the_step_itself() -> None:
    values = np.full((2, 9), 0.0)
    values[0, 0] = values[1, 4] = 1.0
    values[1, 3] = np.nan
    assert peak_lags(values, np.arange(9)).tolist() == [0.0, 4.0]


@pytest.mark.parametrize("offset", [-63.4, 0.0, 12.3])
def test_offset_is_found_between_the_steps(offset: float) -> None:
    found = find_offset(similar(np.full(125, offset), 0.1), LAGS)
    assert found is not None
    assert found.offset_ms == pytest.approx(10 * offset, abs=5)
    assert found.interval_ms[0] < found.offset_ms < found.interval_ms[1]
    assert found.confidence == 1.0
    assert found.peak_z > 10


def test_interval_holds_the_truth_in_nine_of_ten_cases() -> None:
    rng = np.random.default_rng(1)
    inside, widths = [], []
    for trial in range(100):
        # Hills that stand a little beside the truth for half a second each, as syllables do.
        wander = np.repeat(rng.normal(0, 3.0, 13), 10)[:125]
        found = find_offset(similar(wander, 0.3, seed=trial), LAGS, seed=trial)
        assert found is not None
        inside.append(found.interval_ms[0] <= 0 <= found.interval_ms[1])
        widths.append(found.interval_ms[1] - found.interval_ms[0])
    assert 0.8 <= np.mean(inside) <= 0.98, np.mean(inside)
    assert np.median(widths) < 80


def test_spread_between_speakers_widens_the_interval() -> None:
    similarities = similar(np.zeros(125), 0.05)
    narrow, wide = (find_offset(similarities, LAGS, spread_ms=spread) for spread in (0.0, 25.0))
    assert narrow is not None
    assert wide is not None
    assert wide.interval_ms[1] - wide.offset_ms >= 1.645 * 25
    assert wide.interval_ms[1] - wide.offset_ms > narrow.interval_ms[1] - narrow.offset_ms


def test_noise_has_no_confidence() -> None:
    found = [find_offset(similar(np.full(125, 500.0), 1.0, seed=k), LAGS) for k in range(20)]
    assert np.mean([one.confidence for one in found if one]) < 0.7
    assert max(one.peak_z for one in found if one) < 8


def test_lags_of_few_frames_are_not_compared_and_others_weigh_by_their_number() -> None:
    similarities = similar(np.zeros(100), 0.2)
    similarities[:60, :10] = np.nan  # 40 frames are left: under half
    similarities[:40, -10:] = np.nan  # 60 are left
    curve = lag_curve(similarities, LAGS)
    assert np.isnan(curve.values[:10]).all()
    known = similarities[:, 10:].astype(float)
    overall = np.nanmean(known)
    expected = overall + (np.nanmean(known[:, -1]) - overall) * np.sqrt(0.6)
    assert curve.values[-1] == pytest.approx(expected, abs=1e-6)
    assert curve.values[100] == pytest.approx(similarities[:, 100].mean(), abs=1e-6)
    assert (curve.num_frames[:10] == 40).all()


@pytest.mark.parametrize("num_frames", [1, 5, 19])
def test_too_few_frames_give_nothing(num_frames: int) -> None:
    assert find_offset(similar(np.zeros(num_frames), 0.1), LAGS) is None
    assert find_offset(np.full((200, 201), np.nan, np.float32), LAGS) is None
    assert find_offset(np.zeros((0, 201), np.float32), LAGS) is None


def test_same_seed_same_answer() -> None:
    similarities = similar(np.zeros(100), 0.5)
    assert (
        find_offset(similarities, LAGS, seed=4).interval_ms
        == find_offset(similarities, LAGS, seed=4).interval_ms
    )  # type: ignore[union-attr]


@pytest.mark.parametrize("ppm", [-6000, 5000, 12000])
def test_drift_is_found_with_its_rate_and_ends(ppm: int) -> None:
    seconds = np.arange(750) / 25
    rows = -10 + ppm / 1e4 * seconds
    found = find_change(similar(rows, 0.3), LAGS)
    assert isinstance(found, Drift)
    assert found.ppm == pytest.approx(ppm, abs=1000)  # 30 ms from one end to the other
    assert found.start_ms == pytest.approx(-100, abs=30)
    assert found.end_ms == pytest.approx(10 * rows[-1], abs=40)


@pytest.mark.parametrize(("before", "after"), [(0, 20), (15, -10)])
def test_jump_is_found_with_its_moment_and_sides(before: int, after: int) -> None:
    rows = np.where(np.arange(500) < 280, before, after).astype(float)
    found = find_change(similar(rows, 0.3), LAGS, first_s=2.0)
    assert isinstance(found, Jump)
    assert found.time_s == pytest.approx(2.0 + 280 / 25, abs=0.6)
    assert (found.before_ms, found.after_ms) == pytest.approx((10 * before, 10 * after), abs=15)


def test_constant_offset_and_noise_show_no_change() -> None:
    found = [find_change(similar(np.full(300, 7.0), 0.6, seed=k), LAGS) for k in range(3)]
    found += [find_change(similar(np.full(300, 900.0), 1.0, seed=k), LAGS) for k in range(3)]
    assert sum(one is not None for one in found) <= 1


def test_change_in_a_short_clip_is_not_looked_for() -> None:
    rows = np.where(np.arange(200) < 100, 0, 30).astype(float)
    assert find_change(similar(rows, 0.1), LAGS) is None
