"""Where a face is, how large, how tilted, and how wide the picture is must not matter."""

import numpy as np
import pytest

from emotion.landmarks.normalisation import (
    ALIGNED,
    CENTRED,
    LEFT_EYE_CORNERS,
    RAW,
    RIGHT_EYE_CORNERS,
    SCALED,
    normalise_landmarks,
    roll_angles,
)
from facevox.errors import UserError

RNG = np.random.default_rng(0)


def face_px() -> np.ndarray:
    """(478, 3) in pixels, upright: the corners of the eyes on one level."""
    points = RNG.normal(0, 50, (478, 3)) + np.array([300, 400, 0])
    for corner, x in zip((*LEFT_EYE_CORNERS, *RIGHT_EYE_CORNERS), (250, 280, 320, 350), strict=True):
        points[corner, :2] = x, 380
    return points


def raw_of(points_px: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """As MediaPipe gives them in a picture of this size."""
    raw = (points_px / [width, height, width]).astype(np.float32)
    return raw[None], np.array([[width, height]])


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([points[:, :2] @ matrix.T, points[:, 2]])


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (1000, 1000)])
@pytest.mark.parametrize("normalisation", [CENTRED, SCALED, ALIGNED])
def test_shifted_face_in_a_wide_or_tall_picture_is_the_same(size, normalisation):
    points = face_px()
    expected = normalise_landmarks(*raw_of(points, 1000, 1000), normalisation)
    moved = normalise_landmarks(*raw_of(points + np.array([123, -77, 0]), *size), normalisation)
    np.testing.assert_allclose(moved, expected, atol=2e-5)


@pytest.mark.parametrize("factor", [0.3, 2.5])
def test_scaled_face_is_the_same(factor):
    points = face_px()
    for normalisation in (SCALED, ALIGNED):
        expected = normalise_landmarks(*raw_of(points, 1920, 1080), normalisation)
        found = normalise_landmarks(*raw_of(points * factor, 1080, 1920), normalisation)
        np.testing.assert_allclose(found, expected, atol=2e-5)
    centred = normalise_landmarks(*raw_of(points, 1920, 1080), CENTRED)
    larger = normalise_landmarks(*raw_of(points * factor, 1920, 1080), CENTRED)
    np.testing.assert_allclose(larger, centred * factor, atol=2e-5)


@pytest.mark.parametrize("degrees", [-40, 10, 90, 175])
def test_rolled_face_is_the_same_after_alignment_only(degrees):
    points = face_px()
    upright = normalise_landmarks(*raw_of(points, 1920, 1080), ALIGNED)
    rolled = raw_of(turned(points, degrees), 600, 900)
    np.testing.assert_allclose(normalise_landmarks(*rolled, ALIGNED), upright, atol=3e-5)
    assert np.abs(normalise_landmarks(*rolled, SCALED) - upright).max() > 0.1
    assert np.degrees(roll_angles(turned(points, degrees)[None])[0]) == pytest.approx(degrees, abs=1e-6)


def test_scaled_equals_the_plain_loop():
    raw, sizes = raw_of(face_px(), 640, 480)
    points = [[x * 640, y * 480, z * 640] for x, y, z in raw[0].astype(float)]
    centre = [sum(p[axis] for p in points) / 478 for axis in range(3)]
    away = [[p[axis] - centre[axis] for axis in range(3)] for p in points]
    size = (sum(x * x + y * y + z * z for x, y, z in away) / 478) ** 0.5
    np.testing.assert_allclose(normalise_landmarks(raw, sizes)[0], np.array(away) / size, atol=1e-5)


def test_raw_is_left_alone_and_points_in_one_place_stay_finite():
    raw, sizes = raw_of(face_px(), 640, 480)
    assert np.array_equal(normalise_landmarks(raw, sizes, RAW), raw)
    for normalisation in (CENTRED, SCALED, ALIGNED):
        assert np.isfinite(normalise_landmarks(np.zeros((1, 478, 3), np.float32), sizes, normalisation)).all()


def test_unknown_normalisation_lists_the_choices():
    with pytest.raises(UserError, match="choose of raw, centred, scaled, aligned"):
        normalise_landmarks(*raw_of(face_px(), 10, 10), "none")
