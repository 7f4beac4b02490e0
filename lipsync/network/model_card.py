"""The model card of a lip-sync model: sizes, data, training and results, in a file next to its weights."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from facevox.intervals import Measure, interval_text
from facevox.model_card import CARD_FILE, bullets, table, write_card
from facevox.training.trainer import TrainingResult
from lipsync.clips.clock import FRAME_HZ
from lipsync.network.evaluation import (
    KINDS,
    SCORED_FRAMES,
    WINDOW_FRAMES,
    Measurements,
    accuracy,
    auc,
    probabilities_by,
)
from lipsync.network.task import Notes
from lipsync.settings import Settings
from lipsync.sync.calibration import SyncCalibration


def write_model_card(
    save_dir: Path,
    settings: Settings,
    notes: Notes,
    result: TrainingResult,
    results: Mapping[str, Measurements],
    calibration: SyncCalibration | None,
) -> Path:
    """Writes MODEL_CARD.md.

    Args:
        save_dir: The folder of the model.
        settings: All of them.
        notes: Of the checkpoint: clips and speakers of each part, hash of the split.
        result: How the training ended.
        results: Of each estimator on the test clips; "network" is the model.
        calibration: Of the model.
    """
    model = {
        **asdict(settings.model),
        "score": "calibrated on the validation speakers" if calibration else "not calibrated",
    }
    training = ", ".join(f"{name}: {value}" for name, value in asdict(settings.training).items())
    parts = [
        f"{part}: {num} clips of {notes['num_speakers'][part]} speakers or videos"
        for part, num in notes["num_clips"].items()
    ]
    parts.append(f"sound features: {notes['features']}")
    parts.append(f"nobody is in two parts; hash of the split: `{notes['split_hash']}`")
    card = save_dir / CARD_FILE
    write_card(
        card,
        "Lip-sync: a contrastive network",
        {
            "Model": [bullets(f"{name}: {value}" for name, value in model.items())],
            "Data": [bullets(parts)],
            "Training": [bullets([result.message, f"best epoch: {result.best_epoch}; {training}"])],
            "Test clips": _scores(results, calibration),
            "Use": [_USE],
            "Versions": [
                f"Python {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}"
            ],
        },
    )
    return card


def _scores(results: Mapping[str, Measurements], calibration: SyncCalibration | None) -> list[str]:
    """A table: offset found within a frame by length of window, and AUC; with 95 % intervals."""
    names = list(results)
    rows: list[tuple[str, list[Measure | None]]] = []
    for length in WINDOW_FRAMES:
        # Short test clips have no windows of the longer lengths.
        if all(any(measured.hits[length].values()) for measured in results.values()):
            values: list[Measure | None] = [accuracy(measured, length) for measured in results.values()]
            rows.append((f"offset within a frame, {length / FRAME_HZ:g} s", values))
    if calibration is not None and "network" in results:
        likely = probabilities_by(results["network"], calibration)
        for length in SCORED_FRAMES:
            rows += [
                (
                    f"AUC against {kind}, {length / FRAME_HZ:g} s",
                    [auc(likely, length, kind) if name == "network" else None for name in names],
                )
                for kind in KINDS[1:]
                if likely[length, kind]
            ]
    if not rows:
        return ["No window of the test clips is long enough to measure on."]
    cells = [
        [title, *map(_text, columns), next(value.num for value in columns if value)]
        for title, columns in rows
    ]
    return [
        table(["", *names, "windows"], cells),
        "In brackets: 95 % interval over speakers (or videos), where there are several.",
    ]


def _text(value: Measure | None) -> str:
    if value is None:
        return ""
    interval = interval_text(value.to_plain())
    return f"{value.value:.3f} ({interval})" if interval else f"{value.value:.3f}"


_USE = """\
For telling whether lips and speech fit, and by how much they are shifted, in videos whose people
agree to it. It neither recognises people nor proves that a video is genuine: a dubbed or generated
clip may be in sync. Languages, ages and recording conditions that the training clips lack are
untested."""
