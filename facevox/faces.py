"""Values of faces: five points, alignment and mouth from FaceMesh's landmarks, and the sharpness of a crop.

Landmark numbers are those of MediaPipe's canonical face model (478 points with the irises).
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_LANDMARKS = 478
# Irises: centre point of each eye. "left" and "right" are as seen in the picture throughout.
LEFT_IRIS, RIGHT_IRIS = 468, 473
NOSE_TIP = 1  # the foremost point of the nose
LEFT_MOUTH_CORNER, RIGHT_MOUTH_CORNER = 61, 291
# Inner lip line: upper and lower points opposite each other, in the middle and on both sides of it.
UPPER_INNER_LIP = (82, 13, 312)
LOWER_INNER_LIP = (87, 14, 317)
SHARPNESS_PX = 112  # one size for all, because a large picture of the same sharpness varies less

# Positions of the five points in a 112 x 112 crop: the ArcFace template that face-embedding models of that
# input size are trained on (Deng et al. 2019, arXiv:1801.07698; the same numbers in every implementation).
ARCFACE_POINTS_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    dtype=np.float32,
)


def five_points(landmarks: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """Left eye, right eye, nose, left and right mouth corner of (478, 3) landmarks, as (5, 2) pixels."""
    index = [LEFT_IRIS, RIGHT_IRIS, NOSE_TIP, LEFT_MOUTH_CORNER, RIGHT_MOUTH_CORNER]
    return np.ascontiguousarray(landmarks[index, :2], dtype=np.float32)


def align_five_points(
    image_rgb: "NDArray[np.uint8]", points_52: "NDArray[np.float32]", size: int = 112
) -> "NDArray[np.uint8]":
    """The face rotated, scaled and cut to (size, size, 3) so that its five points match the template.

    The similarity transform is the least-squares one (Umeyama 1991) over all five points.

    Args:
        image_rgb: (H, W, 3) uint8.
        points_52: (5, 2) pixels in the order of `five_points`.
        size: Side of the result; the template of 112 is scaled to it.
    """
    import cv2

    matrix = similarity_transform(points_52, ARCFACE_POINTS_112 * (size / 112.0))
    aligned: NDArray[np.uint8] = cv2.warpAffine(image_rgb, matrix, (size, size), flags=cv2.INTER_LINEAR)
    return aligned


def similarity_transform(
    source_52: "NDArray[np.float32]", target_52: "NDArray[np.float32]"
) -> "NDArray[np.float64]":
    """The (2, 3) rotation, uniform scale and shift that best maps `source_52` to `target_52`.

    Source: S. Umeyama, Least-squares estimation of transformation parameters, 1991, eq. 40 to 42.
    """
    source = np.asarray(source_52, np.float64)
    target = np.asarray(target_52, np.float64)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    source_c, target_c = source - source_mean, target - target_mean
    u, sizes, vt = np.linalg.svd(target_c.T @ source_c / len(source))
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0])  # never a mirror image
    rotation = u @ np.diag(sign) @ vt
    variance = float((source_c**2).sum() / len(source))
    scale = float((sizes * sign).sum()) / variance if variance > 0 else 1.0
    shift = target_mean - scale * rotation @ source_mean
    return np.column_stack([scale * rotation, shift])


def mouth_opening(landmarks: "NDArray[np.float32]") -> float:
    """The gap between the inner lips as a share of the distance between the eyes; 0 is closed.

    Both lengths grow with the size of the face, so the number can be compared between videos.
    """
    gap = landmarks[list(LOWER_INNER_LIP), :2] - landmarks[list(UPPER_INNER_LIP), :2]
    eyes = float(np.linalg.norm(landmarks[RIGHT_IRIS, :2] - landmarks[LEFT_IRIS, :2]))
    return float(np.linalg.norm(gap, axis=1).mean()) / eyes if eyes > 0 else 0.0


def measure_sharpness(image_rgb: "NDArray[np.uint8]") -> float:
    """Variance of the Laplacian of the grey (H, W, 3) uint8 RGB picture brought to 112 x 112 pixels."""
    import cv2

    small = cv2.resize(image_rgb, (SHARPNESS_PX, SHARPNESS_PX), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())
