"""Track numbers and smoothing against slow oracles."""

import itertools
import math

import numpy as np
import pytest

from emotion.data.boxes import Box, overlap
from emotion.live.face_tracks import (
    FORGOTTEN_AFTER_S,
    LARGEST_MOVE,
    LEAST_OVERLAP,
    LEAST_PROBABILITY,
    SMOOTHING_S,
    FaceTracks,
    Sighting,
    match_boxes,
)

NONE = np.zeros(0, np.float32)


def box_at(x: float, y: float, side: float = 100.0) -> Box:
    return Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def see(*centres: float) -> list[Sighting]:
    return [Sighting(box_at(x, 100), NONE) for x in centres]


def numbers(tracks: FaceTracks, time_s: float, *centres: float) -> list[int]:
    return [face.track_id for face in tracks.update(see(*centres), time_s)]


def test_matching_equals_a_search_of_the_best_pair_again_and_again() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        former, present = (
            [box_at(*rng.uniform(0, 400, 2), rng.uniform(40, 160)) for _ in range(rng.integers(0, 5))]
            for _ in range(2)
        )
        expected: dict[int, int] = {}
        while True:
            pairs = [
                (overlap(former[a], present[b]), a, b)
                for a, b in itertools.product(range(len(former)), range(len(present)))
                if a not in expected.values() and b not in expected
            ]
            pairs = [pair for pair in pairs if pair[0] >= LEAST_OVERLAP]
            if not pairs:
                break
            _, a, b = max(pairs)
            expected[b] = a
        while True:
            moves = []
            for a, b in itertools.product(range(len(former)), range(len(present))):
                if a in expected.values() or b in expected:
                    continue
                side, new_side = former[a].width, present[b].width
                move = math.dist(former[a].centre, present[b].centre) / side
                if move <= LARGEST_MOVE and max(side, new_side) <= 2 * min(side, new_side):
                    moves.append((move, a, b))
            if not moves:
                break
            _, a, b = min(moves)
            expected[b] = a
        assert match_boxes(former, present) == expected


def test_faces_keep_their_numbers_while_they_move_and_change_places_in_the_list() -> None:
    tracks = FaceTracks()
    assert numbers(tracks, 0.0, 100, 400) == [1, 2]
    assert numbers(tracks, 0.1, 420, 120) == [2, 1]
    assert numbers(tracks, 0.2, 180, 480) == [1, 2]  # a quick move: 60 of 100 pixels


def test_number_is_kept_through_a_short_absence_and_never_used_again_after_a_long_one() -> None:
    tracks = FaceTracks()
    assert numbers(tracks, 0.0, 100) == [1]
    assert numbers(tracks, 0.5) == []
    assert numbers(tracks, 0.9, 105) == [1]
    assert numbers(tracks, 0.9 + FORGOTTEN_AFTER_S + 0.1, 105) == [2]
    tracks.reset()
    assert numbers(tracks, 2.1, 105) == [3]


def test_faces_of_a_film_are_kept_as_long_as_their_picture_is_shown() -> None:
    tracks = FaceTracks()
    ids = []
    for time_s, centres in (
        (0.0, (100,)),
        (9.0, (105,)),
        (9.1, ()),
        (10.0, (105,)),
        (11.1, ()),
        (12.2, (105,)),
    ):
        faces = tracks.update(see(*centres), time_s, is_film=True)
        ids.append([face.track_id for face in faces])
    assert ids == [[1], [1], [], [1], [], [2]]


def test_face_elsewhere_or_of_another_size_is_another_one() -> None:
    tracks = FaceTracks()
    assert numbers(tracks, 0.0, 100) == [1]
    assert numbers(tracks, 0.1, 300) == [2]
    (face,) = tracks.update([Sighting(box_at(100, 100, 240), NONE)], 0.2)
    assert face.track_id == 3
    assert face.best == -1


def test_smoothing_equals_the_weighted_sum_over_all_pictures() -> None:
    rng = np.random.default_rng(1)
    times_s = np.cumsum(rng.uniform(0, 0.2, 40))
    given = rng.dirichlet(np.ones(5), 40).astype(np.float32)
    given[7] = (0, 0, 1, 0, 0)  # certain: its logarithms would be infinite
    tracks = FaceTracks()
    for last, time_s in enumerate(times_s):
        (face,) = tracks.update([Sighting(box_at(100, 100), given[last])], float(time_s))
        # Each picture's weight: what it had when it came, less what those after it took away.
        logs = np.zeros(5)
        for k in range(last + 1):
            came = 1.0 if k == 0 else 1 - math.exp(-(times_s[k] - times_s[k - 1]) / SMOOTHING_S)
            left = math.exp(-(times_s[last] - times_s[k]) / SMOOTHING_S)
            logs += came * left * np.log(np.maximum(given[k].astype(float), LEAST_PROBABILITY))
        expected = np.exp(logs) / np.exp(logs).sum()
        np.testing.assert_allclose(face.smoothed, expected, atol=1e-5)
        np.testing.assert_array_equal(face.probabilities, given[last])
        assert face.best == int(expected.argmax())


def test_smoothing_goes_by_time_and_not_by_the_number_of_pictures() -> None:
    steady, changed = np.array([0.9, 0.1], np.float32), np.array([0.2, 0.8], np.float32)
    smoothed = []
    for rate_hz in (10, 100):
        tracks = FaceTracks()
        tracks.update([Sighting(box_at(0, 0), steady)], 0.0)
        for k in range(1, rate_hz // 2 + 1):
            (face,) = tracks.update([Sighting(box_at(0, 0), changed)], k / rate_hz)
        smoothed.append(face.smoothed)
    np.testing.assert_allclose(smoothed[0], smoothed[1], atol=1e-5)


def test_box_is_given_by_its_corner_and_size() -> None:
    (face,) = FaceTracks().update([Sighting(Box(-3.5, 2.0, 6.5, 22.0), NONE)], 0.0)
    assert face.box == (-3.5, 2.0, 10.0, 20.0)


@pytest.mark.parametrize("count", [1, 3])
def test_same_moment_twice_changes_nothing(count: int) -> None:
    tracks = FaceTracks()
    for _ in range(count):
        (face,) = tracks.update([Sighting(box_at(0, 0), np.array([0.3, 0.7], np.float32))], 1.0)
    np.testing.assert_allclose(face.smoothed, [0.3, 0.7], atol=1e-6)
