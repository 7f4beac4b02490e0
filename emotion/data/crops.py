"""The square face crop, the same in preprocessing, in the server and in the local runner."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion.data.boxes import Box


class Square(NamedTuple):
    """Whole pixels; may reach over the border of the picture."""

    left: int
    top: int
    side: int


def face_box(landmarks: NDArray[np.float32]) -> Box:
    """The box around a face's landmarks (N, 2 or 3), in their pixels: forehead to chin, temple to temple."""
    left, top = (float(value) for value in landmarks[:, :2].min(axis=0))
    right, bottom = (float(value) for value in landmarks[:, :2].max(axis=0))
    return Box(left, top, right, bottom)


def square_around(box: Box, margin: float) -> Square:
    """The square about the centre of `box`: its side is the longer one of the box, and a margin on each side.

    Args:
        box: Of a face.
        margin: CROP_MARGIN, as a share of the longer side.
    """
    side = max(round(max(box.width, box.height) * (1 + 2 * margin)), 1)
    x, y = box.centre
    return Square(round(x - side / 2), round(y - side / 2), side)


def cut_square(image_rgb: NDArray[np.uint8], square: Square, size: int) -> NDArray[np.uint8]:
    """(size, size, 3) uint8: the square of an (H, W, 3) picture, its edge repeated where it reaches over.

    Black bars instead could become a feature that a classifier learns from.
    """
    height, width = image_rgb.shape[:2]
    left, top, side = square
    right, bottom = left + side, top + side
    # At least one row and column of the picture, even where the square is outside of it.
    rows = slice(min(max(top, 0), height - 1), max(min(bottom, height), 1))
    columns = slice(min(max(left, 0), width - 1), max(min(right, width), 1))
    piece = image_rgb[rows, columns]
    missing_px = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    if any(missing_px):
        piece = cv2.copyMakeBorder(piece, *missing_px, cv2.BORDER_REPLICATE)
    is_shrunk = piece.shape[0] > size
    resized: NDArray[np.uint8] = cv2.resize(
        piece, (size, size), interpolation=cv2.INTER_AREA if is_shrunk else cv2.INTER_LINEAR
    )
    return resized
