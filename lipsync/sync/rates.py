"""Clips whose sound runs at another rate and soon leaves the search: 25 pictures a second played at 24.

Where a clip has no offset as it is, its first minute with a face is compared with the sound at other rates: a
drift that is left is found in it up to 2.5 %, so that RATES_PPM cover what is more. Then the whole clip is
compared with the sound at the rate that was found, which shows it to some ppm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lipsync.clips.clock import FRAME_HZ
from lipsync.clips.cutting import cut_clip, retimed_sound
from lipsync.sync.changes import MAX_DRIFT_PPM, MIN_CHANGE_MS, MIN_CHANGE_S, Drift, offsets_at
from lipsync.sync.offset import MAX_OFFSET_MS
from lipsync.sync.posterior import IN_SYNC_MS, over_moments
from lipsync.sync.scoring import ClipScore, CurvePoint, Judgement, block_times_s, score_clip
from lipsync.sync.timing import Timing
from lipsync.sync.verdicts import CANNOT_TELL, LIKELY_MATCH, NO_MATCH, judge

if TYPE_CHECKING:
    from lipsync.clips.features import ClipFeatures
    from lipsync.sync.estimators import SyncEstimator
    from lipsync.sync.posterior import SyncCalibration

RATES_PPM = (0.0, -35_000.0, 35_000.0)
PART_S = 60.0
LEAST_MATCH = 0.95  # on the minute: three rates are tried
MOST_PPM = 1.2 * MAX_DRIFT_PPM  # with the error of the minute
MOST_REST_MS = 40.0
STRONG_PPM = 10_000.0
RATE_COST = 20.0


def score_at_any_rate(
    clip: ClipFeatures,
    estimator: SyncEstimator,
    calibration: SyncCalibration,
    max_offset_ms: float = MAX_OFFSET_MS,
) -> ClipScore:
    """`score_clip`, also for a drift that leaves the search; arguments as it has them."""
    score = score_clip(clip, estimator, calibration, max_offset_ms)

    def scored(timing: Timing, of: ClipFeatures) -> ClipScore:
        return score_clip(replace(of, sound=retimed_sound(of.sound, timing)), estimator, calibration)

    change, timing = score.change, None
    if isinstance(change, Drift) and abs(change.ppm) >= STRONG_PPM:
        timing = Timing(change.start_ms, change.ppm)  # once most of it is gone, the rest is seen better
    elif (
        change is None
        and score.judgement.posterior is not None
        and score.judgement.verdict.kind in (NO_MATCH, CANNOT_TELL)
        and clip.num_frames >= MIN_CHANGE_S * FRAME_HZ
    ):
        timing = _find_timing(clip, scored)
    if timing is None:
        return score
    finer = _timing_of(timing, scored(timing, clip))
    return score if finer is None else _with_drift(score, scored(finer, clip), finer)


def _find_timing(clip: ClipFeatures, scored: Callable[[Timing, ClipFeatures], ClipScore]) -> Timing | None:
    """The timing by the first minute with the face that is seen longest."""
    start = min(clip.tracks, key=lambda track: (-len(track), track.start)).start
    part = cut_clip(clip, start, start + round(PART_S * FRAME_HZ))
    best: tuple[float, Timing] | None = None
    for ppm in RATES_PPM:
        if ppm == 0 and part.num_frames == clip.num_frames:
            continue  # that is the clip as it is
        rough = Timing(0.0, ppm)
        answer = scored(rough, part)
        timing, posterior = _timing_of(rough, answer), answer.judgement.posterior
        if timing is None or posterior is None or posterior.match < LEAST_MATCH:
            continue
        best = max(best or (-np.inf, timing), (_best(answer), timing), key=lambda pair: pair[0])
    if best is None:
        return None
    # On the clock of the clip, whose start is before that of the part.
    timing = best[1]
    return Timing(timing.offset_ms - timing.drift_ppm / 1000 * start / FRAME_HZ, timing.drift_ppm)


def _timing_of(timing: Timing, score: ClipScore) -> Timing | None:
    """A timing followed by the offset or drift that a score found behind it."""
    change = score.change
    if isinstance(change, Drift):
        total = timing.then(Timing(change.start_ms, change.ppm))
    elif change is None and score.judgement.verdict.band:
        total = timing.then(Timing(score.judgement.offset_ms))
    else:
        return None
    return total if total is not None and abs(total.drift_ppm) <= MOST_PPM else None


def _with_drift(plain: ClipScore, steady: ClipScore, timing: Timing) -> ClipScore:
    """The score of a clip with a drift.

    Args:
        plain: As it is; stays where the drift is none.
        steady: With the sound at its own rate and place.
        timing: Of the sound.
    """
    seconds = plain.num_frames / FRAME_HZ
    drift = Drift(timing.drift_ppm, timing.offset_ms, timing.offset_ms + timing.drift_ppm / 1000 * seconds)
    posterior = steady.judgement.posterior
    if (
        posterior is None
        or posterior.match < LIKELY_MATCH
        or steady.change is not None
        or not abs(steady.judgement.offset_ms) <= MOST_REST_MS
        or abs(drift.end_ms - drift.start_ms) < MIN_CHANGE_MS
        or (plain.change is None and _best(steady) < _best(plain) + RATE_COST)
    ):
        return plain
    moving = over_moments(posterior, offsets_at(drift, block_times_s(len(steady.evidence))))
    judgement = Judgement(judge(moving, drift), moving)
    faces = tuple(replace(face, judgement=judgement) if face.is_speaking else face for face in steady.faces)
    return replace(
        plain, judgement=judgement, faces=faces, curve=tuple(_moved(steady.curve, drift)), change=drift
    )


def _best(score: ClipScore) -> float:
    """Evidence for the best lag."""
    return float(score.evidence.sum(axis=0, dtype=np.float64).max())


def _moved(curve: tuple[CurvePoint, ...], drift: Drift) -> Iterator[CurvePoint]:
    for point in curve:
        offset_ms = point.offset_ms + float(offsets_at(drift, np.array([point.time_s]))[0])
        yield CurvePoint(point.time_s, 0.0 if abs(offset_ms) > IN_SYNC_MS else point.score, offset_ms)
