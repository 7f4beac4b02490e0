"""Cutting faces out of pictures exactly as DeepFace's `extract_faces` does, without its detours.

DeepFace copies the whole picture into one of four times its size to have room for turning. Here only the
face and half of its size around it are read; what is outside of the picture is black in both.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]  # x, y, width, height in pixels
Eyes = tuple[tuple[float, float], tuple[float, float]]  # left and right as seen in the picture, pixels


@dataclass(frozen=True)
class FaceCrop:
    """A face cut out of a picture."""

    image: NDArray[np.uint8]  # (h, w, 3), in the picture's channel order
    box: Box  # DeepFace's facial_area, inside the picture
    matrix: NDArray[np.float64]  # (2, 3): takes pixels of the picture to pixels of the crop

    def to_crop(self, points_n2: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points (N, 2) of the picture in pixels of the crop."""
        points: NDArray[np.float64] = points_n2 @ self.matrix[:, :2].T + self.matrix[:, 2]
        return points.astype(np.float32)


def black_crop(image: NDArray[np.uint8], x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
    """The (h, w, C) part of `image` with its corner at (x, y); what is outside of the picture is black."""
    height, width = image.shape[:2]
    if x >= 0 and y >= 0 and x + w <= width and y + h <= height:
        return image[y : y + h, x : x + w]
    part = np.zeros((h, w, *image.shape[2:]), image.dtype)
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if left < right and top < bottom:
        part[top - y : bottom - y, left - x : right - x] = image[top:bottom, left:right]
    return part


def widen(box: Box, size: tuple[int, int], border: bool, expand_percentage: int) -> Box:
    """`box` made larger by a percentage of its sides and clipped, as DeepFace does it.

    Args:
        box: Of the face, in pixels of the picture.
        size: Width and height of the picture.
        border: Whether DeepFace would have laid its border of half the picture around it (alignment on);
            the box is clipped there and not at the picture's edge.
        expand_percentage: DeepFace's option; 0 leaves the box as the detector gave it.
    """
    corner, sides = [], []
    for start, side, limit in zip(box[:2], box[2:], size, strict=True):
        rim = int(0.5 * limit) if border else 0
        stop_px = limit + rim
        if expand_percentage > 0:
            wider = side + int(side * expand_percentage / 100)
            start = max(-rim, start - int((wider - side) / 2))
            side = min(stop_px - start, wider)
        sides.append(max(0, min(stop_px, start + side) - max(-rim, start)))
        corner.append(max(-rim, start))
    return corner[0], corner[1], sides[0], sides[1]


def cut_face(image: NDArray[np.uint8], box: Box, eyes: Eyes | None, *, align: bool) -> FaceCrop | None:
    """The face in `box`, with `align` turned so that its eyes are level; None where nothing is left of it.

    The crop has no margin around the box: a caller that needs one widens the box first. Turning keeps the
    box's size and moves its centre with the face.

    Args:
        image: (H, W, 3) uint8.
        box: As `widen` returns it.
        eyes: The face is turned until they are level; None leaves it as it is.
        align: Off cuts at the picture's edge; on fills with black beyond it.
    """
    height, width = image.shape[:2]
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return None
    final_x, final_y = max(0, x), max(0, y)
    final = (final_x, final_y, min(width - final_x - 1, w), min(height - final_y - 1, h))
    if not align:
        return FaceCrop(image[y : y + h, x : x + w], final, _shift(x, y))
    angle_deg = _eye_angle_deg(eyes)
    if angle_deg == 0:
        return FaceCrop(black_crop(image, x, y, w, h), final, _shift(x, y))
    half_w, half_h = int(0.5 * w), int(0.5 * h)
    rows, columns = h + 2 * half_h, w + 2 * half_w
    matrix: NDArray[np.float64] = cv2.getRotationMatrix2D((columns // 2, rows // 2), angle_deg, 1.0)
    left, top, right, bottom = _turned_box((half_w, half_h, w, h), angle_deg, (columns, rows))
    if right <= left or bottom <= top:
        return None
    matrix[:, 2] -= left, top
    matrix[:, 2] -= matrix[:, :2] @ (x - half_w, y - half_h)
    # Only what is kept is turned, straight from the picture. DeepFace turns all around it and then cuts;
    # OpenCV rounds positions to 1/32 pixel, so one pixel in a hundred differs by a grey level or two.
    turned: NDArray[np.uint8] = cv2.warpAffine(
        image, matrix, (right - left, bottom - top), flags=cv2.INTER_CUBIC
    )
    return FaceCrop(turned, final, matrix)


def centre_square(image: NDArray[np.uint8]) -> FaceCrop:
    """The largest square in the middle of a picture: it replaces the face in a frame without one."""
    height, width = image.shape[:2]
    side = min(height, width)
    x, y = (width - side) // 2, (height - side) // 2
    return FaceCrop(image[y : y + side, x : x + side], (x, y, side, side), _shift(x, y))


def _shift(x: int, y: int) -> NDArray[np.float64]:
    return np.array([[1, 0, -x], [0, 1, -y]], np.float64)


def _eye_angle_deg(eyes: Eyes | None) -> float:
    """Angle by which the line from the left to the right eye falls, in degrees (y points down)."""
    if eyes is None:
        return 0.0
    (left_x, left_y), (right_x, right_y) = eyes
    return math.degrees(math.atan2(right_y - left_y, right_x - left_x))


def _turned_box(box: Box, angle_deg: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of `box` once its picture of `size` is turned; its sides keep their length."""
    x, y, w, h = box
    columns, rows = size
    angle = math.radians(angle_deg)
    from_x, from_y = x + w / 2 - columns / 2, y + h / 2 - rows / 2
    to_x = from_x * math.cos(angle) + from_y * math.sin(angle) + columns / 2
    to_y = -from_x * math.sin(angle) + from_y * math.cos(angle) + rows / 2
    return (
        max(int(to_x - w / 2), 0),
        max(int(to_y - h / 2), 0),
        min(int(to_x + w / 2), columns),
        min(int(to_y + h / 2), rows),
    )
