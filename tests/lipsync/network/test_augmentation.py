"""Random changes of lips, mouths and movements: of a clip as a whole, and repeatable."""

import numpy as np
import pytest
from synthetic_takes import make_take

from lipsync.clips.mouths import LIP_MIRROR
from lipsync.network import augmentation
from lipsync.network.augmentation import augment_lips, augment_mouths, augment_sound, crop_mouths
from lipsync.sync.inputs import lip_values, sound_values


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise and masks off: what is left is the same for every frame."""
    for name in ("FACE_NOISE", "SOUND_NOISE", "MASK_CHANCE", "GREY_NOISE"):
        monkeypatch.setattr(augmentation, name, 0.0)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("seed", range(6))
def test_lips_of_all_frames_are_changed_alike(seed: int) -> None:
    values = lip_values(make_take(0, 50).track.lips)
    changed = augment_lips(values, np.random.default_rng(seed))
    # One matrix for all points of all frames, mirrored or not, explains everything.
    residues = []
    for order, sign in ((slice(None), 1.0), (list(LIP_MIRROR), -1.0)):
        points = values[:, :80].reshape(50, 40, 2)[:, order] * np.array([sign, 1.0])
        found, *_ = np.linalg.lstsq(points.reshape(-1, 2), changed[:, :80].reshape(-1, 2), rcond=None)
        residues.append(np.abs(points.reshape(-1, 2) @ found - changed[:, :80].reshape(-1, 2)).max())
    assert min(residues) < 1e-4
    gain = (changed[:, 80:] * values[:, 80:]).sum() / (values[:, 80:] ** 2).sum()
    np.testing.assert_allclose(changed[:, 80:], gain * values[:, 80:], atol=1e-4)


@pytest.mark.usefixtures("plain")
def test_sound_of_all_rows_is_changed_alike() -> None:
    values = sound_values(make_take(0, 50).sound)
    changed = augment_sound(values, np.random.default_rng(1))
    np.testing.assert_allclose(changed, values * (changed[7] / values[7]), atol=1e-4)


@pytest.mark.usefixtures("plain")
def test_mouths_of_all_frames_are_cut_and_mirrored_alike() -> None:
    take = make_take(0, 30, mouth_px=24)
    changed = augment_mouths(take.track.mouths, np.random.default_rng(3))
    assert changed.shape == (30, 22, 22)
    upper = changed[:, :8].astype(int)  # a pattern that stands still in all frames
    assert np.abs(upper - upper[0]).max() <= 1


def test_without_chance_the_middle_is_cut() -> None:
    mouths = np.arange(2 * 24 * 24).reshape(2, 24, 24).astype(np.uint8)
    np.testing.assert_array_equal(crop_mouths(mouths, 0.5, 0.5), mouths[:, 1:23, 1:23])
    np.testing.assert_array_equal(crop_mouths(mouths, 0.0, 1.0), mouths[:, 0:22, 2:24])


def test_same_generator_same_change_and_the_input_is_left_alone() -> None:
    take = make_take(0, 40, mouth_px=24)
    for augment, values in (
        (augment_lips, lip_values(take.track.lips)),
        (augment_sound, sound_values(take.sound)),
        (augment_mouths, take.track.mouths),
    ):
        before = values.copy()
        one, same, other = (augment(values, np.random.default_rng(seed)) for seed in (5, 5, 6))
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)
        np.testing.assert_array_equal(values, before)
        assert one.dtype == values.dtype


def test_masks_hide_stretches_of_limited_length() -> None:
    values = np.ones((200, 86), np.float32)
    lengths = []
    for seed in range(60):
        changed = augment_lips(values, np.random.default_rng(seed))
        hidden = np.flatnonzero((changed == 0).all(axis=1))
        if len(hidden):
            assert (np.diff(hidden) == 1).all()
            lengths.append(len(hidden))
    assert 15 <= len(lengths) <= 45
    assert max(lengths) <= augmentation.MASKED_FRAMES
