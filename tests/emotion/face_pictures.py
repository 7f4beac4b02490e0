"""Free pictures of real faces, as webcam frames of 640 x 480."""

import functools

import numpy as np

from facevox.files import encode_image

WIDTH, HEIGHT = 640, 480


@functools.cache
def _portrait() -> np.ndarray:
    from skimage import data

    return np.asarray(data.astronaut())[:256, 96:352].copy()  # 256 x 256 about the face


def frame_of_faces(num_faces: int, shift_px: int = 0) -> np.ndarray:
    """(480, 640, 3) uint8 RGB with up to four times the same face; all are moved by `shift_px`."""
    import cv2

    side = 300 if num_faces == 1 else 230
    face = cv2.resize(_portrait(), (side, side), interpolation=cv2.INTER_AREA)
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for number in range(num_faces):
        row, column = divmod(number, 2)
        top, left = 5 + 235 * row, 40 + shift_px + 270 * column
        image[top : top + side, left : left + side] = face
    return image


@functools.cache
def jpeg_of_faces(num_faces: int, shift_px: int = 0) -> bytes:
    """The frame as a browser sends it."""
    return encode_image(frame_of_faces(num_faces, shift_px), ".jpg", 85)
