"""Figures over windows: against scikit-learn, by hand, and on similarities whose answer is planted."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from synthetic_takes import make_take

from facevox.errors import UserError
from lipsync.clips.features import FaceTrack
from lipsync.clips.sounds import SoundFeatures
from lipsync.network.cross_validation import deal_folds
from lipsync.network.evaluation import (
    KINDS,
    Measurements,
    accuracy,
    accuracy_difference,
    add_examples,
    area,
    auc,
    auc_difference,
    calibrated,
    calibrated_as_trained,
    calibration_error,
    clip_in_sync,
    foreign_of,
    is_within_a_frame,
    measure_take,
    over_speakers,
    probabilities_by,
)
from lipsync.sync.calibration import SyncCalibration
from lipsync.sync.estimators import LoudnessEstimator, SyncEstimator


class Planted(SyncEstimator):
    """Finds its own sound at `lag`, and nothing in foreign ones."""

    name = "planted"

    def __init__(self, own: SoundFeatures, lag: int, noise: float, seed: int) -> None:
        self.own, self.lag, self.noise = own, lag, noise
        self.rng = np.random.default_rng(seed)

    def similarities(
        self, track: FaceTrack, sound: SoundFeatures, lags: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        values = self.rng.normal(0, self.noise, (len(track), len(lags)))
        if sound is self.own:
            values += np.exp(-0.5 * ((lags - self.lag) / 3) ** 2)
        return values.astype(np.float32)


def measured(off_by: int = 0, noise: float = 0.02) -> Measurements:
    found = Measurements()
    takes = [make_take(seed, 400, offset_rows=5) for seed in range(4)]
    for number, take in enumerate(takes):
        estimator = Planted(take.sound, take.lag + off_by, noise, number)
        measure_take(found, take, foreign_of(takes, number), estimator, np.random.default_rng(number))
    return found


@pytest.mark.parametrize(("off_by", "is_right"), [(0, True), (5, True), (-5, True), (7, False), (-24, False)])
def test_accuracy_counts_answers_within_a_frame(off_by: int, is_right: bool) -> None:
    found = measured(off_by)
    for length in (15, 50, 125):
        value = accuracy(found, length)
        assert value.value == float(is_right)
        assert (value.low, value.high) == (value.value, value.value)
        assert value.num_speakers == 4
    assert accuracy(found, 50).num == 4 * 7  # (400 frames - 15 at each end, and the offset) of 50


def test_rounding_to_frames() -> None:
    """55 ms are one frame, 65 ms are two; halfway, Python rounds to the even one."""
    for best, is_right in ((5, True), (-5, True), (6, False), (-6, False), (7, False)):
        values = np.zeros((3, 41), np.float32)
        values[:, 20 + best] = 1
        assert is_within_a_frame(values) == is_right


def test_planted_clips_are_told_from_shifted_and_swapped_ones() -> None:
    found = measured()
    likely = calibrated(found, [["speaker0", "speaker1"], ["speaker2", "speaker3"]])
    for kind in KINDS[1:]:
        assert auc(likely, 50, kind).value == 1.0
    assert calibration_error(likely, 50).value < 0.1


def test_noise_is_chance() -> None:
    found = measured(noise=1000.0)
    likely = calibrated(found, [["speaker0", "speaker1"], ["speaker2", "speaker3"]])
    assert 0.25 < auc(likely, 50, KINDS[1]).value < 0.75


def test_difference_is_paired() -> None:
    right, wrong = measured(), measured(off_by=30)
    difference = accuracy_difference(right, wrong, 50)
    assert (difference.value, difference.low, difference.high) == (1.0, 1.0, 1.0)
    likely = calibrated(right, [["speaker0"], ["speaker1", "speaker2", "speaker3"]])
    assert auc_difference(likely, likely, 50, KINDS[1]).value == 0.0


def test_area_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    positives, negatives = rng.integers(0, 9, 60) / 8, rng.integers(0, 7, 45) / 8
    labels = np.r_[np.ones(60), np.zeros(45)]
    expected = roc_auc_score(labels, np.r_[positives, negatives])
    assert area(positives, negatives) == pytest.approx(expected)
    assert np.isnan(area(positives, negatives[:0]))


def test_interval_is_that_of_resampled_speakers() -> None:
    values = {"a": 0.0, "b": 1.0, "c": 1.0, "d": 1.0}
    found = over_speakers(lambda names: float(np.mean([values[n] for n in names])), sorted(values), 4)
    assert found.value == 0.75
    # The share of "a" among four draws: 5 % and 95 % of a binomial of 1/4.
    assert (found.low, found.high) == (0.25, 1.0) or (found.low, found.high) == (0.5, 1.0)


def test_each_speaker_is_scored_by_the_calibration_of_the_others() -> None:
    found = measured()
    folds = [["speaker0"], ["speaker1", "speaker2", "speaker3"]]
    likely = calibrated(found, folds)
    rows = [
        (features, kind == KINDS[0])
        for (_, kind), entries in found.features.items()
        for speaker, features in entries
        if speaker == "speaker0" and kind != KINDS[2]
    ]
    own = SyncCalibration.fit(np.stack([row for row, _ in rows]), np.array([label for _, label in rows]))
    expected = dict.fromkeys(("speaker1", "speaker2", "speaker3"))
    by_hand = probabilities_by(found, own)
    for one, other in zip(likely[50, KINDS[0]], by_hand[50, KINDS[0]], strict=True):
        if one[0] in expected:
            assert one == other


@pytest.mark.parametrize("offset_rows", [0, 9, -14])
def test_sound_of_a_clip_in_sync_is_moved_by_the_known_offset(offset_rows: int) -> None:
    take = make_take(0, 100, start=5, offset_rows=offset_rows)
    clip = clip_in_sync(take)
    for frame in range(10, 90):
        row = 4 * (5 + frame)
        np.testing.assert_array_equal(clip.sound.log_mel[row], take.sound.log_mel[row - take.lag])
        np.testing.assert_array_equal(clip.sound.mfcc[row], take.sound.mfcc[row - take.lag])
    assert clip.num_frames == 105


def test_calibration_as_trained_is_fitted_on_the_examples_of_other_folds() -> None:
    found = measured()
    takes = [make_take(seed, 400) for seed in range(4)]
    folds = [["speaker0", "speaker1"], ["speaker2", "speaker3"]]
    for number, part in enumerate((takes[:2], takes[2:])):
        add_examples(found, number, part, takes[0], LoudnessEstimator())
    likely = calibrated_as_trained(found, folds)
    features, labels = zip(*found.examples[1], strict=True)
    expected = probabilities_by(found, SyncCalibration.fit(np.stack(features), np.array(labels)))
    for kind in KINDS:
        first = [row for row in expected[50, kind] if row[0] in folds[0]]
        assert [row for row in likely[50, kind] if row[0] in folds[0]] == first
        assert len(likely[50, kind]) == len(found.features[50, kind])


def test_fold_of_one_take_borrows_a_sound_to_swap() -> None:
    found, takes = Measurements(), [make_take(seed, 300) for seed in range(2)]
    add_examples(found, 0, takes[:1], takes[1], LoudnessEstimator())
    assert {label for _, label in found.examples[0]} == {True, False}


def test_foreign_sound_is_of_another_speaker() -> None:
    takes = [make_take(seed, 100 + 10 * seed, speaker=f"s{seed % 2}") for seed in range(4)]
    for number in range(4):
        foreign = foreign_of(takes, number)
        assert foreign is not None
        assert foreign.speaker != takes[number].speaker
    assert foreign_of(takes[:1], 0) is None


def test_folds_hold_every_speaker_once_and_are_about_even() -> None:
    takes = [make_take(seed, 50 * (1 + seed % 3), speaker=f"s{seed // 2}") for seed in range(14)]
    folds = deal_folds(takes, 3)
    assert sorted(name for fold in folds for name in fold) == [f"s{k}" for k in range(7)]
    sizes = [sum(len(t.track) for t in takes if t.speaker in fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 250
    with pytest.raises(UserError, match="2 to 7 are possible"):
        deal_folds(takes, 8)
