"""Quality falls when a face is blurred, shrunk or turned, and no part leaves its range."""

import cv2
import numpy as np
import pytest

from facevox.faces import ARCFACE_POINTS_112, five_points
from facevox.mesh.face_mesh import FaceMesh
from lc_pytorch.faces.quality import Quality, frontality, measure_quality


@pytest.fixture(scope="module")
def portrait():
    """A public-domain portrait and its five points."""
    from skimage.data import astronaut

    image = np.ascontiguousarray(astronaut()[:300, 80:380])
    with FaceMesh() as mesh:
        return image, five_points(mesh.find(image)[0])


def test_more_blur_gives_less_sharpness_and_a_lower_score(portrait):
    image, points = portrait
    blurred = [cv2.GaussianBlur(image, (0, 0), deviation) for deviation in (0.8, 1.6, 3.2)]
    results = [measure_quality(copy, points) for copy in (image, *blurred)]
    assert np.all(np.diff([quality.sharpness for quality in results]) < 0)
    assert np.all(np.diff([quality.score for quality in results]) < 0)


def test_a_smaller_picture_of_the_same_face_scores_lower(portrait):
    image, points = portrait
    results = [measure_quality(image, points)]
    for ratio in (0.5, 0.25):
        small = cv2.resize(image, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
        results.append(measure_quality(small, points * np.float32(ratio)))
    assert np.all(np.diff([quality.size for quality in results]) < 0)
    assert np.all(np.diff([quality.score for quality in results]) < 0)


def test_sharpness_does_not_depend_on_a_larger_copy_of_the_picture(portrait):
    image, points = portrait
    large = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    assert measure_quality(large, points * 2).sharpness == pytest.approx(
        measure_quality(image, points).sharpness, abs=0.12
    )


def turned_head(yaw_deg, pitch_deg=0.0, roll_deg=0.0):
    """Five points of a head model (eyes and mouth in a plane, the nose before it), turned and projected."""
    points = np.array([[-32, -35, 0], [32, -35, 0], [0, 0, 32], [-25, 35, 0], [25, 35, 0]], np.float64)
    yaw, pitch, roll = np.radians([yaw_deg, pitch_deg, roll_deg])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return ((points @ (about_z @ about_x @ about_y).T)[:, :2] + 100).astype(np.float32)


def test_turning_and_nodding_lower_the_frontality_both_ways():
    for sign in (-1, 1):
        yaws = [frontality(turned_head(sign * angle)) for angle in (0, 10, 20, 30, 40)]
        assert np.all(np.diff(yaws) < 0)
        nods = [frontality(turned_head(0, sign * angle)) for angle in (0, 10, 20, 30)]
        assert np.all(np.diff(nods) < 0)
    assert frontality(turned_head(0)) == pytest.approx(1.0)


def test_turning_in_the_picture_plane_costs_nothing():
    for roll in (-60, 20, 90, 180):
        assert frontality(turned_head(12, 5, roll)) == pytest.approx(frontality(turned_head(12, 5)), abs=1e-5)


def test_points_on_one_line_have_no_frontality():
    assert frontality(np.array([[0, 0], [1, 1], [2, 2], [3, 3], [4, 4]], np.float32)) == 0.0


def test_confidence_of_the_detector_counts(portrait):
    image, points = portrait
    scores = [measure_quality(image, points, confidence).score for confidence in (0.2, 0.6, 1.0, None)]
    assert scores[0] < scores[1] < scores[2] == scores[3]


@pytest.mark.parametrize("image", [np.zeros((1, 1, 3)), np.full((2000, 3, 3), 255), np.zeros((5, 900, 3))])
def test_odd_pictures_stay_in_range(image):
    for points in (None, ARCFACE_POINTS_112 * 0.01, ARCFACE_POINTS_112 * 100, np.zeros((5, 2), np.float32)):
        quality = measure_quality(image.astype(np.uint8), points, 7.0)
        parts = [quality.sharpness, quality.size, quality.frontality, quality.confidence, quality.score]
        assert all(0.0 <= part <= 1.0 for part in parts)


def test_the_score_is_the_documented_weighted_mean():
    quality = Quality(sharpness=0.5, size=0.25, frontality=0.8, confidence=0.9)
    expected = np.exp(0.35 * np.log(0.5) + 0.2 * np.log(0.25) + 0.35 * np.log(0.8) + 0.1 * np.log(0.9))
    assert quality.score == pytest.approx(expected)
