"""LSE-C, LSE-D and the offset of the faces of a file, which is read twice: for the faces, for their crops.

Reading it again costs a tenth of the time and needs no memory: a crop needs the boxes of six later frames,
and whole frames that wait for them may have 200 MB each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facevox.limits import HEAVY_SPARE_BYTES
from facevox.media import MediaError, MediaInfo, iter_frames, phase_s, probe, read_audio
from facevox.native_silence import native_silence
from facevox.training.distributed import choose_device
from lipsync.clips.clock import FRAME_HZ
from lipsync.clips.frame_progress import frame_progress
from lipsync.clips.sounds import SAMPLE_RATE_HZ
from lipsync.lse.faces import FaceBoxes, crop_squares, cut_face, find_faces
from lipsync.lse.network import NUM_FEATURES, WINDOW_FRAMES, load_syncnet
from lipsync.lse.report import LseClip, LseDetails, LseFace, LseValues, no_values
from lipsync.lse.scores import (
    MAX_LAG,
    MIN_WINDOWS,
    SAMPLES_PER_FRAME,
    FaceScorer,
    LseScore,
    num_windows_of,
    sound_features,
)
from lipsync.lse.weights import find_weights, weights_sha256
from lipsync.settings import DataSettings, Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_FRAMES = MIN_WINDOWS + WINDOW_FRAMES
# Samples as they are read, and the features of the sound; a face in a frame has 16 bytes.
_BYTES_PER_S = 4 * SAMPLE_RATE_HZ + 4 * FRAME_HZ * NUM_FEATURES


@dataclass(frozen=True)
class FaceLse:
    """The scores of a face and its boxes."""

    boxes: FaceBoxes
    score: LseScore


def lse_bytes(data: DataSettings) -> int:
    """Memory that scoring a clip may take: as long as the settings allow."""
    return HEAVY_SPARE_BYTES + round(2 * data.max_duration_s * _BYTES_PER_S)


def lse_settings(settings: Settings, weights_file: Path) -> dict[str, object]:
    """Settings that decide the results, for the manifest."""
    return {
        "max_faces": settings.data.max_faces,
        "max_duration_s": settings.data.max_duration_s,
        "sound": asdict(settings.audio.choice),
        "syncnet_sha256": weights_sha256(weights_file),
    }


class LseScorer:
    """Scores the faces of files with SyncNet.

    Args:
        weights_file: syncnet_v2.model; None: as `lipsync.lse.weights.find_weights` has it.
        settings: Of config.yaml: longest duration, number of faces, track and channel of the sound, device.

    Raises:
        UserError: No such file, other weights in it, or no such device.
    """

    def __init__(self, weights_file: Path | None = None, *, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.weights_file = find_weights(weights_file)
        self._network = load_syncnet(self.weights_file, choose_device(self.settings.training.device, 0))
        self._sha256 = weights_sha256(self.weights_file)

    def analyse(
        self, video_path: str | Path, audio_path: str | Path | None = None
    ) -> tuple[tuple[FaceLse, ...], LseDetails]:
        """The faces that have scores, in the order of appearance, and the report on the clip.

        Args:
            video_path: The pictures, of any frame rate: they are read at 25 a second, as a player shows them.
            audio_path: The sound; None: the video's own.

        Raises:
            MediaError: A file that cannot be read, no video stream, or no sound.
        """
        info = probe(video_path, with_times=True)
        if not info.has_video:
            raise MediaError(f"{video_path}: no video stream")
        if audio_path is None and not info.has_audio:
            raise MediaError(f"{video_path}: no sound; name a sound file as audio")
        data, notes = self.settings.data, list[str]()
        start_s = phase_s(info, FRAME_HZ)  # of pictures and sound
        # The sound first: a clip without it is refused before its pictures are decoded.
        samples = read_audio(
            audio_path or video_path, SAMPLE_RATE_HZ, start_s, data.max_duration_s,
            self.settings.audio.choice, notes,
        )  # fmt: skip
        num_expected = 2 * round(min(info.duration_s, data.max_duration_s) * FRAME_HZ)
        with native_silence(), frame_progress(Path(video_path).name, num_expected) as on_frame:
            boxes, num_frames = find_faces(
                video_path,
                max_faces=data.max_faces,
                start_s=start_s,
                max_duration_s=data.max_duration_s,
                on_frame=on_frame,
            )
            faces = self._score_faces(video_path, start_s, boxes, num_frames, samples, on_frame)
        details: LseDetails = {
            **_clip_values(faces),
            "reason": "" if faces else _reason(boxes, len(samples)),
            "faces": [_face_values(face) for face in faces],
            "syncnet": self.weights_file.name,
            "syncnet_sha256": self._sha256,
            "video": str(video_path),
            "audio": str(audio_path or ""),
            "duration_s": round(num_frames / FRAME_HZ, 3),
            "fps": round(info.rate_hz, 3),
            "num_frames": num_frames,
            "warnings": [*notes, *_warnings(info, faces, data.max_duration_s)],
        }
        return faces, details

    def _score_faces(
        self,
        video_path: str | Path,
        start_s: float,
        boxes: Sequence[FaceBoxes],
        num_frames: int,
        samples: NDArray[np.float32],
        on_frame: Callable[[], None],
    ) -> tuple[FaceLse, ...]:
        """The scores of the faces that are seen for long enough."""
        num_windows = num_windows_of(num_frames, len(samples))
        long_boxes = [face for face in boxes if len(face) >= MIN_FRAMES]
        if num_windows < MIN_WINDOWS or not long_boxes:
            return ()
        sound_WD = sound_features(self._network, samples, num_windows)
        scorers = []
        for face in long_boxes:
            num_face_windows = num_windows_of(len(face), len(samples) - face.start * SAMPLES_PER_FRAME)
            part_WD = sound_WD[face.start : face.start + num_face_windows]
            scorers.append((face, crop_squares(face.boxes_px), FaceScorer(self._network, part_WD)))
        frames = iter_frames(
            video_path, rate_hz=FRAME_HZ, start_s=start_s, max_frames=num_frames, colour="bgr"
        )
        for frame in frames:
            on_frame()
            for face, squares, scorer in scorers:
                if 0 <= frame.index - face.start < len(face):
                    scorer.push(cut_face(frame.image, squares[frame.index - face.start]))
        scores = [(face, scorer.finish()) for face, _, scorer in scorers]
        return tuple(FaceLse(face, score) for face, score in scores if score is not None)


def _values(score: LseScore) -> LseValues:
    return {
        "lse_c": round(score.lse_c, 4),
        "lse_d": round(score.lse_d, 4),
        "offset_frames": float(score.offset_frames),
        "offset_ms": score.offset_frames * 1000 / FRAME_HZ,
        "num_windows": score.num_windows,
    }


def _face_values(face: FaceLse) -> LseFace:
    start, num_frames = face.boxes.start, len(face.boxes)
    return {
        "face": face.boxes.track_id,
        **_values(face.score),
        "start_s": round(start / FRAME_HZ, 2),
        "end_s": round((start + num_frames) / FRAME_HZ, 2),
        "box_px": [round(float(side)) for side in np.median(face.boxes.boxes_px, axis=0)],
    }


def _clip_values(faces: Sequence[FaceLse]) -> LseClip:
    """The scores of the face with the highest LSE-C."""
    if not faces:
        return {**no_values(), "face": None}
    best = max(faces, key=lambda face: face.score.lse_c)
    return {**_values(best.score), "face": best.boxes.track_id}


def _reason(boxes: Sequence[FaceBoxes], num_samples: int) -> str:
    least_s = MIN_FRAMES / FRAME_HZ
    if num_samples < MIN_FRAMES * SAMPLES_PER_FRAME:
        return f"{num_samples / SAMPLE_RATE_HZ:.2f} s of sound; {least_s:g} s are needed"
    if not boxes:
        return "no face is seen"
    longest_s = max(len(face) for face in boxes) / FRAME_HZ
    return f"no face is seen with sound for {least_s:g} s on end; the longest: {longest_s:.2f} s"


def _warnings(info: MediaInfo, faces: Sequence[FaceLse], max_duration_s: float) -> list[str]:
    warnings = []
    if info.duration_s > max_duration_s + 0.5:
        warnings.append(f"only the first {max_duration_s:g} s of {info.duration_s:.0f} (data.max_duration_s)")
    at_end = [str(face.boxes.track_id) for face in faces if abs(face.score.offset_frames) == MAX_LAG]
    if at_end:
        warnings.append(
            f"the offset is at the end of the search ({MAX_LAG} frames) and may be larger: face "
            f"{', '.join(at_end)}"
        )
    return warnings
