"""Candidates: parts of a video that may become a clip, with what speaks for and against each.

The offset of a face is measured over the whole of its track, which is more evidence than a clip of it has;
where it jumps, over each part, and the track is cut there. A clip is then judged with that offset: the
probability that its own lips and sound match at it is the lesser of the track's and the clip's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lipsync.cleaning.options import CleanOptions
from lipsync.cleaning.shots import Shot, VideoSound
from lipsync.cleaning.stretches import EDGE_FRAMES, cut_clips, find_stretches
from lipsync.clips.clock import FRAME_HZ
from lipsync.sync.changes import Drift, Jumps, find_change
from lipsync.sync.offset import LAG_MS, search_lags
from lipsync.sync.posterior import Posterior, block_evidence, find_posterior
from lipsync.sync.scoring import TOO_LITTLE
from lipsync.sync.verdicts import UNLIKELY_MATCH, change_text, face_fault, sound_fault

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lipsync.clips.features import FaceTrack
    from lipsync.sync.methods import Method

TOO_SHORT, TOO_SMALL, BLURRED, LITTLE_SPEECH = "too_short", "too_small", "blurred", "little_speech"
NO_MATCH, CANNOT_TELL, LOW_CONFIDENCE, DRIFT = "no_match", "cannot_tell", "low_confidence", "drift"
# The moment of a jump is known to a block or two; a second around it goes.
JUMP_EDGE_FRAMES = 12


@dataclass(frozen=True)
class Measured:
    """The offset of a face in a part of its track.

    Attributes:
        start, end: Frames of the video.
        similarities: (frames, L) of the part; empty without an answer.
        posterior: Of the part; None without an answer.
        reason: CANNOT_TELL or DRIFT with details; "" with a posterior.
    """

    start: int
    end: int
    similarities: NDArray[np.float32]
    posterior: Posterior | None = None
    reason: str = ""


@dataclass(frozen=True)
class Candidate:
    """A part of a video that may become a clip; what was not measured is nan or None.

    Attributes:
        start, end: Frames of 25 a second, the first and one past the last.
        shot: Its number.
        face: `track_id`.
        box_px: (4,) median left, top, width and height of the face.
        extent_px: (4,) left, top, right and bottom that the face stays within.
        sharpness, speech_share: As in `CleanOptions`.
        posterior: Over offsets, of the whole track (up to a jump).
        confidence: Probability that lips and sound of the clip are within `max_remaining_ms` without that
            offset.
        reasons: Why it is dropped, the strongest first; none: it is kept.
    """

    start: int
    end: int
    shot: int
    face: int | None = None
    box_px: NDArray[np.float64] | None = None
    extent_px: NDArray[np.float64] | None = None
    sharpness: float = math.nan
    speech_share: float = math.nan
    posterior: Posterior | None = None
    confidence: float = math.nan
    reasons: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end - self.start) / FRAME_HZ


def find_candidates(
    shot: Shot,
    sound: VideoSound,
    pauses: Sequence[tuple[int, int]],
    method: Method,
    options: CleanOptions,
) -> Iterator[Candidate]:
    """The candidates of a shot in order, each with the reasons why it is dropped.

    Args:
        shot: The shot.
        sound: Of the whole video.
        pauses: Of its speech, in frames of 25 a second.
        method: Compares lips and sound.
        options: The limits.
    """
    first = shot.first - shot.origin
    measured: dict[int, list[Measured]] = {}
    for stretch in find_stretches(shot.tracks, first, shot.num_frames, options.other_face_share):
        start, end = stretch.start + shot.origin, stretch.end + shot.origin
        if stretch.track is None:
            yield Candidate(start, end, shot.number, reasons=(stretch.reason,))
            continue
        track = shot.tracks[stretch.track]
        if end - start - 2 * EDGE_FRAMES < round(options.min_clip_s * FRAME_HZ):
            yield Candidate(start, end, shot.number, track.track_id, reasons=(TOO_SHORT,))
            continue
        if stretch.track not in measured:
            measured[stretch.track] = _measure(shot, track, method)
        for part in measured[stretch.track]:
            first, last = max(start + EDGE_FRAMES, part.start), min(end - EDGE_FRAMES, part.end)
            if first < last:
                for clip in cut_clips(first, last, pauses, options.min_clip_s, options.max_clip_s):
                    yield _judge(*clip, track, part, shot, sound, method, options)


def _measure(shot: Shot, track: FaceTrack, method: Method) -> list[Measured]:
    """The parts of a face with one offset each."""
    lags = search_lags()
    start, end = shot.origin + track.start, shot.origin + track.start + len(track)
    nothing = np.zeros((0, len(lags)), np.float32)
    fault = sound_fault(shot.sound) or face_fault(track)
    if fault:
        return [Measured(start, end, nothing, reason=f"{CANNOT_TELL}: {fault}")]
    similarities = method.estimator.similarities(track, shot.sound, lags)
    evidence, _ = block_evidence(similarities, method.calibration.sharpness)
    change = find_change(evidence, lags)
    if isinstance(change, Drift):
        return [Measured(start, end, nothing, reason=f"{DRIFT}: {change_text(change)}")]
    bounds = [(0, len(track))]
    if isinstance(change, Jumps):
        edges = [0, *(round(part.end_s * FRAME_HZ) for part in change.parts[:-1]), len(track)]
        bounds = [
            (first + JUMP_EDGE_FRAMES * (first > 0), last - JUMP_EDGE_FRAMES * (last < len(track)))
            for first, last in itertools.pairwise(edges)
        ]
    parts = []
    for first, last in bounds:
        part = similarities[first:last]
        posterior = _find_posterior(part, lags, method)
        reason = "" if posterior is not None else f"{CANNOT_TELL}: {TOO_LITTLE}"
        parts.append(Measured(start + first, start + last, part, posterior, reason))
    return parts


def _find_posterior(
    similarities: NDArray[np.float32],
    lags: NDArray[np.int64],
    method: Method,
    is_possible: NDArray[np.bool_] | None = None,
) -> Posterior | None:
    """The posterior of (frames, L) similarities; None where too little can be compared.

    Args:
        similarities: Of consecutive frames.
        lags: (L,).
        method: Its calibration.
        is_possible: (L,) neighbouring lags that the offset is known to be one of; None: all are.
    """
    if len(similarities) == 0:
        return None
    # Evidence is relative to all lags of the search, whatever is possible.
    evidence, counts = block_evidence(similarities, method.calibration.sharpness)
    total = evidence.sum(axis=0, dtype=np.float64)
    if is_possible is not None:
        total, lags = total[is_possible], lags[is_possible]
    return find_posterior(total, int(counts.sum()), lags, method.calibration)


def _judge(
    start: int,
    end: int,
    track: FaceTrack,
    part: Measured,
    shot: Shot,
    sound: VideoSound,
    method: Method,
    options: CleanOptions,
) -> Candidate:
    """The clip of the frames `start` to before `end` with its values and all reasons against it."""
    first = shot.origin + track.start
    boxes = track.boxes_px[start - first : end - first].astype(np.float64)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    candidate = Candidate(
        start,
        end,
        shot.number,
        track.track_id,
        np.median(boxes, axis=0),
        np.concatenate([corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)]),
        shot.median_sharpness(track.track_id, start, end),
        sound.speech_share(start, end),
        part.posterior,
    )
    if part.posterior is not None:
        of_clip = part.similarities[start - part.start : end - part.start]
        confidence = clip_confidence(part.posterior, of_clip, method, options.max_remaining_ms)
        candidate = replace(candidate, confidence=confidence)
    return replace(candidate, reasons=find_reasons(candidate, part.reason, options))


def clip_confidence(
    posterior: Posterior, similarities: NDArray[np.float32], method: Method, max_remaining_ms: float
) -> float:
    """Probability that a clip is in sync once its sound is moved by the offset of its track.

    Args:
        posterior: Of the whole track.
        similarities: (frames, L) of the clip.
        method: Its calibration.
        max_remaining_ms: What counts as in sync.
    """
    offset_ms = posterior.offset_ms
    # The clip's own match, at offsets near the track's alone.
    is_near = np.abs(posterior.lags * LAG_MS - offset_ms) <= max_remaining_ms
    of_clip = _find_posterior(similarities, posterior.lags, method, is_near)
    if of_clip is None:
        return 0.0
    mass = posterior.mass_between(offset_ms - max_remaining_ms, offset_ms + max_remaining_ms)
    return min(posterior.match, of_clip.match) * mass


def find_reasons(candidate: Candidate, fault: str, options: CleanOptions) -> tuple[str, ...]:
    """All reasons against a candidate with a face, the strongest first.

    Args:
        candidate: With its values.
        fault: Of the measurement; "" without one.
        options: The limits.
    """
    reasons = []
    if candidate.seconds < options.min_clip_s:
        reasons.append(TOO_SHORT)
    if candidate.box_px is not None and candidate.box_px[2] < options.min_face_px:
        reasons.append(TOO_SMALL)
    if candidate.sharpness < options.min_sharpness:
        reasons.append(BLURRED)
    posterior = candidate.posterior
    if posterior is None:
        reasons.append(fault)
    elif posterior.match <= UNLIKELY_MATCH:
        reasons.append(NO_MATCH)
    elif posterior.is_at_edge:
        reasons.append(f"{CANNOT_TELL}: the likeliest offset is at the end of the search")
    elif candidate.confidence < options.min_confidence:
        reasons.append(LOW_CONFIDENCE)
    if candidate.speech_share < options.min_speech_share:
        reasons.append(LITTLE_SPEECH)
    return tuple(reasons)
