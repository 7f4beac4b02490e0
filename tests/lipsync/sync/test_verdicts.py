"""What is said of what was found, and when nothing is said."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from talking_clips import features_of, make_talking, voice_of

from lipsync.clips.features import ClipFeatures
from lipsync.clips.sounds import sound_features
from lipsync.sync.offset import LagCurve, Offset
from lipsync.sync.verdicts import (
    AUDIO_EARLY,
    AUDIO_LATE,
    CANNOT_TELL,
    IN_SYNC,
    NO_MATCH,
    band_of,
    clip_fault,
    face_fault,
    judge,
    offset_text,
    sound_fault,
)

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def talking(load_script, tmp_path_factory) -> tuple[Path, ...]:
    return make_talking(load_script, tmp_path_factory)


def found(offset_ms: float, *, half_ms: float = 20.0, confidence: float = 1.0, peak_z: float = 9.0) -> Offset:
    curve = LagCurve(np.arange(3), np.zeros(3), np.full(3, 125))
    return Offset(offset_ms, (offset_ms - half_ms, offset_ms + half_ms), confidence, peak_z, curve)


@pytest.mark.parametrize(
    ("offset_ms", "probability", "kind"),
    [
        (10.0, 0.9, IN_SYNC),
        (-55.0, 0.6, IN_SYNC),
        (120.0, 0.02, AUDIO_EARLY),
        (-300.0, 0.02, AUDIO_LATE),
        (-100.0, 0.6, AUDIO_LATE),  # even odds of being in sync, but the interval says no
    ],
)
def test_verdict_follows_offset_and_probability(offset_ms: float, probability: float, kind: str) -> None:
    verdict = judge(found(offset_ms), probability)
    assert verdict.kind == kind
    assert f"{abs(offset_ms):.0f} ms" in verdict.text
    assert verdict.band == band_of(offset_ms)
    assert verdict.reason == ""


def test_offset_that_does_not_stand_out_is_no_verdict() -> None:
    vague = found(400.0, half_ms=500.0, confidence=0.4)
    assert judge(vague, 0.05).kind == NO_MATCH
    assert judge(vague, 0.6).kind == CANNOT_TELL  # in sync would be likely, but elsewhere is likelier
    unknown = judge(vague, 0.35)
    assert (unknown.kind, unknown.band) == (CANNOT_TELL, "")
    assert "5.0 s" in unknown.reason


@pytest.mark.parametrize(
    ("offset_ms", "band"),
    [
        (0, "not detectable"), (45, "not detectable"), (-125, "not detectable"), (46, "detectable"),
        (90, "detectable"), (-185, "detectable"), (91, "not acceptable"), (-186, "not acceptable"),
    ],
)  # fmt: skip
def test_bands_are_those_of_the_recommendation(offset_ms: float, band: str) -> None:
    assert band_of(offset_ms) == band
    assert band_of(math.nan) == ""


def test_direction_is_said_in_words() -> None:
    assert judge(found(-0.3), 0.9).text == "in sync (audio 0 ms early)"
    assert offset_text(119.6) == "audio 120 ms early; delay it by 120 ms"
    assert offset_text(-80.0) == "audio 80 ms late; move it ahead by 80 ms"


def test_sounds_that_say_nothing(talking: tuple[Path, ...]) -> None:
    rng = np.random.default_rng(0)
    time_s = np.arange(3 * RATE_HZ) / RATE_HZ
    tone = (0.3 * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32)
    beep = np.where((time_s > 1) & (time_s < 1.1), tone, 1e-5 * rng.normal(size=len(time_s)))
    sounds = {
        "silent": np.zeros(3 * RATE_HZ),
        "hardly changes": tone,
        "0.5": np.zeros(RATE_HZ // 2),
        "0.1 s of it": beep,
    }
    for reason, samples in sounds.items():
        assert reason in sound_fault(sound_features(samples.astype(np.float32))), reason
    noise = 0.1 * rng.normal(size=3 * RATE_HZ)
    assert "hardly changes" in sound_fault(sound_features(noise.astype(np.float32)))
    voice = voice_of(talking[0])
    for speech in (voice, 0.01 * voice, np.concatenate([np.zeros(3 * RATE_HZ, np.float32), voice])):
        assert sound_fault(sound_features(speech)) == ""


def test_faces_that_say_nothing(talking: tuple[Path, ...]) -> None:
    track = features_of(talking[0]).tracks[0]
    assert face_fault(track) == ""
    jitter = np.random.default_rng(0).normal(0, 0.004, track.lips.shape).astype(np.float32)
    still = replace(track, lips=track.lips[:1] + jitter)
    assert face_fault(still) == "the mouth stands still"
    small = replace(track, boxes_px=track.boxes_px * 0.2)
    assert "too small" in face_fault(small)
    hidden = replace(track, is_measured=np.arange(len(track)) < 20)
    assert "0.80 s" in face_fault(hidden)


def test_clip_says_first_what_is_missing(talking: tuple[Path, ...]) -> None:
    clip = features_of(talking[0])
    assert clip_fault(clip) == ""
    assert clip_fault(replace(clip, tracks=())) == "no face is seen"
    assert "0.80 s of video" in clip_fault(replace(clip, num_frames=20))
    still = replace(clip.tracks[0], lips=np.repeat(clip.tracks[0].lips[:1], len(clip.tracks[0]), axis=0))
    assert clip_fault(replace(clip, tracks=(still,))) == "the mouth stands still"
    both = ClipFeatures(clip.num_frames, (0,), (still, clip.tracks[0]), clip.sound)
    assert clip_fault(both) == ""  # one of them speaks
