"""The model card of a landmark classifier."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import torch

from emotion.classifier.model_card import CARD_FILE
from emotion.landmarks.network import DROPOUT, HIDDEN, NUM_FEATURES
from emotion.landmarks.task import TrainConfig
from facevox.files import write_text
from facevox.training.trainer import TrainingResult


def write_card(
    config: TrainConfig, notes: dict[str, Any], result: TrainingResult, report: dict[str, Any]
) -> None:
    """Writes MODEL_CARD.md into the folder of the run.

    Args:
        config: Of the run.
        notes: Of `training_run.describe_data`.
        result: How training ended.
        report: The evaluation.
    """
    sizes = " → ".join(str(size) for size in (NUM_FEATURES, *HIDDEN, len(config.class_names)))
    lines = [
        "# Facial expressions from landmarks: a classifier",
        "",
        "## Model",
        "",
        f"- fully connected, {sizes}; ReLU, BatchNorm, Dropout {DROPOUT[0]:g} and {DROPOUT[1]:g}",
        f"- input: the 478 x 3 landmarks of MediaPipe's FaceMesh, {config.normalisation}",
        f"- output: probabilities of {', '.join(config.class_names)}, calibrated "
        f"(temperature {report['calibration']['temperature']:.3f})",
        "",
        *_data_lines(notes),
        "## Training",
        "",
        ", ".join(f"{name} {value}" for name, value in config.lasting().items() if name != "class_names"),
        "",
        f"{len(result.history)} epochs; epoch {result.best_epoch} is kept (lowest validation loss).",
        "",
        *_score_lines(report),
        *_USE,
        "## Versions",
        "",
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}",
        "",
    ]
    write_text(config.save_dir / CARD_FILE, "\n".join(lines))


def _data_lines(notes: dict[str, Any]) -> list[str]:
    lines = ["## Data", ""]
    for part in ("train", "validation"):
        counts = notes[part]
        classes = ", ".join(f"{name} {count}" for name, count in counts["classes"].items())
        people = f" of {counts['people']} people" if notes["interval_over"] == "people" else ""
        lines.append(f"- {part}: {counts['pictures']} faces{people} ({classes})")
    if notes["interval_over"] != "people":
        lines.append("- **no person is known: the split is by picture, and people may be in both parts**")
    else:
        lines.append("- nobody is in both parts")
        if notes["unnamed"]:
            lines.append(f"- {notes['unnamed']} faces of unknown people, each taken for a person of its own")
    return [*lines, f"- sha256 of names, labels and people: `{notes['data']}`", ""]


def _score_lines(report: dict[str, Any]) -> list[str]:
    over, calibration = report["interval_over"], report["calibration"]
    lines = [
        "## Scores on the validation part",
        "",
        "| measure | value | 95 % interval | chance |",
        "|---|---|---|---|",
    ]
    for name in ("balanced_accuracy", "macro_f1"):
        score = report[name]
        interval = "–" if score["low"] is None else f"{score['low']:.3f} to {score['high']:.3f}"
        chance = report[f"chance_{name}"]
        lines.append(f"| {name.replace('_', ' ')} | {score['value']:.3f} | {interval} | {chance:.3f} |")
    lines += [
        "",
        f"Intervals draw {over}. The best epoch was chosen on the same part: expect a little less elsewhere. "
        f"Calibration error {calibration['calibration_error_before']:.3f} before the temperature, "
        f"{calibration['calibration_error_after']:.3f} after it (fitted on one half, seen on the other).",
        "",
        "| class | precision | recall | F1 | faces |",
        "|---|---|---|---|---|",
    ]
    for row in report["classes"]:
        numbers = " | ".join(f"{row[name]:.3f}" for name in ("precision", "recall", "f1"))
        lines.append(f"| {row['class']} | {numbers} | {row['pictures']} |")
    return [*lines, ""]


_USE = [
    "## Use",
    "",
    "It names the expression that the geometry of a face shows; what somebody feels is another matter. Faces "
    "with an expression that is none of the classes get one of them all the same.",
    "Inferring emotions at work and in education is prohibited in the European Union (AI Act, Art. 5(1)(f)). "
    "Landmarks are biometric data: ask the people whose faces they are, and keep them as you would pictures.",
    "",
]
