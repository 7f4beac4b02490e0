"""Clip files of many videos: the task of the batch, and its items."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from facevox.batch import FileItem, Outcome, Task
from facevox.errors import NoFaceError, UserError
from facevox.files import VIDEO_PATTERNS, find_files, relative_name, require_folder
from facevox.limits import SPARE_BYTES
from facevox.media import MediaInfo, changed_kinds, probe
from facevox.mesh.kinds import FACE_MESH, describe_mesh
from facevox.naming import plan_names
from facevox.suffixes import SOUND_SUFFIXES, patterns
from lipsync.clips.clip_files import write_clip
from lipsync.clips.clock import CLOCK, FRAME_HZ, ROW_HZ
from lipsync.clips.features import ClipFeatures, extract_clip
from lipsync.clips.sounds import SILENCE_DB, require_features
from lipsync.settings import AudioSettings, DataSettings, Settings

# Those that were searched for at first: of several sounds of a video they come first, as before.
_FIRST_SOUNDS = (".wav", ".mp3", ".flac", ".m4a", ".aac", ".ogg", ".opus", ".wma", ".aiff", ".mka")
COLUMNS = (
    "video", "audio", "clip_file", "speaker", "duration_s", "sound_s", "num_frames", "num_tracks",
    "num_shots", "face_share", "source_rate_hz", "note",
)  # fmt: skip
# Measured: of a face in a frame beside its mouth (points, similarities), of sound with its features, and of
# the decoders and libraries.
_FACE_BYTES, _SOUND_BYTES_PER_S, _DECODING_BYTES = 2500, 200_000, 250_000_000
MAX_LENGTH_DIFFERENCE_S = 1.0  # of picture and sound, before it is noted


@dataclass(frozen=True, kw_only=True)
class ClipItem(FileItem):
    """A video to be cut.

    Attributes:
        audio: Path of the sound file, or "": the sound is in the video.
        audio_name: Its name, or "".
        speaker: Name of the person who speaks, or "".
        notes: Remarks for the table.
    """

    audio: str
    audio_name: str
    speaker: str
    notes: tuple[str, ...]


# Of 12 h of sound: samples 1.4 GB, onsets 0.4 GB, and as much while they are made.
RECORDING_BYTES = 4_000_000_000


def changed_clip(video: str, audio: str) -> list[str]:
    """The kinds of a video, and of its sound if that is a separate file, which were read otherwise before."""
    kinds = changed_kinds(video, pictures=True, sound=not audio, grid_hz=FRAME_HZ)
    return [*kinds, *(changed_kinds(audio, sound=True) if audio else [])]


def clip_bytes(data: DataSettings, has_other_sound: bool = False) -> int:
    """Memory that reading and scoring a clip may take: as many faces and as long as the settings allow.

    Args:
        data: The settings.
        has_other_sound: Whether the sound is another file, which may have hours.
    """
    face_bytes = data.mouth_crop_px**2 + _FACE_BYTES
    second_bytes = FRAME_HZ * data.max_faces * face_bytes + _SOUND_BYTES_PER_S
    other_bytes = RECORDING_BYTES if has_other_sound else 0
    return max(SPARE_BYTES, round(data.max_duration_s * second_bytes) + _DECODING_BYTES) + other_bytes


class ClipTask(Task[ClipItem]):
    """Writes `<video without suffix>.npz` below the output folder for each video."""

    detector = describe_mesh(FACE_MESH)

    def __init__(self, data: DataSettings, audio: AudioSettings) -> None:
        self.data = data
        self.audio = audio
        self.spare_bytes = clip_bytes(data)

    def check(self) -> None:
        """Refuses librosa where it is not installed, before the workers start."""
        require_features(self.audio.features)

    def open(self, output_dir: Path) -> None:
        """One thread a worker: the workers share the cores."""
        super().open(output_dir)
        cv2.setNumThreads(1)

    def changes(self, item: ClipItem) -> list[str]:
        """Kinds of pictures and sound that were read otherwise."""
        return changed_clip(item.path, item.audio)

    def process(self, item: ClipItem) -> Outcome:
        """Writes the clip of one video; the sound comes from `item.audio`, or else from the video.

        Raises:
            NoFaceError: No face, or none for long enough.
            UserError: Not readable, no sound, too short.
        """
        info = probe(item.path, with_times=True)
        if not info.has_video:
            raise UserError("no video stream")
        audio = item.audio
        if not audio and not info.has_audio:
            raise UserError("no audio: the video has no sound track and there is no sound file of its name")
        notes = list(item.notes)
        clip = extract_clip(
            item.path,
            audio or None,
            max_faces=self.data.max_faces,
            crop_px=self.data.mouth_crop_px,
            num_mels=self.audio.num_mels,
            num_mfcc=self.audio.num_mfcc,
            features=self.audio.features,
            choice=self.audio.choice,
            notes=notes,
            info=info,
            max_duration_s=self.data.max_duration_s,
        )
        duration_s, sound_s = clip.num_frames / FRAME_HZ, len(clip.sound.log_mel) / ROW_HZ
        least_s = self.data.min_duration_s
        for part, length_s in (("video", duration_s), ("sound", sound_s)):
            if length_s < least_s:
                raise UserError(f"too short: {length_s:.2f} s of {part}, data.min_duration_s is {least_s:g}")
        if not clip.tracks:
            raise NoFaceError(f"no face in {clip.num_frames} frames")
        tracks = tuple(track for track in clip.tracks if len(track) >= round(least_s * FRAME_HZ))
        if not tracks:
            longest_s = len(clip.tracks[0]) / FRAME_HZ
            raise NoFaceError(
                f"no face is seen for {least_s:g} s on end (data.min_duration_s); "
                f"the longest: {longest_s:.2f} s"
            )
        clip = replace(clip, tracks=tracks)
        names = {"video": item.name, "audio": item.audio_name, "speaker": item.speaker}
        target = item.output
        source = names | {"features": self.audio.features, "mesh": FACE_MESH, "clock": str(CLOCK)}
        write_clip(self.output_dir / target, clip, source, sync=False)
        has_face = np.zeros(clip.num_frames, np.bool_)
        for track in tracks:
            has_face[track.start : track.start + len(track)] = True
        row = {
            **names,
            "clip_file": target,
            "duration_s": round(duration_s, 2),
            "sound_s": round(sound_s, 2),
            "num_frames": clip.num_frames,
            "num_tracks": len(tracks),
            "num_shots": len(clip.shot_starts),
            "face_share": round(float(has_face.mean()), 3),
            "source_rate_hz": round(info.rate_hz, 3),
            "note": "; ".join([*notes, *self._notes(info, clip, duration_s, sound_s)]),
        }
        return Outcome(rows=[row], outputs=[target])

    def _notes(self, info: MediaInfo, clip: ClipFeatures, duration_s: float, sound_s: float) -> list[str]:
        """Remarks for the manifest on a clip that is used."""
        notes = []
        if info.is_variable_rate:
            notes.append("variable frame rate repaired (nearest frame in time)")
        if duration_s >= self.data.max_duration_s - 0.02 and info.duration_s > duration_s + 0.1:
            notes.append(
                f"the first {self.data.max_duration_s:g} s of {info.duration_s:.0f} (data.max_duration_s)"
            )
        if abs(duration_s - sound_s) > MAX_LENGTH_DIFFERENCE_S:
            notes.append(f"{duration_s:.1f} s of video and {sound_s:.1f} s of sound")
        if float(clip.sound.log_mel.max()) < SILENCE_DB:
            notes.append("silent")
        return notes


def plan_clips(settings: Settings) -> list[ClipItem]:
    """An item for each video below `paths.videos_dir`, with its sound, speaker and output name.

    Raises:
        UserError: No such folder, or no video in it.
    """
    root = Path(settings.paths.videos_dir)
    processed = [settings.paths.processed_dir]
    videos = find_files(root, VIDEO_PATTERNS, exclude=processed, what="paths.videos_dir")
    names = [relative_name(path, root) for path in videos]
    sounds_by_stem = _find_sounds(Path(settings.paths.audios_dir))
    items = []
    for name, path, target in zip(names, videos, plan_names(names, ".npz"), strict=True):
        sounds = sounds_by_stem.get(PurePosixPath(name).with_suffix("").as_posix(), [])
        item = ClipItem(
            name,
            str(path),
            target,
            tuple(str(sound) for _, sound in sounds[:1]),
            audio=str(sounds[0][1]) if sounds else "",
            audio_name=sounds[0][0] if sounds else "",
            speaker=speaker_of(name, settings.data.speaker_regex),
            notes=(f"{len(sounds)} sounds of this name, {sounds[0][0]} is used",) if len(sounds) > 1 else (),
        )
        items.append(item)
    return items


def _find_sounds(root: Path) -> dict[str, list[tuple[str, Path]]]:
    """The sound files by their relative path without suffix; none where there is no such folder."""
    if not root.exists():
        return {}
    require_folder(root, "paths.audios_dir")
    try:
        files: Sequence[Path] = find_files(root, patterns(SOUND_SUFFIXES), what="paths.audios_dir")
    except UserError:  # nothing in it: the videos have sound tracks of their own
        return {}
    sounds: dict[str, list[tuple[str, Path]]] = {}
    for path in sorted(files, key=lambda path: path.suffix.lower() not in _FIRST_SOUNDS):
        name = relative_name(path, root)
        sounds.setdefault(PurePosixPath(name).with_suffix("").as_posix(), []).append((name, path))
    return sounds


def speaker_of(name: str, speaker_regex: str) -> str:
    """Speaker of the video `name`: the first group of the expression, else the top sub-folder, else ""."""
    if speaker_regex:
        match = re.search(speaker_regex, name)
        return (match[1] or "") if match else ""
    parts = PurePosixPath(name).parts
    return parts[0] if len(parts) > 1 else ""
