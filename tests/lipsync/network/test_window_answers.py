"""Answers on a window, and the shares of it: by hand, and on similarities whose answer is known."""

import math

import numpy as np
import pytest
from planted import CALIBRATION, LAGS, similar

from lipsync.network.evaluation import (
    FAR_MS,
    SHIFTED,
    SWAPPED,
    SYNCED,
    Answer,
    Measurements,
    answer_measures,
    answer_of,
    calibration_error,
    is_right,
    is_wrong,
    says_match,
    share_of_answers,
)
from lipsync.sync.posterior import BLOCK_FRAMES, Example, block_evidence, find_posterior
from lipsync.sync.verdicts import AUDIO_EARLY, AUDIO_LATE, CANNOT_TELL, IN_SYNC, NO_MATCH

NAN = float("nan")


def made(
    speaker: str = "a",
    score: float = 0.5,
    verdict: str = IN_SYNC,
    error_ms: float = NAN,
    is_covered: bool = False,
) -> Answer:
    return Answer(speaker, score, verdict, error_ms, is_covered)


# --- one window ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "verdict"), [(0.0, IN_SYNC), (2.4, IN_SYNC), (31.0, AUDIO_EARLY), (-27.5, AUDIO_LATE)]
)
def test_offset_of_a_planted_window_is_reported(place: float, verdict: str) -> None:
    found = answer_of(Example(similar(np.full(75, place), 0.1), round(place), "ann"), CALIBRATION)
    assert found is not None
    assert (found.speaker, found.verdict) == ("ann", verdict)
    assert found.error_ms == pytest.approx(10 * (place - round(place)), abs=5)
    assert found.is_covered
    assert (found.score > 0.9) == (verdict == IN_SYNC)
    assert is_right(found)
    assert says_match(found)


def test_score_is_that_of_the_posterior() -> None:
    similarities = similar(np.full(50, 5.5), 0.3)
    evidence, counts = block_evidence(similarities, CALIBRATION.sharpness)
    posterior = find_posterior(evidence.sum(axis=0, dtype=float), int(counts.sum()), LAGS, CALIBRATION)
    found = answer_of(Example(similarities, 5, "ann"), CALIBRATION)
    assert posterior is not None
    assert found is not None
    assert 0.1 < found.score < 0.9
    assert found.score == pytest.approx(posterior.in_sync)


def test_offset_told_at_the_wrong_place_is_wrong_and_not_covered() -> None:
    found = answer_of(Example(similar(np.full(75, 20.0), 0.1), -15, "ann"), CALIBRATION)
    assert found is not None
    assert found.error_ms == pytest.approx(350, abs=5)
    assert not found.is_covered
    assert is_wrong(found)
    assert not is_right(found)


def test_sound_of_another_is_no_match_and_has_no_error() -> None:
    rng = np.random.default_rng(1)
    wander = np.repeat(rng.integers(-90, 91, 13), BLOCK_FRAMES)[:125].astype(float)
    for lag in (None, 0):
        found = answer_of(Example(similar(wander, 0.3), lag, "ann"), CALIBRATION)
        assert found is not None
        assert found.verdict == NO_MATCH
        assert found.score < 0.05
        assert math.isnan(found.error_ms)
        assert not says_match(found)
    swapped = answer_of(Example(similar(np.zeros(75), 0.1), None, "ann"), CALIBRATION)
    assert swapped is not None
    assert says_match(swapped)  # wrongly
    assert math.isnan(swapped.error_ms)
    assert not swapped.is_covered


def test_nothing_that_stands_out_is_no_answer() -> None:
    flat = answer_of(Example(np.zeros((75, len(LAGS)), np.float32), 3, "ann"), CALIBRATION)
    assert flat is not None
    assert flat.verdict == CANNOT_TELL
    assert math.isnan(flat.error_ms)
    assert flat.is_covered  # by an interval of nearly all lags
    assert not says_match(flat)


@pytest.mark.parametrize(("num_measured", "is_reported"), [(19, False), (20, True)])
def test_too_few_measured_frames_give_no_answer(num_measured: int, is_reported: bool) -> None:
    similarities = similar(np.zeros(75), 0.1)
    similarities[num_measured:] = np.nan
    assert (answer_of(Example(similarities, 0, "ann"), CALIBRATION) is not None) == is_reported


@pytest.mark.parametrize(
    ("error_ms", "right", "wrong"),
    [(0.0, True, False), (40.0, True, False), (-40.0, True, False), (40.1, False, False),
     (-99.0, False, False), (FAR_MS, False, False), (101.0, False, True), (-350.0, False, True),
     (NAN, False, False)],
)  # fmt: skip
def test_right_is_within_40_ms_and_wrong_beyond_100(error_ms: float, right: bool, wrong: bool) -> None:
    answer = made(error_ms=error_ms)
    assert (is_right(answer), is_wrong(answer)) == (right, wrong)


@pytest.mark.parametrize("verdict", [IN_SYNC, AUDIO_EARLY, AUDIO_LATE, NO_MATCH, CANNOT_TELL])
def test_in_sync_early_and_late_say_that_both_belong_together(verdict: str) -> None:
    assert says_match(made(verdict=verdict)) == (verdict not in (NO_MATCH, CANNOT_TELL))


# --- many windows ----------------------------------------------------------------------------------------


def test_share_is_over_windows_and_its_interval_over_speakers() -> None:
    answers = [made("a", verdict=NO_MATCH), *(made(name) for name in "bcd")]
    found = share_of_answers(answers, lambda answer: answer.verdict == NO_MATCH)
    # One of four: 2.5 % and 97.5 % of a binomial of 1/4 among four draws.
    assert (found.value, found.low, found.high) == (0.25, 0.0, 0.75)
    assert (found.num, found.num_groups) == (4, 4)
    of_one = share_of_answers([made("a"), made("a", verdict=NO_MATCH)], says_match)
    assert (of_one.value, of_one.num, of_one.num_groups) == (0.5, 2, 1)
    assert math.isnan(of_one.low)
    uneven = share_of_answers([*[made("a")] * 3, made("b", verdict=NO_MATCH)], says_match)
    assert uneven.value == 0.75  # of windows, not of speakers


def hand_made() -> Measurements:
    """Answers on windows of 2 s of two speakers."""
    found = Measurements()
    found.answers[50, SYNCED] = [
        made("a", 0.9, IN_SYNC, 10, True), made("a", 0.8, AUDIO_EARLY, 70, False),
        made("b", 0.7, CANNOT_TELL, NAN, True), made("b", 0.3, IN_SYNC, -20, True),
    ]  # fmt: skip
    found.answers[50, SHIFTED] = [
        made("a", 0.1, AUDIO_EARLY, 40, True), made("a", 0.4, AUDIO_LATE, -300, False),
        made("b", 0.2, NO_MATCH, NAN, False), made("b", 0.1, CANNOT_TELL, NAN, True),
        made("b", 0.3, AUDIO_LATE, 60, False),
    ]  # fmt: skip
    found.answers[50, SWAPPED] = [
        made("a", 0.05, NO_MATCH), made("b", 0.2, AUDIO_LATE),
        made("b", 0.6, IN_SYNC), made("b", 0.1, NO_MATCH),
    ]  # fmt: skip
    return found


def test_measures_are_those_of_the_hand() -> None:
    measures = answer_measures(hand_made(), 50)
    expected = {
        "shifted: right offset reported": 1 / 5,
        'shifted: false "no match"': 1 / 5,
        "shifted: wrong offset reported": 1 / 5,
        "shifted: cannot tell": 1 / 5,
        "in sync: said to be": 2 / 4,
        "swapped: said to match": 2 / 4,
        'swapped: said to be "no match"': 2 / 4,
        "interval holds the offset": (3 + 2) / 9,
        # Of the pairs: 0.9, 0.8 and 0.7 are above all; 0.3 is above three, below one, and ties with one.
        f"AUC, in sync against {SHIFTED}": (15 + 3 + 0.5) / 20,
        f"AUC, in sync against {SWAPPED}": (12 + 3) / 16,
        # Shifted number 0, 2 and 4 and swapped number 1 and 3 are the other half. Bins: (0.9, 1), (0.8, 1),
        # (0.7, 1), (0.3, 1 and 0), two of 0.1 and two of 0.2, all of them not in sync.
        "calibration error": (0.1 + 0.2 + 0.3 + abs(0.6 - 1) + 0.2 + 0.4) / 9,
    }
    assert {what: measure.value for what, measure in measures.items()} == pytest.approx(expected)
    nums = {what: measure.num for what, measure in measures.items()}
    assert nums["interval holds the offset"] == 9
    assert nums["calibration error"] == 9
    assert all(measure.num_groups == 2 for measure in measures.values())
    assert answer_measures(hand_made(), 125) == {}


@pytest.mark.parametrize("without", [SYNCED, SHIFTED, SWAPPED])
def test_what_has_no_window_is_left_out(without: str) -> None:
    found = hand_made()
    whole = answer_measures(found, 50)
    found.answers[50, without] = []
    left = answer_measures(found, 50)
    begin = {SYNCED: "in sync:", SHIFTED: "shifted:", SWAPPED: "swapped:"}[without]
    gone = {what for what in whole if what.startswith(begin)} | {"calibration error"}
    if without != SWAPPED:
        gone.add("interval holds the offset")
    gone |= {what for what in whole if what.startswith("AUC") and (without == SYNCED or without in what)}
    assert whole.keys() - left.keys() == gone
    assert {what: left[what] for what in left} == {what: whole[what] for what in left}


def test_calibrated_scores_have_a_small_error_and_sure_wrong_ones_a_large_one() -> None:
    rng = np.random.default_rng(0)
    right, wrong = Measurements(), Measurements()
    for number in range(4000):
        speaker, score = f"s{number % 7}", float(rng.random())
        is_sync = rng.random() < score
        # Half of those out of sync are shifted and half swapped; of each list every other one is used.
        kinds = [SYNCED] if is_sync else [SHIFTED, SWAPPED]
        for kind in kinds:
            right.answers[50, kind].append(made(speaker, score))
            wrong.answers[50, kind].append(made(speaker, float(not is_sync)))
    assert calibration_error(right, 50).value < 0.03
    found = calibration_error(wrong, 50)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
