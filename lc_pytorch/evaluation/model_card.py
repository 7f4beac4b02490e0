"""The model card, next to the weights: what a trained model is, what it has learnt from, and its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from facevox.errors import UserError, one_line
from facevox.files import read_json
from facevox.model_card import CARD_FILE, bullets, pairs, score_cells, table, write_card
from facevox.training.history import HISTORY_FILE

RESULTS_FILE = "evaluation_results.json"
_TITLES = {"face_voice": "Faces and voices", "hq_voxceleb": "Masked faces and mel spectrograms"}


class _Data(TypedDict, total=False):
    """The part of config.json's "data" that the card shows."""

    num_people: dict[str, int]
    num_pairs: dict[str, int]
    split_hash: str
    identities_by: str


class _Results(TypedDict, total=False):
    """The part of evaluation_results.json that the card reads, besides the measures."""

    warnings: list[str]
    tested: dict[str, str]


def write_model_card(model_dir: Path) -> Path:
    """Writes MODEL_CARD.md from config.json, history.json and, where there is one, evaluation_results.json.

    Training and evaluation both call it; the later one adds its scores.

    Raises:
        UserError: A file that is there cannot be read.
    """
    config = read_json(model_dir / "config.json")
    history = read_json(model_dir / HISTORY_FILE) if (model_dir / HISTORY_FILE).is_file() else []
    results = read_json(model_dir / RESULTS_FILE) if (model_dir / RESULTS_FILE).is_file() else None
    try:
        title = f"{_TITLES.get(config['kind'], config['kind'])}: a contrastive model"
        sections = {
            "Model": [_model(config["model"])],
            "Data": [_data(config["data"])],
            "Training": [f"{len(history)} epochs. {pairs(config['training'])}", _best_epoch(history)],
            "Scores on people never seen": _scores(results),
            "Use": [_USE],
            "Versions": [pairs(config["versions"])],
        }
    except Exception as error:  # files that were changed by hand may have anything in them
        files = f"config.json, {HISTORY_FILE} or {RESULTS_FILE}"
        raise UserError(f"{model_dir}: {files} has other values than expected: {one_line(error)}") from None
    write_card(model_dir / CARD_FILE, title, sections)
    return model_dir / CARD_FILE


def _model(model: Mapping[str, object]) -> str:
    encoders = [
        f"{name}: {settings['model_type']}, {settings.get('num_hidden_layers', '?')} layers of "
        f"{settings.get('hidden_size', '?')}"
        for name, settings in model.items()
        if isinstance(settings, dict) and "model_type" in settings
    ]
    return bullets([*encoders, f"embeddings of {model['embedding_dim']} numbers, unit length"])


def _data(data: _Data) -> str:
    lines = [
        f"{name}: {people} people, {data.get('num_pairs', {}).get(name, '?')} pairs"
        for name, people in data.get("num_people", {}).items()
    ]
    lines.append(f"nobody is in two parts; hash of the split: `{data.get('split_hash', '?')}`")
    if data.get("identities_by"):
        lines.append(f"identities by {data['identities_by']}")
    return bullets(lines)


def _best_epoch(history: Sequence[Mapping[str, float | None]]) -> str:
    scored = [(row["epoch"], auc) for row in history if (auc := row.get("val_auc")) is not None]
    if not scored:
        return ""
    epoch, best = max(scored, key=lambda item: item[1])
    return (
        f"Best epoch by validation: {epoch}, AUC {best:.3f} on people kept for choosing it (too good for a "
        "test score)."
    )


def _scores(results: _Results | None) -> list[str]:
    if results is None:
        return ["Not evaluated yet: scripts/evaluation/ writes them here."]
    rows = [(name, *score_cells(measure), measure.get("chance")) for name, measure in _measures(results)]
    return [
        bullets(f"**{warning}**" for warning in results.get("warnings", [])),
        table(["measure", "value", "95 % interval", "chance"], rows),
        f"Tested: {results.get('tested', {}).get('origin', '?')}.",
    ]


def _measures(results: Mapping[str, object], name: str = "") -> list[tuple[str, Mapping[str, object]]]:
    """Every {value, …} in the results, with the names that lead to it."""
    measures: list[tuple[str, Mapping[str, object]]] = []
    for key, value in results.items():
        path = f"{name} {key}".strip().replace("_", " ")
        if isinstance(value, dict) and "value" in value:
            measures.append((path, value))
        elif isinstance(value, dict):
            measures += _measures(value, path)
    return measures


_USE = (
    "Ranks which of some faces goes best with a voice, and the reverse. It does not identify anybody: a high "
    "similarity means that the two could belong together, as gender, age and origin alone would often say.\n"
    "Faces and voices are biometric data: use them with the consent of the people, and follow the law of the "
    "place. Do not use it for surveillance, or to decide about a person."
)
