"""The model card: what a trained model is, learnt from and scores, beside its weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from facevox.files import read_json, write_text
from facevox.training.history import HISTORY_FILE

CARD_FILE = "MODEL_CARD.md"
RESULTS_FILE = "evaluation_results.json"
_TITLES = {"face_voice": "Faces and voices", "hq_voxceleb": "Masked faces and mel spectrograms"}


def write_model_card(model_dir: Path) -> Path:
    """Writes MODEL_CARD.md from config.json, history.json and, where there is one, evaluation_results.json.

    Training and evaluation both call it; the later one adds its scores.

    Raises:
        UserError: A file that is there cannot be read.
    """
    config = read_json(model_dir / "config.json")
    history = read_json(model_dir / HISTORY_FILE) if (model_dir / HISTORY_FILE).is_file() else []
    results = read_json(model_dir / RESULTS_FILE) if (model_dir / RESULTS_FILE).is_file() else None
    lines = [f"# {_TITLES.get(config['kind'], config['kind'])}: a contrastive model", ""]
    lines += _model_lines(config["model"]) + _data_lines(config["data"])
    lines += _training_lines(config["training"], history)
    lines += _score_lines(results)
    lines += _USE
    lines += [
        "## Versions",
        "",
        ", ".join(f"{name} {value}" for name, value in config["versions"].items()),
        "",
    ]
    card = model_dir / CARD_FILE
    write_text(card, "\n".join(lines))
    return card


def _model_lines(model: dict[str, Any]) -> list[str]:
    encoders = [
        f"- {name}: {settings['model_type']}, {settings.get('num_hidden_layers', '?')} layers of "
        f"{settings.get('hidden_size', '?')}"
        for name, settings in model.items()
        if isinstance(settings, dict) and "model_type" in settings
    ]
    return ["## Model", "", *encoders, f"- embeddings of {model['embedding_dim']} numbers, unit length", ""]


def _data_lines(data: dict[str, Any]) -> list[str]:
    lines = ["## Data", ""]
    for name, people in data.get("num_people", {}).items():
        lines.append(f"- {name}: {people} people, {data.get('num_pairs', {}).get(name, '?')} pairs")
    lines.append(f"- nobody is in two parts; hash of the split: `{data.get('split_hash', '?')}`")
    if data.get("identities_by"):
        lines.append(f"- identities by {data['identities_by']}")
    return [*lines, ""]


def _training_lines(training: dict[str, Any], history: list[dict[str, Any]]) -> list[str]:
    shown = ", ".join(f"{name} {value}" for name, value in training.items())
    lines = ["## Training", "", f"{len(history)} epochs. {shown}", ""]
    scored = [row for row in history if row.get("val_auc") is not None]
    if scored:
        best = max(scored, key=lambda row: row["val_auc"])
        lines += [
            f"Best epoch by validation: {best['epoch']}, AUC {best['val_auc']:.3f} on people kept for "
            "choosing it (too good for a test score).",
            "",
        ]
    return lines


def _score_lines(results: dict[str, Any] | None) -> list[str]:
    lines = ["## Scores on people never seen", ""]
    if results is None:
        return [*lines, "Not evaluated yet: scripts/evaluation/ writes them here.", ""]
    lines += [f"- **{warning}**" for warning in results.get("warnings", [])]
    lines += ["", "| measure | value | 95 % interval | chance |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {_number(measure['value'])} | {_interval(measure)} | {_number(measure.get('chance'))} |"
        for name, measure in _measures(results)
    ]
    tested = results.get("tested", {})
    return [*lines, "", f"Tested: {tested.get('origin', '?')}.", ""]


def _measures(results: dict[str, Any], name: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every {value, …} in the results with the names that lead to it."""
    found = []
    for key, value in results.items():
        path = f"{name} {key}".strip().replace("_", " ")
        if isinstance(value, dict) and "value" in value:
            found.append((path, value))
        elif isinstance(value, dict):
            found += _measures(value, path)
    return found


def _number(value: Any) -> str:
    is_number = isinstance(value, (int, float)) and math.isfinite(value)
    return f"{value:.3f}" if is_number else "–"


def _interval(measure: dict[str, Any]) -> str:
    low, high = measure.get("low"), measure.get("high")
    return f"{_number(low)} to {_number(high)}" if low is not None and high is not None else "–"


_USE = [
    "## Use",
    "",
    "Ranks which of some faces goes best with a voice, and the reverse. It does not identify anybody: a high "
    "similarity means that the two could belong together, as gender, age and origin alone would often say.",
    "Faces and voices are biometric data: use them with the consent of the people, and follow the law of the "
    "place. Do not use it for surveillance, or to decide about a person.",
    "",
]
