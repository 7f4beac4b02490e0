"""Sound at another rate: found up to 5 %, although the offset leaves the search on the way."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic_takes import make_take

from lipsync.clips.cutting import cut_clip, retimed_sound
from lipsync.clips.features import ClipFeatures
from lipsync.repair.plan import plan_timing
from lipsync.sync.changes import Drift
from lipsync.sync.estimators import UNTRAINED_CALIBRATION, LoudnessEstimator
from lipsync.sync.rates import score_at_any_rate
from lipsync.sync.scoring import ClipScore, score_clip
from lipsync.sync.timing import Timing
from lipsync.sync.verdicts import AUDIO_EARLY, AUDIO_LATE, CANNOT_TELL, IN_SYNC, NO_MATCH

FRAMES = 1500
WIDE = np.tile([0, 0, 200, 200], (FRAMES, 1)).astype(np.float32)


def clip_with(timing: Timing, seed: int = 3, heard: int | None = None) -> ClipFeatures:
    """A minute of a face, its sound (or that of another) put where the timing has it."""
    take, other = make_take(seed, FRAMES), make_take(seed if heard is None else heard, FRAMES)
    track = replace(take.track, boxes_px=WIDE)
    return ClipFeatures(FRAMES, (0,), (track,), retimed_sound(other.sound, timing))


def score(clip: ClipFeatures) -> ClipScore:
    return score_at_any_rate(clip, LoudnessEstimator(), UNTRAINED_CALIBRATION)


@pytest.mark.parametrize("ppm", [-50_000.0, -41_667.0, -27_000.0, 27_000.0, 40_000.0, 48_000.0])
def test_strong_drift_is_found_and_undone_by_the_plan(ppm: float) -> None:
    """3 s and more from one end of the minute to the other, where the search has 2 s in all."""
    clip = clip_with(Timing(-120.0, ppm))
    plain = score_clip(clip, LoudnessEstimator(), UNTRAINED_CALIBRATION)
    found = score(clip)
    assert plain.judgement.verdict.kind in (NO_MATCH, CANNOT_TELL, AUDIO_EARLY, AUDIO_LATE)
    assert isinstance(found.change, Drift)
    timing = plan_timing(found)
    assert timing is not None
    whole = Timing(-120.0, ppm).then(timing)
    assert whole is not None
    # Undone at both ends, to a frame.
    assert whole.offset_ms == pytest.approx(0, abs=40)
    assert whole.offset_ms + whole.drift_ppm / 1000 * FRAMES / 25 == pytest.approx(0, abs=40)
    assert found.judgement.score < 0.2
    assert found.judgement.verdict.kind == (AUDIO_EARLY if found.judgement.offset_ms > 0 else AUDIO_LATE)
    low_ms, high_ms = found.judgement.posterior.interval_ms
    assert high_ms - low_ms == pytest.approx(abs(found.change.end_ms - found.change.start_ms) * 0.9, rel=0.1)
    # The curve follows it.
    at_s = np.array([point.time_s for point in found.curve])
    expected = found.change.start_ms + found.change.ppm / 1000 * at_s
    offsets_ms = np.array([point.offset_ms for point in found.curve])
    assert np.nanmedian(np.abs(offsets_ms - expected)) < 40


def test_clips_with_an_answer_and_foreign_ones_keep_it() -> None:
    in_sync = score(clip_with(Timing(0.0)))
    assert (in_sync.judgement.verdict.kind, in_sync.change) == (IN_SYNC, None)
    late = score(clip_with(Timing(-200.0)))
    assert late.judgement.offset_ms == pytest.approx(200, abs=15)
    # The syllables of these sounds are even: at some rate, those of one in twenty are those of another.
    answers = [score(clip_with(Timing(0.0), heard=heard)) for heard in range(11, 23)]
    kinds = [one.judgement.verdict.kind for one in answers if one.change is None]
    assert kinds.count(NO_MATCH) >= 11


def test_retimed_sound_is_where_the_timing_has_it() -> None:
    take = make_take(0, 200)
    ramp = np.arange(800, dtype=np.float32)[:, None]
    sound = replace(take.sound, log_mel=ramp, mfcc=ramp)
    moved = retimed_sound(sound, Timing(150.0, 20_000.0)).log_mel[:, 0]
    assert len(moved) == pytest.approx((800 + 15) / 0.98, abs=1)
    rows = np.arange(20, 780)
    # Row r of the result has the sound of row r (1 - 0.02) - 15.
    np.testing.assert_allclose(moved[rows], rows * 0.98 - 15, atol=1e-3)
    same = retimed_sound(sound, Timing(0.0))
    np.testing.assert_array_equal(same.log_mel, sound.log_mel)
    empty = replace(sound, log_mel=ramp[:0], mfcc=ramp[:0])
    assert len(retimed_sound(empty, Timing(-10.0, 5.0)).log_mel) == 0


def test_part_of_a_clip_begins_with_its_first_frame() -> None:
    clip = clip_with(Timing(0.0))
    part = cut_clip(clip, 100, 350)
    assert (part.num_frames, part.tracks[0].start, len(part.tracks[0])) == (250, 0, 250)
    np.testing.assert_array_equal(part.sound.log_mel, clip.sound.log_mel[400:1400])
