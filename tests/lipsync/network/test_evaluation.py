"""Figures over windows: against scikit-learn, by hand, and on similarities whose answer is planted."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from synthetic_takes import make_take, measure_planted

from facevox.intervals import NUM_DRAWS
from lipsync.network.evaluation import (
    KINDS,
    Measurements,
    accuracy,
    area_under_roc,
    auc,
    foreign_of,
    is_within_a_frame,
    mean_over_speakers,
    probabilities_by,
)
from lipsync.sync.calibration import SyncCalibration


def measured(off_by: int = 0, noise: float = 0.02) -> Measurements:
    found = Measurements()
    measure_planted(found, off_by, noise)
    return found


@pytest.mark.parametrize(("off_by", "is_right"), [(0, True), (5, True), (-5, True), (7, False), (-24, False)])
def test_accuracy_counts_answers_within_a_frame(off_by: int, is_right: bool) -> None:
    found = measured(off_by)
    for length in (15, 50, 125):
        value = accuracy(found, length)
        assert value.value == float(is_right)
        assert (value.low, value.high) == (value.value, value.value)
        assert value.num_groups == 4
    assert accuracy(found, 50).num == 4 * 7  # (400 frames - 15 at each end, and the offset) of 50


def test_rounding_to_frames() -> None:
    """55 ms are one frame, 65 ms are two; halfway, Python rounds to the even one."""
    for best, is_right in ((5, True), (-5, True), (6, False), (-6, False), (7, False)):
        values = np.zeros((3, 41), np.float32)
        values[:, 20 + best] = 1
        assert is_within_a_frame(values) == is_right


def test_area_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    positives, negatives = rng.integers(0, 9, 60) / 8, rng.integers(0, 7, 45) / 8
    times = rng.integers(0, 4, (3, 105)).astype(float)
    times[0] = 1.0
    labels = np.r_[np.ones(60), np.zeros(45)]
    expected = [roc_auc_score(labels, np.r_[positives, negatives], sample_weight=row) for row in times]
    found = area_under_roc(positives, negatives, times[:, :60], times[:, 60:])
    assert found == pytest.approx(expected)
    assert np.isnan(area_under_roc(positives, negatives[:0], times[:, :60], times[:, :0])).all()


def test_interval_is_that_of_resampled_speakers() -> None:
    found = mean_over_speakers({"b": [1], "a": [0], "d": [1], "c": [1], "none": []})
    # The share of "a" among four draws: 2.5 % and 97.5 % of a binomial of 1/4.
    assert (found.value, found.low, found.high) == (0.75, 0.25, 1.0)
    assert (found.num, found.num_groups) == (4, 4)


def test_interval_of_the_area_is_that_of_windows_of_resampled_speakers() -> None:
    rng = np.random.default_rng(3)
    likely = {
        (50, kind): [(f"s{k}", float(mean + rng.normal())) for k in range(5) for _ in range(2 + k)]
        for kind, mean in ((KINDS[0], 1.0), (KINDS[1], 0.0))
    }
    likely[50, KINDS[0]].append(("without a shifted window", 9.0))
    draws, drawn = np.random.default_rng(0), []
    for _ in range(NUM_DRAWS):
        names = [f"s{k}" for k in draws.integers(0, 5, 5)]
        sides = [
            [value for name in names for own, value in likely[50, kind] if own == name] for kind in KINDS[:2]
        ]
        drawn.append(np.mean([[above > below for below in sides[1]] for above in sides[0]]))
    found = auc(likely, 50, KINDS[1])
    assert [found.low, found.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]).tolist())
    assert (found.num, found.num_groups) == (20, 5)


@pytest.mark.parametrize(("noise", "least", "most"), [(0.02, 1.0, 1.0), (1000.0, 0.25, 0.75)])
def test_planted_clips_are_told_apart_and_noise_is_chance(noise: float, least: float, most: float) -> None:
    found = measured(noise=noise)
    rows = [
        (features, kind == KINDS[0])
        for kind in (KINDS[0], KINDS[1])
        for speaker, features in found.features[50, kind]
        if speaker in ("speaker0", "speaker1")
    ]
    fitted = SyncCalibration.fit(np.stack([row for row, _ in rows]), np.array([label for _, label in rows]))
    likely = probabilities_by(found, fitted)
    others = {key: [row for row in rows if row[0] > "speaker1"] for key, rows in likely.items()}
    assert least <= auc(others, 50, KINDS[1]).value <= most


def test_foreign_sound_is_of_another_speaker() -> None:
    takes = [make_take(seed, 100 + 10 * seed, speaker=f"s{seed % 2}") for seed in range(4)]
    for number in range(4):
        foreign = foreign_of(takes, number)
        assert foreign is not None
        assert foreign.speaker != takes[number].speaker
    assert foreign_of(takes[:1], 0) is None
