"""The part of a picture that a network gets, sampled as MediaPipe does it."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def sample_box(
    image_rgb: "NDArray[np.uint8]",
    middle: tuple[float, float],
    sides: tuple[float, float],
    size_px: int,
    turn_deg: float = 0.0,
) -> "NDArray[np.uint8]":
    """A box of a picture, (size_px, size_px, 3) uint8, black where it reaches over the picture's edge.

    Args:
        image_rgb: (H, W, 3) uint8, at most 32,766 pixels a side.
        middle: x and y of the box in pixels.
        sides: Its width and height in pixels.
        size_px: Side of the result.
        turn_deg: Clockwise turn of the box as seen in the picture.
    """
    import cv2

    # By way of four corners, as MediaPipe's ImageToTensor: the matrix's last bits decide how OpenCV rounds
    # the positions of the samples.
    corners = cv2.boxPoints((middle, sides, turn_deg))
    targets = np.array([(0, size_px), (0, 0), (size_px, 0), (size_px, size_px)], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, targets)
    sampled: NDArray[np.uint8] = cv2.warpPerspective(
        image_rgb, matrix, (size_px, size_px), flags=cv2.INTER_LINEAR
    )
    return sampled
