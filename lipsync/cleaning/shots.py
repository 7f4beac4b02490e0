"""The shots of a video one after the other, with their faces and sound: memory is that of one of them.

A long shot comes in parts. The sound is read first: its features and levels take 22 kB a second.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facevox.faces import measure_sharpness
from facevox.growing import GrowingArray
from facevox.media import iter_audio
from facevox.speech import FRAME_S, LevelMeter, speech_frames
from lipsync.clips.clock import FRAME_HZ, ROWS_PER_FRAME
from lipsync.clips.features import FrameFeatures, collect_tracks
from lipsync.clips.sounds import SAMPLE_RATE_HZ, SoundFeatures, SoundFeatureStream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lipsync.clips.features import FaceTrack
    from lipsync.settings import AudioSettings

# Sound before and after a shot that its lips are compared with: the largest lag and what estimators see.
MARGIN_FRAMES = 75
SHARPNESS_EVERY = 5  # frames: five values a second
# The face in the upright crop of 3 x 3 times the distance of the eyes: 1.5 wide, 1.9 high, in the middle.
_FACE_ROWS, _FACE_COLUMNS = slice(47, 209), slice(64, 192)


@dataclass(frozen=True)
class VideoSound:
    """The sound of a video, from the time of its first frame on.

    Attributes:
        features: Rows of the clock of 100 a second.
        is_speech: (n,) for each FRAME_S, by the levels of the whole recording.
    """

    features: SoundFeatures
    is_speech: NDArray[np.bool_]

    def speech_share(self, start: int, end: int) -> float:
        """Share of the frames `start` to before `end`, of 25 a second, with speech; 0 beyond the sound."""
        first, last = (round(frame / FRAME_HZ / FRAME_S) for frame in (start, end))
        return float(self.is_speech[first:last].sum()) / max(last - first, 1)


@dataclass(frozen=True)
class Shot:
    """A shot, or a part of a long one.

    Attributes:
        number: Of the shot, from 0.
        first: Its first frame, of 25 a second.
        num_frames: With or without a face.
        tracks: Faces; their `start` counts from `origin`.
        origin: Frame at which `sound` starts, before `first`.
        sound: Of the shot and MARGIN_FRAMES before and after it.
        sharpness: By the `track_id` of a face: frames (of the video) and `measure_sharpness` of them.
    """

    number: int
    first: int
    num_frames: int
    tracks: tuple[FaceTrack, ...]
    origin: int
    sound: SoundFeatures
    sharpness: dict[int, list[tuple[int, float]]]

    def median_sharpness(self, track_id: int, start: int, end: int) -> float:
        """Median over the measured frames of a face from `start` to before `end`; 0 without any."""
        values = [value for frame, value in self.sharpness.get(track_id, ()) if start <= frame < end]
        return float(np.median(values)) if values else 0.0


def read_sound(
    video: str | Path,
    start_s: float,
    max_duration_s: float,
    audio: AudioSettings,
    notes: list[str],
) -> VideoSound:
    """The features and the speech of a video's sound, decoded once.

    Args:
        video: The file.
        start_s: Presentation time of its first frame.
        max_duration_s: Longer sounds are read up to here.
        audio: Track, channel and sizes of the features.
        notes: Gets a sentence for each remarkable thing about the sound.

    Raises:
        MediaError: As `facevox.media.iter_audio`.
    """
    stream = SoundFeatureStream(audio.num_mels, audio.num_mfcc, audio.features)
    log_mel = GrowingArray(np.float32, (audio.num_mels,))
    mfcc = GrowingArray(np.float32, (audio.num_mfcc,))
    meter = LevelMeter(SAMPLE_RATE_HZ)
    blocks = iter_audio(video, SAMPLE_RATE_HZ, start_s, audio.choice, notes)
    for rows in itertools.chain(map(stream.push, meter.watch(blocks)), [None]):
        rows = rows or stream.finish()
        log_mel.add(rows.log_mel)
        mfcc.add(rows.mfcc)
        if meter.count > max_duration_s * SAMPLE_RATE_HZ:
            break
    features = SoundFeatures(log_mel.take(), mfcc.take(), audio.features)
    return VideoSound(features, speech_frames(meter.levels_db()))


def iter_shots(frames: Iterable[FrameFeatures], sound: SoundFeatures, max_frames: int) -> Iterator[Shot]:
    """The shots of a video in order; those of more than `max_frames` come in parts.

    Args:
        frames: Of `lipsync.clips.features.iter_face_features`.
        sound: Of the whole video.
        max_frames: Of a part.
    """
    for number, in_shot in itertools.groupby(frames, key=lambda frame: frame.shot):
        for _, numbered in itertools.groupby(enumerate(in_shot), key=lambda pair: pair[0] // max_frames):
            yield _make_shot(number, (frame for _, frame in numbered), sound)


def _make_shot(number: int, frames: Iterator[FrameFeatures], sound: SoundFeatures) -> Shot:
    sharpness: dict[int, list[tuple[int, float]]] = {}
    head = next(frames)
    tracks, num_frames, _ = collect_tracks(_measured(itertools.chain([head], frames), sharpness))
    origin = max(head.index - MARGIN_FRAMES, 0)
    rows = slice(ROWS_PER_FRAME * origin, ROWS_PER_FRAME * (head.index + num_frames + MARGIN_FRAMES))
    return Shot(
        number=number,
        first=head.index,
        num_frames=num_frames,
        tracks=tuple(replace(track, start=track.start - origin) for track in tracks),
        origin=origin,
        sound=replace(sound, log_mel=sound.log_mel[rows], mfcc=sound.mfcc[rows]),
        sharpness=sharpness,
    )


def _measured(
    frames: Iterable[FrameFeatures], sharpness: dict[int, list[tuple[int, float]]]
) -> Iterator[FrameFeatures]:
    """The frames as they are; the sharpness of their faces is added to `sharpness`."""
    for frame in frames:
        for face in frame.faces if frame.index % SHARPNESS_EVERY == 0 else ():
            if face.is_measured:
                value = measure_sharpness(face.face_rgb[_FACE_ROWS, _FACE_COLUMNS])
                sharpness.setdefault(face.track_id, []).append((frame.index, value))
        yield frame
