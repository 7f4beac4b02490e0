"""Candidates of planted faces and sounds: which pass, with which offset, and all reasons against the rest."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from synthetic_takes import make_take

from lipsync.cleaning.judging import (
    BLURRED,
    CANNOT_TELL,
    DRIFT,
    LITTLE_SPEECH,
    LOW_CONFIDENCE,
    NO_MATCH,
    TOO_SHORT,
    TOO_SMALL,
    Candidate,
    find_candidates,
)
from lipsync.cleaning.options import CleanOptions
from lipsync.cleaning.shots import Shot, VideoSound, iter_shots
from lipsync.cleaning.stretches import EDGE_FRAMES
from lipsync.clips.features import FaceTrack, FrameFeatures
from lipsync.clips.sounds import SoundFeatures
from lipsync.sync.estimators import UNTRAINED_CALIBRATION, LoudnessEstimator
from lipsync.sync.methods import Method

METHOD = Method("untrained: of the test", LoudnessEstimator(), UNTRAINED_CALIBRATION)
LIMITS = CleanOptions()
SHARP, WIDTH_PX = 200.0, 150.0


def judged(
    track: FaceTrack,
    sound: SoundFeatures,
    options: CleanOptions = LIMITS,
    *,
    sharpness: float = SHARP,
    speech: Sequence[bool] = (),
) -> list[Candidate]:
    """The candidates of a shot with one face, which is WIDTH_PX wide."""
    boxes_px = np.tile(np.float32([0, 0, WIDTH_PX, WIDTH_PX]), (len(track), 1))
    track = replace(track, boxes_px=boxes_px)
    end = track.start + len(track)
    is_speech = np.array(speech or [True] * (2 * end), np.bool_)
    sharp = {track.track_id: [(frame, sharpness) for frame in range(0, end, 5)]}
    shot = Shot(3, track.start, len(track), (track,), 0, sound, sharp)
    return list(find_candidates(shot, VideoSound(sound, is_speech), [], METHOD, options))


def test_clips_of_a_long_face_all_have_the_offset_of_the_whole() -> None:
    take = make_take(0, 600, offset_rows=12)
    clips = judged(take.track, take.sound)
    assert [(one.start, one.end) for one in clips] == [(1, 200), (200, 399), (399, 599)]
    for clip in clips:
        assert clip.reasons == ()
        assert (clip.shot, clip.face) == (3, 0)
        assert clip.posterior is clips[0].posterior
        assert clip.posterior is not None
        assert clip.posterior.offset_ms == pytest.approx(120, abs=15)
        assert clip.confidence > 0.9


def test_sound_of_somebody_else_is_dropped() -> None:
    lips, other = make_take(0, 500), make_take(7, 500)
    for clip in judged(lips.track, other.sound):
        assert set(clip.reasons) & {NO_MATCH, LOW_CONFIDENCE}


def test_a_dubbed_clip_of_a_face_that_fits_otherwise_is_dropped() -> None:
    take, other = make_take(2, 750), make_take(9, 750)
    sound = np.concatenate([take.sound.log_mel[: 4 * 500], other.sound.log_mel[4 * 500 :]])
    first, second, third = judged(take.track, replace(take.sound, log_mel=sound))
    assert first.reasons == second.reasons == ()
    assert third.reasons == (LOW_CONFIDENCE,)
    assert third.posterior is first.posterior  # the offset of the whole face, which is not that of this clip


def test_a_face_is_cut_where_its_offset_jumps() -> None:
    early, late = make_take(2, 600, offset_rows=-10), make_take(2, 600, offset_rows=30)
    levels = np.concatenate([early.sound.log_mel[: 4 * 300], late.sound.log_mel[4 * 300 :]])
    clips = judged(early.track, replace(early.sound, log_mel=levels))
    assert all(clip.reasons == () for clip in clips)
    for clip in clips:
        assert clip.end <= 300 or clip.start >= 300
        assert clip.posterior is not None
        expected_ms = -100 if clip.end <= 300 else 300
        assert clip.posterior.offset_ms == pytest.approx(expected_ms, abs=15)
    assert {clip.start >= 300 for clip in clips} == {False, True}


def test_a_face_whose_offset_drifts_is_dropped() -> None:
    take = make_take(3, 900)
    rows = np.arange(len(take.sound.log_mel))
    drifting = np.clip(np.rint(rows * 1.01).astype(int), 0, len(rows) - 1)  # 360 ms over 36 s
    clips = judged(take.track, replace(take.sound, log_mel=take.sound.log_mel[drifting]))
    assert clips
    assert all(clip.reasons[0].startswith(f"{DRIFT}: ") for clip in clips)


def test_every_limit_has_its_reason_and_all_of_them_are_listed() -> None:
    take = make_take(4, 200)
    silent = replace(take.sound, log_mel=np.full_like(take.sound.log_mel, -100.0))
    (clip,) = judged(
        take.track,
        silent,
        replace(LIMITS, min_face_px=2000.0),
        sharpness=10.0,
        speech=[False] * 300 + [True] * 100,
    )
    assert clip.speech_share == pytest.approx(0.25, abs=0.01)
    assert clip.reasons == (TOO_SMALL, BLURRED, f"{CANNOT_TELL}: the sound is silent", LITTLE_SPEECH)
    (short,) = judged(make_take(4, 40).track, take.sound)
    assert (short.start, short.end, short.reasons) == (0, 40, (TOO_SHORT,))


def test_limits_that_a_clip_just_meets_leave_it_in() -> None:
    take = make_take(4, 200)
    limits = CleanOptions(
        min_face_px=WIDTH_PX, min_sharpness=SHARP, min_speech_share=1.0,
        min_clip_s=(200 - 2 * EDGE_FRAMES) / 25, max_clip_s=20.0,
    )  # fmt: skip
    (clip,) = judged(take.track, take.sound, limits)
    assert clip.reasons == ()


def test_shots_come_one_by_one_with_their_own_sound_and_long_ones_in_parts() -> None:
    frames = (FrameFeatures(index, index / 25, int(index >= 300), ()) for index in range(1000))
    rows = np.arange(4000, dtype=np.float32)[:, None]
    shots = list(iter_shots(frames, SoundFeatures(rows, rows), 400))
    assert [(shot.number, shot.first, shot.num_frames) for shot in shots] == [
        (0, 0, 300), (1, 300, 400), (1, 700, 300),
    ]  # fmt: skip
    assert [(shot.origin, shot.sound.mfcc[0, 0], len(shot.sound.log_mel)) for shot in shots] == [
        (0, 0, 4 * 375), (225, 900, 4 * 550), (625, 2500, 4 * 375),
    ]  # fmt: skip
