"""Training on clips that are not in sync: their offsets are found, and what has none is left out."""

import logging
import re
from dataclasses import replace

import pytest
from synthetic_takes import make_take

from lipsync.network import found_offsets
from lipsync.network.found_offsets import with_found_offsets
from lipsync.network.run import known_offsets
from lipsync.network.takes import Take
from lipsync.settings import Settings, TrainingSettings
from lipsync.sync.estimators import UNTRAINED_CALIBRATION, LoudnessEstimator
from lipsync.sync.methods import Method


@pytest.fixture(autouse=True)
def for_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model of the package knows real lips; these are numbers."""
    method = Method("shipped: of the test", LoudnessEstimator(), UNTRAINED_CALIBRATION)
    monkeypatch.setattr(found_offsets, "load_shipped", lambda: method)


def shifted_takes() -> list[Take]:
    """Six takes off by -200 to 300 ms, of which nobody has been informed."""
    takes = [make_take(seed, 300, offset_rows=-20 + 10 * seed) for seed in range(6)]
    return [replace(take, offset_ms=0.0, name=f"{number}.mp4") for number, take in enumerate(takes)]


def test_offset_of_each_take_is_found() -> None:
    for number, take in enumerate(with_found_offsets(shifted_takes())):
        assert take.offset_ms == pytest.approx(-200 + 100 * number, abs=20)


def test_take_with_the_sound_of_another_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    takes = shifted_takes()
    takes[2] = replace(takes[2], sound=make_take(40, 300).sound)
    with caplog.at_level(logging.INFO):
        used = with_found_offsets(takes)
    assert [take.name for take in used] == ["0.mp4", "1.mp4", "3.mp4", "4.mp4", "5.mp4"]
    assert "2.mp4: left out" in caplog.text
    assert re.search(r"offsets of 5 of 6 faces found, up to (29|30|31)\d ms", caplog.text)


def test_where_few_stand_out_all_are_taken_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    takes = [replace(take, sound=make_take(40 + n, 300).sound) for n, take in enumerate(shifted_takes())]
    with caplog.at_level(logging.INFO):
        assert with_found_offsets(takes) == takes
    assert "all are taken to be in sync" in caplog.text


def test_setting_says_that_clips_are_in_sync() -> None:
    takes = shifted_takes()
    zero = Settings(training=TrainingSettings(offsets="zero"))
    assert [take.offset_ms for take in known_offsets(takes, zero)] == [0.0] * 6
    assert known_offsets(takes, Settings())[5].offset_ms == pytest.approx(300, abs=20)
