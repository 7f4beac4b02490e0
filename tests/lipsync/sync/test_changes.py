"""Drifts and jumps, on similarities whose answer is known."""

import numpy as np
import pytest
from planted import LAGS, similar

from lipsync.sync.changes import Change, Drift, Jumps, find_change, offsets_at
from lipsync.sync.posterior import block_evidence


def change_in(rows: np.ndarray, noise: float, seed: int = 0, first_s: float = 0.0) -> Change | None:
    evidence, _ = block_evidence(similar(rows, noise, seed), 1.0)
    return find_change(evidence, LAGS, first_s=first_s)


@pytest.mark.parametrize("ppm", [-6000, 5000, 12000, 40000])
def test_drift_is_found_with_its_rate_and_ends(ppm: int) -> None:
    seconds = np.arange(750) / 25
    rows = ppm / 1e4 * (seconds - 15)
    found = change_in(rows, 0.3)
    assert isinstance(found, Drift)
    assert found.ppm == pytest.approx(ppm, abs=600)  # 18 ms from one end to the other
    assert found.start_ms == pytest.approx(10 * rows[0], abs=30)
    assert found.end_ms == pytest.approx(10 * rows[-1], abs=30)
    assert offsets_at(found, np.array([0.0, 15.0])) == pytest.approx([found.start_ms, 0], abs=20)


@pytest.mark.parametrize(("before", "after"), [(0, 20), (15, -10)])
def test_jump_is_found_with_its_moment_and_sides(before: int, after: int) -> None:
    rows = np.where(np.arange(500) < 280, before, after).astype(float)
    found = change_in(rows, 0.3, first_s=2.0)
    assert isinstance(found, Jumps)
    first, second = found.parts
    assert first.end_s == second.start_s == pytest.approx(2.0 + 280 / 25, abs=0.8)
    assert (first.offset_ms, second.offset_ms) == pytest.approx((10 * before, 10 * after), abs=15)
    assert (first.start_s, second.end_s) == pytest.approx((2.0, 22.0))


def test_several_jumps_are_found_each_with_its_place() -> None:
    rows = np.repeat([0.0, 30.0, -15.0, 30.0], [200, 150, 250, 150])
    found = change_in(rows, 0.3)
    assert isinstance(found, Jumps)
    assert [part.offset_ms for part in found.parts] == pytest.approx([0, 300, -150, 300], abs=15)
    assert [part.end_s for part in found.parts] == pytest.approx([8, 14, 24, 30], abs=0.8)
    assert offsets_at(found, np.array([1.0, 10.0, 20.0, 29.0])) == pytest.approx([0, 300, -150, 300], abs=15)


def test_constant_offset_shows_no_change() -> None:
    for seed in range(5):
        assert change_in(np.full(500, 7.0), 0.5, seed) is None


def test_noise_and_the_sound_of_somebody_else_show_no_change() -> None:
    """Some line or path through chance always gains; it must speak for a match to count."""
    rng = np.random.default_rng(0)
    for seed in range(5):
        assert change_in(np.full(500, 900.0), 1.0, seed) is None
        wander = np.repeat(rng.integers(-90, 91, 50), 10).astype(float)
        assert change_in(wander, 0.3, seed) is None


def test_somebody_else_in_half_of_a_clip_is_no_jump() -> None:
    """Each block there has a lag of its own: the best of them for all is much weaker than the speaker's."""
    rng = np.random.default_rng(5)
    for seed in range(5):
        other = np.repeat(rng.integers(-90, 91, 25), 10).astype(float)
        assert not isinstance(change_in(np.concatenate([np.zeros(250), other]), 0.3, seed), Jumps)


def test_small_or_short_changes_are_not_told() -> None:
    assert change_in(np.where(np.arange(500) < 250, 0.0, 6.0), 0.2) is None  # 60 ms
    short = np.zeros(500)
    short[200:250] = 40.0  # 2 s
    assert change_in(short, 0.3) is None


def test_change_in_a_short_clip_is_not_looked_for() -> None:
    assert change_in(np.where(np.arange(200) < 100, 0.0, 30.0), 0.1) is None
