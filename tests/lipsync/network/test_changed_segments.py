"""Segments that are spoken faster or slower: lips and sound together, and only where there is enough."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from synthetic_takes import make_take

from lipsync.network import augmentation, windows
from lipsync.network.augmentation import SPEED_RANGE
from lipsync.network.takes import TakeInputs, inputs_of
from lipsync.network.windows import MARGIN_ROWS, SEGMENT_FRAMES, SegmentDataset, cut_changed, cut_segment
from lipsync.sync.inputs import NUM_SPEEDS

LOWER_LIP = 11  # of the lip values: height of the middle of the outer ring
BABBLE = make_take(9, 80).sound.log_mel


@pytest.fixture
def plain_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same throat, no noise and no room: what is left of the changes is the speed."""
    for name in ("NOISE_CHANCE", "ROOM_CHANCE", "THROAT_RANGE"):
        monkeypatch.setattr(augmentation, name, 0.0)


def cut(inputs: TakeInputs, seed: int, num_frames: int = SEGMENT_FRAMES) -> dict[str, Any]:
    return cut_changed(inputs, 13, num_frames, BABBLE, np.random.default_rng(seed))


def place_of(inputs: TakeInputs) -> TakeInputs:
    """The take with the number of the frame as first value and 1 as speed of each frame."""
    face = inputs.face.astype(np.float32)
    face[:, 0] = np.arange(len(inputs))
    face[:, -NUM_SPEEDS:] = 1.0
    return replace(inputs, face=face)


def agreement(segment: dict[str, Any], frames: slice, most: int = 40) -> np.ndarray:
    """(2 most + 1,) correlation of the lower lip with the loudness of the bands at each lag in rows."""
    numbers = np.arange(len(segment["face"]))[frames]
    lip = segment["face"][numbers, LOWER_LIP]
    loudness = segment["sound"][:, :40].mean(axis=1)
    lags = range(-most, most + 1)
    return np.array([np.corrcoef(lip, loudness[MARGIN_ROWS + 4 * numbers - lag])[0, 1] for lag in lags])


@pytest.mark.usefixtures("plain_levels")
@pytest.mark.parametrize(("start", "offset_rows"), [(0, 0), (11, 0), (0, 14), (6, -9)])
def test_lips_and_sound_stay_aligned_at_any_speed(start: int, offset_rows: int) -> None:
    """At the begin and at the end of the segment: a speed of one of the two alone would show there."""
    halves = (slice(0, SEGMENT_FRAMES // 2), slice(SEGMENT_FRAMES // 2, None))
    for seed in range(40):
        take = make_take(seed % 5, 260, start=start, offset_rows=offset_rows, noise=0.0)
        segment = cut(inputs_of(take, "lip_landmarks"), seed)
        for part in halves:
            found = agreement(segment, part)
            assert abs(int(found.argmax()) - 40) <= 1, (seed, part)
            assert found.max() > 0.9, (seed, part)


@pytest.mark.parametrize(("room_chance", "most"), [(0.0, 1), (1.0, 3)])
def test_noise_and_throat_do_not_move_the_sound_and_a_room_by_less_than_a_frame(
    monkeypatch: pytest.MonkeyPatch, room_chance: float, most: int
) -> None:
    monkeypatch.setattr(augmentation, "ROOM_CHANCE", room_chance)
    lags = []
    for seed in range(80):
        take = make_take(seed % 5, 200, noise=0.0)
        found = agreement(cut(inputs_of(take, "lip_landmarks"), seed), slice(None))
        lags.append(int(found.argmax()) - 40)
    assert np.abs(lags).max() <= most
    assert np.mean(np.abs(lags) <= 1) > 0.9
    assert abs(np.mean(lags)) < (1.0 if room_chance else 0.1)


def test_speeds_are_those_of_people_and_the_speed_values_go_with_them() -> None:
    inputs = place_of(inputs_of(make_take(0, 300), "lip_landmarks"))
    speeds = []
    for seed in range(100):
        face = cut(inputs, seed)["face"]
        steps = np.diff(face[:, 0])
        np.testing.assert_allclose(steps, steps[0], atol=1e-3)
        np.testing.assert_allclose(face[:, -NUM_SPEEDS:], steps.mean(), atol=1e-3)
        assert face[0, 0] >= 0
        assert face[-1, 0] <= 299
        speeds.append(float(np.log(steps.mean())))
    assert -SPEED_RANGE - 1e-4 <= min(speeds) < -0.9 * SPEED_RANGE
    assert 0.9 * SPEED_RANGE < max(speeds) <= SPEED_RANGE + 1e-4


@pytest.mark.usefixtures("plain_levels")
@pytest.mark.parametrize("num_frames", [SEGMENT_FRAMES, 150])
def test_at_the_plain_speed_a_segment_is_a_piece_of_the_take(
    monkeypatch: pytest.MonkeyPatch, num_frames: int
) -> None:
    """The whole of it, the end and the sound around it included."""
    monkeypatch.setattr(windows, "SPEED_RANGE", 0.0)
    inputs = place_of(inputs_of(make_take(3, num_frames, start=5, offset_rows=7), "lip_landmarks"))
    firsts = set()
    for seed in range(10):
        segment = cut(inputs, seed)
        firsts.add(first := int(segment["face"][0, 0]))
        for name, value in cut_segment(inputs, first, SEGMENT_FRAMES).items():
            np.testing.assert_allclose(segment[name], value, atol=1e-4, err_msg=name)
    assert len(firsts) > 5 if num_frames > SEGMENT_FRAMES else firsts == {0}


@pytest.mark.usefixtures("plain_levels")
def test_short_takes_are_neither_slowed_nor_sped_up_and_what_is_missing_is_zero() -> None:
    take = make_take(2, 40, start=3)
    inputs = inputs_of(take, "lip_landmarks")
    for seed in range(20):
        segment = cut(inputs, seed)
        np.testing.assert_array_equal(segment["face"][:40], inputs.face)
        assert not segment["face"][40:].any()
        assert segment["is_measured"].tolist() == [True] * 40 + [False] * (SEGMENT_FRAMES - 40)
        rows = 4 * 3 - MARGIN_ROWS + np.arange(4 * SEGMENT_FRAMES + 2 * MARGIN_ROWS)
        is_row = (rows >= 0) & (rows < len(inputs.sound))
        np.testing.assert_array_equal(segment["is_heard"], is_row)
        assert not segment["sound"][~is_row].any()
        assert not segment["is_voiced"][~is_row].any()
        np.testing.assert_allclose(segment["sound"][is_row], inputs.sound[rows[is_row]], atol=1e-4)


def test_a_take_as_long_as_a_segment_may_be_slowed_and_is_never_sped_up() -> None:
    inputs = place_of(inputs_of(make_take(2, SEGMENT_FRAMES), "lip_landmarks"))
    segments = [cut(inputs, seed) for seed in range(60)]
    assert all(segment["is_measured"].all() for segment in segments)
    speeds = np.array([np.diff(segment["face"][:, 0]).mean() for segment in segments])
    assert speeds.max() <= 1 + 1e-4
    assert 0.3 < np.mean(speeds > 1 - 1e-4) < 0.7
    assert speeds.min() < 0.92


def test_frame_between_a_measured_and_a_hidden_one_is_not_measured() -> None:
    take = make_take(1, 200)
    take.track.is_measured[90:110] = False
    inputs = place_of(inputs_of(take, "lip_landmarks"))
    hidden = 0
    for seed in range(30):
        segment = cut(inputs, seed)
        places = segment["face"][:, 0].astype(np.float64)
        outside = (places <= 89 - 1e-3) | (places >= 110 + 1e-3)
        inside = (places >= 89 + 1e-3) & (places <= 110 - 1e-3)
        assert segment["is_measured"][outside].all()
        assert not segment["is_measured"][inside].any()
        hidden += int(inside.sum())
    assert hidden > 100


def test_rows_outside_the_recording_are_zero_and_marked_at_any_speed() -> None:
    """The margin begins before the sound of a take without room around it."""
    inputs = place_of(inputs_of(make_take(4, 90), "lip_landmarks"))
    for seed in range(30):
        segment = cut(inputs, seed)
        first, speed = float(segment["face"][0, 0]), float(np.diff(segment["face"][:, 0]).mean())
        steps = np.arange(len(segment["is_heard"])) - MARGIN_ROWS
        rows = 4 * first + speed * steps
        assert segment["is_heard"][(rows > 0.1) & (rows < 359 - 0.1)].all()
        is_outside = (rows < -0.1) | (rows > 359 + 0.1)
        assert is_outside.any()
        assert not segment["is_heard"][is_outside].any()
        assert not segment["sound"][is_outside].any()
        assert not segment["is_voiced"][is_outside].any()


def test_mouth_crops_are_those_of_the_nearest_frames() -> None:
    take = make_take(0, 150)
    take.track.mouths[:] = np.arange(150, dtype=np.uint8)[:, None, None]
    inputs = inputs_of(take, "mouth_cnn")
    by_lips = place_of(inputs_of(take, "lip_landmarks"))
    for seed in range(20):
        face = cut(inputs, seed)["face"]
        places = cut(by_lips, seed)["face"][:, 0]  # the same draws
        assert face.dtype == np.uint8
        assert face.shape == (SEGMENT_FRAMES, 16, 16)
        assert np.abs(face[:, 0, 0] - places).max() <= 0.501


def test_same_generator_same_segment_and_the_take_is_left_alone() -> None:
    inputs = inputs_of(make_take(0, 150), "lip_landmarks")
    before = {name: np.array(value) for name, value in vars(inputs).items()}
    one, same, other = (cut(inputs, seed) for seed in (3, 3, 4))
    for name in one:
        np.testing.assert_array_equal(one[name], same[name])
    assert not np.array_equal(one["face"], other["face"])
    assert not np.array_equal(one["sound"], other["sound"])
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(inputs, name), value)


def test_segments_to_train_on_are_changed_and_those_to_validate_on_are_not() -> None:
    take = make_take(0, 150, noise=0.0)
    plain = inputs_of(take, "lip_landmarks")
    validation = SegmentDataset([take], "lip_landmarks", 0, is_augmented=False)[0, 0]
    matches = [
        first
        for first in range(150 - SEGMENT_FRAMES + 1)
        if np.array_equal(plain.face[first : first + SEGMENT_FRAMES], validation["face"].numpy())
    ]
    assert len(matches) == 1
    expected = cut_segment(plain, matches[0], SEGMENT_FRAMES)["sound"]
    np.testing.assert_array_equal(validation["sound"].numpy(), expected)


def test_lips_and_sound_of_segments_to_train_on_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything that training changes of them but its masks and a room."""
    for name in ("MASK_CHANCE", "ROOM_CHANCE"):
        monkeypatch.setattr(augmentation, name, 0.0)
    dataset = SegmentDataset([make_take(seed, 150, noise=0.0) for seed in range(3)], "lip_landmarks", 0)
    lags = []
    for epoch in range(60):
        segment = {name: value.numpy() for name, value in dataset[epoch, epoch % len(dataset)].items()}
        lags.append(int(agreement(segment, slice(None)).argmax()) - 40)
    assert np.mean(np.abs(lags) <= 1) > 0.9
    assert np.median(lags) == 0
