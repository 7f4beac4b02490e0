"""Other throats, rooms and noise in the levels of a sound."""

from collections.abc import Callable

import numpy as np
import pytest
from synthetic_takes import make_take

from lipsync.network import augmentation
from lipsync.network.augmentation import NOISE_DB, THROAT_RANGE, change_levels

BABBLE = make_take(9, 80).sound.log_mel


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function: of noise, room and throat, the named ones happen always and the others never."""

    def choose(*names: str) -> None:
        monkeypatch.setattr(augmentation, "NOISE_CHANCE", float("noise" in names))
        monkeypatch.setattr(augmentation, "ROOM_CHANCE", float("room" in names))
        if "throat" not in names:
            monkeypatch.setattr(augmentation, "THROAT_RANGE", 0.0)

    return choose


def levels_of(seed: int, num_frames: int = 60) -> np.ndarray:
    return make_take(seed, num_frames).sound.log_mel.astype(np.float64)


@pytest.mark.parametrize("babble", [BABBLE, BABBLE[:7], BABBLE[:0], np.full((50, 40), -100.0, np.float32)])
def test_levels_keep_their_shape_and_are_finite_and_the_input_is_left_alone(babble: np.ndarray) -> None:
    silent = np.full((90, 40), -100.0)
    for levels in (levels_of(0), silent, levels_of(1)[:1]):
        before, babble_before = levels.copy(), babble.copy()
        for seed in range(30):
            changed = change_levels(levels, babble, np.random.default_rng(seed))
            assert changed.shape == levels.shape
            assert np.isfinite(changed).all()
        np.testing.assert_array_equal(levels, before)
        np.testing.assert_array_equal(babble, babble_before)


def test_same_generator_same_change() -> None:
    levels = levels_of(0)
    one, same, other = (change_levels(levels, BABBLE, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1.0


def test_nothing_drawn_leaves_the_levels_as_they_are(only: Callable[..., None]) -> None:
    only()
    levels = levels_of(0)
    np.testing.assert_allclose(change_levels(levels, BABBLE, np.random.default_rng(0)), levels)


def test_throat_moves_the_bands_by_one_factor(only: Callable[..., None]) -> None:
    """In levels that are the number of their band, a band shows where it comes from."""
    only("throat")
    numbers = np.tile(np.arange(40.0), (25, 1))
    factors = []
    for seed in range(200):
        changed = change_levels(numbers, BABBLE, np.random.default_rng(seed))
        factor = changed[0, 20] / 20
        np.testing.assert_allclose(changed, np.minimum(numbers * factor, 39))
        factors.append(float(np.log(factor)))
    assert -THROAT_RANGE <= min(factors) < -0.9 * THROAT_RANGE
    assert 0.9 * THROAT_RANGE < max(factors) <= THROAT_RANGE


def test_noise_raises_quiet_levels_and_leaves_loud_ones(only: Callable[..., None]) -> None:
    only("noise")
    levels = np.full((200, 40), -80.0)
    levels[::2] = -20.0  # the loud rows decide how loud the noise is
    for seed in range(40):
        changed = change_levels(levels, BABBLE[:0], np.random.default_rng(seed))
        assert (changed >= levels).all()
        quiet, loud = changed[1::2].mean(), changed[::2].mean()
        # Steady noise lies NOISE_DB below the loud rows, with a slope of up to 15 dB.
        assert -20 - NOISE_DB[1] - 8 < quiet < -20 - NOISE_DB[0] + 4
        assert -20 <= loud < -16


def test_half_of_the_time_the_noise_is_somebody_elses_speech(only: Callable[..., None]) -> None:
    """Somebody who speaks for 0.2 s and pauses for 0.2 s is heard between the own words."""
    only("noise")
    levels = np.full((200, 40), -80.0)
    levels[:20] = -20.0
    babble = np.full((40, 40), -90.0, np.float32)
    babble[:20] = -10.0
    changes = [change_levels(levels, babble, np.random.default_rng(seed))[20:] for seed in range(60)]
    # Each period of 0.4 s has loud and quiet rows: the mean over bands takes the scatter of steady noise out.
    swings = [float(np.ptp(np.percentile(changed.mean(axis=1), (10, 90)))) for changed in changes]
    assert 0.3 < np.mean([swing > 5 for swing in swings]) < 0.7
    steady = [change_levels(levels, babble[:0], np.random.default_rng(seed))[20:] for seed in range(60)]
    assert max(float(np.ptp(np.percentile(part.mean(axis=1), (10, 90)))) for part in steady) < 2


def test_room_lets_sounds_die_away_and_adds_nothing_before_them(only: Callable[..., None]) -> None:
    only("room")
    levels = np.full((150, 40), -80.0)
    levels[50:60] = -20.0
    for seed in range(20):
        changed = change_levels(levels, BABBLE, np.random.default_rng(seed))
        # An echo of -80 dB on -80 dB: up to 10 log10(1 + 0.6).
        np.testing.assert_allclose(changed[:50], levels[:50], atol=2.1)
        assert (changed >= levels - 1e-9).all()
        after = changed[60:75].mean(axis=1)
        assert (np.diff(after) < 0).all()
        assert -70 < after[0] < -21
