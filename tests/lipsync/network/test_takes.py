"""What networks see of faces and sounds, and which faces of a clip they are trained on."""

from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
from synthetic_takes import make_lips, make_take

from facevox.errors import UserError
from lipsync.clips.clip_files import write_clip
from lipsync.clips.clock import CLOCK
from lipsync.clips.features import ClipFeatures
from lipsync.clips.mouths import LIP_MIRROR
from lipsync.clips.sounds import SoundFeatures, sound_features
from lipsync.network.takes import ClipEntry, inputs_of, list_clips, load_takes, takes_of
from lipsync.sync.estimators import lip_distances
from lipsync.sync.inputs import (
    DISTANCES_FROM,
    DISTANCES_LESS,
    HIGH_PASS_FRAMES,
    LEVEL_SCALE,
    LIP_SCALE,
    MFCC_SCALE,
    NUM_LIP_VALUES,
    NUM_SPEEDS,
    QUIET_DB,
    floored_levels,
    is_voiced,
    lip_values,
    sound_values,
    values_of_levels,
)


def slow_high_pass(values: np.ndarray, sigma: float) -> np.ndarray:
    """Each column less its mean under a Gaussian, edges repeated."""
    reach = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    out = np.empty(values.shape)
    for k in range(len(values)):
        near = values[np.clip(np.arange(k - reach, k + reach + 1), 0, len(values) - 1)]
        out[k] = values[k] - (weights[:, None] * near).sum(axis=0)
    return out


def test_lip_values_are_contour_distances_and_speeds_without_slow_movement() -> None:
    rng = np.random.default_rng(0)
    lips = make_lips(rng.normal(size=60)) + rng.normal(0, 0.01, (60, 40, 2)).astype(np.float32)
    values = lip_values(lips)
    assert values.shape == (60, NUM_LIP_VALUES)
    assert values.dtype == np.float32
    centred = (lips - lips.mean(axis=1, keepdims=True)).reshape(60, 80)
    expected = slow_high_pass(centred, HIGH_PASS_FRAMES) * LIP_SCALE
    np.testing.assert_allclose(values[:, :80], expected, atol=1e-4)
    gap = np.linalg.norm(lips[:, 25] - lips[:, 35], axis=1)
    np.testing.assert_allclose(
        values[:, 82], slow_high_pass(gap[:, None], HIGH_PASS_FRAMES)[:, 0] * 10, atol=1e-4
    )
    np.testing.assert_allclose(values[1:-1, 85], 15 * (gap[2:] - gap[:-2]) / 2, atol=1e-4)


def test_distances_of_the_mouth_are_differences_of_coordinates() -> None:
    """What networks of lip_distances see: those of the ridge, around the middle of the lips."""
    rng = np.random.default_rng(1)
    lips = make_lips(rng.normal(size=60)) + rng.normal(0, 0.02, (60, 40, 2)).astype(np.float32)
    values = lip_values(lips)
    found = values[:, DISTANCES_FROM]
    found[:, : len(DISTANCES_LESS)] -= values[:, DISTANCES_LESS]
    expected = lip_distances(lips - lips.mean(axis=1, keepdims=True))
    np.testing.assert_allclose(found, slow_high_pass(expected, HIGH_PASS_FRAMES) * LIP_SCALE, atol=1e-4)


def test_last_values_of_lips_are_speeds() -> None:
    """They alone change where the same movement takes another time."""
    lips = make_lips(np.linspace(0, 1, 50))
    one, half = lip_values(lips)[10:-10], lip_values(lips[::2])[5:-5]
    speeds, twice = one[:, -NUM_SPEEDS:], half[:, -NUM_SPEEDS:]
    assert np.abs(speeds).max() > 0.01
    np.testing.assert_allclose(twice, 2 * speeds[:: len(speeds) // len(twice)][: len(twice)], atol=1e-3)


def test_one_frame_has_values() -> None:
    assert np.isfinite(lip_values(make_lips(np.zeros(1)))).all()


def test_mirrored_lips_have_the_same_distances() -> None:
    lips = make_lips(np.sin(np.arange(40)))
    lips[:, :, 0] += 0.05 * np.sin(np.arange(40))[:, None] * np.arange(40)  # lopsided
    mirrored = lips[:, list(LIP_MIRROR)] * np.array([-1, 1], np.float32)
    np.testing.assert_allclose(lip_values(lips)[:, 80:], lip_values(mirrored)[:, 80:], atol=1e-5)


def test_sound_values_do_not_depend_on_the_gain() -> None:
    rng = np.random.default_rng(1)
    samples = (rng.normal(0, 0.05, 16_000) * (1 + np.sin(np.arange(16_000) / 900))).astype(np.float32)
    quiet = sound_features(samples * np.float32(0.25))
    np.testing.assert_allclose(sound_values(sound_features(samples)), sound_values(quiet), atol=2e-3)


@pytest.mark.numeric
def test_sound_values_are_high_passed_bands_and_librosas_mfcc() -> None:
    take = make_take(0, 40)
    values = sound_values(take.sound)
    bands = take.sound.log_mel  # loud enough everywhere that nothing is raised
    np.testing.assert_allclose(
        values[:, :40], slow_high_pass(bands, 4 * HIGH_PASS_FRAMES) * LEVEL_SCALE, atol=1e-4
    )
    mfcc = librosa.feature.mfcc(S=bands.T, n_mfcc=13).T
    np.testing.assert_allclose(
        values[:, 40:], slow_high_pass(mfcc, 4 * HIGH_PASS_FRAMES) * MFCC_SCALE, atol=1e-4
    )


def test_quiet_rows_are_raised_to_a_floor_that_moves_with_the_gain() -> None:
    rng = np.random.default_rng(4)
    levels = rng.uniform(-95, -20, (300, 40)).astype(np.float32)
    sound = SoundFeatures(levels, levels[:, :13].copy())
    floor = np.percentile(levels.max(axis=1), 95) - QUIET_DB
    assert -95 < floor < -85
    np.testing.assert_allclose(floored_levels(sound), np.maximum(levels, floor), atol=1e-4)
    louder = SoundFeatures(levels + 6, levels[:, :13].copy())
    np.testing.assert_allclose(floored_levels(louder), floored_levels(sound) + 6, atol=1e-4)


def test_input_of_a_take_keeps_the_levels_that_its_sound_is_made_of() -> None:
    inputs = inputs_of(make_take(0, 60), "lip_landmarks")
    assert inputs.level_db.shape == (240, 40)
    np.testing.assert_array_equal(values_of_levels(inputs.level_db, 13), inputs.sound)


@pytest.mark.parametrize("rows", [-37, 3, 28])
@pytest.mark.numeric
def test_shifting_samples_by_whole_rows_shifts_the_features(rows: int) -> None:
    """What lets one matrix of similarities stand for all shifts of the samples."""
    samples = np.random.default_rng(2).normal(0, 0.1, 32_000).astype(np.float32)
    shifted = np.zeros_like(samples)
    step = 160 * rows
    if rows > 0:
        shifted[step:] = samples[:-step]
    else:
        shifted[:step] = samples[-step:]
    whole, moved = sound_features(samples), sound_features(shifted)
    inside = np.arange(45, 155)  # away from both ends
    np.testing.assert_array_equal(moved.log_mel[inside], whole.log_mel[inside - rows])
    np.testing.assert_array_equal(moved.mfcc[inside], whole.mfcc[inside - rows])


def test_silence_is_not_voiced_and_gives_zeros() -> None:
    silent = sound_features(np.zeros(16_000, np.float32))
    assert not is_voiced(silent).any()
    assert (sound_values(silent) == 0).all()
    empty = SoundFeatures(np.zeros((0, 40), np.float32), np.zeros((0, 13), np.float32))
    assert sound_values(empty).shape == (0, 53)
    assert is_voiced(empty).shape == (0,)


def test_known_offset_moves_the_row_of_the_first_frame() -> None:
    take = make_take(0, 40, start=10, offset_rows=12)
    assert inputs_of(take, "lip_landmarks").first_row == 40 - 12
    assert inputs_of(take, "mouth_cnn").face.dtype == np.uint8
    distances = inputs_of(take, "lip_distances")  # of the same values: its network picks six distances
    np.testing.assert_array_equal(distances.face, inputs_of(take, "lip_landmarks").face)


def test_of_faces_seen_together_the_one_that_speaks_is_taken() -> None:
    speaking, silent = make_take(3, 100), make_take(4, 120)
    later = replace(make_take(5, 60).track, start=200, track_id=2)
    tracks = (replace(silent.track, track_id=1), speaking.track, later)
    clip = ClipFeatures(300, (0,), tracks, speaking.sound)
    kept = takes_of(clip, "c", "s")
    assert {take.track.start for take in kept} == {0, 200}
    assert next(take for take in kept if take.track.start == 0).track is speaking.track


@pytest.mark.parametrize(("source", "clock"), [({"clock": "2"}, 2), ({"clock": "1"}, 1), ({}, 1)])
def test_takes_know_the_clock_of_their_clip(tmp_path: Path, source: dict[str, str], clock: int) -> None:
    """Clips that name none are of the former one, which showed pictures late."""
    assert CLOCK == 2
    take = make_take(0, 30)
    write_clip(tmp_path / "c.npz", ClipFeatures(30, (0,), (take.track,), take.sound), source)
    (found,) = load_takes([ClipEntry("c", tmp_path / "c.npz", "ann")])
    assert (found.clock, found.speaker) == (clock, "speaker ann")


def test_folder_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder; run data_processing\.py first"):
        list_clips(tmp_path / "none")
    with pytest.raises(UserError, match="no manifest of data_processing"):
        list_clips(tmp_path)
