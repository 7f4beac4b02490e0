"""Cleaning of many videos: the task of the batch, and its items."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2

from facevox.batch import Item, Outcome, Task
from facevox.errors import NoFaceError, UserError
from facevox.files import VIDEO_PATTERNS, find_files, relative_name
from facevox.manifest import Record
from facevox.media import MediaInfo, phase_s, probe
from facevox.mesh.kinds import FACE_MESH, describe_mesh
from facevox.naming import plan_names
from facevox.speech import FRAME_S
from lipsync.cleaning.clip_writing import ClipForm, face_square, write_clip
from lipsync.cleaning.judging import Candidate, find_candidates
from lipsync.cleaning.options import FACE_CROP, CleanOptions
from lipsync.cleaning.shots import iter_shots, read_sound
from lipsync.cleaning.stretches import NO_FACE, find_pauses
from lipsync.clips.clip_task import changed_clip, clip_bytes
from lipsync.clips.clock import FRAME_HZ
from lipsync.clips.features import extract_clip, iter_face_features
from lipsync.clips.sounds import require_features
from lipsync.settings import Settings
from lipsync.sync.methods import Method
from lipsync.sync.posterior import Posterior
from lipsync.sync.scoring import score_clip
from lipsync.sync.verdicts import UNLIKELY_MATCH

logger = logging.getLogger(__name__)

COLUMNS = (
    "clip", "video", "start_s", "end_s", "shot", "face", "offset_ms", "offset_low_ms", "offset_high_ms",
    "score", "confidence", "remaining_ms", "face_px", "sharpness", "speech_share", "kept", "file",
)  # fmt: skip
CLIPS_DIR = "clips"
KEPT, DROPPED = "yes", "no"
NOT_IN_SYNC = "not_in_sync"  # of --check
# Longer videos are used up to here: the features of their sound are in memory, 22 kB a second.
MAX_VIDEO_S = 4 * 3600.0
_SOUND_BYTES_PER_S = 25_000
# Decoder and encoder at once. Measured with 3840 x 2160 pixels: 2.4 GB in all.
_WRITING_BYTES = 1_500_000_000


@dataclass(frozen=True, kw_only=True)
class VideoItem(Item):
    """A video; its clips are `<stem>_<number>.mp4` below CLIPS_DIR."""

    stem: str


class CleanTask(Task[VideoItem]):
    """Cuts a video into clips of one face each and writes those that meet the limits.

    Args:
        make_method: Opens the estimator; picklable, called in the process that measures.
        settings: Their sections data and audio. A shot of more than data.max_duration_s comes in parts.
        options: The limits and the form of the clips.
        uses_torch: Whether to limit torch to one thread: the workers share the cores.
    """

    detector = describe_mesh(FACE_MESH)

    def __init__(
        self,
        make_method: Callable[[], Method],
        settings: Settings,
        options: CleanOptions,
        *,
        uses_torch: bool,
    ) -> None:
        sound_bytes = round(MAX_VIDEO_S * _SOUND_BYTES_PER_S)
        self.spare_bytes = clip_bytes(settings.data) + sound_bytes + _WRITING_BYTES
        self._make_method = make_method
        self._settings = settings
        self._options = options
        self._uses_torch = uses_torch
        self._method: Method | None = None

    def check(self) -> None:
        """Refuses a file that is not a checkpoint, and librosa where it is not installed."""
        require_features(self._settings.audio.features)
        self._make_method()

    def open(self, output_dir: Path) -> None:
        """One thread a worker: the workers share the cores."""
        super().open(output_dir)
        cv2.setNumThreads(1)
        if self._uses_torch:
            import torch  # seconds, which workers without a checkpoint do not need

            torch.set_num_threads(1)
        self._method = self._make_method()

    def changes(self, item: VideoItem) -> list[str]:
        """Kinds of pictures and sound that were read otherwise."""
        return changed_clip(item.path, "")

    def process(self, item: VideoItem) -> Outcome:
        """Writes the clips of one video; a row for each candidate.

        Raises:
            NoFaceError: No face at all.
            UserError: Not readable, no pictures, no sound.
        """
        if self._method is None:
            raise RuntimeError("open() comes first")
        info = probe(item.path)
        if not info.has_video:
            raise UserError("no video stream")
        if not info.has_audio:
            raise UserError("no sound")
        notes: list[str] = []
        candidates = self._find_candidates(item, info, self._method, notes)
        if all(candidate.reasons == (NO_FACE,) for candidate in candidates):
            seconds = sum(candidate.seconds for candidate in candidates)
            raise NoFaceError(f"no face in {seconds:.1f} s")
        if info.duration_s > MAX_VIDEO_S:
            notes.append(f"the first {MAX_VIDEO_S:g} s of {info.duration_s:.0f}")
        outputs: list[str] = []
        try:
            rows = [
                self._finish(item, number, candidate, info, outputs)
                for number, candidate in enumerate(candidates)
            ]
        except BaseException:
            for name in outputs:  # a video whose clips are not all written has none
                (self.output_dir / name).unlink(missing_ok=True)
            raise
        return Outcome(rows=rows, outputs=outputs, reason="; ".join(notes))

    def _find_candidates(
        self, item: VideoItem, info: MediaInfo, method: Method, notes: list[str]
    ) -> list[Candidate]:
        data, start_s = self._settings.data, phase_s(info, FRAME_HZ)
        sound = read_sound(item.path, start_s, MAX_VIDEO_S, self._settings.audio, notes)
        pauses = find_pauses(sound.is_speech, FRAME_S)
        frames = iter_face_features(
            item.path,
            max_faces=data.max_faces,
            crop_px=data.mouth_crop_px,
            with_mouths=method.estimator.needs_mouths,
            start_s=start_s,
            max_duration_s=MAX_VIDEO_S,
        )
        return [
            candidate
            for shot in iter_shots(frames, sound.features, round(data.max_duration_s * FRAME_HZ))
            for candidate in find_candidates(shot, sound, pauses, method, self._options)
        ]

    def _finish(
        self, item: VideoItem, number: int, candidate: Candidate, info: MediaInfo, outputs: list[str]
    ) -> Mapping[str, object]:
        """The row of a candidate, whose clip is written if it is good; its name is added to `outputs`."""
        name, remaining_ms = "", math.nan
        if not candidate.reasons and not self._options.table_only:
            name = f"{CLIPS_DIR}/{item.stem}_{number:03d}.mp4"
            outputs.append(name)  # before it is there, so that a failure removes it
            self._write(self.output_dir / name, item, candidate, info)
            if self._options.check:
                remaining = self._measure_again(self.output_dir / name)
                if remaining is not None and remaining.match > UNLIKELY_MATCH:
                    remaining_ms = remaining.offset_ms
                if self._is_off(remaining):
                    candidate = replace(candidate, reasons=(NOT_IN_SYNC,))
                    outputs.remove(name)
                    (self.output_dir / name).unlink()
                    name = ""
        return _row(item, number, candidate, phase_s(info, FRAME_HZ), remaining_ms, name)

    def _write(self, target: Path, item: VideoItem, candidate: Candidate, info: MediaInfo) -> None:
        options, start_s = self._options, phase_s(info, FRAME_HZ)
        square = None
        if options.crop == FACE_CROP and candidate.box_px is not None and candidate.extent_px is not None:
            square = face_square(candidate.box_px, candidate.extent_px, info.width, info.height)
        choice = self._settings.audio.choice
        assert candidate.posterior is not None, "without one it is dropped"
        write_clip(
            target,
            Path(item.path),
            info,
            (start_s + candidate.start / FRAME_HZ, start_s + candidate.end / FRAME_HZ),
            candidate.posterior.offset_ms,
            ClipForm(square_px=square, size=options.size, fps=options.fps, choice=choice),
        )

    def _measure_again(self, clip: Path) -> Posterior | None:
        """The posterior of a written clip by itself."""
        assert self._method is not None, "open() comes first"
        data, audio = self._settings.data, self._settings.audio
        features = extract_clip(
            clip,
            max_faces=data.max_faces,
            crop_px=data.mouth_crop_px,
            with_mouths=self._method.estimator.needs_mouths,
            num_mels=audio.num_mels,
            num_mfcc=audio.num_mfcc,
            features=audio.features,
        )
        score = score_clip(features, self._method.estimator, self._method.calibration)
        return score.judgement.posterior

    def _is_off(self, remaining: Posterior | None) -> bool:
        """True where a clip is off by more than allowed, with `min_confidence`, or does not match at all."""
        if remaining is None:
            return False
        most_ms = self._options.max_remaining_ms
        is_off = remaining.match * (1 - remaining.mass_between(-most_ms, most_ms))
        return remaining.match <= UNLIKELY_MATCH or is_off >= self._options.min_confidence


def _row(
    item: VideoItem, number: int, candidate: Candidate, first_s: float, remaining_ms: float, file: str
) -> Mapping[str, object]:
    posterior = candidate.posterior
    offset_ms, low_ms, high_ms = math.nan, math.nan, math.nan
    if posterior is not None and posterior.match > UNLIKELY_MATCH:
        offset_ms, (low_ms, high_ms) = posterior.offset_ms, posterior.interval_ms
    numbers = {
        "start_s": round(first_s + candidate.start / FRAME_HZ, 3),
        "end_s": round(first_s + candidate.end / FRAME_HZ, 3),
        "offset_ms": round(offset_ms, 1),
        "offset_low_ms": round(low_ms, 1),
        "offset_high_ms": round(high_ms, 1),
        "score": math.nan if posterior is None else round(posterior.in_sync, 4),
        "confidence": round(candidate.confidence, 3),
        "remaining_ms": round(remaining_ms, 1),
        "face_px": math.nan if candidate.box_px is None else round(float(candidate.box_px[2]), 1),
        "sharpness": round(candidate.sharpness, 1),
        "speech_share": round(candidate.speech_share, 3),
    }
    row = {
        "clip": f"{item.stem}_{number:03d}",
        "video": item.name,
        "shot": candidate.shot,
        "face": "" if candidate.face is None else candidate.face,
        **{name: "" if math.isnan(value) else value + 0.0 for name, value in numbers.items()},
        "kept": DROPPED if candidate.reasons else KEPT,
        "file": file,
    }
    # Rows of clips that are kept have the remarks on the video there.
    return row | ({"reason": "; ".join(candidate.reasons)} if candidate.reasons else {})


def plan_videos(videos_dir: Path, output_dir: Path) -> list[VideoItem]:
    """An item for each video below a folder, without those in the output folder.

    Raises:
        UserError: No such folder, or no video in it.
    """
    videos = find_files(videos_dir, VIDEO_PATTERNS, exclude=[output_dir], what="--videos")
    names = [relative_name(video, videos_dir) for video in videos]
    stems = [name.removesuffix(_LONGEST_END) for name in plan_names(names, _LONGEST_END)]
    return [
        VideoItem(name, str(path), stem=stem) for name, path, stem in zip(names, videos, stems, strict=True)
    ]


_LONGEST_END = "_000000.mp4"  # leaves room for the number of a clip in names that are cut


def summary_lines(records: Iterable[Record]) -> list[str]:
    """Seconds that are kept, and those that are dropped by reason, of the records of all videos."""
    kept_s, num_kept, dropped_s = 0.0, 0, defaultdict[str, float](float)
    for record in records:
        for row in record["rows"]:
            seconds = float(row["end_s"]) - float(row["start_s"])
            if row["kept"] == KEPT:
                kept_s, num_kept = kept_s + seconds, num_kept + 1
            else:
                dropped_s[str(row["reason"]).partition(";")[0].partition(":")[0]] += seconds
    total_s = kept_s + sum(dropped_s.values())
    lines = [f"kept: {num_kept} clips, {kept_s:.0f} of {total_s:.0f} s"]
    if dropped_s:
        longest_first = sorted(dropped_s.items(), key=lambda item: -item[1])
        parts = [f"{reason} {seconds:.0f} s" for reason, seconds in longest_first]
        lines.append(f"dropped, by the first reason: {', '.join(parts)}")
    return lines
