"""Faces followed from picture to picture, their probabilities smoothed over time.

Only boxes and times count: a face that leaves and comes back is a new one. Nobody is identified.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from emotion.data.boxes import Box, overlap

# Two boxes of one face in successive pictures of a webcam overlap by far more; of neighbours by less.
LEAST_OVERLAP = 0.2
# A quick move: of the centre, by that many sides of the former box at most; the size within this ratio.
LARGEST_MOVE = 0.75
LARGEST_RATIO = 2.0
FORGOTTEN_AFTER_S = 1.0  # a face that was not seen for longer is gone
SMOOTHING_S = 0.3  # time constant: a picture of this long ago has 1/e of its weight
LEAST_PROBABILITY = 1e-6  # below it a class counts as excluded; the logarithm of 0 would stay for ever


@dataclass(frozen=True)
class Sighting:
    """A face in one picture, by itself.

    Attributes:
        box: Around its landmarks, in pixels of the picture; may extend beyond its border.
        probabilities: (C,) float32, summing to 1; (0,) without a classifier.
    """

    box: Box
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Face:
    """A face of a track.

    Attributes:
        track_id: From 1, the same as long as the face stays; never used for another face.
        box: (left, top, width, height) in pixels of the picture; may extend beyond its border.
        probabilities: (C,) float32 of this picture, summing to 1; (0,) without a classifier.
        smoothed: (C,) float32 over the face's last pictures, summing to 1.
    """

    track_id: int
    box: tuple[float, float, float, float]
    probabilities: NDArray[np.float32]
    smoothed: NDArray[np.float32]

    @property
    def best(self) -> int:
        """The class with the largest smoothed probability; -1 without a classifier."""
        return int(self.smoothed.argmax()) if len(self.smoothed) else -1


class FaceAnswer(TypedDict):
    """A face in JSON."""

    id: int
    box: list[float]
    label: str
    probabilities: list[float]
    smoothed: list[float]


class FrameAnswer(TypedDict):
    """The faces of a frame in JSON."""

    time_s: float
    faces: list[FaceAnswer]


def face_json(face: Face, class_names: Sequence[str]) -> FaceAnswer:
    """A face in the form of the server's answers."""
    return {
        "id": face.track_id,
        "box": [round(float(edge), 1) for edge in face.box],
        "label": class_names[face.best],
        "probabilities": [round(float(p), 4) for p in face.probabilities],
        "smoothed": [round(float(p), 4) for p in face.smoothed],
    }


@dataclass
class _Track:
    track_id: int
    box: Box
    seen_s: float
    logs: NDArray[np.float64]  # smoothed log-probabilities (C,), up to a constant


class FaceTracks:
    """The faces of one camera or video.

    Probabilities are smoothed as an exponential average of their logarithms, renormalised: classes are
    weighed by ratios, so that a single odd picture does not win by being certain. The weight depends on the
    time that passed, so that the frame rate does not matter.
    """

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._num_ids = 0
        self._last_s = -math.inf  # of the picture before

    def reset(self) -> None:
        """Forgets all faces; their numbers are not used again."""
        self._tracks.clear()

    def update(self, sightings: Sequence[Sighting], time_s: float, *, is_film: bool = False) -> list[Face]:
        """The faces of the next picture, in the order of `sightings`.

        Args:
            sightings: All faces of the picture.
            time_s: When it was taken; on any clock that does not run backwards.
            is_film: Whether the picture before was shown until then, with its faces, as in a video: however
                long that was, they are not forgotten.
        """
        since_s = time_s - FORGOTTEN_AFTER_S
        if is_film:
            since_s = min(since_s, self._last_s)
        self._last_s = time_s
        self._tracks = [t for t in self._tracks if t.seen_s >= since_s]
        matched = match_boxes([t.box for t in self._tracks], [s.box for s in sightings])
        former = list(self._tracks)  # new tracks are appended below
        faces = []
        for index, sighting in enumerate(sightings):
            if index in matched:
                track = former[matched[index]]
                _follow(track, sighting, time_s)
            else:
                self._num_ids += 1
                track = _Track(self._num_ids, sighting.box, time_s, _logs(sighting.probabilities))
                self._tracks.append(track)
            box = sighting.box
            corner_and_size = (box.left, box.top, box.width, box.height)
            faces.append(
                Face(track.track_id, corner_and_size, sighting.probabilities, _probabilities(track.logs))
            )
        return faces


def match_boxes(former: Sequence[Box], present: Sequence[Box]) -> dict[int, int]:
    """Index in `present` -> index in `former` of the same face; each at most once.

    The largest overlaps are matched first; then, among the remaining boxes, the nearest centres of similar
    sizes.
    """
    matched: dict[int, int] = {}
    _match(former, present, overlap, LEAST_OVERLAP, matched)
    _match(former, present, _nearness, 1 - LARGEST_MOVE, matched)
    return matched


def _match(
    former: Sequence[Box],
    present: Sequence[Box],
    measure: Callable[[Box, Box], float],
    least: float,
    matched: dict[int, int],
) -> None:
    matched_old = set(matched.values())
    pairs = [
        (-measure(old, new), old_index, new_index)
        for old_index, old in enumerate(former)
        for new_index, new in enumerate(present)
        if old_index not in matched_old and new_index not in matched
    ]
    # Greedy: the best pair first; ties go to the first boxes.
    for score, old_index, new_index in sorted(pairs):
        if -score < least:
            return
        if old_index not in matched_old and new_index not in matched:
            matched_old.add(old_index)
            matched[new_index] = old_index


def _nearness(old: Box, new: Box) -> float:
    """1 for the same centre, falling by 1 with each side of `old`; -inf for boxes of another size."""
    old_side, new_side = max(old.width, old.height), max(new.width, new.height)
    if not (0 < old_side <= LARGEST_RATIO * new_side and new_side <= LARGEST_RATIO * old_side):
        return -math.inf
    return 1 - math.dist(old.centre, new.centre) / old_side


def _follow(track: _Track, sighting: Sighting, time_s: float) -> None:
    weight = 1 - math.exp(-max(time_s - track.seen_s, 0.0) / SMOOTHING_S)
    track.logs = (1 - weight) * track.logs + weight * _logs(sighting.probabilities)
    track.box, track.seen_s = sighting.box, time_s


def _logs(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    logs: NDArray[np.float64] = np.log(np.maximum(probabilities.astype(np.float64), LEAST_PROBABILITY))
    return logs


def _probabilities(logs: NDArray[np.float64]) -> NDArray[np.float32]:
    if not len(logs):
        return np.zeros(0, np.float32)
    shares = np.exp(logs - logs.max())
    probabilities: NDArray[np.float32] = (shares / shares.sum()).astype(np.float32)
    return probabilities
