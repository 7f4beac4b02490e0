"""Faces that can be used: there is something to see in them, they are upright, and they are faces.

A film that fades in begins with a face in the dark, a picture in motion with a blurred one. The bars were
chosen on 131 press pictures and snapshots whose faces were darkened, brightened and blurred. At an eighth of
its light, or blurred by 4 of 112 pixels, a face is nearly as far from itself (median cosine distance of
MobileFaceNet 0.8 and more) as from other people (0.99), and nearly all are refused; at a quarter (0.3) two of
three still count, blurred by 2 (0.2 to 0.35) more than three of four. `benchmarks/usable_faces.py` measures
this, and what the closer look is right about.
"""

import math
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from lc_pytorch.faces.crops import black_crop
from lc_pytorch.faces.detectors import Candidate, Detector

# Reasons why a face can hardly be used, the worst first.
UNSURE, NO_CONTRAST, DARK, BRIGHT, UPSIDE_DOWN, ON_ITS_SIDE, BLURRED = (
    "not sure to be a face",
    "without contrast",
    "nearly black",
    "nearly white",
    "upside down",
    "on its side",
    "blurred beyond use",
)
FAULTS = (UNSURE, NO_CONTRAST, DARK, BRIGHT, UPSIDE_DOWN, ON_ITS_SIDE, BLURRED)
# Of the grey face at 64 x 64 pixels, where compression hardly counts; 0 to 255. The least deviation is 29.
_SIDE_PX = 64
_LEAST_DEVIATION = 10.0
_DARK_MEAN, _BRIGHT_MEAN = 64.0, 190.0
# Variance of the Laplacian as a share of the variance: above 0.09 in 95 % of the pictures; blurred by 2, 3
# and 4 of 112 pixels 0.016 to 0.073, 0.008 to 0.038, 0.005 to 0.024 in 90 %, as JPEG of quality 75 alike.
_LEAST_DETAIL = 0.022
# The closer look: a margin around the box as a share of its sides, the size of what is looked at.
_MARGIN, _CLOSE_PX = 0.75, 256
_SAME_FACE_IOU = 0.4
_TURNED_LEAD = 0.02  # of the confidence of the face turned by 180 degrees over the face as it is
_NUM_JUDGED = 5  # faces of a picture of many; the best is among the largest


def judge_faces(
    image: NDArray[np.uint8], candidates: list[Candidate], detector: Detector
) -> tuple[list[Candidate], str]:
    """The faces of a picture, the largest that can be used first, and then by size times confidence.

    Args:
        image: (H, W, 3) uint8 in the order of channels of the detector.
        candidates: What it found, at least one.
        detector: For the closer look.

    Returns:
        The faces, corrected where a closer look shows them elsewhere, and the fault of the first one (one of
        `FAULTS`); "" if it can be used.
    """
    ordered = sorted(candidates, key=prominence, reverse=True)
    judged = []
    for candidate in ordered[:_NUM_JUDGED]:
        face, fault = judge(image, candidate, detector)
        judged.append((face, fault))
        if not fault:
            break
    ranks = [FAULTS.index(fault) if fault else math.inf for _, fault in judged]
    best = ranks.index(max(ranks))
    faces = [face for face, _ in judged] + ordered[len(judged) :]
    return [faces[best], *faces[:best], *faces[best + 1 :]], judged[best][1]


def prominence(candidate: Candidate) -> float:
    """Larger for the better face: area times confidence."""
    return candidate.box[2] * candidate.box[3] * candidate.confidence


def judge(image: NDArray[np.uint8], candidate: Candidate, detector: Detector) -> tuple[Candidate, str]:
    """The face, corrected by a closer look where the detector is not sure, and its fault; "" for none."""
    fault = _picture_fault(image, candidate, detector.colour)
    if fault and fault != BLURRED:
        return candidate, fault
    if np.isfinite(candidate.points).all():
        across, down = candidate.points[3:].mean(axis=0) - candidate.points[:2].mean(axis=0)
        if down < -abs(across):
            return candidate, UPSIDE_DOWN
    if candidate.confidence < detector.sure_confidence:
        candidate, doubt = _look_closer(image, candidate, detector)
        return candidate, doubt or fault
    return candidate, fault


def _picture_fault(image: NDArray[np.uint8], candidate: Candidate, colour: str) -> str:
    x, y, w, h = candidate.box
    part = image[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)]
    if not part.size:
        return NO_CONTRAST
    small = cv2.resize(part, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY if colour == "rgb" else cv2.COLOR_BGR2GRAY)
    mean, deviation = float(grey.mean()), float(grey.std())
    if deviation < _LEAST_DEVIATION:
        return DARK if mean < _DARK_MEAN else BRIGHT if mean > _BRIGHT_MEAN else NO_CONTRAST
    is_blurred = float(cv2.Laplacian(grey, cv2.CV_64F).var()) < _LEAST_DETAIL * deviation**2
    return BLURRED if is_blurred else ""


def _look_closer(image: NDArray[np.uint8], candidate: Candidate, detector: Detector) -> tuple[Candidate, str]:
    """The face by itself, as the detector sees it as it is and turned."""
    x, y, w, h = candidate.box
    left, top = x - int(_MARGIN * w), y - int(_MARGIN * h)
    part = black_crop(image, left, top, w + 2 * (x - left), h + 2 * (y - top))
    shrink = max(max(part.shape[:2]) / _CLOSE_PX, 1.0)
    size = [max(round(side / shrink), 1) for side in part.shape[1::-1]]
    small = np.ascontiguousarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA) if shrink > 1 else part)
    upright = detector.find_close(small)
    if _confidence_turned(small, 2, detector) > _best(upright) + _TURNED_LEAD:
        return candidate, UPSIDE_DOWN
    if not upright:
        turned = max(_confidence_turned(small, quarters, detector) for quarters in (1, 3)) > 0
        return candidate, ON_ITS_SIDE if turned else UNSURE
    scale = (part.shape[1] / size[0], part.shape[0] / size[1])
    close_faces = [_moved(face, scale, (left, top)) for face in upright]
    if any(overlap(face.box, candidate.box) >= _SAME_FACE_IOU for face in close_faces):
        return candidate, ""
    if not np.isfinite(candidate.points).any():
        return candidate, UNSURE  # a nose: its box is not the face's
    # Detectors that shrink the picture draw boxes around small faces that are up to three times too large.
    return max(close_faces, key=prominence), ""


def _confidence_turned(image: NDArray[np.uint8], quarters: int, detector: Detector) -> float:
    return _best(detector.find_close(np.ascontiguousarray(np.rot90(image, quarters))))


def _best(faces: list[Candidate]) -> float:
    return max((face.confidence for face in faces), default=0.0)


def _moved(face: Candidate, scale: tuple[float, float], corner: tuple[int, int]) -> Candidate:
    """The face of an enlarged part, in pixels of the picture."""
    factor, shift = np.array(scale), np.array(corner)
    x, y, w, h = np.rint([*(face.box[:2] * factor + shift), *(face.box[2:] * factor)]).astype(int).tolist()
    points = (face.points * factor + shift).astype(np.float32)
    eyes = None
    if face.eyes is not None:
        (left_x, left_y), (right_x, right_y) = (np.array(face.eyes) * factor + shift).astype(int).tolist()
        eyes = (left_x, left_y), (right_x, right_y)
    return replace(face, box=(x, y, w, h), points=points, eyes=eyes)


def overlap(box: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union of two boxes."""
    low = np.maximum(box[:2], other[:2])
    high = np.minimum(np.add(box[:2], box[2:]), np.add(other[:2], other[2:]))
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / max(box[2] * box[3] + other[2] * other[3] - shared, 1e-9)
