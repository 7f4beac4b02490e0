"""The score of a clip's features: offset, verdict, each face, each second."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lipsync.clips.clock import FRAME_HZ
from lipsync.sync.changes import Change, find_change, offsets_at
from lipsync.sync.offset import MAX_OFFSET_MS, reach_ms, search_lags
from lipsync.sync.posterior import (
    BLOCK_FRAMES,
    Posterior,
    SyncCalibration,
    find_posterior,
    mixed_posterior,
)
from lipsync.sync.speakers import best_gain, find_speakers
from lipsync.sync.timing import Timing
from lipsync.sync.verdicts import UNLIKELY_MATCH, Verdict, cannot_tell, clip_fault, face_fault, judge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lipsync.clips.features import ClipFeatures, FaceTrack
    from lipsync.sync.estimators import SyncEstimator

# Each second of the curve is judged by the 5 s around it: less is mostly chance (see docs/benchmarks.md).
CURVE_WINDOW_S = 5.0
CURVE_STEP_S = 1.0
TOO_LITTLE = "lips and sound have too little in common to compare: under a second at most offsets"


@dataclass(frozen=True)
class Judgement:
    """Score and verdict of a stretch.

    Attributes:
        verdict: In words.
        posterior: All numbers come from it; None where nothing can be compared.
    """

    verdict: Verdict
    posterior: Posterior | None = None

    @property
    def score(self) -> float:
        """Probability of being in sync, 0 to 1; nan where nothing can be compared."""
        return math.nan if self.posterior is None else self.posterior.in_sync

    @property
    def offset_ms(self) -> float:
        """The offset where the verdict stands for one, else nan."""
        return self.posterior.offset_ms if self.posterior is not None and self.verdict.band else math.nan


@dataclass(frozen=True)
class FaceScore:
    """The judgement of one face.

    Attributes:
        track: The face.
        judgement: Of the whole of it.
        evidence: For its best lag, less that for the median one.
        is_speaking: Whether the clip's own judgement rests on it.
    """

    track: FaceTrack
    judgement: Judgement
    evidence: float
    is_speaking: bool


@dataclass(frozen=True)
class CurvePoint:
    """Score and offset of the window around a moment; nan without an answer."""

    time_s: float
    score: float
    offset_ms: float


@dataclass(frozen=True)
class ClipScore:
    """The judgement of a clip, of its faces and of its seconds.

    Attributes:
        judgement: Of the clip.
        faces: In the order of the clip's tracks.
        curve: Second by second.
        change: A drift or jumps.
        evidence: (blocks, L) of the face that speaks (`lipsync.sync.posterior`), 0 where none does; empty
            without an answer.
        lags: (L,).
        num_frames: Of the clip.
        level_db: (rows,) loudness of the sound, 100 a second.
        placed: Timing of another recorder's sound before it was compared; None: as it is.
    """

    judgement: Judgement
    faces: tuple[FaceScore, ...]
    curve: tuple[CurvePoint, ...]
    change: Change | None
    evidence: NDArray[np.float32]
    lags: NDArray[np.int64]
    num_frames: int
    level_db: NDArray[np.float32]
    placed: Timing | None = None


def score_clip(
    clip: ClipFeatures,
    estimator: SyncEstimator,
    calibration: SyncCalibration,
    max_offset_ms: float = MAX_OFFSET_MS,
) -> ClipScore:
    """Scores a clip; without an answer, the judgement has the reason.

    Of several faces that are seen at the same time, the speaker is the one whose lips fit the sound best at
    the offset of the whole clip (`lipsync.sync.speakers`).

    Args:
        clip: Its features.
        estimator: Compares lips and sound.
        calibration: Of the estimator.
        max_offset_ms: Searched to each side; beyond MAX_OFFSET_MS, at most half of the clip.
    """
    lags = search_lags(reach_ms(max_offset_ms, clip.num_frames / FRAME_HZ))
    level_db = clip.sound.log_mel.mean(axis=1)
    fault = clip_fault(clip)
    if fault:
        faces = tuple(
            FaceScore(track, Judgement(cannot_tell(face_fault(track) or fault)), 0.0, False)
            for track in clip.tracks
        )
        empty = np.zeros((0, len(lags)), np.float32)
        return ClipScore(
            Judgement(cannot_tell(fault)), faces, (), None, empty, lags, clip.num_frames, level_db
        )
    sound_RD = estimator.sound_vectors(clip.sound)
    parts = [
        None if face_fault(track) else estimator.evidence(track, sound_RD, lags, calibration.sharpness)
        for track in clip.tracks
    ]
    speaking = find_speakers(clip.tracks, [part and part[0] for part in parts])
    num_blocks = -(-clip.num_frames // BLOCK_FRAMES)
    evidence, counts = np.zeros((num_blocks, len(lags)), np.float32), np.zeros(num_blocks, np.int64)
    for number in speaking:
        part, first = parts[number], clip.tracks[number].start // BLOCK_FRAMES
        if part is not None:
            evidence[first : first + len(part[0])] += part[0]
            counts[first : first + len(part[1])] += part[1]
    change = find_change(evidence, lags)
    judgement = judge_evidence(evidence, counts, lags, calibration, change)
    faces = tuple(
        _face_score(track, part, lags, number in speaking, calibration)
        for number, (track, part) in enumerate(zip(clip.tracks, parts, strict=True))
    )
    if change is not None and len(speaking) == 1:  # the offset of that face changes as the clip's does
        faces = tuple(replace(face, judgement=judgement) if face.is_speaking else face for face in faces)
    curve = score_curve(evidence, counts, lags, calibration)
    return ClipScore(judgement, faces, curve, change, evidence, lags, clip.num_frames, level_db)


def judge_evidence(
    evidence: NDArray[np.float32],
    counts: NDArray[np.int64],
    lags: NDArray[np.int64],
    calibration: SyncCalibration,
    change: Change | None = None,
) -> Judgement:
    """The judgement of a stretch.

    Args:
        evidence: (blocks, L).
        counts: (blocks,) frames with evidence.
        lags: (L,).
        calibration: Of the estimator.
        change: A drift or jumps in it: the evidence is then summed along it.
    """
    num_frames = int(counts.sum())
    if change is None:
        posterior = find_posterior(evidence.sum(axis=0, dtype=np.float64), num_frames, lags, calibration)
    else:
        block_s = BLOCK_FRAMES / FRAME_HZ
        times_s = np.add(np.arange(len(evidence)), 0.5, dtype=np.float64) * block_s
        offsets_ms = offsets_at(change, times_s, 0.0)
        posterior = mixed_posterior(evidence, num_frames, lags, calibration, offsets_ms)
    if posterior is None:
        return Judgement(cannot_tell(TOO_LITTLE))
    return Judgement(judge(posterior, change), posterior)


def _face_score(
    track: FaceTrack,
    part: tuple[NDArray[np.float32], NDArray[np.int64]] | None,
    lags: NDArray[np.int64],
    is_speaking: bool,
    calibration: SyncCalibration,
) -> FaceScore:
    if part is None:
        return FaceScore(track, Judgement(cannot_tell(face_fault(track))), 0.0, False)
    return FaceScore(track, judge_evidence(*part, lags, calibration), best_gain(part[0]), is_speaking)


def score_curve(
    evidence: NDArray[np.float32],
    counts: NDArray[np.int64],
    lags: NDArray[np.int64],
    calibration: SyncCalibration,
) -> tuple[CurvePoint, ...]:
    """The score of the `CURVE_WINDOW_S` around each second (less at the ends), in whole blocks."""
    points = []
    block_s = BLOCK_FRAMES / FRAME_HZ
    total_s = len(evidence) * block_s
    for time_s in np.arange(CURVE_STEP_S / 2, total_s, CURVE_STEP_S).tolist():
        first = max(round((time_s - CURVE_WINDOW_S / 2) / block_s), 0)
        part = slice(first, round((time_s + CURVE_WINDOW_S / 2) / block_s))
        total = evidence[part].sum(axis=0, dtype=np.float64)
        posterior = find_posterior(total, int(counts[part].sum()), lags, calibration)
        if posterior is None:
            points.append(CurvePoint(time_s, math.nan, math.nan))
        else:
            is_match = posterior.match > UNLIKELY_MATCH
            offset_ms = posterior.offset_ms if is_match else math.nan
            points.append(CurvePoint(time_s, posterior.in_sync, offset_ms))
    return tuple(points)
