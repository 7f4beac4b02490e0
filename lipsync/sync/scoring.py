"""A clip's features to all that is said about it: score, offset, verdict, each face, each second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lipsync.clips.clock import FRAME_HZ, search_lags
from lipsync.sync.calibration import SyncCalibration
from lipsync.sync.offset import Drift, Jump, Offset, find_change, find_offset, lag_curve
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
    """What is said of one matrix of similarities.

    Attributes:
        score: Probability of being in sync, 0 to 1; nan: cannot tell.
        verdict: In words.
        offset: What was found; None where nothing can be compared.
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
    """What is said of one face.

    Attributes:
        track: The face.
        judgement: Of the whole of it.
        evidence: By how much its frames fit the sound better at their best lag than at others, added up.
        is_speaking: Whether the clip's own judgement rests on it.
    """

    track: FaceTrack
    judgement: Judgement
    evidence: float
    is_speaking: bool


@dataclass(frozen=True)
class CurvePoint:
    """A moment and what the window around it says; nan where it says nothing."""

    time_s: float
    score: float
    offset_ms: float


@dataclass(frozen=True)
class ClipScore:
    """All that is said about a clip.

    Attributes:
        judgement: Of the clip.
        faces: In the order of the clip's tracks.
        curve: Second by second.
        change: A drift or a jump.
        similarities: (num_frames, L) of who speaks, NaN where nobody does; empty where nothing was told.
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
    """Scores a clip; where nothing can be told, the judgement says why.

    Several faces: in each shot the one whose lips fit the sound best at the offset of the whole is taken for
    the speaker.
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
    found = [
        None if face_fault(track) else estimator.similarities(track, clip.sound, lags)
        for track in clip.tracks
    ]
    speaking = find_speakers(clip.tracks, found, lags)
    joined = np.full((clip.num_frames, len(lags)), np.nan, np.float32)
    for place in speaking:
        matrix, track = found[place], clip.tracks[place]
        if matrix is not None:
            joined[track.start : track.start + len(track)] = matrix
    faces = tuple(
        _face_score(track, matrix, lags, place in speaking, estimator, calibration)
        for place, (track, matrix) in enumerate(zip(clip.tracks, found, strict=True))
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
    best, middle = _best_and_middle(matrix, lags, None)
    return FaceScore(track, judgement, best - middle, is_speaking)


def find_speakers(
    tracks: Sequence[FaceTrack],
    similarities: Sequence[NDArray[np.float32] | None],
    lags: NDArray[np.int64],
) -> set[int]:
    """Places in `tracks` of the faces that speak: at any moment at most one.

    The face with most evidence gives the offset; then faces are taken by their evidence at that offset,
    as long as they share no moment with one that was taken.
    """
    usable = [place for place, matrix in enumerate(similarities) if matrix is not None]
    evidence: dict[int, tuple[float, float]] = {}
    for place in usable:
        matrix = similarities[place]
        if matrix is not None:
            evidence[place] = _best_and_middle(matrix, lags, None)
    if not evidence:
        return set()
    first = max(usable, key=lambda place: evidence[place][0] - evidence[place][1])
    matrix = similarities[first]
    curve = None if matrix is None else lag_curve(matrix, lags)
    at = None if curve is None or curve.is_empty else int(np.nanargmax(curve.values))
    at_offset = {}
    for place in usable:
        matrix = similarities[place]
        if matrix is not None:
            best, middle = _best_and_middle(matrix, lags, at)
            at_offset[place] = best - middle
    taken: set[int] = set()
    for place in sorted(usable, key=lambda place: (place != first, -at_offset[place])):
        track = tracks[place]
        if all(
            track.start >= other.start + len(other) or other.start >= track.start + len(track)
            for other in (tracks[number] for number in taken)
        ):
            taken.add(place)
    return taken


def _best_and_middle(
    matrix: NDArray[np.float32], lags: NDArray[np.int64], at: int | None
) -> tuple[float, float]:
    """Sums over the frames at the best lag (or lag number `at`) and at the median lag."""
    curve = lag_curve(matrix, lags)
    if curve.is_empty:
        return 0.0, 0.0
    count = float(curve.num_frames.max())
    value = np.nanmax(curve.values) if at is None else np.nan_to_num(curve.values[at], nan=curve.middle)
    return float(value) * count, curve.middle * count


def score_curve(
    similarities: NDArray[np.float32], lags: NDArray[np.int64], calibration: SyncCalibration
) -> tuple[CurvePoint, ...]:
    """The score of the `CURVE_WINDOW_S` around each second (fewer at the ends)."""
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
    """What the similarities of one window say; the offset by the peak alone, without an interval."""
    from lipsync.clips.clock import LAG_MS
    from lipsync.sync.offset import peak_lag

    curve = lag_curve(similarities, lags)
    try:
        score = calibration.probability(curve)
    except ValueError:
        return CurvePoint(time_s, math.nan, math.nan)
    return CurvePoint(time_s, score, LAG_MS * peak_lag(curve.values, lags))
