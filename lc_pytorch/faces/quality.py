"""Quality of a face crop as one number from 0 to 1, by which a group's representative is chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from facevox.faces import ARCFACE_POINTS_112, align_five_points, similarity_transform

# The face is brought to one size first: the Laplacian of a large picture is small for the same sharpness.
# Small faces get blurred by this, as they should be: they hold less detail.
SIDE = 112
# Variance of the Laplacian at which sharpness is one half. Of 137 press photographs and snapshots one in
# twenty is below 70, half are below 280, one in twenty is above 700.
HALF_SHARPNESS = 200.0
# Side of the aligned face in the picture, in pixels, at which size is 1 - 1/e: embedding models take 112.
SIZE_SCALE_PX = 112.0
# Share of each part in the product (they add up to 1). A blurred or turned face misleads most.
_WEIGHTS = {"sharpness": 0.35, "frontality": 0.35, "size": 0.2, "confidence": 0.1}
UNKNOWN_FRONTALITY = 0.5
_FLOOR = 0.01  # one bad part must not hide differences in the others


@dataclass(frozen=True)
class Quality:
    """Quality of one face; every part and the score are from 0 to 1 (larger is better).

    Attributes:
        sharpness: v / (v + 200), v: variance of the Laplacian of the grey face at 112 × 112 pixels.
        size: 1 - exp(-s / 112), s: side of the aligned face in pixels of the picture.
        frontality: 1 for a face seen from the front, 0 from the side, above or below; 0.5 where no
            landmarks are known. Rotation in the picture plane (roll) does not count: alignment undoes it.
        confidence: Of the detection; 1 where it is not known.
    """

    sharpness: float
    size: float
    frontality: float
    confidence: float

    @property
    def score(self) -> float:
        """Weighted geometric mean: sharpness and frontality 0.35 each, size 0.2, confidence 0.1."""
        score: float = math.prod(
            max(getattr(self, name), _FLOOR) ** weight for name, weight in _WEIGHTS.items()
        )
        return score


def measure_quality(
    image_rgb: NDArray[np.uint8],
    points_52: NDArray[np.float32] | None,
    confidence: float | None = None,
    *,
    are_points_guessed: bool = False,
) -> Quality:
    """The quality of a face.

    Args:
        image_rgb: (H, W, 3) uint8 picture with the face.
        points_52: (5, 2) eyes, nose and mouth corners in its pixels (order of
            `facevox.faces.five_points`), or None where they are not known: then the whole picture is taken
            for the face.
        confidence: Of the detector, 0 to 1, or None.
        are_points_guessed: The points are those of an average face placed on this one: they give its position
            and size, but not how far it is turned.
    """
    if points_52 is None:
        interpolation = cv2.INTER_AREA if min(image_rgb.shape[:2]) > SIDE else cv2.INTER_LINEAR
        face = cv2.resize(image_rgb, (SIDE, SIDE), interpolation=interpolation)
        side_px = float(min(image_rgb.shape[:2]))
        front = UNKNOWN_FRONTALITY
    else:
        matrix = similarity_transform(points_52, ARCFACE_POINTS_112)
        side_px = SIDE / max(math.hypot(matrix[0, 0], matrix[1, 0]), 1e-6)
        # Averaged while shrinking, before alignment: else fine detail turns into noise that looks sharp.
        shrink = SIDE / side_px
        if shrink < 1:
            height, width = (max(round(side * shrink), 1) for side in image_rgb.shape[:2])
            small: NDArray[np.uint8] = cv2.resize(image_rgb, (width, height), interpolation=cv2.INTER_AREA)
            ratio = np.array([small.shape[1] / image_rgb.shape[1], small.shape[0] / image_rgb.shape[0]])
            face = align_five_points(small, (points_52 * ratio).astype(np.float32), SIDE)
        else:
            face = align_five_points(image_rgb, points_52, SIDE)
        front = UNKNOWN_FRONTALITY if are_points_guessed else frontality(points_52)
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    variance = float(cv2.Laplacian(grey, cv2.CV_64F).var())
    return Quality(
        sharpness=variance / (variance + HALF_SHARPNESS),
        size=1.0 - math.exp(-side_px / SIZE_SCALE_PX),
        frontality=front,
        confidence=1.0 if confidence is None else min(max(confidence, 0.0), 1.0),
    )


def frontality(points_52: NDArray[np.float32]) -> float:
    """Frontality of a face, 1 (from the front) to 0, by the position of its nose between eyes and mouth.

    The nose stands out from the plane of eyes and mouth, so turning the head moves it sideways between the
    eyes and nodding moves it up or down between the line of the eyes and that of the mouth. Both positions
    are measured along the face's own axes, in units of the distance between the eyes and of that from the
    eyes to the mouth.

    Args:
        points_52: (5, 2) in the order of `facevox.faces.five_points`.
    """
    left_eye, right_eye, nose, left_mouth, right_mouth = np.asarray(points_52, np.float64)
    eyes, mouth = (left_eye + right_eye) / 2, (left_mouth + right_mouth) / 2
    across, down = right_eye - left_eye, mouth - eyes
    # The two axes are not at right angles in a turned face: solve for the nose in their coordinates.
    axes = np.column_stack([across, down])
    if abs(np.linalg.det(axes)) < 1e-6:
        return 0.0
    sideways, downwards = np.linalg.solve(axes, nose - eyes)
    # At 0.5 the nose is seen below one eye. Frontal faces have it about half-way down.
    yaw = 1.0 - min(abs(sideways) / 0.5, 1.0)
    pitch = 1.0 - min(abs(downwards - 0.5) / 0.5, 1.0)
    return float(yaw * pitch)
