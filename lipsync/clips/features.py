"""Features of a clip's faces and sound on one clock, by the same code for files and live sources.

The clock: frame k of the pictures is what a player shows at k / 25 s (the frame nearest in time, whatever
the rate of the video); row j of the sound is centred on j / 100 s. Both count from the moment at which a
player starts the file (`facevox.media`); a separate sound file starts at that moment.

`iter_face_features` yields the faces frame by frame, LOOKAHEAD frames (0.2 s) after they were read;
`FaceFeatureStream` does the same for frames that come from elsewhere; `collect_tracks` gathers them into
arrays. The sound is in `lipsync.clips.sounds`. `extract_clip` does all of it for a file.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from facevox.ahead import iter_ahead
from facevox.faces import mouth_opening
from facevox.growing import GrowingArray
from facevox.media import MediaInfo, iter_audio, iter_frames, phase_s, probe
from facevox.sound_choice import PLAYED, SoundChoice
from lipsync.clips.clock import FRAME_HZ
from lipsync.clips.mouths import SMOOTH_FRAMES, cut_mouth, lip_contour, mouth_matrix, mouth_pose
from lipsync.clips.sounds import NUMPY, SAMPLE_RATE_HZ, SoundFeatures, features_of_blocks, first_samples
from lipsync.clips.tracks import MAX_MISSED, FacePose, FaceTracker, TrackedFace, TrackedFrame, small_grey

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A frame is finished when the frames of its smoothing window and the end of any gap at it are known.
LOOKAHEAD = max(SMOOTH_FRAMES // 2, MAX_MISSED) + 1


@dataclass(frozen=True)
class FaceFeatures:
    """One face in one frame.

    Attributes:
        track_id: Of the face; a face that returns after a cut or a longer absence has a new one.
        box_px: (4,) float32, left, top, width, height of the landmarks in the picture, upright.
        mouth: (S, S) uint8 grey, S = 96 by default: upright, mouth in the middle, side 1.2 times the
            distance between the outer eye corners.
        lips: (40, 2) float32: `lipsync.clips.mouths.LIP_POINTS` in that crop, -1 to 1 (beyond it outside).
        opening: Gap between the inner lips over the distance between the eyes; 0 closed, about 0.6 wide.
        is_measured: False where the face was hidden for up to 0.16 s: its points are interpolated.
        face_rgb: (256, 256, 3) uint8, the upright crop that the points were found in.
    """

    track_id: int
    box_px: "NDArray[np.float32]"
    mouth: "NDArray[np.uint8]"
    lips: "NDArray[np.float32]"
    opening: float
    is_measured: bool
    face_rgb: "NDArray[np.uint8]"


@dataclass(frozen=True)
class FrameFeatures:
    """The faces of frame `index`, which is shown at `time_s` = start + index / 25 s, in shot `shot`."""

    index: int
    time_s: float
    shot: int
    faces: tuple[FaceFeatures, ...]


@dataclass(frozen=True)
class FaceTrack:
    """A face from its first to its last frame, without gaps; fields as in `FaceFeatures`.

    Attributes:
        track_id: Counted in the order of appearance.
        start: Index of its first frame: entry i belongs to frame start + i, at (start + i) / 25 s.
        shot: The shot that it is in; it never spans two.
        mouths: (n, S, S) uint8.
        lips: (n, 40, 2) float32.
        opening: (n,) float32.
        boxes_px: (n, 4) float32.
        is_measured: (n,) bool.
        face_rgb: (256, 256, 3) uint8: what the person looks like, the first frame.
    """

    track_id: int
    start: int
    shot: int
    mouths: "NDArray[np.uint8]"
    lips: "NDArray[np.float32]"
    opening: "NDArray[np.float32]"
    boxes_px: "NDArray[np.float32]"
    is_measured: "NDArray[np.bool_]"
    face_rgb: "NDArray[np.uint8]"

    def __len__(self) -> int:
        return len(self.opening)


@dataclass(frozen=True)
class ClipFeatures:
    """A clip: its faces and its sound.

    Attributes:
        num_frames: Of the pictures at 25 a second, with or without a face.
        shot_starts: First frame of each shot, from 0.
        tracks: Faces, the longest first.
        sound: Rows at 100 a second from time 0; more or fewer than 4 * num_frames where the sound is
            longer or shorter than the pictures.
    """

    num_frames: int
    shot_starts: tuple[int, ...]
    tracks: tuple[FaceTrack, ...]
    sound: SoundFeatures


@dataclass
class _WaitingFrame:
    """A frame that waits for those after it."""

    index: int
    time_s: float
    tracked: TrackedFrame
    faces: dict[int, TrackedFace]
    poses: dict[int, FacePose]  # of the mouths that were measured


class FaceFeatureStream:
    """Features of frames that come one by one, as from a camera; use it as a context manager.

    Args:
        max_faces: Followed at the same time.
        crop_px: Side of the mouth crops.
        with_mouths: Whether to cut them out, 9 kB each; else they are (1, 1) and 0.
    """

    def __init__(self, max_faces: int = 4, crop_px: int = 96, *, with_mouths: bool = True) -> None:
        self._tracker = FaceTracker(max_faces)
        self._crop_px, self._with_mouths = crop_px, with_mouths
        # The frame to finish next is number `_num_before` of these.
        self._window: deque[_WaitingFrame] = deque()
        self._num_before = 0
        self._num_pushed = 0

    def push(
        self,
        image_rgb: "NDArray[np.uint8]",
        time_s: float | None = None,
        small: "NDArray[np.uint8] | None" = None,
    ) -> list[FrameFeatures]:
        """Takes the next frame, (H, W, 3) uint8; returns those that are finished with it: none or one.

        Frames must come at 25 a second; `time_s` is only handed through (None: index / 25). `small` is its
        `lipsync.clips.tracks.small_grey`, if that is known.
        """
        tracked = self._tracker.update(image_rgb, small)
        index = self._num_pushed
        self._num_pushed += 1
        faces = {face.track_id: face for face in tracked.faces}
        poses = {k: mouth_pose(f.landmarks) for k, f in faces.items() if f.landmarks is not None}
        shown_s = index / FRAME_HZ if time_s is None else time_s
        self._window.append(_WaitingFrame(index, shown_s, tracked, faces, poses))
        if len(self._window) - self._num_before <= LOOKAHEAD:
            return []
        return [self._finish_next()]

    def finish(self) -> list[FrameFeatures]:
        """The frames that still wait, when no more follow."""
        return [self._finish_next() for _ in range(len(self._window) - self._num_before)]

    def _finish_next(self) -> FrameFeatures:
        now = self._window[self._num_before]
        candidates = (self._face(now, face) for face in now.tracked.faces)
        faces = tuple(face for face in candidates if face is not None)
        self._num_before += 1
        if self._num_before > LOOKAHEAD:
            self._window.popleft()
            self._num_before -= 1
        return FrameFeatures(now.index, now.time_s, now.tracked.shot, faces)

    def _face(self, now: _WaitingFrame, face: TrackedFace) -> FaceFeatures | None:
        """Features of a face; None where it is hidden and not found again within the window."""
        landmarks = face.landmarks
        if landmarks is None:
            landmarks = self._interpolated(now.index, face.track_id)
            if landmarks is None:
                return None
        near = [
            frame.poses[face.track_id]
            for frame in self._window
            if abs(frame.index - now.index) <= SMOOTH_FRAMES // 2 and face.track_id in frame.poses
        ]
        matrix = mouth_matrix(near or [mouth_pose(landmarks)], self._crop_px)
        mouth = np.zeros((1, 1), np.uint8)
        if self._with_mouths:
            mouth = cut_mouth(face.crop_rgb, face.crop_matrix, matrix, self._crop_px)
        low, high = landmarks[:, :2].min(axis=0), landmarks[:, :2].max(axis=0)
        return FaceFeatures(
            track_id=face.track_id,
            box_px=np.concatenate([low, high - low]).astype(np.float32),
            mouth=mouth,
            lips=lip_contour(landmarks, matrix, self._crop_px),
            opening=mouth_opening(landmarks),
            is_measured=face.landmarks is not None,
            face_rgb=face.crop_rgb,
        )

    def _interpolated(self, index: int, track_id: int) -> "NDArray[np.float32] | None":
        """The points of a hidden face, on the way from where it was to where it is found again."""
        measured = [
            (frame.index, frame.faces[track_id].landmarks)
            for frame in self._window
            if track_id in frame.poses
        ]
        before = [entry for entry in measured if entry[0] < index]
        after = [entry for entry in measured if entry[0] > index]
        if not before or not after:
            return None
        (first, start), (last, end) = before[-1], after[0]
        if start is None or end is None:
            return None
        share = (index - first) / (last - first)
        return (start + (end - start) * share).astype(np.float32)

    def close(self) -> None:
        """Closes the tracker; safe to call again."""
        self._tracker.close()

    def __enter__(self) -> "FaceFeatureStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def iter_face_features(
    video: str | Path,
    *,
    max_faces: int = 4,
    crop_px: int = 96,
    with_mouths: bool = True,
    start_s: float = 0.0,
    max_duration_s: float | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> Iterator[FrameFeatures]:
    """The features of a video's frames at 25 a second, in order, each frame once.

    Args:
        video: Of any frame rate, constant or not.
        start_s: Presentation time of the first frame.
        max_faces: Followed at the same time.
        crop_px, with_mouths: As `FaceFeatureStream` has them.
        max_duration_s: Stop there; the rest is not decoded.
        on_frame: Called for each frame that was read; an exception from it ends the reading.

    Raises:
        MediaError: As `facevox.media.iter_frames`.
    """
    max_frames = None if max_duration_s is None else max(round(max_duration_s * FRAME_HZ), 1)
    with FaceFeatureStream(max_faces, crop_px, with_mouths=with_mouths) as stream:
        frames = iter_frames(video, rate_hz=FRAME_HZ, start_s=start_s, max_frames=max_frames)
        # Shrunk where they are decoded: that thread has time.
        for frame, small in iter_ahead((frame, small_grey(frame.image)) for frame in frames):
            on_frame()
            yield from stream.push(frame.image, frame.time_s, small)
        yield from stream.finish()


class _Growing:
    """A track whose frames are still coming; of its pictures of the face only the first is kept."""

    def __init__(self, first: FaceFeatures, start: int, shot: int) -> None:
        self.first, self.start, self.shot = first, start, shot
        self._mouths = GrowingArray(np.uint8, first.mouth.shape)
        self._lips = GrowingArray(np.float32, first.lips.shape)
        self._opening = GrowingArray(np.float32)
        self._boxes_px = GrowingArray(np.float32, first.box_px.shape)
        self._is_measured = GrowingArray(np.bool_)

    def __len__(self) -> int:
        return len(self._opening)

    def add(self, face: FaceFeatures) -> None:
        """Appends the next frame."""
        self._mouths.add(face.mouth[None])
        self._lips.add(face.lips[None])
        self._opening.add([face.opening])
        self._boxes_px.add(face.box_px[None])
        self._is_measured.add([face.is_measured])

    def take(self) -> FaceTrack:
        """All frames as arrays; this object is empty afterwards."""
        return FaceTrack(
            track_id=self.first.track_id,
            start=self.start,
            shot=self.shot,
            mouths=self._mouths.take(),
            lips=self._lips.take(),
            opening=self._opening.take(),
            boxes_px=self._boxes_px.take(),
            is_measured=self._is_measured.take(),
            face_rgb=self.first.face_rgb,
        )


def collect_tracks(
    frames: Iterable[FrameFeatures],
) -> tuple[tuple[FaceTrack, ...], int, tuple[int, ...]]:
    """The faces of consecutive frames as arrays: (tracks, number of frames, first frame of each shot).

    The longest track comes first.
    """
    growing: dict[int, _Growing] = {}
    num_frames, shots = 0, dict[int, int]()
    for frame in frames:
        num_frames += 1
        shots.setdefault(frame.shot, frame.index)
        for face in frame.faces:
            if face.track_id not in growing:
                growing[face.track_id] = _Growing(face, frame.index, frame.shot)
            growing[face.track_id].add(face)
    tracks = sorted(growing.values(), key=lambda track: (-len(track), track.start))
    return tuple(track.take() for track in tracks), num_frames, tuple(shots.values())


def extract_clip(
    video: str | Path,
    audio: str | Path | None = None,
    *,
    max_faces: int = 4,
    crop_px: int = 96,
    with_mouths: bool = True,
    num_mels: int = 40,
    num_mfcc: int = 13,
    features: str = NUMPY,
    choice: SoundChoice = PLAYED,
    notes: list[str] | None = None,
    info: MediaInfo | None = None,
    max_duration_s: float | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> ClipFeatures:
    """All features of a clip.

    Args:
        video: The pictures.
        audio: The sound, or None for the video's own.
        max_faces, crop_px, with_mouths, on_frame: As in `iter_face_features`.
        num_mels, num_mfcc, features: As in `lipsync.clips.sounds`.
        choice: Which sound of the file.
        info: Of the video by `probe`, if it is known.
        notes: Gets a sentence for each remarkable thing about the sound.
        max_duration_s: Of a longer clip only this much is used, from its start.

    Raises:
        MediaError: Pictures or sound cannot be read.
    """
    # The sound first: a clip without it is refused before its pictures are decoded.
    source = audio or video
    # Of both: pictures off the grid would seem up to 20 ms late.
    start_s = phase_s(info or probe(video), FRAME_HZ)
    samples = iter_audio(source, SAMPLE_RATE_HZ, start_s, choice, notes)
    if max_duration_s is not None:
        samples = first_samples(samples, round(max_duration_s * SAMPLE_RATE_HZ))
    sound = features_of_blocks(samples, num_mels, num_mfcc, features)
    frames = iter_face_features(
        video,
        max_faces=max_faces,
        crop_px=crop_px,
        with_mouths=with_mouths,
        start_s=start_s,
        max_duration_s=max_duration_s,
        on_frame=on_frame,
    )
    tracks, num_frames, shots = collect_tracks(frames)
    return ClipFeatures(num_frames, shots, tracks, sound)
