"""From curves to probabilities: against scikit-learn, by hand, and on clips that were not fitted on."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from talking_clips import features_of, make_talking, shifted, voice_of

from facevox import cli
from facevox.calibration import expected_calibration_error
from facevox.errors import UserError
from facevox.files import read_json
from lipsync import calibration
from lipsync.clips.clip_files import write_clip
from lipsync.clips.sounds import sound_features
from lipsync.sync.calibration import (
    FEATURE_NAMES,
    LOUDNESS_CALIBRATION,
    PENALTY,
    SyncCalibration,
    calibration_examples,
    curve_features,
    fit_calibration,
)
from lipsync.sync.estimators import LoudnessEstimator
from lipsync.sync.offset import LagCurve, lag_curve, search_lags


@pytest.fixture(scope="module")
def talking(load_script, tmp_path_factory) -> tuple[Path, ...]:
    return make_talking(load_script, tmp_path_factory)


def two_kinds(count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 4 == 0  # unlike numbers: both kinds must weigh the same
    features = rng.normal(size=(count, 3)) * [2.0, 1.0, 0.3] + labels[:, None] * [2.0, -1.0, 0.0]
    return features, labels


def test_fit_equals_scikit_learn() -> None:
    features, labels = two_kinds()
    found = SyncCalibration.fit(features, labels)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    weights = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    oracle = LogisticRegression(C=1 / PENALTY, tol=1e-10, max_iter=1000)
    oracle.fit(standard, labels, sample_weight=weights)
    expected = oracle.predict_proba(standard)[:, 1]
    assert found.probabilities(features) == pytest.approx(expected, abs=1e-4)


def test_fit_wants_both_kinds() -> None:
    features, _ = two_kinds(20)
    with pytest.raises(ValueError, match="out of sync"):
        SyncCalibration.fit(features, np.ones(20, np.bool_))


def test_separable_examples_give_finite_weights() -> None:
    features = np.array([[0.0, 1.0, 1.0], [5.0, 0.0, 1.0]] * 10)
    found = SyncCalibration.fit(features, np.array([False, True] * 10))
    assert np.isfinite(found.weights).all()
    assert found.probabilities(features)[1] > 0.9


def test_plain_numbers_come_back_and_others_are_refused() -> None:
    plain = LOUDNESS_CALIBRATION.to_plain()
    assert SyncCalibration.from_plain(plain) == LOUDNESS_CALIBRATION
    for wrong in ({}, plain | {"weights": [1.0]}, plain | {"bias": "x"}, plain | {"features": ["a"]}):
        with pytest.raises(UserError, match="calibration"):
            SyncCalibration.from_plain(wrong)
    with pytest.raises(UserError, match="numbers"):
        SyncCalibration.from_plain(plain | {"bias": float("nan")})


def test_features_of_a_curve_by_hand() -> None:
    lags = np.arange(-20, 21)
    values = np.where(np.arange(41) % 2, 1.0, -1.0) * 0.1
    values[24], values[35] = 2.0, 3.0  # 40 ms: in sync; 150 ms: not
    curve = LagCurve(lags, values, np.full(41, 50))
    middle = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - middle))
    expected = [(2.0 - middle) / spread, 1.0 / spread, np.log(2.0)]
    assert curve_features(curve) == pytest.approx(expected, rel=1e-6)


def test_a_curve_without_lags_in_sync_has_no_probability() -> None:
    lags = np.arange(-20, 21)
    values = np.where(np.abs(lags) <= 6, np.nan, 1.0)
    with pytest.raises(ValueError, match="in sync"):
        LOUDNESS_CALIBRATION.probability(LagCurve(lags, values, np.full(41, 50)))


@pytest.mark.parametrize(("early_ms", "least", "most"), [(0, 0.8, 1), (120, 0, 0.1), (-400, 0, 0.1)])
def test_shipped_numbers_tell_clips_in_sync_from_shifted_ones(
    talking: tuple[Path, ...], early_ms: int, least: float, most: float
) -> None:
    for video in talking:
        sound = sound_features(shifted(voice_of(video), early_ms))
        found = LoudnessEstimator().similarities(features_of(video).tracks[0], sound, search_lags())
        assert least <= LOUDNESS_CALIBRATION.probability(lag_curve(found, search_lags())) <= most


def test_program_fits_on_clip_files_and_says_so(talking: tuple[Path, ...], tmp_path: Path, capsys) -> None:
    clips = [features_of(video) for video in talking]
    for number, clip in enumerate(clips):
        write_clip(tmp_path / f"clips/{number}.npz", clip, {"video": "", "audio": "", "speaker": ""})
    output = tmp_path / "out/calibration.json"
    options = ["--set", f"paths.processed_dir={tmp_path / 'clips'}", "--output", str(output)]
    assert cli.run(calibration.main, options) == 0
    found = SyncCalibration.from_plain(read_json(output))
    features, labels = zip(*calibration_examples(clips, LoudnessEstimator(), seed=9), strict=True)
    probabilities = found.probabilities(np.stack(features))
    assert expected_calibration_error(probabilities, np.array(labels), 10) < 0.3
    assert np.mean((probabilities > 0.5) == np.array(labels)) > 0.85
    assert "2 clips" in capsys.readouterr().out


def test_one_clip_is_too_few(talking: tuple[Path, ...], tmp_path: Path, capsys) -> None:
    with pytest.raises(UserError, match="at least two"):
        fit_calibration([features_of(talking[0])], LoudnessEstimator())
    options = ["--set", f"paths.processed_dir={tmp_path / 'none'}", "--output", str(tmp_path / "x.json")]
    assert cli.run(calibration.main, options) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert len(FEATURE_NAMES) == len(LOUDNESS_CALIBRATION.weights)
