"""Takes, the pairs of a face and a sound to train on, and the input of networks that is made of them.

A take is one face of a clip with the sound of the clip. Of a face, networks see either its mouth crops or the
movements of its lips; of a sound, the movements of its log-mel bands and its MFCC. "Movements" are changes
faster than about 0.7 Hz (`lipsync.sync.estimators.high_passed`), so that neither the shape of a face nor the
level of a recording distinguishes one person from another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facevox.errors import UserError
from facevox.manifest import read_manifest
from lipsync.clips.clip_files import load_clip
from lipsync.clips.clock import ROWS_PER_FRAME
from lipsync.clips.features import ClipFeatures, FaceTrack
from lipsync.clips.mouths import NUM_LIP_POINTS
from lipsync.clips.sounds import NUMPY, SILENCE_DB, SoundFeatures, mfcc_of
from lipsync.sync.estimators import HIGH_PASS_REACH, LoudnessEstimator, high_passed
from lipsync.sync.offset import LAG_MS

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOUTH_CNN, LIP_LANDMARKS = "mouth_cnn", "lip_landmarks"
# Slower movements stay in than for the untrained estimators: of 3, 6 and 25 frames, 6 found most offsets.
HIGH_PASS_FRAMES = 6.0
# Frames on either side that the movement of a frame depends on; for the sound the same time.
INPUT_CONTEXT_FRAMES = round(HIGH_PASS_FRAMES * HIGH_PASS_REACH)
# Factors that bring movements to deviations of about 1 (measured on talking clips).
LIP_SCALE = 15.0  # of points in halves of the crop
DISTANCE_SCALE = 10.0
SPEED_SCALE = 15.0  # of changes of distances a frame
LEVEL_SCALE = 0.1  # of bands in dB
MFCC_SCALE = 0.05
NUM_LIP_VALUES = 2 * NUM_LIP_POINTS + 6
# Positions in LIP_POINTS: corners, and the middles of the lower and upper lip, of the outer and inner ring.
_WIDTH, _OUTER_GAP, _INNER_GAP = (10, 0), (5, 15), (25, 35)
LOUDEST_PERCENTILE = 95.0
# Both below the loudest rows of a recording.
QUIET_DB = 70.0  # quieter values are raised to this (of 50 and more, more was better)
VOICED_DB = 35.0  # louder rows count as speech


@dataclass(frozen=True)
class Take:
    """A face and its sound.

    Attributes:
        name: Of the clip.
        speaker: Person it shows; takes of one speaker are never in two parts of a split.
        track: The face.
        sound: Rows from time 0 on the clock of the track.
        offset_ms: Known offset of the sound, positive: audio early; 0 in data to train on.
    """

    name: str
    speaker: str
    track: FaceTrack
    sound: SoundFeatures
    offset_ms: float = 0.0

    @property
    def lag(self) -> int:
        """The known offset in rows of the sound."""
        return round(self.offset_ms / LAG_MS)


@dataclass(frozen=True)
class TakeInputs:
    """A take as a network sees it.

    Attributes:
        face: (frames, S, S) uint8 crops, or (frames, NUM_LIP_VALUES) float32.
        sound: (rows, bands + coefficients) float32.
        is_measured: (frames,) bool.
        is_voiced: (rows,) bool; rows with more than room noise.
        first_row: Row of the sound that belongs to frame 0, known offset taken into account.
    """

    face: NDArray[np.uint8] | NDArray[np.float32]
    sound: NDArray[np.float32]
    is_measured: NDArray[np.bool_]
    is_voiced: NDArray[np.bool_]
    first_row: int

    def __len__(self) -> int:
        return len(self.is_measured)


def lip_values(lips: NDArray[np.float32]) -> NDArray[np.float32]:
    """Movements of lips (n, 40, 2), as (n, NUM_LIP_VALUES).

    First the contours around their middle (x and y of each point in turn), then width and gaps of the mouth,
    then the speeds of these.
    """
    points = lips.astype(np.float64)
    contour = high_passed(points - points.mean(axis=1, keepdims=True), HIGH_PASS_FRAMES) * LIP_SCALE
    distances = np.stack(
        [
            np.linalg.norm(points[:, start] - points[:, end], axis=1)
            for start, end in (_WIDTH, _OUTER_GAP, _INNER_GAP)
        ],
        axis=1,
    )
    speeds = np.gradient(distances, axis=0) if len(distances) > 1 else np.zeros_like(distances)
    movements = high_passed(distances, HIGH_PASS_FRAMES) * DISTANCE_SCALE
    return np.concatenate(
        [contour.reshape(len(lips), -1), movements, speeds * SPEED_SCALE], axis=1, dtype=np.float32
    )


def sound_values(sound: SoundFeatures) -> NDArray[np.float32]:
    """Movements of the log-mel bands and of the MFCC, (rows, bands + coefficients).

    Neither depends on the gain of the recording: the floor of the levels is QUIET_DB below its loudest rows.
    """
    level_db = np.maximum(sound.log_mel, _loudest_db(sound) - QUIET_DB)
    coefficients = mfcc_of(level_db, sound.mfcc.shape[1], sound.features).astype(np.float32)
    sigma = HIGH_PASS_FRAMES * ROWS_PER_FRAME
    bands = high_passed(level_db, sigma) * LEVEL_SCALE
    return np.concatenate([bands, high_passed(coefficients, sigma) * MFCC_SCALE], axis=1, dtype=np.float32)


def is_voiced(sound: SoundFeatures) -> NDArray[np.bool_]:
    """(rows,) true where there is more than room noise."""
    voiced: NDArray[np.bool_] = sound.log_mel.max(axis=1) > max(_loudest_db(sound) - VOICED_DB, SILENCE_DB)
    return voiced


def _loudest_db(sound: SoundFeatures) -> float:
    """Level of the loudest band in the loud rows of a recording."""
    loudness_db = sound.log_mel.max(axis=1)
    return float(np.percentile(loudness_db, LOUDEST_PERCENTILE)) if len(loudness_db) else 0.0


def face_values(track: FaceTrack, visual_frontend: str) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Input of a network with that front end from a face."""
    return track.mouths if visual_frontend == MOUTH_CNN else lip_values(track.lips)


def inputs_of(take: Take, visual_frontend: str) -> TakeInputs:
    """Input of a network with that front end from a take."""
    return TakeInputs(
        face=face_values(take.track, visual_frontend),
        sound=sound_values(take.sound),
        is_measured=take.track.is_measured,
        is_voiced=is_voiced(take.sound),
        first_row=ROWS_PER_FRAME * take.track.start - take.lag,
    )


def takes_of(clip: ClipFeatures, name: str, speaker: str, offset_ms: float = 0.0) -> list[Take]:
    """The faces of a clip that may be the speaker's.

    Of faces that are seen at the same time, only the one whose mouth follows the sound best is used, by the
    untrained estimator: a listener's face would teach that lips and sound do not fit.
    """
    takes = [Take(name, speaker, track, clip.sound, offset_ms) for track in clip.tracks]
    if len(takes) == 1:
        return takes
    speaking: list[Take] = []
    for take in sorted(takes, key=_likeness, reverse=True):
        if not any(_overlap(take.track, other.track) for other in speaking):
            speaking.append(take)
    return speaking


def _likeness(take: Take) -> float:
    """Mean similarity of mouth and sound at the known offset."""
    values = LoudnessEstimator().similarities(take.track, take.sound, np.array([take.lag]))
    return float(np.nanmean(values)) if np.isfinite(values).any() else -np.inf


def _overlap(one: FaceTrack, other: FaceTrack) -> bool:
    return one.start < other.start + len(other) and other.start < one.start + len(one)


@dataclass(frozen=True)
class ClipEntry:
    """A clip that data_processing.py made: its file and its speaker ("": unknown)."""

    name: str
    file: Path
    speaker: str

    @property
    def group(self) -> str:
        """The unit that a split keeps together: the speaker, or the video where no speaker is named."""
        return f"speaker {self.speaker}" if self.speaker else f"video {self.name}"


def list_clips(processed_dir: Path) -> list[ClipEntry]:
    """The clips below a folder of data_processing.py, by name.

    Raises:
        UserError: There is no such folder, or no clip in it.
    """
    if not processed_dir.is_dir():
        raise UserError(f"paths.processed_dir: {processed_dir}: no such folder; run data_processing.py first")
    entries = []
    for record in read_manifest(processed_dir, "data_processing"):
        for row in record["rows"] if record["status"] == "done" else ():
            file, speaker = row.get("clip_file"), row.get("speaker")
            if not isinstance(file, str) or not isinstance(speaker, str):
                raise UserError(
                    f"{processed_dir}: the manifest is damaged at {record['item']!r}; run data_processing.py "
                    "again"
                )
            entries.append(ClipEntry(record["item"], processed_dir / file, speaker))
    if not entries:
        raise UserError(f"{processed_dir}: no clip in it; data_processing.py used none of the videos")
    return entries


def load_takes(entries: Sequence[ClipEntry], features: str = NUMPY) -> Iterator[Take]:
    """All takes of clips, in order.

    Args:
        entries: The clips; whichever library made them.
        features: The library that computes what is derived from them, as in `lipsync.clips.sounds`.

    Raises:
        UserError: A file is missing or damaged.
    """
    for entry in entries:
        clip, _ = load_clip(entry.file)
        clip = replace(clip, sound=replace(clip.sound, features=features))
        yield from takes_of(clip, entry.name, entry.group)
