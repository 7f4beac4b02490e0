"""Stretches of one face and the clips cut out of them: planted faces and pauses."""

import itertools

import numpy as np
import pytest

from facevox.errors import UserError
from lipsync.cleaning.options import CleanOptions
from lipsync.cleaning.stretches import NO_FACE, SEVERAL_FACES, cut_clips, find_pauses, find_stretches
from lipsync.clips.features import FaceTrack
from lipsync.clips.tracks import DETECT_EVERY


def face(track_id: int, start: int, length: int, width_px: float) -> FaceTrack:
    """A face of one width that does not move."""
    return FaceTrack(
        track_id=track_id,
        start=start,
        shot=0,
        mouths=np.zeros((length, 8, 8), np.uint8),
        lips=np.zeros((length, 40, 2), np.float32),
        opening=np.zeros(length, np.float32),
        boxes_px=np.tile(np.float32([10, 10, width_px, 1.3 * width_px]), (length, 1)),
        is_measured=np.ones(length, np.bool_),
        face_rgb=np.zeros((256, 256, 3), np.uint8),
    )


def bounds(
    tracks: list[FaceTrack], num_frames: int, first: int = 0
) -> list[tuple[int, int, int | None, str]]:
    stretches = find_stretches(tracks, first, num_frames, 1 / 3)
    return [(one.start, one.end, one.track, one.reason) for one in stretches]


def test_a_second_face_ends_the_stretch_before_the_detector_has_seen_it() -> None:
    tracks = [face(4, 100, 200, 120), face(5, 200, 50, 100)]
    assert bounds(tracks, 200, first=100) == [
        (100, 200 - DETECT_EVERY, 0, ""),
        (200 - DETECT_EVERY, 250, None, SEVERAL_FACES),
        (250, 300, 0, ""),
    ]


@pytest.mark.parametrize(("width_px", "is_alone"), [(39.0, True), (41.0, False)])
def test_a_face_in_the_background_is_ignored_below_a_third_of_the_width(
    width_px: float, is_alone: bool
) -> None:
    tracks = [face(0, 0, 100, 120), face(1, 0, 100, width_px)]
    expected = (0, 100, 0, "") if is_alone else (0, 100, None, SEVERAL_FACES)
    assert bounds(tracks, 100) == [expected]


def test_frames_without_a_face_and_another_face_are_stretches_of_their_own() -> None:
    tracks = [face(0, 10, 40, 120), face(1, 80, 20, 120)]
    assert bounds(tracks, 100) == [
        (0, 10, None, NO_FACE),
        (10, 50, 0, ""),
        (50, 80, None, NO_FACE),
        (80, 100, 1, ""),
    ]
    assert bounds([], 30) == [(0, 30, None, NO_FACE)]


def test_cuts_are_in_the_longest_pause_that_leaves_clips_of_allowed_length() -> None:
    pauses = [(10, 100), (140, 146), (200, 212), (240, 247), (295, 330)]
    clips = cut_clips(0, 310, pauses, 2.0, 10.0)  # the pause at 312 is after the end
    assert clips == [(0, 206), (206, 310)]


def test_without_pauses_a_stretch_is_cut_into_equal_parts() -> None:
    assert cut_clips(50, 50 + 750, [], 2.0, 10.0) == [(50, 300), (300, 550), (550, 800)]
    assert cut_clips(0, 251, [], 2.0, 10.0) == [(0, 125), (125, 251)]
    assert cut_clips(0, 250, [(100, 120)], 2.0, 10.0) == [(0, 250)]


def test_any_stretch_and_pauses_give_clips_of_allowed_length_without_holes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        length, starts = int(rng.integers(50, 2000)), np.sort(rng.integers(0, 2000, 20))
        pauses = [(int(start), int(start + rng.integers(5, 60))) for start in starts]
        clips = cut_clips(7, 7 + length, pauses, 2.0, 4.0)
        assert clips[0][0] == 7
        assert clips[-1][1] == 7 + length
        assert all(before[1] == after[0] for before, after in itertools.pairwise(clips))
        assert all(50 <= end - start <= 100 for start, end in clips), (length, pauses, clips)


def test_pauses_are_long_stretches_without_speech() -> None:
    is_speech = np.ones(200, np.bool_)
    is_speech[20:28] = False  # 0.16 s
    is_speech[50:100] = False  # 1 to 2 s
    is_speech[190:] = False
    assert find_pauses(is_speech, 0.02) == [(25, 50), (95, 100)]
    assert find_pauses(np.zeros(0, np.bool_), 0.02) == []


def test_lengths_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(UserError, match=r"--max_clip_s 3: at least twice --min_clip_s 2 is expected"):
        CleanOptions(max_clip_s=3.0)
    with pytest.raises(UserError, match=r"--check measures what is written"):
        CleanOptions(check=True, table_only=True)
    with pytest.raises(UserError, match=r"--size: 301 is not an even number"):
        CleanOptions(size=301)
