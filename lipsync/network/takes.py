"""Takes, the pairs of a face and a sound to train on, and the input of networks that is made of them.

A take is one face of a clip with the sound of the clip. Of a face, networks see either its mouth crops or the
movements of its lips; of a sound, the movements of its log-mel bands and its MFCC (`lipsync.sync.inputs`).
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
from lipsync.clips.clock import CLOCK, ROWS_PER_FRAME
from lipsync.clips.features import ClipFeatures, FaceTrack
from lipsync.clips.sounds import NUMPY, SoundFeatures
from lipsync.sync.estimators import LoudnessEstimator
from lipsync.sync.inputs import MOUTH_CNN, floored_levels, is_voiced, lip_values, sound_values
from lipsync.sync.offset import LAG_MS

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Take:
    """A face and its sound.

    Attributes:
        name: Of the clip.
        speaker: Person it shows; takes of one speaker are never in two parts of a split.
        track: The face.
        sound: Rows from time 0 on the clock of the track.
        offset_ms: Known offset of the sound, positive: audio early; 0 in data to train on.
        clock: That its pictures were read by (`lipsync.clips.clock.CLOCK`).
    """

    name: str
    speaker: str
    track: FaceTrack
    sound: SoundFeatures
    offset_ms: float = 0.0
    clock: int = CLOCK

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
        level_db: (rows, bands) float32: what `sound` is made of.
        is_measured: (frames,) bool.
        is_voiced: (rows,) bool; rows with more than room noise.
        first_row: Row of the sound that belongs to frame 0, known offset taken into account.
        features: Library that computes what is derived from levels (`lipsync.clips.sounds`).
    """

    face: NDArray[np.uint8] | NDArray[np.float32]
    sound: NDArray[np.float32]
    level_db: NDArray[np.float32]
    is_measured: NDArray[np.bool_]
    is_voiced: NDArray[np.bool_]
    first_row: int
    features: str = NUMPY

    def __len__(self) -> int:
        return len(self.is_measured)


def face_values(track: FaceTrack, visual_frontend: str) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Input of a network with that front end from a face."""
    return track.mouths if visual_frontend == MOUTH_CNN else lip_values(track.lips)


def inputs_of(take: Take, visual_frontend: str) -> TakeInputs:
    """Input of a network with that front end from a take."""
    return TakeInputs(
        face=face_values(take.track, visual_frontend),
        sound=sound_values(take.sound),
        level_db=floored_levels(take.sound),
        is_measured=take.track.is_measured,
        is_voiced=is_voiced(take.sound),
        first_row=ROWS_PER_FRAME * take.track.start - take.lag,
        features=take.sound.features,
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
        clip, source = load_clip(entry.file)
        clip = replace(clip, sound=replace(clip.sound, features=features))
        for take in takes_of(clip, entry.name, entry.group):
            yield replace(take, clock=CLOCK if source.get("clock") == str(CLOCK) else CLOCK - 1)
