"""The square around a face that FaceMesh looks at: where it is, its pixels, and points in it.

As in mediapipe 0.10.21: around a detector's box or the landmarks of the frame before, 1.5 times the longer
side, turned by the line between the eyes.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facevox.mesh.blazeface import Detection
from facevox.mesh.network import CROP_PX

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SCALE = 1.5  # side of the square over the longer side of the box
_LEFT_EYE_CORNER, _RIGHT_EYE_CORNER = 33, 263  # outer corners, left and right as seen in the picture
_LONGEST_SIDE_PX = 32766  # that OpenCV's warps take
_LARGEST_SQUARE_PX = 1e6  # positions of the samples must fit OpenCV's whole numbers


@dataclass(frozen=True)
class Region:
    """A square in a picture, in pixels; it may reach over the edge."""

    x: float  # of its middle
    y: float
    side: float
    angle_rad: float  # clockwise as seen in the picture

    @classmethod
    def of_detection(cls, face: Detection) -> "Region":
        """The square around a face that a detector found."""
        x, y, width, height = face.box
        across = (face.keypoints[1] - face.keypoints[0]).tolist()
        angle = math.atan2(across[1], across[0])
        return cls(x + width / 2, y + height / 2, _SCALE * max(width, height), angle)

    @classmethod
    def of_landmarks(cls, landmarks: "NDArray[np.float32]") -> "Region":
        """The square around (478, 3) landmarks in pixels."""
        x, y = landmarks[:, 0], landmarks[:, 1]
        left, right, top, bottom = (float(value) for value in (x.min(), x.max(), y.min(), y.max()))
        across = (landmarks[_RIGHT_EYE_CORNER] - landmarks[_LEFT_EYE_CORNER]).tolist()
        side = _SCALE * max(right - left, bottom - top)
        return cls((left + right) / 2, (top + bottom) / 2, side, math.atan2(across[1], across[0]))

    def overlap(self, other: "Region") -> float:
        """Intersection over union of the two squares without their turns."""
        shared = 1.0
        for a, b in ((self.x, other.x), (self.y, other.y)):
            low = max(a - self.side / 2, b - other.side / 2)
            high = min(a + self.side / 2, b + other.side / 2)
            shared *= max(high - low, 0.0)
        united = self.side**2 + other.side**2 - shared
        return shared / united if united > 0 else 0.0

    def crop(self, image_rgb: "NDArray[np.uint8]") -> "NDArray[np.uint8] | None":
        """Its pixels, (192, 192, 3); those outside repeat the edge. None: it has none of the picture."""
        import cv2

        height, width = image_rgb.shape[:2]
        reach = self.side / 2 * (abs(math.cos(self.angle_rad)) + abs(math.sin(self.angle_rad)))
        is_over_picture = -reach < self.x < width + reach and -reach < self.y < height + reach
        if not (is_over_picture and 0 < self.side < _LARGEST_SQUARE_PX):  # nor where one is NaN
            return None
        matrix = self._to_picture()
        if max(width, height) > _LONGEST_SIDE_PX:
            step = -(-max(width, height) // _LONGEST_SIDE_PX)
            image_rgb, matrix = np.ascontiguousarray(image_rgb[::step, ::step]), matrix / step
        crop: NDArray[np.uint8] = cv2.warpAffine(
            image_rgb,
            matrix,
            (CROP_PX, CROP_PX),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return crop

    def to_picture(self, points: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """(N, 3) points of the crop in pixels of the picture; z gets the same scale."""
        (cos, minus_sin, x), (sin, _, y) = self._to_picture().tolist()
        scale = self.side / CROP_PX
        turn = np.array([[cos, sin, 0], [minus_sin, cos, 0], [0, 0, scale]], np.float32)
        moved: NDArray[np.float32] = points @ turn + np.array([x, y, 0], np.float32)
        return moved

    def _to_picture(self) -> "NDArray[np.float64]":
        """(2, 3) from pixels of the crop to those of the picture."""
        scale = self.side / CROP_PX
        cos, sin = scale * math.cos(self.angle_rad), scale * math.sin(self.angle_rad)
        half = CROP_PX / 2
        return np.array([[cos, -sin, self.x - (cos - sin) * half], [sin, cos, self.y - (sin + cos) * half]])
