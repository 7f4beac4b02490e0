"""The model card of a lip-sync training, word for word."""

import platform
import re
from pathlib import Path

import numpy as np
import torch

from facevox.training.trainer import DONE, TrainingResult
from lipsync.network.evaluation import KINDS, Measurements
from lipsync.network.model_card import write_model_card
from lipsync.settings import Settings
from lipsync.sync.calibration import LOUDNESS_CALIBRATION

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
    """Random answers for windows of up to 2 s, and curves that tell the kinds apart more or less."""
    rng, found = np.random.default_rng(seed), Measurements()
    for number in range(speakers):
        for length in (5, 25, 50):
            found.hits[length][f"s{number}"] = (rng.random(4 + 2 * number) < 0.7).tolist()
        for place, kind in enumerate(KINDS):
            for _ in range(3 + number):
                row = np.array([3.0 - 0.7 * place, 0.4 * place, 0.7]) + rng.normal(0, 1, 3)
                found.features[50, kind].append((f"s{number}", row))
    return found


def written(folder: Path, results: dict[str, Measurements]) -> str:
    card = write_model_card(folder, Settings(), NOTES, RESULT, results, LOUDNESS_CALIBRATION)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}"
    return card.read_text(encoding="utf-8").replace(versions, "VERSIONS")


def test_card_is_word_for_word_what_it_was(tmp_path: Path) -> None:
    text = written(tmp_path, {"network": measurements(0), "untrained": measurements(1)})
    assert text == Path(__file__).with_name("model_card.md").read_text(encoding="utf-8")


def test_one_speaker_has_no_interval(tmp_path: Path) -> None:
    text = written(tmp_path, {"network": measurements(0, speakers=1)})
    assert re.search(r"\n\| offset within a frame, 2 s \| [\d.]+ \| 4 \|\n", text)


def test_test_clips_that_are_too_short_are_said_to_be(tmp_path: Path) -> None:
    assert "No window of the test clips is long enough" in written(tmp_path, {"network": Measurements()})
