"""Face crops as SyncNet expects them: the boxes of a face through a video, smoothed, and the crop of a frame.

Source: the crops of the authors' pipeline. Theirs begins with the boxes of a face detector (S3FD) in each
frame; here the box is made from the points of FaceMesh, so crops differ by a few pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facevox.growing import GrowingArray
from lipsync.clips.features import iter_face_features

CROP_PX = 224
SMOOTH_FRAMES = 13
MARGIN = 0.4  # of half the box's longer side, on the left and right; twice that below
BORDER = 110  # grey level outside the picture
# From the box of the mesh to that of the detector, in half sides of the mesh's: such that the frames of the
# authors' example (syncnet_example.avi), which are crops of their pipeline, are cropped as they are.
BOX_GROWTH = 1.05
BOX_RISE = 0.077


@dataclass(frozen=True)
class FaceBoxes:
    """The boxes of a face from its first to its last frame, without gaps.

    Attributes:
        track_id: Of the face; a face that returns after a cut has a new one.
        start: Index of its first frame, at 25 a second.
        boxes_px: (n, 4) float32, left, top, width, height of its landmarks.
    """

    track_id: int
    start: int
    boxes_px: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.boxes_px)


def find_faces(
    video: str | Path,
    *,
    max_faces: int,
    start_s: float,
    max_duration_s: float,
    on_frame: Callable[[], None] = lambda: None,
) -> tuple[list[FaceBoxes], int]:
    """The faces of a video, in the order of their appearance, and its number of frames at 25 a second.

    Args:
        video, max_faces, start_s, max_duration_s, on_frame: As `iter_face_features` has them.

    Raises:
        MediaError: As `iter_face_features`.
    """
    boxes_px: dict[int, GrowingArray] = {}
    starts: dict[int, int] = {}
    num_frames = 0
    frames = iter_face_features(
        video, max_faces=max_faces, start_s=start_s, max_duration_s=max_duration_s, on_frame=on_frame
    )
    for frame in frames:
        num_frames += 1
        for face in frame.faces:
            starts.setdefault(face.track_id, frame.index)
            boxes_px.setdefault(face.track_id, GrowingArray(np.float32, (4,))).add(face.box_px[None])
    return [FaceBoxes(track, starts[track], boxes_px[track].take()) for track in starts], num_frames


def crop_squares(boxes_px: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, 3) centre x, centre y and half side of the face in each frame, from (n, 4) boxes of the mesh.

    Each is the median over SMOOTH_FRAMES frames; the first and the last box are repeated beyond the ends
    (the authors' filter has zeros there, which moves the crops of the six frames at either end).
    """
    left, top, width, height = boxes_px.astype(np.float64).T
    half = np.maximum(width, height) / 2
    squares_n3 = np.column_stack([left + width / 2, top + height / 2 - BOX_RISE * half, BOX_GROWTH * half])
    padded = np.pad(squares_n3, ((SMOOTH_FRAMES // 2, SMOOTH_FRAMES // 2), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, SMOOTH_FRAMES, axis=0)
    medians: NDArray[np.float64] = np.median(windows, axis=-1)
    return medians


def cut_face(image: NDArray[np.uint8], square: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The (224, 224, 3) crop of a face: from its upper edge, with a margin at the sides and below.

    Args:
        image: (H, W, 3) picture, any order of the channels.
        square: (3,) of `crop_squares`.
    """
    x, y, half = square
    left, right = int(np.floor(x - half * (1 + MARGIN))), int(np.floor(x + half * (1 + MARGIN)))
    top, bottom = int(np.floor(y - half)), int(np.floor(y + half * (1 + 2 * MARGIN)))
    crop = np.full((max(bottom - top, 1), max(right - left, 1), 3), BORDER, np.uint8)
    upper, lower = np.clip((top, bottom), 0, image.shape[0])
    first, last = np.clip((left, right), 0, image.shape[1])
    crop[upper - top : lower - top, first - left : last - left] = image[upper:lower, first:last]
    resized: NDArray[np.uint8] = cv2.resize(crop, (CROP_PX, CROP_PX))
    return resized
