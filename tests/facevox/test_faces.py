"""Values of faces: alignment, mouth opening, sharpness."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from facevox import faces
from facevox.media import iter_frames, read_first_frame
from facevox.mesh.face_mesh import FaceMesh


def test_similarity_transform_undoes_a_known_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        angle, scale, shift = rng.uniform(-3, 3), rng.uniform(0.2, 5), rng.uniform(-50, 50, 2)
        source = rng.uniform(0, 100, (5, 2))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = faces.similarity_transform(source, scale * source @ turn.T + shift)
        assert matrix == pytest.approx(np.column_stack([scale * turn, shift]), abs=1e-9)


def test_similarity_transform_is_the_least_squares_one() -> None:
    from scipy.optimize import minimize

    rng = np.random.default_rng(1)
    source, target = rng.uniform(0, 100, (5, 2)), rng.uniform(0, 100, (5, 2))

    def cost(p: np.ndarray) -> float:
        moved = source @ np.array([[p[0], -p[1]], [p[1], p[0]]]).T + p[2:]
        return float(((moved - target) ** 2).sum())

    found = minimize(cost, np.array([1.0, 0, 0, 0]), tol=1e-12)
    matrix = faces.similarity_transform(source, target)
    assert cost(np.array([matrix[0, 0], matrix[1, 0], *matrix[:, 2]])) == pytest.approx(found.fun, rel=1e-6)


def test_mirrored_points_are_not_mirrored_back() -> None:
    mirrored = faces.ARCFACE_POINTS_112 * [-1, 1]
    assert np.linalg.det(faces.similarity_transform(mirrored, faces.ARCFACE_POINTS_112)[:, :2]) > 0


def check_alignment(image: np.ndarray) -> None:
    with FaceMesh() as mesh:
        found = mesh.find(image)
        assert len(found) == 1
        assert found[0].shape == (faces.NUM_LANDMARKS, 3)
        points = faces.five_points(found[0])
        assert points[0, 0] < points[1, 0]
        assert points[3, 0] < points[4, 0]
        assert points[:2, 1].max() < points[2, 1] < points[3:, 1].min()
        aligned = faces.align_five_points(image, points, 224)
        again = faces.five_points(mesh.find(aligned)[0])
    assert again == pytest.approx(faces.ARCFACE_POINTS_112 * 2, abs=16)


def test_aligned_example_face_has_its_points_on_the_template(example_videos: Path) -> None:
    check_alignment(read_first_frame(next(example_videos.rglob("*.mp4"))).image)


@pytest.mark.real_data
def test_aligned_real_face_has_its_points_on_the_template(real_data_dir: Path) -> None:
    check_alignment(read_first_frame(real_data_dir / "talking" / "May_5s.mp4").image)


def test_picture_without_a_face_gives_none() -> None:
    with FaceMesh() as mesh:
        assert mesh.find(np.full((200, 200, 3), 127, np.uint8)) == []


def test_mouth_opening_does_not_depend_on_the_size_of_the_face(example_videos: Path) -> None:
    frames = [f.image for f in iter_frames(next(example_videos.rglob("*.mp4")), rate_hz=5)]
    with FaceMesh() as mesh:
        openings = [faces.mouth_opening(mesh.find(frame)[0]) for frame in frames]
        halves = [
            faces.mouth_opening(mesh.find(np.ascontiguousarray(frame[::2, ::2]))[0]) for frame in frames
        ]
    assert halves == pytest.approx(openings, abs=0.06)
    assert max(openings) > 2 * min(openings)


def test_sharpness_falls_with_blur_and_not_with_size(example_videos: Path) -> None:
    portrait = read_first_frame(sorted(example_videos.rglob("*.mp4"))[0]).image
    sharp = faces.measure_sharpness(portrait)
    assert faces.measure_sharpness(cv2.GaussianBlur(portrait, (0, 0), 3)) < 0.5 * sharp
    double = cv2.resize(portrait, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    assert faces.measure_sharpness(double) == pytest.approx(sharp, rel=0.15)
