"""Figures over windows: against scikit-learn, by hand, and on similarities whose answer is planted."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from synthetic_takes import PLANTED_CALIBRATION, Planted, make_take, measure_planted

from facevox.intervals import NUM_DRAWS
from lipsync.clips.features import FaceTrack
from lipsync.clips.sounds import SoundFeatures
from lipsync.network.evaluation import (
    KINDS,
    REACH_ROWS,
    SCORED_FRAMES,
    SEARCHES_MS,
    SHIFTED,
    SHIFTS_ROWS,
    SWAPPED,
    SYNCED,
    WINDOW_FRAMES,
    Answer,
    Measurements,
    accuracy,
    answer_measures,
    area_under_roc,
    auc,
    calibration_examples,
    cut_examples,
    foreign_of,
    is_found,
    mean_over_speakers,
    measure_take,
)
from lipsync.sync.offset import search_lags
from lipsync.sync.posterior import fit_calibration
from lipsync.sync.verdicts import AUDIO_EARLY, AUDIO_LATE, IN_SYNC, NO_MATCH

MIDDLE = len(search_lags()) // 2


def measured(off_by: int = 0, noise: float = 0.02) -> Measurements:
    found = Measurements()
    measure_planted(found, off_by, noise)
    return found


@pytest.mark.parametrize(
    ("off_by", "is_right"), [(0, True), (4, True), (-4, True), (5, False), (-5, False), (-24, False)]
)
def test_accuracy_counts_answers_within_40_ms(off_by: int, is_right: bool) -> None:
    found = measured(off_by)
    for search in SEARCHES_MS:
        for length in (15, 50, 125):
            value = accuracy(found, length, search)
            assert value.value == float(is_right)
            assert (value.low, value.high) == (value.value, value.value)
            assert value.num_groups == 4
    # 400 frames less 15 at each end (a longer search: 25), and the offset.
    assert (accuracy(found, 50).num, accuracy(found, 5).num) == (4 * 7, 4 * 74)
    assert accuracy(found, 5, 1000.0).num == 4 * 70


def test_found_is_within_40_ms_of_the_middle() -> None:
    for best, is_right in ((0, True), (4, True), (-4, True), (5, False), (-5, False), (-60, False)):
        values = np.zeros((3, 121), np.float32)
        values[:, 60 + best] = 1
        values[0, 60 + best + 1] = 2  # of one frame; their mean counts
        assert is_found(values) == is_right


def test_longer_search_finds_what_is_farther_away() -> None:
    """A higher hill 800 ms away is outside the search of 600 ms."""

    class WithHillFarAway(Planted):
        def similarities(
            self, track: FaceTrack, sound: SoundFeatures, lags: NDArray[np.int64]
        ) -> NDArray[np.float32]:
            own = super().similarities(track, sound, lags)
            return own + 2 * np.exp(-0.5 * ((lags - self.lag - 80) / 3) ** 2).astype(np.float32)

    found, take = Measurements(), make_take(0, 400)
    estimator = WithHillFarAway(take.sound, 0, 0.02, 0)
    measure_take(found, take, None, estimator, None, np.random.default_rng(0))
    assert accuracy(found, 50, 600.0).value == 1
    assert accuracy(found, 50, 1000.0).value == 0


def test_without_a_calibration_nothing_is_reported() -> None:
    found = Measurements()
    measure_planted(found, calibration=None)
    assert accuracy(found, 50).value == 1
    assert not any(found.answers.values())
    for length in SCORED_FRAMES:
        assert answer_measures(found, length) == {}


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
    found = Measurements()
    for kind, mean in ((SYNCED, 1.0), (SHIFTED, 0.0)):
        found.answers[50, kind] = [
            Answer(f"s{k}", float(mean + rng.normal()), IN_SYNC, 0.0, True)
            for k in range(5)
            for _ in range(2 + k)
        ]
    found.answers[50, SYNCED].append(Answer("without a shifted window", 9.0, IN_SYNC, 0.0, True))
    draws, drawn = np.random.default_rng(0), []
    for _ in range(NUM_DRAWS):
        names = [f"s{k}" for k in draws.integers(0, 5, 5)]
        sides = [
            [answer.score for name in names for answer in found.answers[50, kind] if answer.speaker == name]
            for kind in (SYNCED, SHIFTED)
        ]
        drawn.append(np.mean([[above > below for below in sides[1]] for above in sides[0]]))
    area = auc(found, 50, SHIFTED)
    assert [area.low, area.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]).tolist())
    assert (area.num, area.num_groups) == (20, 5)


def test_planted_offsets_are_told_and_swapped_sounds_are_not_said_to_match() -> None:
    found = measured()
    for length, num in ((50, 4 * 7), (125, 4 * 2), (250, 4)):
        for kind in KINDS:
            assert len(found.answers[length, kind]) == num
        assert {answer.verdict for answer in found.answers[length, SYNCED]} == {IN_SYNC}
        assert {answer.verdict for answer in found.answers[length, SWAPPED]} == {NO_MATCH}
        for answer in found.answers[length, SHIFTED]:
            assert answer.verdict in (AUDIO_EARLY, AUDIO_LATE)
            assert abs(answer.error_ms) < 10
        measures = {what: measure.value for what, measure in answer_measures(found, length).items()}
        assert measures.pop("calibration error") < 0.05
        assert measures == {
            "shifted: right offset reported": 1.0,
            'shifted: false "no match"': 0.0,
            "shifted: wrong offset reported": 0.0,
            "shifted: cannot tell": 0.0,
            "in sync: said to be": 1.0,
            "swapped: said to match": 0.0,
            'swapped: said to be "no match"': 1.0,
            "interval holds the offset": 1.0,
            f"AUC, in sync against {SHIFTED}": 1.0,
            f"AUC, in sync against {SWAPPED}": 1.0,
        }
    # Both directions come up.
    assert {answer.verdict for answer in found.answers[50, SHIFTED]} == {AUDIO_EARLY, AUDIO_LATE}


def test_offsets_found_at_the_wrong_place_are_counted_as_wrong() -> None:
    measures = answer_measures(measured(off_by=20), 50)
    assert measures["shifted: right offset reported"].value == 0
    assert measures["shifted: wrong offset reported"].value > 0.8  # a shift of -20 rows makes it in sync
    assert measures["in sync: said to be"].value == 0
    assert measures["interval holds the offset"].value == 0


def test_noise_is_chance() -> None:
    found = measured(noise=1000.0)
    measures = answer_measures(found, 50)
    assert 0.25 < measures[f"AUC, in sync against {SHIFTED}"].value < 0.75
    assert measures["shifted: right offset reported"].value < 0.2
    assert measures["swapped: said to match"].value < 0.2


def test_examples_to_calibrate_on_have_their_lag_in_the_right_column() -> None:
    takes = [make_take(seed, 400, offset_rows=7 - 5 * seed) for seed in range(3)]

    class Each(Planted):
        """Each face with its own sound."""

        def __init__(self) -> None:
            super().__init__(takes[0].sound, 0, 0.02, 0)

        def similarities(
            self, track: FaceTrack, sound: SoundFeatures, lags: NDArray[np.int64]
        ) -> NDArray[np.float32]:
            owner = next(take for take in takes if take.track is track)
            self.own, self.lag = owner.sound, owner.lag
            return super().similarities(track, sound, lags)

    examples = calibration_examples(takes, Each(), seed=2)
    matching = [example for example in examples if example.lag is not None]
    assert len(examples) == 3 * (7 + 2 + 1) * 3
    assert len(matching) == 2 * len(examples) // 3
    shifts = set()
    for example in matching:
        assert example.similarities.shape[1] == 2 * MIDDLE + 1
        assert int(np.nanmean(example.similarities, axis=0).argmax()) == MIDDLE + example.lag
        shifts.add(example.lag)
    assert {example.person for example in examples} == {"speaker0", "speaker1", "speaker2"}
    shifts.remove(0)
    assert all(SHIFTS_ROWS[0] <= abs(shift) <= SHIFTS_ROWS[1] for shift in shifts)
    assert min(shifts) < 0 < max(shifts)
    assert len(shifts) > 15
    again, other = (calibration_examples(takes, Each(), seed=seed) for seed in (2, 3))
    assert [example.lag for example in again] == [example.lag for example in examples]
    assert [example.lag for example in other] != [example.lag for example in examples]


def test_calibration_of_planted_examples_tells_new_windows_apart() -> None:
    take, other = make_take(0, 400), make_take(1, 400)
    fitted = fit_calibration(
        calibration_examples([take, other], Planted(take.sound, 0, 0.5, 0), seed=0), search_lags()
    )
    found, new = Measurements(), make_take(2, 400)
    rng = np.random.default_rng(1)
    measure_take(found, new, take, Planted(new.sound, 0, 0.5, 1), fitted, rng)
    measures = answer_measures(found, 50)
    for kind in (SHIFTED, SWAPPED):
        assert measures[f"AUC, in sync against {kind}"].value > 0.9


def test_without_a_foreign_sound_only_matching_windows_are_cut() -> None:
    take = make_take(0, 400)
    estimator = Planted(take.sound, 0, 0.02, 0)
    lags = np.arange(-REACH_ROWS, REACH_ROWS + 1)
    matching = estimator.similarities(take.track, take.sound, lags)
    cut = [*cut_examples(take, matching, None, estimator, np.random.default_rng(0), (50, 125))]
    assert {kind for _, kind, _ in cut} == {SYNCED, SHIFTED}
    assert {length for length, _, _ in cut} == {50, 125}
    assert {len(example.similarities) for length, _, example in cut if length == 125} == {125}


def test_foreign_sound_that_ends_earlier_swaps_fewer_windows() -> None:
    found, take = Measurements(), make_take(0, 400)
    estimator = Planted(take.sound, 0, 0.02, 0)
    measure_take(found, take, make_take(1, 200), estimator, PLANTED_CALIBRATION, np.random.default_rng(0))
    assert len(found.answers[50, SYNCED]) == 7
    assert len(found.answers[50, SWAPPED]) == 3  # from frame 15, of 200


def test_too_short_takes_have_no_windows() -> None:
    found = Measurements()
    take = make_take(0, 34)  # 30 frames are beyond the search
    estimator = Planted(take.sound, 0, 0.02, 0)
    measure_take(found, take, None, estimator, PLANTED_CALIBRATION, np.random.default_rng(0))
    assert not any(any(found.hits[600.0][length].values()) for length in WINDOW_FRAMES[1:])
    assert not any(found.answers.values())


def test_foreign_sound_is_of_another_speaker() -> None:
    takes = [make_take(seed, 100 + 10 * seed, speaker=f"s{seed % 2}") for seed in range(4)]
    for number in range(4):
        foreign = foreign_of(takes, number)
        assert foreign is not None
        assert foreign.speaker != takes[number].speaker
    assert foreign_of(takes[:1], 0) is None
