"""The score of a clip's features: offset, verdict, each face, each second."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lipsync.clips.clock import FRAME_HZ
from lipsync.sync.calibration import SyncCalibration
from lipsync.sync.offset import (
    LAG_MS,
    Drift,
    Jump,
    Offset,
    find_change,
    find_offset,
    lag_curve,
    peak_lag,
    search_lags,
)
from lipsync.sync.speakers import find_evidence, find_speakers
from lipsync.sync.verdicts import CANNOT_TELL, Verdict, cannot_tell, clip_fault, face_fault, judge

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
    """Score and verdict of one matrix of similarities.

    Attributes:
        score: Probability of being in sync, 0 to 1; nan: cannot tell.
        verdict: In words.
        offset: The best one; None where nothing can be compared.
    """

    score: float
    verdict: Verdict
    offset: Offset | None = None

    @property
    def offset_ms(self) -> float:
        """The offset where the verdict stands for one, else nan."""
        if self.offset is None or not self.verdict.band:
            return math.nan
        return self.offset.offset_ms


@dataclass(frozen=True)
class FaceScore:
    """The judgement of one face.

    Attributes:
        track: The face.
        judgement: Of the whole of it.
        evidence: Similarity at its best lag less that at the median lag, summed over its frames.
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
        change: A drift or a jump.
        similarities: (num_frames, L) of the face that speaks, NaN where none does; empty without an answer.
        lags: (L,).
    """

    judgement: Judgement
    faces: tuple[FaceScore, ...]
    curve: tuple[CurvePoint, ...]
    change: Drift | Jump | None
    similarities: NDArray[np.float32]
    lags: NDArray[np.int64]


def judge_similarities(
    similarities: NDArray[np.float32],
    lags: NDArray[np.int64],
    estimator: SyncEstimator,
    calibration: SyncCalibration,
) -> Judgement:
    """The judgement of (frames, L) similarities."""
    offset = find_offset(similarities, lags, spread_ms=estimator.spread_ms)
    if offset is None:
        return Judgement(math.nan, cannot_tell(TOO_LITTLE))
    try:
        probability = calibration.probability(offset.curve)
    except ValueError:
        return Judgement(math.nan, cannot_tell(TOO_LITTLE), offset)
    verdict = judge(offset, probability)
    return Judgement(math.nan if verdict.kind == CANNOT_TELL else probability, verdict, offset)


def score_clip(clip: ClipFeatures, estimator: SyncEstimator, calibration: SyncCalibration) -> ClipScore:
    """Scores a clip; without an answer, the judgement has the reason.

    Of several faces that are seen at the same time, the speaker is the one whose lips fit the sound best at
    the offset of the whole clip (`lipsync.sync.speakers`).
    """
    lags = search_lags()
    fault = clip_fault(clip)
    if fault:
        faces = tuple(
            FaceScore(track, Judgement(math.nan, cannot_tell(face_fault(track) or fault)), 0.0, False)
            for track in clip.tracks
        )
        empty = np.full((0, len(lags)), np.nan, np.float32)
        return ClipScore(Judgement(math.nan, cannot_tell(fault)), faces, (), None, empty, lags)
    matrices = [
        None if face_fault(track) else estimator.similarities(track, clip.sound, lags)
        for track in clip.tracks
    ]
    speaking = find_speakers(clip.tracks, matrices, lags)
    joined = np.full((clip.num_frames, len(lags)), np.nan, np.float32)
    for number in speaking:
        matrix, track = matrices[number], clip.tracks[number]
        if matrix is not None:
            joined[track.start : track.start + len(track)] = matrix
    faces = tuple(
        _face_score(track, matrix, lags, number in speaking, estimator, calibration)
        for number, (track, matrix) in enumerate(zip(clip.tracks, matrices, strict=True))
    )
    judgement = judge_similarities(joined, lags, estimator, calibration)
    change = find_change(joined, lags) if judgement.offset is not None else None
    return ClipScore(judgement, faces, score_curve(joined, lags, calibration), change, joined, lags)


def _face_score(
    track: FaceTrack,
    matrix: NDArray[np.float32] | None,
    lags: NDArray[np.int64],
    is_speaking: bool,
    estimator: SyncEstimator,
    calibration: SyncCalibration,
) -> FaceScore:
    if matrix is None:
        return FaceScore(track, Judgement(math.nan, cannot_tell(face_fault(track))), 0.0, False)
    judgement = judge_similarities(matrix, lags, estimator, calibration)
    return FaceScore(track, judgement, find_evidence(matrix, lags, None), is_speaking)


def score_curve(
    similarities: NDArray[np.float32], lags: NDArray[np.int64], calibration: SyncCalibration
) -> tuple[CurvePoint, ...]:
    """The score of the `CURVE_WINDOW_S` around each second (less at the ends)."""
    points = []
    half = round(CURVE_WINDOW_S / 2 * FRAME_HZ)
    step = round(CURVE_STEP_S * FRAME_HZ)
    for middle in range(step // 2, len(similarities), step):
        part = similarities[max(middle - half, 0) : middle + half]
        points.append(window_point(part, lags, calibration, middle / FRAME_HZ))
    return tuple(points)


def window_point(
    similarities: NDArray[np.float32], lags: NDArray[np.int64], calibration: SyncCalibration, time_s: float
) -> CurvePoint:
    """Score and offset of one window, the offset by the peak alone, without an interval."""
    curve = lag_curve(similarities, lags)
    try:
        score = calibration.probability(curve)
    except ValueError:
        return CurvePoint(time_s, math.nan, math.nan)
    return CurvePoint(time_s, score, LAG_MS * peak_lag(curve.values, lags))
