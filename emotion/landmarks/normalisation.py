"""From raw landmarks to the network's input, in which position and size of a face have no influence.

MediaPipe divides x by the width and y by the height of the picture: the same face has other proportions in a
wide picture than in a tall one. So the landmarks go back to pixels first.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from facevox.errors import UserError

Integers = NDArray[np.integer[Any]]
# Each has the steps of the one before it, and one more.
RAW, CENTRED, SCALED, ALIGNED = "raw", "centred", "scaled", "aligned"
NORMALISATIONS = (RAW, CENTRED, SCALED, ALIGNED)
# Corners of the eyes, which do not move when the eyes look elsewhere or close.
LEFT_EYE_CORNERS, RIGHT_EYE_CORNERS = (33, 133), (362, 263)  # as seen in the picture


def check_normalisation(name: str) -> str:
    """`name`, if it is one of NORMALISATIONS.

    Raises:
        UserError: It is not.
    """
    if name not in NORMALISATIONS:
        raise UserError(f"normalisation {name!r}: choose of {', '.join(NORMALISATIONS)}")
    return name


def normalise_landmarks(
    raw_NPC: NDArray[np.float32], sizes_N2: Integers, normalisation: str = SCALED
) -> NDArray[np.float32]:
    """(N, 478, 3) float32 landmarks of N faces, normalised.

    - raw: as they are, x and y from 0 to 1;
    - centred: in pixels, less the mean of all points, in thousands of pixels;
    - scaled: of size 1 instead: the root mean square distance of the points from their centre, which no turn
      of the head changes much;
    - aligned: turned in the plane of the picture until the eyes are level.

    Args:
        raw_NPC: x by the width, y by the height, z by the width of the picture.
        sizes_N2: Width and height of each picture, in pixels.
        normalisation: One of NORMALISATIONS.

    Raises:
        UserError: Unknown normalisation.
    """
    if check_normalisation(normalisation) == RAW:
        return raw_NPC.astype(np.float32)
    width_N, height_N = sizes_N2[:, 0].astype(np.float64), sizes_N2[:, 1].astype(np.float64)
    points = raw_NPC * np.stack([width_N, height_N, width_N], axis=1)[:, None, :]
    points -= points.mean(axis=1, keepdims=True)
    if normalisation == CENTRED:
        return (points / 1000.0).astype(np.float32)
    size_N = np.sqrt((points**2).sum(axis=2).mean(axis=1))
    points /= np.maximum(size_N, 1e-9)[:, None, None]
    if normalisation == ALIGNED:
        points = _levelled(points)
    return points.astype(np.float32)


def roll_angles(points_NPC: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) radians by which the line from the left to the right eye falls to the right, in pixels."""
    left_N2 = points_NPC[:, LEFT_EYE_CORNERS, :2].mean(axis=1)
    right_N2 = points_NPC[:, RIGHT_EYE_CORNERS, :2].mean(axis=1)
    across_N2 = (right_N2 - left_N2).astype(np.float64)
    angles: NDArray[np.float64] = np.arctan2(across_N2[:, 1], across_N2[:, 0])
    return angles


def _levelled(points_NPC: NDArray[np.float64]) -> NDArray[np.float64]:
    angle_N = roll_angles(points_NPC)
    cosine, sine = np.cos(angle_N)[:, None], np.sin(angle_N)[:, None]
    x, y = points_NPC[..., 0], points_NPC[..., 1]
    # A rotation by -angle about the centre of the points, which is 0.
    levelled: NDArray[np.float64] = np.stack(
        [cosine * x + sine * y, cosine * y - sine * x, points_NPC[..., 2]], axis=2
    )
    return levelled
