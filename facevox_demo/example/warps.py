"""Smooth displacements of the plane: thin-plate splines, and the geometry of a person.

All points are (x, y) in units of the distance between the outer corners of the eyes, origin midway between
them, x to the right, y down ("face units"); a grid of points has shape (rows, columns, 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]  # float64 points; float32 where OpenCV works on pictures


class ThinPlateSpline:
    """The smoothest map of the plane that takes `points` (n, 2) to `values` (n, 2).

    Source: Bookstein 1989, "Principal warps", with the kernel r^2 log r^2 and a ridge on its weights.

    Args:
        points: (n, 2) where the map is known.
        values: (n, 2) what it gives there.
        stiffness: 0 interpolates; above, the map may miss the values to stay smooth.
    """

    def __init__(self, points: Floats, values: Floats, stiffness: float = 0.0) -> None:
        count = len(points)
        system = np.zeros((count + 3, count + 3))
        system[:count, :count] = _kernel(points, points) + stiffness * np.eye(count)
        # The last three rows keep every affine part out of the weights, so that the solution is unique.
        system[:count, count] = system[count, :count] = 1.0
        system[:count, count + 1 :] = points
        system[count + 1 :, :count] = points.T
        right = np.zeros((count + 3, 2))
        right[:count] = values
        self.points = points
        self.weights = np.linalg.solve(system, right)

    def __call__(self, points: Floats) -> Floats:
        """Values at `points` (..., 2), same shape."""
        flat = points.reshape(-1, 2)
        count = len(self.points)
        result = _kernel(flat, self.points) @ self.weights[:count]
        result += self.weights[count] + flat @ self.weights[count + 1 :]
        return result.reshape(points.shape)


def _kernel(first: Floats, second: Floats) -> Floats:
    # r^2 log r^2 is 0 at r = 0, where the logarithm alone is not finite.
    squared: Floats = ((first[:, None, :] - second[None, :, :]) ** 2).sum(-1)
    kernel: Floats = squared * np.log(np.maximum(squared, 1e-12))
    return kernel


def smooth_step(value: Floats, low: Floats | float, high: Floats | float) -> Floats:
    """0 below `low`, 1 above `high`, a smooth cubic between."""
    share: Floats = np.clip((value - low) / (high - low), 0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)


def bell(distance: Floats | float, width: float) -> Floats:
    """exp(-(distance / width)^2 / 2): 1 in the middle, 0.6 at `width`."""
    heights: Floats = np.exp(-0.5 * (distance / width) ** 2)
    return heights


# Places of the average face in face units.
MOUTH_Y = 0.73
CHIN_Y = 1.23
NOSE_Y = 0.42
EYE_X = 0.34


def apply_geometry(points: Floats, geometry: Mapping[str, float], hair_volume: float = 0.0) -> Floats:
    """Positions of points of the average face in the face of a person.

    Args:
        points: (..., 2) in face units.
        geometry: Factors of mean 0 and variance 1 by name, see `people.LAW` and `people.NUISANCE`.
        hair_volume: Share by which everything outside the face is pushed outwards.

    Returns:
        (..., 2) in face units of the average face, so a wide-set pair of eyes is more than 1 apart.
    """
    x, y = points[..., 0].astype(float), points[..., 1].astype(float)
    dx, dy = np.zeros_like(x), np.zeros_like(y)

    # Length: the lower face stretches, what hangs below the chin moves along; the width gives way a little.
    dy += geometry["face_length"] * (0.095 * np.clip(y, 0.0, CHIN_Y) + 0.03 * np.clip(y, -1.2, 0.0))
    dx -= geometry["face_length"] * 0.03 * x * bell(x, 1.6)
    # Jaw: widens from the eyes down, fades out on the neck.
    jaw = smooth_step(y, -0.1, 0.8) * (1.0 - 0.7 * smooth_step(y, 1.25, 1.9))
    dx += geometry["jaw_width"] * 0.10 * jaw * x * bell(x, 1.2)
    # Eyes and brows move apart, the outline stays.
    dx += geometry["eye_distance"] * 0.04 * np.tanh(x / 0.2) * bell(x, 0.5) / bell(EYE_X, 0.5) * bell(y, 0.3)
    mouth = bell(x, 0.45) * bell(y - MOUTH_Y, 0.2)
    dx += geometry["mouth_width"] * 0.10 * x * mouth
    dy += geometry["lip_fullness"] * 0.10 * (y - MOUTH_Y) * bell(x, 0.35) * bell(y - MOUTH_Y, 0.12)
    dx += geometry["nose_width"] * 0.07 * x * bell(x, 0.2) * bell(y - NOSE_Y, 0.18)
    dy -= geometry["brow_height"] * 0.018 * bell(y + 0.25, 0.12) * bell(x, 0.7)
    eyes = bell(np.abs(x) - EYE_X, 0.16) * bell(y, 0.12)
    dy += geometry["eye_size"] * 0.06 * y * eyes

    outside = smooth_step(np.hypot(x / 0.85, np.minimum(y, 0.0) / 0.75), 1.0, 1.6) * (y < 0.9)
    fade = bell(np.maximum(np.hypot(x, y) - 1.5, 0.0), 0.5)
    dx += hair_volume * outside * fade * x
    dy += hair_volume * outside * fade * np.minimum(y, 0.0) * 0.5
    return np.stack([x + dx, y + dy], axis=-1)
