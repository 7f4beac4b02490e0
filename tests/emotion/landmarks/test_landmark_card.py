"""The model card of the landmark classifier, word for word."""

import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emotion.landmarks.card import write_card
from emotion.landmarks.options import TrainConfig
from facevox.training.trainer import DONE, TrainingResult

COUNTS = {"pictures": 200, "people": 40, "classes": {"neutral": 120, "anxiety": 80}}
NOTES = {
    "train": COUNTS,
    "validation": COUNTS | {"pictures": 50, "people": 10},
    "interval_over": "people",
    "unnamed": 2,
    "data": "abc123",
}
REPORT = {
    "balanced_accuracy": {"value": 0.9123, "low": 0.85, "high": 0.96},
    "chance_balanced_accuracy": 0.5,
    "macro_f1": {"value": 0.9, "low": None, "high": None},
    "chance_macro_f1": 0.5,
    "interval_over": "people",
    "normalisation": "scaled",
    "inputs": "landmarks",
    "mesh": "face_mesh",
    "calibration": {
        "temperature": 1.1,
        "calibration_error_before": 0.05,
        "calibration_error_after": 0.04,
    },
    "classes": [
        {"class": "neutral", "precision": 0.9, "recall": 0.95, "f1": 0.92, "pictures": 30},
        {"class": "anxiety", "precision": 0.93, "recall": 0.85, "f1": 0.89, "pictures": 20},
    ],
}
RESULT = TrainingResult(
    status=DONE,
    message="12 epochs done",
    history=[{"epoch": epoch} for epoch in range(1, 13)],
    best_epoch=7,
    num_steps=48,
    num_new_steps=48,
)


def written(folder: Path, notes: dict[str, Any] = NOTES, report: dict[str, Any] = REPORT) -> str:
    write_card(TrainConfig(landmarks_dir=folder, save_dir=folder), notes, RESULT, report)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    return (folder / "MODEL_CARD.md").read_text(encoding="utf-8").replace(versions, "VERSIONS")


def test_card_is_word_for_word_what_it_was(tmp_path: Path) -> None:
    assert written(tmp_path) == Path(__file__).with_name("model_card.md").read_text(encoding="utf-8")


def test_faces_of_nobody_known_are_said_to_be(tmp_path: Path) -> None:
    over = {"interval_over": "pictures"}
    text = written(tmp_path, NOTES | over, REPORT | over)
    assert "- train: 200 faces (neutral 120, anxiety 80)\n" in text
    assert "- **no person is known: the split is by picture, and people may be in both parts**\n" in text
    assert "Intervals draw pictures." in text


def test_card_names_the_other_mesh_and_its_blendshapes(tmp_path: Path) -> None:
    text = written(tmp_path, report=REPORT | {"inputs": "both", "mesh": "face_landmarker"})
    assert "1486 → 512" in text
    assert "MediaPipe's FaceLandmarker, scaled; and the roots of the 52 blendshapes" in text
