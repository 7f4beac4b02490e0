"""The model card of a landmark classifier."""

from __future__ import annotations

import platform

import numpy as np
import torch

from emotion.landmarks.features import Features
from emotion.landmarks.network import DROPOUT, HIDDEN
from emotion.landmarks.options import BLENDSHAPES, LANDMARKS, TrainConfig
from emotion.landmarks.task import Notes
from emotion.scores.report import Evaluation
from facevox import model_card
from facevox.intervals import PlainMeasure
from facevox.mesh.face_landmarker import NUM_BLENDSHAPES
from facevox.mesh.kinds import FACE_LANDMARKER
from facevox.model_card import CARD_FILE, bullets, class_table, pairs, score_cells, table
from facevox.training.trainer import TrainingResult


class LandmarkEvaluation(Evaluation):
    """All numbers about a landmark classifier."""

    balanced_accuracy: PlainMeasure
    chance_balanced_accuracy: float
    interval_over: str
    normalisation: str
    inputs: str
    mesh: str


def write_card(config: TrainConfig, notes: Notes, result: TrainingResult, report: LandmarkEvaluation) -> None:
    """Writes MODEL_CARD.md into the folder of the run.

    Args:
        config: Of the run.
        notes: Counts of the data.
        result: Of the training.
        report: The evaluation.
    """
    features = Features(report["normalisation"], report["inputs"], report["mesh"])
    sizes = " → ".join(str(size) for size in (features.size, *HIDDEN, len(config.class_names)))
    model = [
        f"fully connected, {sizes}; ReLU, BatchNorm, Dropout {DROPOUT[0]:g} and {DROPOUT[1]:g}",
        f"input: {_input_text(features)}",
        f"output: probabilities of {', '.join(config.class_names)}, calibrated "
        f"(temperature {report['calibration']['temperature']:.3f})",
    ]
    settings = {name: value for name, value in config.lasting().items() if name != "class_names"}
    model_card.write_card(
        config.save_dir / CARD_FILE,
        "Facial expressions from landmarks: a classifier",
        {
            "Model": [bullets(model)],
            "Data": [_data(notes)],
            "Training": [
                pairs(settings),
                f"{len(result.history)} epochs; epoch {result.best_epoch} is kept (lowest validation loss).",
            ],
            "Scores on the validation part": _scores(report),
            "Use": [_USE],
            "Versions": [
                f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
            ],
        },
    )


def _input_text(features: Features) -> str:
    mesh = "FaceLandmarker" if features.mesh == FACE_LANDMARKER else "FaceMesh"
    landmarks = f"the 478 x 3 landmarks of MediaPipe's {mesh}, {features.normalisation}"
    shapes = f"the roots of the {NUM_BLENDSHAPES} blendshapes of MediaPipe's {mesh}"
    return {LANDMARKS: landmarks, BLENDSHAPES: shapes}.get(features.inputs, f"{landmarks}; and {shapes}")


def _data(notes: Notes) -> str:
    lines = []
    for part, counts in (("train", notes["train"]), ("validation", notes["validation"])):
        classes = pairs(counts["classes"])
        people = f" of {counts['people']} people" if notes["interval_over"] == "people" else ""
        lines.append(f"{part}: {counts['pictures']} faces{people} ({classes})")
    if notes["interval_over"] != "people":
        lines.append("**no person is known: the split is by picture, and people may be in both parts**")
    else:
        lines.append("nobody is in both parts")
        if notes["unnamed"]:
            lines.append(f"{notes['unnamed']} faces of unknown people, each taken for a person of its own")
    return bullets([*lines, f"sha256 of names, labels and people: `{notes['data']}`"])


def _scores(report: LandmarkEvaluation) -> list[str]:
    calibration = report["calibration"]
    rows = [
        (name, *score_cells(score), chance)
        for name, score, chance in (
            ("balanced accuracy", report["balanced_accuracy"], report["chance_balanced_accuracy"]),
            ("macro f1", report["macro_f1"], report["chance_macro_f1"]),
        )
    ]
    return [
        table(["measure", "value", "95 % interval", "chance"], rows),
        f"Intervals draw {report['interval_over']}. The best epoch was chosen on the same part: expect a "
        f"little less elsewhere. Calibration error {calibration['calibration_error_before']:.3f} before the "
        f"temperature, {calibration['calibration_error_after']:.3f} after it (fitted on one half, seen on "
        "the other).",
        class_table(report["classes"], "faces"),
    ]


_USE = (
    "It names the expression that the geometry of a face shows; what somebody feels is another matter. Faces "
    "with an expression that is none of the classes get one of them all the same.\n"
    "Inferring emotions at work and in education is prohibited in the European Union (AI Act, Art. 5(1)(f)). "
    "Landmarks are biometric data: ask the people whose faces they are, and keep them as you would pictures."
)
