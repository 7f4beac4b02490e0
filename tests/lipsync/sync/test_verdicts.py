"""What is said of what was found, and when nothing is said."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from talking_clips import features_of, make_talking, voice_of

from lipsync.clips.features import ClipFeatures
from lipsync.clips.sounds import sound_features
from lipsync.sync.changes import Drift, Jumps, Part
from lipsync.sync.offset import search_lags
from lipsync.sync.posterior import Posterior
from lipsync.sync.verdicts import (
    AUDIO_EARLY,
    AUDIO_LATE,
    CANNOT_TELL,
    IN_SYNC,
    MOST_ODDS,
    NO_MATCH,
    band_of,
    clip_fault,
    face_fault,
    guess_odds,
    judge,
    offset_text,
    sound_fault,
)

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def talking(load_script, tmp_path_factory) -> tuple[Path, ...]:
    return make_talking(load_script, tmp_path_factory)


def posterior_at(offset_ms: float, *, half_ms: float = 20.0, match: float = 0.95) -> Posterior:
    """A bell around an offset whose 90 % interval has that half width."""
    grid_ms = np.arange(-1200.0, 1201.0, 10.0)
    masses = np.exp(-0.5 * ((grid_ms - offset_ms) / (half_ms / 1.645)) ** 2)
    interval_ms = (offset_ms - half_ms, offset_ms + half_ms)
    lags = search_lags()
    return Posterior(lags, np.zeros(201), grid_ms, masses / masses.sum(), match, offset_ms, interval_ms, 125)


@pytest.mark.parametrize(
    ("offset_ms", "half_ms", "kind"),
    [
        (10.0, 20.0, IN_SYNC),
        (-35.0, 20.0, IN_SYNC),
        (120.0, 20.0, AUDIO_EARLY),
        (-300.0, 20.0, AUDIO_LATE),
        (-100.0, 40.0, AUDIO_LATE),
        (70.0, 20.0, AUDIO_EARLY),
    ],
)
def test_verdict_follows_the_interval(offset_ms: float, half_ms: float, kind: str) -> None:
    posterior = posterior_at(offset_ms, half_ms=half_ms)
    verdict = judge(posterior)
    assert verdict.kind == kind
    assert f"{abs(offset_ms):.0f} ms" in verdict.text
    assert verdict.band == band_of(offset_ms)
    assert verdict.reason == ""
    if kind == IN_SYNC:
        assert max(map(abs, posterior.interval_ms)) <= 60
        assert posterior.in_sync > 0.8


def test_offset_at_the_edge_of_in_sync_is_said_to_be_there() -> None:
    """Surely early, but more likely than not by no more than counts as in sync."""
    posterior = posterior_at(50.0, half_ms=15.0)
    verdict = judge(posterior)
    assert posterior.in_sync > 0.5
    assert (verdict.kind, verdict.band) == (CANNOT_TELL, "")
    assert "at the edge of what counts as in sync: +50 ms, 90 % between +35 and +65 ms" in verdict.reason


@pytest.mark.parametrize("offset_ms", [1000.0, -990.0])
def test_offset_at_the_end_of_the_search_may_be_larger(offset_ms: float) -> None:
    verdict = judge(posterior_at(offset_ms))
    assert verdict.kind == CANNOT_TELL
    assert "end of the search" in verdict.reason


@pytest.mark.parametrize(
    ("offset_ms", "half_ms"), [(10.0, 70.0), (-350.0, 400.0), (40.0, 45.0), (200.0, 150.0)]
)
def test_offset_that_does_not_stand_out_is_no_verdict(offset_ms: float, half_ms: float) -> None:
    verdict = judge(posterior_at(offset_ms, half_ms=half_ms))
    assert (verdict.kind, verdict.band) == (CANNOT_TELL, "")
    assert "5.0 s" in verdict.reason
    assert f"the best guess is {offset_ms:+.0f} ms with odds of " in verdict.reason


@pytest.mark.parametrize(
    ("match", "kind"),
    [(0.01, NO_MATCH), (0.2, NO_MATCH), (0.3, CANNOT_TELL), (0.7, CANNOT_TELL), (0.85, IN_SYNC)],
)
def test_no_match_needs_evidence_against_every_offset(match: float, kind: str) -> None:
    assert judge(posterior_at(0.0, match=match)).kind == kind


def test_odds_of_the_best_guess_are_those_of_its_confidence() -> None:
    even = posterior_at(100.0, half_ms=1.645 * 40 / 0.674, match=1.0)  # half of the mass within 40 ms
    assert guess_odds(even) == pytest.approx(1.0, abs=0.1)
    assert guess_odds(posterior_at(100.0, match=1.0)) > 100
    assert guess_odds(posterior_at(100.0, half_ms=5.0, match=1.0)) <= MOST_ODDS
    assert "odds of 1 to 2" in judge(posterior_at(0.0, match=0.3)).reason


def test_changing_offset_is_reported_with_its_places() -> None:
    """Masses of a clip that is in sync for half of its time and early for the rest."""
    lags, grid_ms = search_lags(), np.arange(-1200.0, 1201.0, 10.0)
    masses = np.where(np.isin(grid_ms, (0.0, 200.0)), 0.5, 0.0)
    both = Posterior(lags, np.zeros(201), grid_ms, masses, 0.99, 0.0, (0.0, 200.0), 500)
    jumps = Jumps((Part(0, 10, 0.0), Part(10, 20, 200.0)))
    verdict = judge(both, jumps)
    assert verdict.kind == AUDIO_EARLY
    assert "jumps from +0 ms at about 10 s to +200 ms" in verdict.text
    drift = judge(both, Drift(5000.0, -50.0, 250.0))
    assert "drifts by +5000 ppm, from -50 ms at the start to +250 ms" in drift.text
    assert judge(replace(both, match=0.01), jumps).kind == NO_MATCH


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
    assert judge(posterior_at(-0.3)).text == "in sync (audio 0 ms early)"
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
