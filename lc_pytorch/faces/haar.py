"""OpenCV's Haar cascades as DeepFace runs them, with the same boxes for less work.

With alignment on, DeepFace lays a black border of half the picture's size around it and searches all
of that: four times the pixels. A window that lies in the border alone has no variance, and OpenCV's
cascade passes over it. So it is enough to scan, at every scale of the bordered picture's pyramid, the
part that holds the picture and one window beside it: the same windows over the same pixels, the same
candidates and, after the same grouping, the same boxes (tests compare all of them with DeepFace).

Windows that lie beside the picture by more than a quarter cost as much again in small pictures and show
hardly a face. They are looked at only where a window that passes comes close to that
quarter, so what is never found is a face all of whose windows hang out of the picture further than that.

Source: P. Viola, M. Jones, Rapid object detection using a boosted cascade of simple features, 2001; the
order of windows, steps and roundings is that of OpenCV 4's detectMultiScale.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from lc_pytorch.faces.alignment import black_crop

if TYPE_CHECKING:
    from numpy.typing import NDArray

# DeepFace's settings for both cascades.
SCALE_FACTOR = 1.1
MIN_NEIGHBOURS = 10
_WINDOW_PX = 24  # side of the face cascade's window
_GROUP_EPS = 0.2  # OpenCV's: rectangles are alike when their sides differ by less than this share
_MARGIN_PX = _WINDOW_PX + 2  # a window that starts outside this margin lies in the black border alone
_OVERHANG_PX = _WINDOW_PX // 4  # how far windows hang out of the picture in the first pass
_RIM_PX = 2  # one step: a window that passes this close to the end of the first pass calls for the second


class HaarFace(NamedTuple):
    """A face in pixels of the picture (outside of it where a border was searched)."""

    x: int
    y: int
    w: int
    h: int
    confidence: float  # DeepFace's (100 - weight) / 100; no probability


class _Level(NamedTuple):
    """What passes at one scale of the pyramid."""

    boxes: "NDArray[np.int64]"  # (N, 4) x, y, w, h from the border's corner
    weights: "NDArray[np.float64]"  # (N,)
    is_near_end: bool  # one of them lies where the scan ended


class HaarFaces:
    """The frontal face cascade and the eye cascade that come with OpenCV."""

    def __init__(self) -> None:
        self._face = _load("haarcascade_frontalface_default.xml")
        self._eye = _load("haarcascade_eye.xml")

    def find(self, image_bgr: "NDArray[np.uint8]", border: bool) -> list[HaarFace]:
        """The faces of an (H, W, 3) uint8 BGR picture, by position.

        Args:
            image_bgr: The picture.
            border: Search it as if a black border of half its height and width lay around it.
        """
        if not border:
            boxes, _, weights = self._face.detectMultiScale3(
                image_bgr, SCALE_FACTOR, MIN_NEIGHBOURS, outputRejectLevels=True
            )
            found = [
                (int(x), int(y), int(w), int(h), float(weight))
                for (x, y, w, h), weight in zip(boxes, weights, strict=True)
            ]
        else:
            grey: Any = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
            found = _group(*self._candidates(grey))
        rim_y, rim_x = (int(0.5 * side) if border else 0 for side in image_bgr.shape[:2])
        faces = (HaarFace(x - rim_x, y - rim_y, w, h, (100 - weight) / 100) for x, y, w, h, weight in found)
        return sorted(faces)

    def find_eyes(
        self, image_bgr: "NDArray[np.uint8]", box: tuple[int, int, int, int]
    ) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """The two largest eyes in `box`, left and right as seen in the picture; None with fewer than two.

        The cascade takes brows, nostrils and mouth corners for eyes at times (in 5 of 25 clips of people
        talking), and DeepFace turns faces by what it says.
        """
        x, y, w, h = box
        if w <= 0 or h <= 0:
            return None
        grey = cv2.cvtColor(black_crop(image_bgr, x, y, w, h), cv2.COLOR_BGR2GRAY)
        eyes = sorted(
            self._eye.detectMultiScale(grey, SCALE_FACTOR, MIN_NEIGHBOURS),
            key=lambda eye: int(eye[2]) * int(eye[3]),
            reverse=True,
        )[:2]
        if len(eyes) < 2:
            return None
        if not eyes[0][0] < eyes[1][0]:
            eyes.reverse()
        left, right = ((x + int(e[0] + e[2] / 2), y + int(e[1] + e[3] / 2)) for e in eyes)
        return left, right

    def _candidates(self, grey: "NDArray[np.uint8]") -> "tuple[NDArray[np.int64], NDArray[np.float64]]":
        """Windows that pass the cascade in the bordered picture: (N, 4) x, y, w, h and (N,) weights.

        x and y count from the border's corner: rounding there is part of the result.
        """
        rims = (int(0.5 * grey.shape[1]), int(0.5 * grey.shape[0]))
        bordered: Any = cv2.copyMakeBorder(
            grey, rims[1], rims[1], rims[0], rims[0], cv2.BORDER_CONSTANT, value=(0,)
        )
        scales = _scales(min(bordered.shape))
        levels: list[_Level] = []
        wider: set[int] = set()
        for index, scale in enumerate(scales):
            levels.append(self._scan_level(bordered, rims, scale, _OVERHANG_PX))
            if levels[-1].is_near_end:
                wider |= {index - 1, index, index + 1}
        done: set[int] = set()
        # A face near the end has windows at the neighbouring scales, too, which may lie behind it.
        while todo := sorted(wider & set(range(len(scales))) - done):
            for index in todo:
                before = len(levels[index].boxes)
                levels[index] = self._scan_level(bordered, rims, scales[index], _MARGIN_PX)
                if len(levels[index].boxes) > before:
                    wider |= {index - 1, index + 1}
            done |= set(todo)
        none = _Level(np.zeros((0, 4), np.int64), np.zeros(0), False)  # a picture smaller than a window
        boxes, weights, _ = zip(*levels, none, strict=True)
        return np.concatenate(boxes), np.concatenate(weights)

    def _scan_level(
        self, bordered: "NDArray[np.uint8]", rims: tuple[int, int], scale: np.float32, overhang_px: int
    ) -> "_Level":
        """The windows that pass at one scale, among those that hang out of the picture by `overhang_px`."""
        columns, rows = (int(np.rint(np.float32(side) / scale)) for side in bordered.shape[::-1])
        # Always from the black on: whether a window is looked at depends on those left of it.
        left, right = _span(rims[0], bordered.shape[1], columns, _MARGIN_PX, overhang_px)
        top, bottom = _span(rims[1], bordered.shape[0], rows, overhang_px, overhang_px)
        if min(right - left, bottom - top) < _WINDOW_PX:
            return _Level(np.zeros((0, 4), np.int64), np.zeros(0), False)
        scaled: Any = cv2.resize(bordered, (columns, rows), interpolation=cv2.INTER_LINEAR_EXACT)
        found, weights = self._scan(scaled[top:bottom, left:right], fine=bool(scale >= 2))
        last = np.array([right - left, bottom - top]) - _WINDOW_PX - 1 - _RIM_PX
        is_near_end = bool((found >= last).any() or (found[:, 1] <= _RIM_PX).any())
        corners = np.rint((found + np.array([left, top])).astype(np.float32) * scale).astype(np.int64)
        sides = np.full((len(corners), 2), int(np.rint(_WINDOW_PX * float(scale))))
        return _Level(np.column_stack([corners, sides]), weights, is_near_end)

    def _scan(
        self, image: "NDArray[np.uint8]", fine: bool
    ) -> "tuple[NDArray[np.int64], NDArray[np.float64]]":
        """Corners (N, 2) and weights (N,) of the windows of `image` that pass, at its own scale alone.

        OpenCV steps by two pixels below scale 2 and by one from there on. A doubled picture that is
        searched at scale 2 is scanned by single pixels of the original: halving it again gives back
        every pixel unchanged.
        """
        times = 2 if fine else 1
        size = (times * image.shape[1], times * image.shape[0])
        scanned: Any = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST) if fine else image.copy()
        window = (times * _WINDOW_PX, times * _WINDOW_PX)
        factor = 2.0 if fine else SCALE_FACTOR
        boxes, _, weights = self._face.detectMultiScale3(
            scanned, factor, 0, minSize=window, maxSize=window, outputRejectLevels=True
        )
        corners = np.asarray(boxes, np.int64).reshape(-1, 4)[:, :2] // times
        return corners, np.asarray(weights, np.float64).reshape(-1)


def _load(name: str) -> Any:
    return cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / name))


def _scales(side_px: int) -> "list[np.float32]":
    """The pyramid of a picture whose shorter side is `side_px`: 1, 1.1, 1.21 … while a window fits."""
    scales = []
    scale = 1.0
    while int(np.rint(_WINDOW_PX * scale)) <= side_px:
        scales.append(np.float32(scale))
        scale *= SCALE_FACTOR
    return scales


def _span(rim_px: int, bordered_px: int, scaled_px: int, before_px: int, after_px: int) -> tuple[int, int]:
    """From where to where a scaled row or column is scanned; the start is even, as the steps are.

    Args:
        rim_px: The border before and after the picture, unscaled.
        bordered_px: Side of the picture with both, unscaled.
        scaled_px: The same at this scale.
        before_px: Pixels to scan before the picture, at this scale.
        after_px: And after it.
    """
    ratio = scaled_px / bordered_px
    start = max(0, int(rim_px * ratio) - before_px) // 2 * 2
    stop = min(scaled_px, int(np.ceil((bordered_px - rim_px) * ratio)) + after_px + 1)
    return start, stop


def _group(
    boxes_n4: "NDArray[np.int64]", weights_n: "NDArray[np.float64]"
) -> list[tuple[int, int, int, int, float]]:
    """Groups of like windows as (x, y, w, h, best weight): OpenCV's groupRectangles with weights."""
    groups: list[tuple[NDArray[np.int64], int, float]] = []
    for members in _classes(boxes_n4):
        count = len(members)
        if count <= MIN_NEIGHBOURS:
            continue
        total = boxes_n4[members].sum(axis=0).astype(np.float32)
        mean = np.rint(total * (np.float32(1) / np.float32(count))).astype(np.int64)
        groups.append((mean, count, float(weights_n[members].max())))
    kept = []
    for i, (one, count, weight) in enumerate(groups):
        inside = any(
            _is_inside(one, other) and (others > max(3, count) or count < 3)
            for j, (other, others, _) in enumerate(groups)
            if j != i
        )
        if not inside:
            x, y, w, h = (int(value) for value in one)
            kept.append((x, y, w, h, weight))
    return kept


def _is_inside(one: "NDArray[np.int64]", other: "NDArray[np.int64]") -> bool:
    slack = np.rint(other[2:] * _GROUP_EPS)
    return bool(
        (one[:2] >= other[:2] - slack).all() and (one[:2] + one[2:] <= other[:2] + other[2:] + slack).all()
    )


def _classes(boxes_n4: "NDArray[np.int64]") -> "list[NDArray[np.intp]]":
    """Index lists of the windows that are alike, directly or through others."""
    edges = np.column_stack([boxes_n4[:, :2], boxes_n4[:, :2] + boxes_n4[:, 2:]])
    size = boxes_n4[:, 2]
    label = np.full(len(edges), -1)
    classes = []
    for seed in range(len(edges)):
        if label[seed] >= 0:
            continue
        members = [seed]
        label[seed] = seed
        for one in members:  # grows while it is walked
            delta = _GROUP_EPS * np.minimum(size, size[one])
            like = (np.abs(edges - edges[one]).max(axis=1) <= delta) & (label < 0)
            label[like] = seed
            members.extend(np.flatnonzero(like).tolist())
        classes.append(np.array(members))
    return classes
