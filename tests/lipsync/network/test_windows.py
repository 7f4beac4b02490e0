"""Segments to train on and windows to measure on."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from synthetic_takes import make_take

from lipsync.network.takes import inputs_of
from lipsync.network.windows import MARGIN_ROWS, SEGMENT_FRAMES, SegmentDataset, cut_segment, find_windows


@pytest.mark.parametrize("first", [0, 30, -5, 70])
def test_row_of_a_segment_belongs_to_its_frame(first: int) -> None:
    take = make_take(0, 80, start=6, offset_rows=9)
    take.track.is_measured[40] = False
    inputs = inputs_of(take, "lip_landmarks")
    segment = cut_segment(inputs, first, 20)
    assert segment["sound"].shape == (80 + 2 * MARGIN_ROWS, 53)
    for t in range(20):
        frame = first + t
        exists = 0 <= frame < 80
        assert segment["is_measured"][t] == (exists and frame != 40)
        expected = inputs.face[frame] if exists else 0
        np.testing.assert_array_equal(segment["face"][t], expected)
    for place in range(len(segment["sound"])):
        row = 4 * (6 + first) - 9 - MARGIN_ROWS + place
        exists = 0 <= row < len(inputs.sound)
        assert segment["is_heard"][place] == exists
        assert segment["is_voiced"][place] == (exists and inputs.is_voiced[row])
        np.testing.assert_array_equal(segment["sound"][place], inputs.sound[row] if exists else 0)


@pytest.mark.parametrize("frontend", ["lip_landmarks", "mouth_cnn"])
def test_segments_depend_on_seed_epoch_and_index_alone(frontend: str) -> None:
    takes = [make_take(seed, 200, mouth_px=24) for seed in range(2)]
    one, same = (SegmentDataset(takes, frontend, 3) for _ in range(2))
    other = SegmentDataset(takes, frontend, 4)
    assert len(one) == 6  # 3 segments of each
    _ = one[0, 0]
    for name in ("face", "sound"):
        np.testing.assert_array_equal(one[1, 2][name], same[1, 2][name])
        assert not np.array_equal(one[1, 2][name], one[2, 2][name])
        assert not np.array_equal(one[1, 2][name], other[1, 2][name])
    assert one[1, 2]["face"].shape[:1] == (SEGMENT_FRAMES,)


def test_without_augmentation_a_segment_is_a_piece_of_the_take() -> None:
    take = make_take(0, SEGMENT_FRAMES)
    segment = SegmentDataset([take], "lip_landmarks", 0, is_augmented=False)[0, 0]
    np.testing.assert_array_equal(segment["face"], inputs_of(take, "lip_landmarks").face)


def test_rows_that_do_not_exist_stay_zero_when_augmented() -> None:
    dataset = SegmentDataset([make_take(0, SEGMENT_FRAMES)], "lip_landmarks", 0)
    for epoch in range(4):
        segment = dataset[epoch, 0]
        assert (segment["sound"][~segment["is_heard"]] == 0).all()


def test_what_is_too_short_or_silent_is_left_out() -> None:
    take = make_take(0, 40)
    mute = replace(take, sound=type(take.sound)(take.sound.log_mel[:0], take.sound.mfcc[:0]))
    assert len(SegmentDataset([make_take(1, 9), mute], "lip_landmarks", 0)) == 0
    assert len(SegmentDataset([make_take(1, 9), mute, take], "lip_landmarks", 0)) == 1


@pytest.mark.parametrize(("start", "offset_rows", "num_frames"), [(0, 0, 10), (7, 30, 12), (0, -23, 25)])
def test_windows_hold_every_lag_and_do_not_overlap(start: int, offset_rows: int, num_frames: int) -> None:
    take = make_take(0, 150, start=start, offset_rows=offset_rows)
    take.track.is_measured[50:60] = False
    num_rows = len(take.sound.log_mel)

    def is_legal(first: int) -> bool:
        rows = [
            4 * (start + t) - offset_rows - lag for t in range(first, first + num_frames) for lag in (-60, 60)
        ]
        measured = take.track.is_measured[first : first + num_frames].mean()
        return min(rows) >= 0 and max(rows) < num_rows and measured >= 0.5

    found = find_windows(take, num_frames)
    assert found
    assert all(map(is_legal, found))
    assert all(b - a >= num_frames for a, b in itertools.pairwise(found))
    # Greedy from the left: no legal window fits into a gap.
    ends = [-1, *(first + num_frames for first in found)]
    for end, following in zip(ends, [*found, 150 - num_frames + 1], strict=True):
        assert not any(is_legal(first) for first in range(max(end, 0), following))
