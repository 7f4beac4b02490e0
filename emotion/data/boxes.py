"""Rectangles around faces: (left, top, right, bottom) in pixels of the upright picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

SEARCHED_FACES = 5  # of one picture, to be compared with the annotators' boxes
# MediaPipe's box ends at the forehead, annotators may draw hair and ears: half of the area is usual.
LEAST_OVERLAP = 0.25
LEAST_AREA_SHARE = 0.15  # of the annotators' box, for a face whose centre is in it


class Box(NamedTuple):
    """A rectangle with left < right and top < bottom."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """In pixels."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """In pixels."""
        return self.bottom - self.top

    @property
    def area(self) -> float:
        """In square pixels."""
        return self.width * self.height

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y)."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def scaled(self, factor: float) -> "Box":
        """The same box in a picture `factor` times as large."""
        return Box(*(value * factor for value in self))

    def contains(self, point: tuple[float, float]) -> bool:
        """True if `point` is inside."""
        return self.left <= point[0] <= self.right and self.top <= point[1] <= self.bottom


def clean_box(edges: Sequence[float], width: int, height: int) -> Box | None:
    """A box as annotators drew it, corrected: swapped edges exchanged, cut at the picture's border.

    Args:
        edges: Left, top, right, bottom; may be swapped, negative, beyond the picture, not finite.
        width, height: Of the upright picture.

    Returns:
        None where less than two pixels of it are in the picture: empty, outside, or not numbers.
    """
    if not all(math.isfinite(value) for value in edges):
        return None
    left, right = sorted((edges[0], edges[2]))
    top, bottom = sorted((edges[1], edges[3]))
    box = Box(max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
    return box if box.width >= 2 and box.height >= 2 else None


def middle_box(boxes: Sequence[Box]) -> Box | None:
    """The median of each edge: one annotator who drew elsewhere is outvoted by two. None without boxes.

    Of two boxes it is the mean. The medians keep left < right, because every box has it.
    """
    if not boxes:
        return None
    edges = []
    for values in zip(*boxes, strict=True):
        ordered = sorted(values)
        half = len(ordered) // 2
        edges.append((ordered[half] + ordered[-half - 1]) / 2)
    return Box(*edges)


def overlap(first: Box, second: Box) -> float:
    """Intersection over union, 0 to 1."""
    width = min(first.right, second.right) - max(first.left, second.left)
    height = min(first.bottom, second.bottom) - max(first.top, second.top)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (first.area + second.area - shared)


@dataclass(frozen=True)
class FoundFace:
    """A face in the decoded picture: its box, the overlap with the annotators' box, how it was found."""

    box: Box
    overlap: float
    num_faces: int
    where: str  # "picture" or "piece"


def annotated_box(edges: Sequence[Sequence[float]], width: int, height: int) -> Box | None:
    """The annotators' box in a picture of this upright size, or None where they drew none that is usable."""
    cleaned = (clean_box(box, width, height) for box in edges)
    return middle_box([box for box in cleaned if box is not None])


def choose_face(boxes: Sequence[Box], annotated: Box | None) -> FoundFace | None:
    """The face that the annotators marked; the largest where they marked none.

    A face is theirs if it overlaps their box enough, or has its centre in it and is not much smaller: some
    draw boxes tightly, others around the whole head.
    """
    if annotated is None:
        best = max(boxes, key=lambda box: box.area, default=None)
        return None if best is None else FoundFace(best, 0.0, len(boxes), "picture")
    candidates = [
        (overlap(box, annotated), box)
        for box in boxes
        if overlap(box, annotated) >= LEAST_OVERLAP
        or (annotated.contains(box.centre) and LEAST_AREA_SHARE <= box.area / annotated.area <= 1)
    ]
    if not candidates:
        return None
    share, box = max(candidates)
    return FoundFace(box, share, len(boxes), "picture")
