"""The score of a clip's features: offset, verdict, each face, each second."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lipsync.clips.clock import FRAME_HZ
from lipsync.sync.changes import Change, find_change, offsets_at
from lipsync.sync.offset import LAG_MS, MAX_OFFSET_MS, reach_ms, search_lags
from lipsync.sync.posterior import (
    BLOCK_FRAMES,
    Posterior,
    SyncCalibration,
    find_posterior,
    mixed_posterior,
)
from lipsync.sync.speakers import FaceEvidence, best_gain, mixed_evidence, speaker_shares
from lipsync.sync.timing import Timing
from lipsync.sync.verdicts import EVEN, UNLIKELY_MATCH, Verdict, cannot_tell, clip_fault, face_fault, judge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lipsync.clips.features import ClipFeatures, FaceTrack
    from lipsync.sync.estimators import SyncEstimator

# Each second of the curve is judged by the 5 s around it: less is mostly chance (see docs/benchmarks.md).
CURVE_WINDOW_S = 5.0
CURVE_STEP_S = 1.0
LEAST_TURN_BLOCKS = 2  # 0.8 s: a shorter turn is as often a mistake
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
        judgement: Of the stretches in which it speaks, or of all of it where it never does.
        evidence: For its best lag in these, less that for the median one.
        speaks_s: Start and end of each stretch in which it speaks.
    """

    track: FaceTrack
    judgement: Judgement
    evidence: float
    speaks_s: tuple[tuple[float, float], ...] = ()

    @property
    def speaking_s(self) -> float:
        """Seconds that it speaks."""
        return sum(end_s - start_s for start_s, end_s in self.speaks_s)

    @property
    def is_speaking(self) -> bool:
        """True where it speaks at some time."""
        return bool(self.speaks_s)


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
        evidence: (blocks, L) of whoever speaks (`lipsync.sync.posterior`), 0 where no face is seen; empty
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

    Of several faces that are seen at the same time, one speaks; who, may change (`lipsync.sync.speakers`).

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
            FaceScore(track, Judgement(cannot_tell(face_fault(track) or fault)), 0.0) for track in clip.tracks
        )
        empty = np.zeros((0, len(lags)), np.float32)
        return ClipScore(
            Judgement(cannot_tell(fault)), faces, (), None, empty, lags, clip.num_frames, level_db
        )
    sound_RD = estimator.sound_vectors(clip.sound)
    able = {  # by their numbers: faces that can be compared
        number: FaceEvidence.of(track, estimator.evidence(track, sound_RD, lags, calibration.sharpness))
        for number, track in enumerate(clip.tracks)
        if not face_fault(track)
    }
    num_blocks = -(-clip.num_frames // BLOCK_FRAMES)
    evidence, counts = mixed_evidence(list(able.values()), num_blocks, len(lags))
    change = find_change(evidence, lags)
    judgement = judge_evidence(evidence, counts, lags, calibration, change)
    is_speaking = _who_speaks(able, num_blocks, lags, judgement, change)
    scores = []
    for number, track in enumerate(clip.tracks):
        face = able.get(number)
        if face is None:
            scores.append(FaceScore(track, Judgement(cannot_tell(face_fault(track))), 0.0))
            continue
        speaks = is_speaking[number][face.first : face.end]
        part = speaks if speaks.any() else np.ones(len(face.blocks), np.bool_)
        verdict = judge_evidence(face.blocks[part], face.counts[part], lags, calibration)
        if change is not None and len(able) == 1:  # the offset of that face changes as the clip's does
            verdict = judgement
        scores.append(
            FaceScore(track, verdict, best_gain(face.blocks[part]), _stretches(is_speaking[number]))
        )
    curve = score_curve(evidence, counts, lags, calibration)
    return ClipScore(judgement, tuple(scores), curve, change, evidence, lags, clip.num_frames, level_db)


def _who_speaks(
    faces: Mapping[int, FaceEvidence],
    num_blocks: int,
    lags: NDArray[np.int64],
    judgement: Judgement,
    change: Change | None,
) -> dict[int, NDArray[np.bool_]]:
    """By the number of each face, (blocks,) true where it speaks; nobody does without a likely match."""
    posterior = judgement.posterior
    if posterior is None or posterior.match < EVEN:
        return {number: np.zeros(num_blocks, np.bool_) for number in faces}
    offsets_ms = np.full(num_blocks, posterior.offset_ms)
    if change is not None:
        offsets_ms = offsets_at(change, block_times_s(num_blocks))
    places = np.clip(np.rint(offsets_ms / LAG_MS).astype(np.int64) - lags[0], 0, len(lags) - 1)
    shares = speaker_shares(list(faces.values()), num_blocks, places)
    return {number: _without_moments(row > EVEN) for number, row in zip(faces, shares, strict=True)}


def block_times_s(num_blocks: int) -> NDArray[np.float64]:
    """Times of the middles of blocks."""
    times_s: NDArray[np.float64] = np.add(np.arange(num_blocks), 0.5, dtype=np.float64)
    return times_s * (BLOCK_FRAMES / FRAME_HZ)


def _without_moments(is_speaking: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without stretches that are too short to be sure of."""
    long = np.zeros_like(is_speaking)
    for first, end in _runs(is_speaking):
        long[first:end] = end - first >= LEAST_TURN_BLOCKS
    return long


def _runs(is_true: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The first and one past the last of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_true, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _stretches(is_speaking: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    block_s = BLOCK_FRAMES / FRAME_HZ
    return tuple((first * block_s, end * block_s) for first, end in _runs(is_speaking))


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
        offsets_ms = offsets_at(change, block_times_s(len(evidence)))
        posterior = mixed_posterior(evidence, num_frames, lags, calibration, offsets_ms)
    if posterior is None:
        return Judgement(cannot_tell(TOO_LITTLE))
    return Judgement(judge(posterior, change), posterior)


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
