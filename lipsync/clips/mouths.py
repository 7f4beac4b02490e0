"""Mouths cut out of followed faces: upright, of one size, steady; and the contour of the lips in the crop.

The crop follows the head and not the mouth: its position, size and roll are averages over `SMOOTH_FRAMES`
frames, so that lips move inside it. Training and inference both cut
their crops here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from facevox.faces import LEFT_MOUTH_CORNER, RIGHT_MOUTH_CORNER
from lipsync.clips.tracks import FacePose, inverse_of, pose_of, transform

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Rings of the lips, from the left corner along the lower lip to the right corner and back along the upper.
OUTER_LIP = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
)  # fmt: skip
INNER_LIP = (
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191,
)  # fmt: skip
LIP_POINTS = OUTER_LIP + INNER_LIP
NUM_LIP_POINTS = len(LIP_POINTS)
# In a mirrored picture, point k of the lips is what LIP_MIRROR[k] was.
LIP_MIRROR = tuple(ring + (10 - k) % 20 for ring in (0, 20) for k in range(20))

# Mouths are about 0.55 E wide; 1.2 E leaves room for wide vowels, a dropped jaw and some cheek.
MOUTH_CROP_SPAN = 1.2
SMOOTH_FRAMES = 9  # 0.36 s, centred: longer than a syllable, shorter than a nod


def mouth_pose(landmarks: "NDArray[np.float32]") -> FacePose:
    """The pose of the head around the middle between the mouth corners instead of that of the eyes."""
    pose = pose_of(landmarks)
    middle = landmarks[[LEFT_MOUTH_CORNER, RIGHT_MOUTH_CORNER], :2].astype(np.float64).mean(axis=0)
    return FacePose(middle, pose.size_px, pose.roll_rad)


def mean_pose(poses: Sequence[FacePose]) -> FacePose:
    """The average of poses; roll is averaged as a direction."""
    rolls = np.array([pose.roll_rad for pose in poses])
    roll = float(np.arctan2(np.sin(rolls).mean(), np.cos(rolls).mean()))
    middle = np.mean([pose.middle_px for pose in poses], axis=0)
    return FacePose(middle, float(np.mean([pose.size_px for pose in poses])), roll)


def mouth_matrix(poses: Sequence[FacePose], crop_px: int) -> "NDArray[np.float64]":
    """(2, 3) from picture pixels to those of the mouth crop, from the mouth poses of nearby frames."""
    return mean_pose(poses).crop_matrix(MOUTH_CROP_SPAN, 0.0, crop_px)


def cut_mouth(
    face_crop_rgb: "NDArray[np.uint8]",
    face_matrix: "NDArray[np.float64]",
    matrix: "NDArray[np.float64]",
    crop_px: int,
) -> "NDArray[np.uint8]":
    """The (crop_px, crop_px) grey mouth, cut from the upright crop of the face.

    Args:
        face_crop_rgb: (S, S, 3), see `lipsync.clips.tracks`.
        face_matrix: From the picture to that crop.
        matrix: From the picture to the mouth crop.
        crop_px: Its side.
    """
    grey = cv2.cvtColor(face_crop_rgb, cv2.COLOR_RGB2GRAY)
    # One warp of the crop that was measured, not of the whole picture: back to the picture, on to the mouth.
    back = inverse_of(face_matrix)
    turn = matrix[:, :2] @ back[:, :2]
    between = np.column_stack([turn, matrix[:, :2] @ back[:, 2] + matrix[:, 2]])  # face crop to mouth crop
    mouth: NDArray[np.uint8] = cv2.warpAffine(grey, between, (crop_px, crop_px), flags=cv2.INTER_LINEAR)
    return mouth


def lip_contour(
    landmarks: "NDArray[np.float32]", matrix: "NDArray[np.float64]", crop_px: int
) -> "NDArray[np.float32]":
    """The lips as (NUM_LIP_POINTS, 2) in the mouth crop: -1 is its left or upper edge, 1 the other."""
    points = transform(landmarks[list(LIP_POINTS), :2], matrix)
    return (points / (crop_px / 2) - 1.0).astype(np.float32)
