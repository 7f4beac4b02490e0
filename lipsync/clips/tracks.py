"""Faces followed through a video: position of each face in each frame, with several faces and cuts.

A detector looks at the whole picture now and then (each cut, each half second, and where a face was lost);
between, FaceMesh follows each face in a small upright crop taken around where the face was a frame ago.
That crop has the resolution that FaceMesh works at, so a small face in a large picture is measured as well
as the picture allows, and the cost does not grow with the picture.

Lengths are in units of E, the distance in space between the outer corners of the eyes: unlike lengths in
the picture it does not shrink when the head turns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import cv2
import numpy as np

from facevox.mesh.blazeface import BlazeFace, Detection
from facevox.mesh.face_mesh import FaceMesh

if TYPE_CHECKING:
    from numpy.typing import NDArray


LEFT_EYE_CORNER, RIGHT_EYE_CORNER = 33, 263  # outer corners; "left" as seen in the picture
# A face is about 1.5 E wide and 1.9 E high, its centre 0.3 E below the eyes (measured); FaceMesh looks at
# 1.5 times its longer side.
FACE_CROP_SPAN = 3.0  # side of the crop, in E
FACE_CROP_DROP = 0.3  # its centre below the eyes, in E
FACE_CROP_PX = 256  # FaceMesh's own input is 192 pixels for 1.5 * 1.9 E
EYE_CENTRES_TO_CORNERS = 1.37  # E over the distance between the eye centres, which detectors give

DETECT_EVERY = 12  # frames between detections in the whole picture while every face is followed
DETECT_EVERY_MISSING = 3  # while a face is lost
DETECT_EVERY_EMPTY = 5  # while there is none
BORDER_EVERY_EMPTY = 5  # detections, a second: the look with a border, while there is none
MAX_MISSED = 4  # frames (0.16 s) that a face may be hidden, by a hand or by blur, and stay the same track
DETECTOR_WIDTH_PX = 640  # the detector shrinks to 192 pixels itself; this only makes handing over cheap
MIN_CONFIDENCE = 0.5
# From one frame to the next (40 ms) a face moves less than half of E and grows by less than a third.
MAX_STEP = 0.5
MAX_GROWTH = 1.33

# Cuts: 1 - correlation of two pictures shrunk to grey 64 x 36, plus half the L1 distance of their
# histograms. Inside shots at most 0.24 (25 talking clips, hand-held ones among them), at cuts 0.58 and more.
# Histograms alone never make a cut: a flash changes nothing else.
CUT_SIZE_PX = (64, 36)
CUT_BINS = 32
CUT_HISTOGRAM_MOST = 0.2
CUT_DISTANCE = 0.27


@dataclass(frozen=True)
class FacePose:
    """Position of a face: the middle between the outer eye corners, E, and the roll of the head."""

    middle_px: "NDArray[np.float64]"  # (2,)
    size_px: float  # E
    roll_rad: float  # clockwise as seen in the picture

    def crop_matrix(self, span: float, drop: float, side_px: int) -> "NDArray[np.float64]":
        """(2, 3) from picture pixels to those of an upright square crop.

        Args:
            span: Side of the square in E.
            drop: Distance of its centre below the eyes, in E.
            side_px: Side of the crop in pixels.
        """
        scale = side_px / (span * self.size_px)
        cos, sin = np.cos(self.roll_rad), np.sin(self.roll_rad)
        turn = scale * np.array([[cos, sin], [-sin, cos]])
        centre = self.middle_px + drop * self.size_px * np.array([-sin, cos])
        return np.column_stack([turn, side_px / 2 - turn @ centre])


@dataclass(frozen=True)
class TrackedFace:
    """A face in one frame."""

    track_id: int  # the same through a track; counted from 0, never used again in a video
    landmarks: "NDArray[np.float32] | None"  # (478, 3) picture pixels; None: hidden in this frame
    crop_rgb: "NDArray[np.uint8]"  # (FACE_CROP_PX, FACE_CROP_PX, 3)
    crop_matrix: "NDArray[np.float64]"  # (2, 3) from the picture to the crop


@dataclass(frozen=True)
class TrackedFrame:
    """The followed faces of one frame."""

    shot: int  # counted from 0; one more after each cut
    faces: tuple[TrackedFace, ...]


def pose_of(landmarks: "NDArray[np.float32]") -> FacePose:
    """The pose of (478, 3) landmarks in pixels."""
    points = landmarks.astype(np.float64)
    across = points[RIGHT_EYE_CORNER] - points[LEFT_EYE_CORNER]
    middle = (points[RIGHT_EYE_CORNER, :2] + points[LEFT_EYE_CORNER, :2]) / 2
    return FacePose(middle, float(np.linalg.norm(across)), float(np.arctan2(across[1], across[0])))


def inverse_of(matrix: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """The inverse, (2, 3) too, of a (2, 3) similarity transform.

    Written out: NumPy's general inverse wakes BLAS threads, which costs more than everything else here.
    """
    cos, sin = matrix[0, 0], matrix[1, 0]
    turn = np.array([[cos, sin], [-sin, cos]]) / (cos * cos + sin * sin)
    return np.column_stack([turn, -turn @ matrix[:, 2]])


def transform(
    points_n2: "NDArray[np.float32] | NDArray[np.float64]", matrix: "NDArray[np.float64]"
) -> "NDArray[np.float64]":
    """(n, 2) points after a (2, 3) transform."""
    result: NDArray[np.float64] = points_n2.astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return result


def cut_upright(
    image: "NDArray[np.uint8]", matrix: "NDArray[np.float64]", side_px: int
) -> "NDArray[np.uint8]":
    """The square crop that `matrix` (picture to crop) describes; black outside the picture.

    Where it shrinks by two or more, the picture is averaged down first, so that nothing aliases.
    """
    height, width = image.shape[:2]
    factor = int(1 / np.hypot(matrix[0, 0], matrix[1, 0]))
    if factor >= 2:
        corners = np.array([[0, 0], [side_px, 0], [0, side_px], [side_px, side_px]], np.float64)
        inside = transform(corners, inverse_of(matrix))
        left, top = np.clip(np.floor(inside.min(axis=0)), 0, (width, height)).astype(int)
        right, bottom = np.clip(np.ceil(inside.max(axis=0)), 0, (width, height)).astype(int)
        columns, rows = (right - left) // factor, (bottom - top) // factor
        if columns > 0 and rows > 0:
            part = image[top : top + rows * factor, left : left + columns * factor]
            image = cv2.resize(part, (int(columns), int(rows)), interpolation=cv2.INTER_AREA)
            # Pixel k of the small picture is centred at left + k * factor + (factor - 1) / 2.
            start = np.array([left, top]) + (factor - 1) / 2
            matrix = np.column_stack([matrix[:, :2] * factor, matrix[:, :2] @ start + matrix[:, 2]])
    crop: NDArray[np.uint8] = cv2.warpAffine(image, matrix, (side_px, side_px), flags=cv2.INTER_LINEAR)
    return crop


def small_grey(image_rgb: "NDArray[np.uint8]") -> "NDArray[np.uint8]":
    """A picture (H, W, 3) RGB as cuts are found in it: grey, CUT_SIZE_PX."""
    # Strided first: four pixels a side for each of the small picture are enough to average.
    step = max(min(image_rgb.shape[0] // CUT_SIZE_PX[1], image_rgb.shape[1] // CUT_SIZE_PX[0]) // 4, 1)
    grey = cv2.cvtColor(image_rgb[::step, ::step], cv2.COLOR_RGB2GRAY)
    small: NDArray[np.uint8] = cv2.resize(grey, CUT_SIZE_PX, interpolation=cv2.INTER_AREA)
    return small


def shot_distance(before: "NDArray[np.uint8]", after: "NDArray[np.uint8]") -> float:
    """Difference of two grey pictures of one size, 0 to 2.2; `CUT_DISTANCE` and more is a cut."""
    first, second = before.ravel().astype(np.float64), after.ravel().astype(np.float64)
    first_c, second_c = first - first.mean(), second - second.mean()
    # One grey level of deviation is added: even pictures (black, fades) correlate with everything.
    spread = np.sqrt((first_c @ first_c + first.size) * (second_c @ second_c + second.size))
    unlike = 1.0 - (first_c @ second_c + first.size) / spread
    shares = [
        np.bincount(v.ravel() // (256 // CUT_BINS), minlength=CUT_BINS) / v.size for v in (before, after)
    ]
    return float(unlike + min(np.abs(shares[0] - shares[1]).sum() / 2, CUT_HISTOGRAM_MOST))


class FaceFinder:
    """MediaPipe's face detectors: the one for all distances, for close-ups the one for near faces as well.

    Neither thread-safe nor usable in a forked child.
    """

    def __init__(self) -> None:
        self._far, self._near = BlazeFace("full"), BlazeFace("short")

    def find(
        self, image_rgb: "NDArray[np.uint8]", with_near: bool, with_border: bool = False
    ) -> list[FacePose]:
        """Faces of an (H, W, 3) RGB picture, the largest first.

        Args:
            image_rgb: The picture.
            with_near: Where the detector for all distances finds nothing, the one for near faces looks.
            with_border: Where that finds nothing either, the first looks at the picture in a black border:
                faces that fill the picture or are cut by its edge are found with it.
        """
        height, width = image_rgb.shape[:2]
        shrink = max(width, height) / DETECTOR_WIDTH_PX
        small = image_rgb
        if shrink > 1:
            size = (max(round(width / shrink), 1), max(round(height / shrink), 1))
            small = cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA)
        faces = self._far.find(small)
        if not faces and with_near:
            faces = self._near.find(small)
        if not faces and with_border:
            faces = self._far.find(small, border=(small.shape[1] // 2, small.shape[0] // 2))
        scale = np.array([width / small.shape[1], height / small.shape[0]])
        poses = [self._pose(face, scale) for face in faces]
        return sorted((p for p in poses if p.size_px >= 1), key=lambda pose: -pose.size_px)

    @staticmethod
    def _pose(face: Detection, scale: "NDArray[np.float64]") -> FacePose:
        left, right = face.keypoints[:2] * scale  # the eyes, left and right as seen in the picture
        across = right - left
        size_px = EYE_CENTRES_TO_CORNERS * float(np.linalg.norm(across))
        # In profile the eyes fall together, the box does not: it is about 1.5 E wide.
        size_px = max(size_px, 0.6 * face.box[2] * float(scale[0]))
        return FacePose((left + right) / 2, size_px, float(np.arctan2(across[1], across[0])))


class _Track:
    """A face that is being followed."""

    def __init__(self, track_id: int, pose: FacePose) -> None:
        self.track_id = track_id
        self.pose = pose
        self.num_missed = 0
        self.is_new = True
        self.mesh = FaceMesh(static=False, min_confidence=MIN_CONFIDENCE, heads="lips")

    def measure(self, image_rgb: "NDArray[np.uint8]") -> TrackedFace:
        """The face in the next picture, searched where it was a frame ago."""
        matrix = self.pose.crop_matrix(FACE_CROP_SPAN, FACE_CROP_DROP, FACE_CROP_PX)
        crop = cut_upright(image_rgb, matrix, FACE_CROP_PX)
        faces = self.mesh.find(crop)
        landmarks = _in_picture(faces[0], matrix) if faces else None
        if landmarks is not None and self._is_plausible(pose := pose_of(landmarks)):
            self.pose, self.num_missed, self.is_new = pose, 0, False
        else:
            landmarks = None
            self.num_missed += 1
        return TrackedFace(self.track_id, landmarks, crop, matrix)

    def _is_plausible(self, pose: FacePose) -> bool:
        # The size from a detector is rough: the first measurement after it may correct it by more.
        slack = 2.0 if self.is_new else 1.0
        step = np.linalg.norm(pose.middle_px - self.pose.middle_px) / self.pose.size_px
        growth = pose.size_px / self.pose.size_px
        return bool(step <= MAX_STEP * slack and 1 / (MAX_GROWTH * slack) <= growth <= MAX_GROWTH * slack)

    def aim(self, pose: FacePose) -> None:
        """Continues at `pose`, where a detector found the lost face again."""
        self.pose, self.is_new = pose, True

    def is_at(self, pose: FacePose) -> bool:
        """True if `pose` is this face: heads do not overlap by more than half."""
        size = max(self.pose.size_px, pose.size_px)
        return bool(np.linalg.norm(pose.middle_px - self.pose.middle_px) < 0.7 * size)


def _in_picture(landmarks: "NDArray[np.float32]", matrix: "NDArray[np.float64]") -> "NDArray[np.float32]":
    """Landmarks of a crop in the pixels of the picture; depth keeps the scale of x."""
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    plane = transform(landmarks[:, :2], inverse_of(matrix))
    return np.column_stack([plane, landmarks[:, 2] / scale]).astype(np.float32)


class FaceTracker:
    """Follows the faces of one video; hand it the frames in order, at `FRAME_HZ`.

    Use it as a context manager or call `close`. Neither thread-safe nor usable in a forked child.

    Args:
        max_faces: Followed at the same time. Where more appear, the largest of those that appear
            together are followed; a face that is followed is not dropped for a larger one.
    """

    def __init__(self, max_faces: int = 4) -> None:
        self._max_faces = max_faces
        self._finder = FaceFinder()
        self._tracks: list[_Track] = []
        self._num_tracks = 0  # ever
        self._shot = 0
        self._before: NDArray[np.uint8] | None = None
        self._since_detection: int | None = None  # frames; None: no detection in this shot yet
        self._num_empty = 0  # detections one after the other that left no face to follow

    def update(
        self, image_rgb: "NDArray[np.uint8]", small: "NDArray[np.uint8] | None" = None
    ) -> TrackedFrame:
        """Takes the next frame, (H, W, 3) uint8 RGB, and its `small_grey` if that is known."""
        small = small_grey(image_rgb) if small is None else small
        if self._before is not None and shot_distance(self._before, small) >= CUT_DISTANCE:
            self._shot += 1
            self._end(self._tracks)
            self._since_detection, self._num_empty = None, 0
        self._before = small
        # Lost and doubled tracks end before the detector runs: it may find their faces again as new ones.
        faces = {track: track.measure(image_rgb) for track in self._tracks}
        self._end([track for track in self._tracks if track.num_missed > MAX_MISSED])
        self._end(self._doubles())
        if self._is_detection_due():
            self._detect(image_rgb, faces)
        elif self._since_detection is not None:
            self._since_detection += 1
        return TrackedFrame(self._shot, tuple(faces[track] for track in self._tracks))

    def _is_detection_due(self) -> bool:
        if self._since_detection is None:
            return True
        if not self._tracks:
            wait = DETECT_EVERY_EMPTY
        elif any(track.num_missed for track in self._tracks):
            wait = DETECT_EVERY_MISSING
        else:
            wait = DETECT_EVERY
        return self._since_detection + 1 >= wait

    def _detect(self, image_rgb: "NDArray[np.uint8]", faces: dict[_Track, TrackedFace]) -> None:
        self._since_detection = 0
        is_bordered = not self._tracks and self._num_empty % BORDER_EVERY_EMPTY == 0
        poses = self._finder.find(image_rgb, with_near=not self._tracks, with_border=is_bordered)
        for pose in poses:
            followed = next((track for track in self._tracks if track.is_at(pose)), None)
            if followed is not None:
                if followed.num_missed:
                    followed.aim(pose)
                    num_missed = followed.num_missed
                    faces[followed] = followed.measure(image_rgb)
                    followed.num_missed = min(followed.num_missed, num_missed)  # one frame is missed once
            elif len(self._tracks) < self._max_faces:
                track = _Track(self._num_tracks, pose)
                face = track.measure(image_rgb)
                if face.landmarks is None or any(other.is_at(track.pose) for other in self._tracks):
                    track.mesh.close()  # where FaceMesh sees no face, no lips can be read
                    continue
                self._num_tracks += 1
                self._tracks.append(track)
                faces[track] = face
        self._num_empty = 0 if self._tracks else self._num_empty + 1

    def _doubles(self) -> list[_Track]:
        """Tracks that now follow the same face as an older one."""
        return [
            track
            for number, track in enumerate(self._tracks)
            if any(older.is_at(track.pose) for older in self._tracks[:number])
        ]

    def _end(self, tracks: Sequence[_Track]) -> None:
        for track in tracks:
            track.mesh.close()
        self._tracks = [track for track in self._tracks if track not in tracks]

    def close(self) -> None:
        """Closes FaceMesh; safe to call again."""
        self._end(self._tracks)

    def __enter__(self) -> "FaceTracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
