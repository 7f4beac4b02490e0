"""Crops for SyncNet, compared with the published steps: median filter, grey border, cut, resize."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.signal import medfilt

from facevox.media import iter_frames
from lipsync.lse.faces import BOX_GROWTH, BOX_RISE, crop_squares, cut_face, find_faces


def slow_crop(image: np.ndarray, x: float, y: float, half: float) -> np.ndarray:
    """The picture in a wide border of grey 110, cut, resized."""
    border = int(half * 1.8)
    wide = np.pad(image, ((border, border), (border, border), (0, 0)), constant_values=110)
    middle_x, middle_y = x + border, y + border
    part = wide[
        int(middle_y - half) : int(middle_y + half * 1.8),
        int(middle_x - half * 1.4) : int(middle_x + half * 1.4),
    ]
    return cv2.resize(part, (224, 224))


@pytest.mark.parametrize(
    ("x", "y", "half"), [(80.0, 60.0, 25.0), (12.3, 20.7, 30.4), (150.0, 110.0, 41.9), (81.2, 64.9, 200.0)]
)
def test_crop_is_that_of_the_published_steps(x: float, y: float, half: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3)).astype(np.uint8)
    np.testing.assert_array_equal(cut_face(image, np.array([x, y, half])), slow_crop(image, x, y, half))


@pytest.mark.parametrize(("x", "y"), [(-500.0, 60.0), (900.0, 60.0), (80.0, -700.0), (80.0, 900.0)])
def test_crop_beyond_the_picture_is_the_border(x: float, y: float) -> None:
    image = np.zeros((120, 160, 3), np.uint8)
    crop = cut_face(image, np.array([x, y, 0.2 if x < 0 else 30.0]))
    assert crop.shape == (224, 224, 3)
    assert (crop == 110).all()


def test_squares_are_medians_of_13_boxes() -> None:
    rng = np.random.default_rng(1)
    boxes_px = rng.uniform([10, 20, 60, 80], [30, 40, 90, 120], (40, 4)).astype(np.float32)
    squares = crop_squares(boxes_px)
    left, top, width, height = boxes_px.astype(float).T
    half = np.maximum(width, height) / 2
    raw = (left + width / 2, top + height / 2 - BOX_RISE * half, BOX_GROWTH * half)
    for column, values in enumerate(raw):
        np.testing.assert_allclose(squares[6:-6, column], medfilt(values, 13)[6:-6])
    assert crop_squares(boxes_px[:1]).shape == (1, 3)  # shorter than the filter
    np.testing.assert_allclose(crop_squares(boxes_px[:1])[0], [values[0] for values in raw])


def test_faces_of_a_clip_have_a_box_in_each_frame(example_videos: Path) -> None:
    video = example_videos / "id0001/0001.mp4"
    counted: list[int] = []
    faces, num_frames = find_faces(
        video, max_faces=4, start_s=0.0, max_duration_s=0.8, on_frame=lambda: counted.append(1)
    )
    assert (len(faces), num_frames, len(counted)) == (1, 20, 20)
    assert (faces[0].start, len(faces[0])) == (0, 20)
    image = next(iter_frames(video)).image
    x, y, half = crop_squares(faces[0].boxes_px)[0]
    assert 0 < x - half < x + half < image.shape[1]
    assert 0 < y - half < y + half < image.shape[0]


@pytest.mark.real_data
def test_crop_of_a_published_crop_is_nearly_itself(real_data_dir: Path) -> None:
    """There the detector's box is in the middle, from the upper edge on, and has 1 / 1.4 of the width."""
    faces, _ = find_faces(
        real_data_dir / "talking/syncnet_example.avi", max_faces=4, start_s=0.0, max_duration_s=4.0
    )
    x, y, half = np.median(crop_squares(faces[0].boxes_px), axis=0)
    assert (x, y, half) == (pytest.approx(112, abs=3), pytest.approx(80, abs=3), pytest.approx(80, abs=3))
