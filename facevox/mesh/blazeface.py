"""BlazeFace, MediaPipe's face detector, in LiteRT: the same boxes, points and scores without mediapipe.

Source: V. Bazarevsky et al., BlazeFace: Sub-millisecond neural face detection on mobile GPUs,
arXiv:1907.05047; and mediapipe 0.10.21, whose graph `mediapipe/modules/face_detection/face_detection.pbtxt`
has the settings, with the calculators ImageToTensor, SsdAnchors, TensorsToDetections, NonMaxSuppression and
DetectionProjection that are followed here step by step.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from facevox.mesh.litert import LiteRtModel
from facevox.mesh.sampling import sample_box

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_KEYPOINTS = 6
_MIN_OVERLAP = 0.3  # intersection over union from which two boxes are one face
_LARGEST_LOGIT = 80.0  # 100 in MediaPipe: a score of 0 or 1 as well, but float32 ends at exp(88)
_LONGEST_SIDE_PX = 32766  # that OpenCV's warps take

Range = Literal["short", "full"]


@dataclass(frozen=True)
class _Network:
    """A model file and the layers of its anchors: (cells a side, anchors a cell)."""

    file: str
    side_px: int
    layers: tuple[tuple[int, int], ...]
    min_confidence: float  # of MediaPipe's graph
    boxes: str  # names of the outputs
    scores: str


_NETWORKS: dict[Range, _Network] = {
    # Strides 8, 16, 16, 16 with two anchors each; layers of equal stride share their cells.
    "short": _Network(
        "face_detection_short_range.tflite", 128, ((16, 2), (8, 6)), 0.5, "regressors", "classificators"
    ),
    "full": _Network(
        "face_detection_full_range_sparse.tflite", 192, ((48, 1),), 0.6, "Identity", "Identity_1"
    ),
}


@dataclass(frozen=True)
class Detection:
    """A face, in pixels of the picture; it may reach over the picture's edge.

    Attributes:
        box: x, y, width, height.
        score: 0 to 1.
        keypoints: (6, 2) float32: left eye, right eye (as seen in the picture), nose tip, mouth centre, left
            and right ear.
    """

    box: tuple[float, float, float, float]
    score: float
    keypoints: "NDArray[np.float32]"


class BlazeFace:
    """Finds faces; neither thread-safe nor usable in a forked child.

    Args:
        reach: "short" for faces within 2 m of a phone's camera, "full" for faces at any distance.
        min_confidence: Least score of a box. None is MediaPipe's: 0.5 for the short range, 0.6 for the
            full one. Its own `FaceDetection` of 0.10.21 has these, whatever it is asked for.
        threads: Processor threads it may use.
    """

    def __init__(self, reach: Range, min_confidence: float | None = None, threads: int = 1) -> None:
        self._network = _NETWORKS[reach]
        self._model = LiteRtModel(self._network.file, threads)
        self._min_confidence = self._network.min_confidence if min_confidence is None else min_confidence
        self._anchors = _anchors(self._network)
        side = self._network.side_px
        self._input = np.empty((1, side, side, 3), np.float32)

    def find(self, image_rgb: "NDArray[np.uint8]", border: tuple[int, int] = (0, 0)) -> list[Detection]:
        """The faces of an (H, W, 3) uint8 picture, the surest first.

        Args:
            image_rgb: The picture.
            border: Pixels of black that are thought around it, left and right, and above and below. They
                cost nothing; faces that fill the picture or are cut by its edge are found with them.
        """
        height, width = image_rgb.shape[:2]
        if not height or not width:
            return []
        if max(height, width) > _LONGEST_SIDE_PX:
            step = -(-max(height, width) // _LONGEST_SIDE_PX)
            few = self.find(image_rgb[::step, ::step], (border[0] // step, border[1] // step))
            return [_moved(face, step, np.zeros(2, np.float32)) for face in few]
        # The square that MediaPipe cuts: the bordered picture in its middle, black above and below or at
        # the sides. Its samples are taken from the picture itself, so that no larger copy is made.
        side = max(width + 2 * border[0], height + 2 * border[1])
        square = sample_box(image_rgb, (width / 2, height / 2), (side, side), self._network.side_px)
        np.multiply(square, np.float32(2 / 255), out=self._input[0])
        self._input -= 1
        shift = np.array([width - side, height - side]) / 2
        return [_moved(face, side, shift) for face in self._find_in_input()]

    def _find_in_input(self) -> list[Detection]:
        """The faces in shares of the square."""
        outputs = self._model(self._input)
        logits = outputs[self._network.scores][0, :, 0].clip(-_LARGEST_LOGIT, _LARGEST_LOGIT)
        scores = 1 / (1 + np.exp(-logits))
        (chosen,) = np.nonzero(scores >= self._min_confidence)
        if not len(chosen):
            return []
        chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
        # From the anchor's middle in pixels: x, y of the box's middle, width, height, x, y of each point.
        points = outputs[self._network.boxes][0, chosen].reshape(-1, 2 + NUM_KEYPOINTS, 2)
        points = points / np.float32(self._network.side_px)
        half = points[:, 1].copy() / 2
        points += self._anchors[chosen, None]
        points[:, 1] = points[:, 0] + half
        points[:, 0] -= half  # now two corners of the box and the points
        is_box = (half >= 0).all(axis=1)
        return _merged(points[is_box], scores[chosen][is_box])


def _anchors(network: _Network) -> "NDArray[np.float32]":
    """The middles (N, 2) of the anchors in shares of the square, in the order of the outputs."""
    layers = []
    for num_cells, num_anchors in network.layers:
        middles = (np.arange(num_cells, dtype=np.float32) + 0.5) / num_cells
        x, y = np.meshgrid(middles, middles)
        layers.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), num_anchors, axis=0))
    return np.concatenate(layers)


def _merged(points: "NDArray[np.float32]", scores: "NDArray[np.float32]") -> list[Detection]:
    """One detection for each heap of boxes: their mean by score. The surest comes first, as in `points`.

    Args:
        points: (N, 8, 2): two corners of the box and the key points.
        scores: (N,) falling.
    """
    faces = []
    while len(points):
        low, high = points[:, 0], points[:, 1]
        shared = np.prod(np.clip(np.minimum(high, high[0]) - np.maximum(low, low[0]), 0, None), axis=1)
        areas = np.prod(high - low, axis=1)
        united = areas + areas[0] - shared
        overlap = np.divide(shared, united, out=np.zeros_like(shared), where=united > 0)
        is_same = overlap > _MIN_OVERLAP
        is_same[0] = True
        weights = scores[is_same]
        mean = np.einsum("n,nkd->kd", weights, points[is_same]) / weights.sum()
        size = mean[1] - mean[0]
        box = (float(mean[0, 0]), float(mean[0, 1]), float(size[0]), float(size[1]))
        faces.append(Detection(box, float(scores[0]), mean[2:]))
        points, scores = points[~is_same], scores[~is_same]
    return faces


def _moved(face: Detection, scale: float, shift: "NDArray[np.float32 | np.float64]") -> Detection:
    x, y, width, height = (value * scale for value in face.box)
    keypoints = (face.keypoints * scale + shift).astype(np.float32)
    return Detection((x + float(shift[0]), y + float(shift[1]), width, height), face.score, keypoints)
