"""The square crop, and which of several faces it is of."""

import cv2
import numpy as np
import pytest

from emotion.data.boxes import Box, annotated_box, choose_face
from emotion.data.crops import Square, cut_square, face_box, square_around


def test_face_box_spans_the_landmarks():
    points = np.array([[5, 9, 1], [2, 20, 7], [8, 11, -3]], np.float32)
    assert face_box(points) == (2, 9, 8, 20)


def test_square_has_the_centre_of_the_box_and_a_margin_on_each_side():
    assert square_around(Box(10, 20, 50, 100), 0.25) == Square(-30, 0, 120)
    assert square_around(Box(10, 20, 90, 40), 0.0) == Square(10, -10, 80)


def slow_square(image: np.ndarray, square: Square) -> np.ndarray:
    """Pixel by pixel, the nearest of the picture where the square reaches over."""
    height, width = image.shape[:2]
    cut = np.empty((square.side, square.side, 3), np.uint8)
    for row in range(square.side):
        for column in range(square.side):
            y, x = square.top + row, square.left + column
            cut[row, column] = image[min(max(y, 0), height - 1), min(max(x, 0), width - 1)]
    return cut


@pytest.mark.parametrize("square", [(3, 4, 20), (-7, 5, 20), (30, -6, 25), (-5, -5, 70), (20, 30, 24)])
def test_crop_equals_the_slow_one(square):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    side = square[2]
    assert np.array_equal(cut_square(image, Square(*square), side), slow_square(image, Square(*square)))
    half = cut_square(image, Square(*square), side // 2)
    wanted = cv2.resize(slow_square(image, Square(*square)), (side // 2,) * 2, interpolation=cv2.INTER_AREA)
    assert np.array_equal(half, wanted)


def test_square_outside_of_the_picture_still_gives_a_crop():
    image = np.full((40, 50, 3), 7, np.uint8)
    for square in ((-90, 0, 20), (80, 0, 20), (0, -90, 20), (0, 90, 20)):
        assert (cut_square(image, Square(*square), 16) == 7).all()


def test_annotated_face_is_chosen_among_several():
    large, small = Box(0, 0, 100, 100), Box(200, 40, 240, 90)
    found = choose_face([large, small], Box(195, 30, 245, 95))
    assert found is not None
    assert found.box == small
    assert found.num_faces == 2
    assert found.overlap == pytest.approx(40 * 50 / (50 * 65))


def test_tight_box_in_a_wide_annotation_fits_and_a_stray_one_does_not():
    drawn = Box(0, 0, 100, 100)
    assert choose_face([Box(30, 30, 75, 75)], drawn) is not None  # a fifth of the area, in its middle
    assert choose_face([Box(45, 45, 60, 60)], drawn) is None  # a face on a poster behind
    assert choose_face([Box(90, 90, 190, 190)], drawn) is None
    assert choose_face([], drawn) is None


def test_without_annotation_the_largest_face_counts():
    found = choose_face([Box(0, 0, 10, 10), Box(50, 0, 80, 30)], None)
    assert found is not None
    assert found.box == Box(50, 0, 80, 30)
    assert choose_face([], None) is None


def test_one_bad_box_of_three_is_outvoted_or_dropped():
    good = (10.0, 10.0, 50.0, 60.0)
    assert annotated_box([good, good, (0.0, 0.0, 0.0, 0.0)], 100, 100) == good
    assert annotated_box([good, (50.0, 60.0, 10.0, 10.0), (400.0, 1.0, 500.0, 2.0)], 100, 100) == good
    assert annotated_box([good, good, (70.0, 70.0, 90.0, 90.0)], 100, 100) == good
    assert annotated_box([(-9.0, -9.0, -1.0, -1.0)], 100, 100) is None
