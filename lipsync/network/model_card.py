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
    LEAST_WIDE_FRAMES,
    SCORED_FRAMES,
    SEARCH_MS,
    SEARCHES_MS,
    WINDOW_FRAMES,
    Measurements,
    accuracy,
    answer_measures,
)
from lipsync.network.task import Notes
from lipsync.settings import Settings
from lipsync.sync.posterior import SyncCalibration


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
            "Test clips": score_tables(results),
            "Use": [_USE],
            "Versions": [
                f"Python {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}"
            ],
        },
    )
    return card


def score_tables(results: Mapping[str, Measurements]) -> list[str]:
    """Offsets found and what is reported, by length of window, with 95 % intervals: tables in Markdown.

    Args:
        results: By name of the estimator; on the same windows.
    """
    names = list(results)
    rows: list[tuple[str, list[Measure | None]]] = []
    for search in SEARCHES_MS:
        for length in [n for n in WINDOW_FRAMES if search == SEARCH_MS or n >= LEAST_WIDE_FRAMES]:
            values = [
                accuracy(measured, length, search) if any(measured.hits[search][length].values()) else None
                for measured in results.values()
            ]
            rows.append((f"offset within 40 ms of ±{search:.0f} ms, {length / FRAME_HZ:g} s", values))
    for length in SCORED_FRAMES:
        measures = [answer_measures(measured, length) for measured in results.values()]
        for measure in dict.fromkeys(name for by_name in measures for name in by_name):
            columns: list[Measure | None] = [by_name.get(measure) for by_name in measures]
            rows.append((f"{measure}, {length / FRAME_HZ:g} s", columns))
    # Short test clips have no windows of the longer lengths.
    cells = [
        [title, *map(_text, columns), next(value.num for value in columns if value)]
        for title, columns in rows
        if any(columns)
    ]
    if not cells:
        return ["No window of the test clips is long enough to measure on."]
    return [
        table(["", *names, "windows"], cells),
        "In brackets: 95 % interval over speakers (or videos), where there are several. All but offsets "
        "within 40 ms: ±1000 ms searched.",
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
