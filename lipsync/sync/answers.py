"""The report on a clip for users: plain values with the names of the documents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar, cast

import numpy as np

from facevox.addresses import Address
from lipsync.clips.clock import FRAME_HZ, ROW_HZ
from lipsync.sync.changes import Drift, Jumps
from lipsync.sync.offset import LAG_MS
from lipsync.sync.scoring import ClipScore, FaceScore, Judgement
from lipsync.sync.verdicts import change_text, guess_odds

if TYPE_CHECKING:
    from facevox.media import MediaInfo
    from lipsync.clips.features import ClipFeatures
    from lipsync.sync.methods import Method
    from lipsync.sync.timing import Timing

D = TypeVar("D", bound=Mapping[str, object])
LENGTHS_DIFFER_S = 1.0  # of picture and sound, before it is worth a warning
FEW_FACES_SHARE = 0.7  # of the frames with a face
FEW_FRAMES_HZ = 20.0


@dataclass(frozen=True)
class Source:
    """Files that a clip was read from.

    Attributes:
        video, audio: Names; audio is "" for the video's own track.
        info: Of the video.
        notes: Sentences about its sound (`facevox.media.iter_audio`).
        max_duration_s: Limit on what was read.
    """

    video: str
    audio: str
    info: MediaInfo
    notes: Sequence[str]
    max_duration_s: float


class Judged(TypedDict):
    """Score, offset and verdict of a clip or a face; all come from one posterior.

    Without a verdict that stands for an offset (cannot_tell, no_match), the offset and its interval are nan;
    then the best guess says what would be likeliest, and how likely. With one they are nan.
    """

    score: float  # probability of being in sync; nan where nothing can be compared
    offset_ms: float  # positive: audio early
    offset_interval_ms: list[float]  # 90 %
    best_guess_ms: float
    best_guess_odds: float  # that it is right to 40 ms: 3 stands for 3 to 1
    confidence: float  # probability that the likeliest offset is right to 40 ms
    verdict: str
    text: str
    reason: str
    band: str


class FaceDetails(Judged):
    """Score, offset and verdict of a face, and which face it is."""

    face: int
    is_speaking: bool  # at some time
    speaking_s: float
    speaks: list[list[float]]  # start and end in s of each stretch
    start_s: float
    end_s: float
    box_px: list[int]


class PointDetails(TypedDict):
    """Score and offset of a second."""

    time_s: float
    score: float
    offset_ms: float


class JumpDetails(TypedDict):
    """A moment at which the offset changes."""

    time_s: float
    before_ms: float
    after_ms: float


class PartDetails(TypedDict):
    """A stretch with one offset."""

    start_s: float
    end_s: float
    offset_ms: float


class RecorderDetails(TypedDict):
    """Place of a video in another recorder's sound: moment t is at start_s + t * (1 + drift_ppm / 1e6)."""

    start_s: float
    drift_ppm: float  # positive: the recorder's clock runs ahead


class Details(Judged):
    """All about a clip; unknown numbers are nan.

    Where a file was to be written, the JSON of inference.py also has `is_corrected` and `message`.
    """

    offset_frames: float  # of the video
    method: str
    checkpoint: str  # its file; "" without one
    curve: list[PointDetails]
    faces: list[FaceDetails]
    speaking_face: int | None  # who speaks longest
    recorder: RecorderDetails | None  # where the sound was placed before lips were compared with it
    drift_ppm: int | None
    jump: JumpDetails | None  # the first one
    parts: list[PartDetails]  # between the jumps
    duration_s: float
    fps: float
    num_frames: int
    video: str
    audio: str
    max_offset_ms: float
    ffmpeg: str  # the command that puts the sound right; "" where it is in sync or that is unknown
    warnings: list[str]


def make_details(clip: ClipFeatures, score: ClipScore, source: Source, method: Method) -> Details:
    """All about a clip as plain values."""
    judgement = score.judgement
    speaking = [face for face in score.faces if face.is_speaking]
    chosen = max(speaking, key=lambda face: (face.speaking_s, face.evidence), default=None)
    fps = source.info.rate_hz or FRAME_HZ
    change = score.change
    return {
        **judged_details(judgement),
        "offset_frames": _rounded(judgement.offset_ms * fps / 1000, 2),
        "method": method.name,
        "checkpoint": method.checkpoint,
        "curve": [
            {
                "time_s": point.time_s,
                "score": round(point.score, 4),
                "offset_ms": _rounded(point.offset_ms, 1),
            }
            for point in score.curve
        ],
        "faces": [_face(face) for face in score.faces],
        "speaking_face": None if chosen is None else chosen.track.track_id,
        "recorder": None if score.placed is None else _recorder(score.placed),
        "drift_ppm": round(change.ppm) if isinstance(change, Drift) else None,
        "jump": _first_jump(change) if isinstance(change, Jumps) else None,
        "parts": _parts(change) if isinstance(change, Jumps) else [],
        "duration_s": round(clip.num_frames / FRAME_HZ, 3),
        "fps": round(source.info.rate_hz, 3),
        "num_frames": clip.num_frames,
        "video": source.video,
        "audio": source.audio,
        "max_offset_ms": LAG_MS * float(score.lags[-1]),
        "ffmpeg": _ffmpeg_line(source, score),
        "warnings": [*method.notes, *_warnings(clip, score, source)],
    }


def _recorder(placed: Timing) -> RecorderDetails:
    return {
        "start_s": _rounded(-placed.offset_ms / 1000, 4),
        "drift_ppm": _rounded(-placed.drift_ppm, 2),
    }


def _ffmpeg_line(source: Source, score: ClipScore) -> str:
    # PyAV: where a clip was read it is loaded already.
    from lipsync.repair.plan import ffmpeg_line, plan_timing

    timing = plan_timing(score)
    if timing is None:
        return ""
    return ffmpeg_line(Path(source.video), Path(source.audio) if source.audio else None, timing)


def _rounded(value: float, digits: int) -> float:
    """`value` rounded, never to -0.0, which reads as a direction."""
    return round(value, digits) + 0.0


def judged_details(judgement: Judgement) -> Judged:
    """A judgement as plain values; unknown numbers are nan."""
    posterior, is_reported = judgement.posterior, not math.isnan(judgement.offset_ms)
    interval, guess, odds = [math.nan] * 2, math.nan, math.nan
    if posterior is not None and is_reported:
        interval = [_rounded(side, 1) for side in posterior.interval_ms]
    elif posterior is not None:
        guess, odds = _rounded(posterior.offset_ms, 1), float(f"{guess_odds(posterior):.2g}")
    return {
        "score": round(judgement.score, 4),
        "offset_ms": _rounded(judgement.offset_ms, 1),
        "offset_interval_ms": interval,
        "best_guess_ms": guess,
        "best_guess_odds": odds,
        "confidence": 0.0 if posterior is None else round(posterior.confidence, 3),
        "verdict": judgement.verdict.kind,
        "text": judgement.verdict.text,
        "reason": judgement.verdict.reason,
        "band": judgement.verdict.band,
    }


def _face(face: FaceScore) -> FaceDetails:
    track = face.track
    return {
        "face": track.track_id,
        **judged_details(face.judgement),
        "is_speaking": face.is_speaking,
        "speaking_s": round(face.speaking_s, 1),
        "speaks": [[round(start_s, 1), round(end_s, 1)] for start_s, end_s in face.speaks_s],
        "start_s": round(track.start / FRAME_HZ, 2),
        "end_s": round((track.start + len(track)) / FRAME_HZ, 2),
        "box_px": [round(float(side)) for side in np.median(track.boxes_px, axis=0)],
    }


def _first_jump(jumps: Jumps) -> JumpDetails:
    before, after = jumps.parts[:2]
    return {
        "time_s": round(after.start_s, 1),
        "before_ms": _rounded(before.offset_ms, 1),
        "after_ms": _rounded(after.offset_ms, 1),
    }


def _parts(jumps: Jumps) -> list[PartDetails]:
    return [
        {
            "start_s": round(part.start_s, 1),
            "end_s": round(part.end_s, 1),
            "offset_ms": _rounded(part.offset_ms, 1),
        }
        for part in jumps.parts
    ]


def _warnings(clip: ClipFeatures, score: ClipScore, source: Source) -> list[str]:
    warnings = []
    duration_s, sound_s = clip.num_frames / FRAME_HZ, len(clip.sound.log_mel) / ROW_HZ
    if score.change is not None:
        warnings.append(f"{change_text(score.change)}; offset_ms is one number for all of it")
    warnings += source.notes
    if source.info.is_variable_rate:
        warnings.append("variable frame rate; frames are taken by their time stamps")
    whole_s, max_s = source.info.duration_s, source.max_duration_s
    if whole_s > max_s + 0.5:
        warnings.append(f"only the first {max_s:g} s of {whole_s:.0f} (data.max_duration_s)")
    elif abs(duration_s - sound_s) > LENGTHS_DIFFER_S:
        warnings.append(
            f"{duration_s:.1f} s of video and {sound_s:.1f} s of sound; only what both have counts"
        )
    if 0 < source.info.rate_hz < FEW_FRAMES_HZ:
        warnings.append(f"{source.info.rate_hz:.1f} frames a second show lips too coarsely for single frames")
    if clip.tracks:
        has_face = np.zeros(clip.num_frames, np.bool_)
        for track in clip.tracks:
            has_face[track.start : track.start + len(track)] = True
        if has_face.mean() < FEW_FACES_SHARE:
            warnings.append(f"a face is seen in {has_face.mean():.0%} of the frames")
    return warnings


def without_nan(value: object) -> object:
    """`value` with None instead of every nan or infinity, for JSON."""
    if isinstance(value, dict):
        return {key: without_nan(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def named_details(details: D, video: Path | Address, audio: Path | Address | None) -> D:
    """The details of files that may have come from addresses, with the names of these and no command."""
    if not isinstance(video, Address) and not isinstance(audio, Address):
        return details
    names = {"video": str(video), "audio": str(audio or ""), "ffmpeg": ""}
    return cast(D, {**details, **{name: text for name, text in names.items() if name in details}})


def summary_lines(details: Details) -> list[str]:
    """The report for a terminal."""
    lines = [f"score: {details['score']:.3f}" if not math.isnan(details["score"]) else "score: unknown"]
    lines.append(f"verdict: {details['text']}")
    recorder = details["recorder"]
    if recorder is not None:
        lines.append(
            f"sound of another recorder: the video begins at {recorder['start_s']:.3f} s of it, the clocks "
            f"differ by {recorder['drift_ppm']:+.1f} ppm; the verdict is on the sound placed there"
        )
    if not math.isnan(details["offset_ms"]):
        low, high = details["offset_interval_ms"]
        lines.append(
            f"offset: {round(details['offset_ms']):+d} ms = "
            f"{_rounded(details['offset_frames'], 1):+.1f} frames, 90 % between "
            f"{low:+.0f} and {high:+.0f} ms (positive: audio early); {details['band']} (ITU-R BT.1359)"
        )
    elif not math.isnan(details["best_guess_ms"]) and details["reason"].find("best guess") < 0:
        lines.append(
            f"best guess: {round(details['best_guess_ms']):+d} ms, odds {details['best_guess_odds']:g} to 1 "
            "that it is right to 40 ms"
        )
    if details["ffmpeg"]:
        lines.append(f"with ffmpeg: {details['ffmpeg']}")
    if len(details["faces"]) > 1:
        speaking = [
            f"{face['face']} ({face['speaking_s']:g} s)" for face in details["faces"] if face["is_speaking"]
        ]
        lines.append(f"faces: {len(details['faces'])}, speaking: {', '.join(speaking) or 'none'}")
    lines.append(f"method: {details['method']}")
    lines += [f"warning: {text}" for text in details["warnings"]]
    return lines
