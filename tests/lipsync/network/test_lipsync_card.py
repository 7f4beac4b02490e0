"""The model card of a lip-sync training, word for word."""

import platform
import re
from pathlib import Path

import numpy as np
import torch

from facevox.training.trainer import DONE, TrainingResult
from lipsync.network.evaluation import KINDS, SWAPPED, Answer, Measurements
from lipsync.network.model_card import write_model_card
from lipsync.settings import Settings
from lipsync.sync.estimators import UNTRAINED_CALIBRATION
from lipsync.sync.posterior import SyncCalibration
from lipsync.sync.verdicts import AUDIO_EARLY, CANNOT_TELL, IN_SYNC, NO_MATCH

NOTES = {
    "num_clips": {"train": 80, "validation": 10, "test": 10},
    "num_speakers": {"train": 40, "validation": 5, "test": 6},
    "split_hash": "abc123",
    "features": "numpy",
}
RESULT = TrainingResult(
    status=DONE, message="40 epochs done", history=[], best_epoch=33, num_steps=400, num_new_steps=400
)


def measurements(seed: int, speakers: int = 6) -> Measurements:
    """Random answers for windows of up to 2 s, whose scores tell the kinds apart more or less."""
    rng, found = np.random.default_rng(seed), Measurements()
    for number in range(speakers):
        for length in (5, 25, 50):
            found.hits[600.0][length][f"s{number}"] = (rng.random(4 + 2 * number) < 0.7).tolist()
        found.hits[1000.0][50][f"s{number}"] = (rng.random(2 + number) < 0.5).tolist()
        for place, kind in enumerate(KINDS):
            for _ in range(3 + number):
                score = float(np.clip(0.8 - 0.25 * place + rng.normal(0, 0.3), 0, 1))
                verdict = [IN_SYNC, AUDIO_EARLY, NO_MATCH, CANNOT_TELL][int(rng.integers(4))]
                has_offset = kind != SWAPPED and verdict in (IN_SYNC, AUDIO_EARLY)
                error_ms = float(rng.normal(0, 80)) if has_offset else float("nan")
                answer = Answer(f"s{number}", score, verdict, error_ms, bool(rng.random() < 0.9))
                found.answers[50, kind].append(answer)
    return found


def written(
    folder: Path,
    results: dict[str, Measurements],
    calibration: SyncCalibration | None = UNTRAINED_CALIBRATION,
) -> str:
    card = write_model_card(folder, Settings(), NOTES, RESULT, results, calibration)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}"
    return card.read_text(encoding="utf-8").replace(versions, "VERSIONS")


def test_card_is_word_for_word_what_it_was(tmp_path: Path) -> None:
    text = written(tmp_path, {"network": measurements(0), "untrained": measurements(1)})
    assert text == Path(__file__).with_name("model_card.md").read_text(encoding="utf-8")


def test_one_speaker_has_no_interval(tmp_path: Path) -> None:
    text = written(tmp_path, {"network": measurements(0, speakers=1)})
    assert re.search(r"\n\| offset within 40 ms of ±600 ms, 2 s \| [\d.]+ \| 4 \|\n", text)
    assert re.search(r"\n\| offset within 40 ms of ±1000 ms, 2 s \| [\d.]+ \| 2 \|\n", text)


def test_what_an_estimator_lacks_is_an_empty_cell(tmp_path: Path) -> None:
    """Ridge and network alone have no calibration: only where their best lag is, is known."""
    alone = measurements(1)
    for answers in alone.answers.values():
        answers.clear()
    text = written(tmp_path, {"network alone": alone, "network": measurements(0)})
    number = r"[\d.]+ \([\d.]+ to [\d.]+\)"
    assert re.search(rf"\n\| offset within 40 ms of ±600 ms, 2 s \| {number} \| {number} \| 54 \|\n", text)
    assert re.search(rf"\n\| in sync: said to be, 2 s \|  \| {number} \| 33 \|\n", text)


def test_model_without_a_calibration_is_said_to_have_none(tmp_path: Path) -> None:
    results = {"network": measurements(0)}
    assert "- score: calibrated on the validation speakers\n" in written(tmp_path, results)
    assert "- score: not calibrated\n" in written(tmp_path, results, None)


def test_test_clips_that_are_too_short_are_said_to_be(tmp_path: Path) -> None:
    assert "No window of the test clips is long enough" in written(tmp_path, {"network": Measurements()})
