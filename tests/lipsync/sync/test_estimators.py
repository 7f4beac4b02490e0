"""Similarities of lips and sound: against slow loops, scikit-learn and shifts that are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from talking_clips import features_of, make_talking, shifted, voice_of

from lipsync.clips.clock import ROWS_PER_FRAME
from lipsync.clips.sounds import SoundFeatures, sound_features
from lipsync.sync.estimators import (
    HIGH_PASS_FRAMES,
    LoudnessEstimator,
    RidgeEstimator,
    RidgeExample,
    band_levels,
    high_passed,
    lip_distances,
)
from lipsync.sync.offset import LAG_MS, rows_of_frames

LAGS = np.arange(-60, 61)


@pytest.fixture(scope="module")
def talking(load_script, tmp_path_factory) -> tuple[Path, ...]:
    return make_talking(load_script, tmp_path_factory)


def best_lag_ms(matrix: np.ndarray, lags: np.ndarray = LAGS) -> float:
    return float(LAG_MS * lags[np.nanargmax(np.nanmean(matrix, axis=0))])


def test_a_frame_belongs_to_the_sound_a_lag_earlier() -> None:
    lags = np.array([-3, 0, 2])
    rows, exists = rows_of_frames(start=5, num_frames=4, num_rows=30, lags=lags)
    for frame in range(4):
        for place, lag in enumerate(lags):
            row = 4 * (5 + frame) - lag  # early sound: it is heard before its frame is shown
            assert exists[frame, place] == (0 <= row < 30)
            assert rows[frame, place] == min(max(row, 0), 29)


def test_high_pass_takes_out_what_a_gaussian_leaves() -> None:
    values = np.random.default_rng(0).normal(size=(60, 2))
    reach = round(4 * HIGH_PASS_FRAMES)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / HIGH_PASS_FRAMES) ** 2)
    expected = np.empty_like(values)
    for number in range(60):
        places = np.clip(np.arange(number - reach, number + reach + 1), 0, 59)
        expected[number] = values[number] - weights @ values[places] / weights.sum()
    assert high_passed(values, HIGH_PASS_FRAMES) == pytest.approx(expected)
    assert np.abs(high_passed(np.full((30, 1), 7.0), 3.0)).max() < 1e-12


def test_similarity_is_the_gain_in_likelihood_of_the_lips(talking: tuple[Path, ...]) -> None:
    clip = features_of(talking[0])
    track, estimator = clip.tracks[0], LoudnessEstimator()
    found = estimator.similarities(track, clip.sound, LAGS)
    height = track.lips[:, 5, 1].astype(float) - track.lips[:, 15, 1]
    lips = high_passed(height[:, None], 3.0)[:, 0] / estimator.MOUTH_DEVIATION
    expected = estimator.expected_signals(clip.sound)[:, 0]
    rng = np.random.default_rng(0)
    for frame, place in zip(rng.integers(20, 120, 30), rng.integers(0, len(LAGS), 30), strict=True):
        row = 4 * (track.start + frame) - LAGS[place]
        value, variance = expected[row], 0.75
        slow = (lips[frame] ** 2 - (lips[frame] - value) ** 2) / (2 * variance)
        assert found[frame, place] == pytest.approx(slow, abs=1e-4)


@pytest.mark.parametrize("early_ms", [-500, -120, 0, 80, 350])
def test_shifted_sound_moves_the_peak_by_the_shift(talking: tuple[Path, ...], early_ms: int) -> None:
    track = features_of(talking[0]).tracks[0]
    sound = sound_features(shifted(voice_of(talking[0]), early_ms))
    found_ms = best_lag_ms(LoudnessEstimator().similarities(track, sound, LAGS))
    assert found_ms == pytest.approx(early_ms, abs=20)


def test_what_is_not_there_is_nan(talking: tuple[Path, ...]) -> None:
    clip = features_of(talking[0])
    hidden = replace(clip.tracks[0], is_measured=np.arange(len(clip.tracks[0])) != 40)
    found = LoudnessEstimator().similarities(hidden, clip.sound, LAGS)
    _, exists = rows_of_frames(hidden.start, len(hidden), len(clip.sound.log_mel), LAGS)
    assert (np.isfinite(found) == (exists & hidden.is_measured[:, None])).all()
    nothing = SoundFeatures(np.zeros((0, 40), np.float32), np.zeros((0, 13), np.float32))
    assert np.isnan(LoudnessEstimator().similarities(hidden, nothing, LAGS)).all()


def test_gain_of_the_recording_changes_nothing(talking: tuple[Path, ...]) -> None:
    clip = features_of(talking[0])
    louder = SoundFeatures(clip.sound.log_mel + 12, clip.sound.mfcc)
    for estimator in (LoudnessEstimator(), fitted(talking)):
        first, second = (estimator.similarities(clip.tracks[0], s, LAGS) for s in (clip.sound, louder))
        assert np.nanmax(np.abs(first - second)) < 1e-3
    quiet = band_levels(clip.sound.log_mel, 40)
    assert quiet.max() - quiet.min() < 55


def fitted(videos: tuple[Path, ...], offset_ms: float = 0.0) -> RidgeEstimator:
    clip = features_of(videos[1])
    return RidgeEstimator.fit([RidgeExample(clip.tracks[0], clip.sound, offset_ms)])


def test_ridge_equals_scikit_learn(talking: tuple[Path, ...]) -> None:
    clip = features_of(talking[1])
    track = clip.tracks[0]
    inputs = RidgeEstimator.inputs_of(clip.sound)[ROWS_PER_FRAME * np.arange(len(track))]
    outputs = RidgeEstimator.mouth_of(track)
    alpha = 0.7 * (inputs**2).sum() / inputs.shape[1]
    oracle = Ridge(alpha=alpha, fit_intercept=False).fit(inputs, outputs)
    found = RidgeEstimator.fit([RidgeExample(track, clip.sound, 0.0)], penalty=0.7)
    assert found.weights == pytest.approx(oracle.coef_.T, abs=1e-8)
    assert found.variances == pytest.approx((outputs - oracle.predict(inputs)).var(axis=0), rel=1e-6)


def test_ridge_of_one_person_finds_the_offset_of_another(talking: tuple[Path, ...]) -> None:
    track = features_of(talking[0]).tracks[0]
    sound = sound_features(shifted(voice_of(talking[0]), 200))
    assert best_lag_ms(fitted(talking).similarities(track, sound, LAGS)) == pytest.approx(200, abs=20)


def test_ridge_takes_for_the_offset_what_it_was_told(talking: tuple[Path, ...]) -> None:
    clip = features_of(talking[0])
    found = fitted(talking, offset_ms=-100.0).similarities(clip.tracks[0], clip.sound, LAGS)
    assert best_lag_ms(found) == pytest.approx(-100, abs=40)


def test_distances_are_those_of_the_points() -> None:
    lips = np.zeros((1, 40, 2), np.float32)
    lips[0, 5, 1], lips[0, 15, 1], lips[0, 10, 0], lips[0, 0, 0] = 0.5, -0.25, 0.6, -0.4
    lips[0, 25, 1], lips[0, 35, 1], lips[0, 30, 0], lips[0, 20, 0] = 0.2, -0.1, 0.3, -0.3
    assert lip_distances(lips)[0] == pytest.approx([0.75, 1.0, 0.3, 0.6, 0.5, -0.25])


def test_ridge_without_examples_is_refused(talking: tuple[Path, ...]) -> None:
    clip = features_of(talking[0])
    hidden = replace(clip.tracks[0], is_measured=np.zeros(len(clip.tracks[0]), np.bool_))
    with pytest.raises(ValueError, match="no measured frame"):
        RidgeEstimator.fit([RidgeExample(hidden, clip.sound, 0.0)])
