"""The main face of a picture: its landmarks and its box, found by FaceMesh."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from facevox.faces import five_points
from facevox.mesh.face_mesh import FaceMesh

MAX_SIDE = 1280  # pixels; FaceMesh reduces the picture to a far smaller one anyway
MAX_FACES = 5  # people in the background must not be taken for the person
# A picture is taken for a face crop where the face's box has at least this share of both sides.
CROP_SHARE = 0.5


@dataclass(frozen=True)
class LocatedFace:
    """A face in a picture.

    Attributes:
        points: (5, 2) eyes, nose and mouth corners in pixels (order of `facevox.faces.five_points`).
        box: x, y, width and height around it in pixels; None where the picture is known to be a face crop.
        is_guess: The points are those of an average face, placed where a detector saw the face.
    """

    points: NDArray[np.float32]
    box: tuple[int, int, int, int] | None
    is_guess: bool = False

    def fills(self, image_rgb: NDArray[np.uint8]) -> bool:
        """True if the picture is a face crop, to be used as it is."""
        if self.box is None:
            return True
        height, width = image_rgb.shape[:2]
        return bool(self.box[2] >= CROP_SHARE * width and self.box[3] >= CROP_SHARE * height)


class FaceLocator:
    """Finds the main face of a picture with FaceMesh; a context manager."""

    def __init__(self) -> None:
        self._mesh = FaceMesh(static=True, max_faces=MAX_FACES)

    def find(self, image_rgb: NDArray[np.uint8]) -> LocatedFace | None:
        """The face that is largest and nearest to the middle, or None.

        Args:
            image_rgb: (H, W, 3) uint8.
        """
        ratio = min(MAX_SIDE / max(image_rgb.shape[:2]), 1.0)
        image = image_rgb
        if ratio < 1:
            image = cv2.resize(image_rgb, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
        faces = self._mesh.find(image, with_border=True)
        if not faces:
            return None
        best = max(faces, key=lambda face: _prominence(face, image.shape[1], image.shape[0])) / ratio
        low, high = np.floor(best[:, :2].min(axis=0)), np.ceil(best[:, :2].max(axis=0))
        x, y, width, height = (int(value) for value in (*low, *(high - low)))
        return LocatedFace(five_points(best), (x, y, width, height))

    def close(self) -> None:
        """Closes FaceMesh."""
        self._mesh.close()

    def __enter__(self) -> FaceLocator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _prominence(face: NDArray[np.float32], width: int, height: int) -> float:
    """Size of a face, halved towards the corners: the person meant is large and in the middle."""
    low, high = face[:, :2].min(axis=0), face[:, :2].max(axis=0)
    middle = np.array([width, height]) / 2
    off_centre = float(np.linalg.norm((low + high) / 2 - middle) / np.linalg.norm(middle))
    return float(np.sqrt(np.prod(high - low))) * (1 - 0.5 * min(off_centre, 1.0))
