"""The model card."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from small_training import make_model

from facevox.errors import UserError
from facevox.files import read_json
from lc_pytorch.evaluation.model_card import write_model_card
from lc_pytorch.models.store import save_config

DATA = {
    "num_people": {"train": 70, "val": 10, "test": 20},
    "num_pairs": {"train": 140, "val": 21, "test": 40},
    "split_hash": "abc123",
    "identities_by": "--identity_csv groups.csv (201 pairs)",
}
HISTORY = [
    {"epoch": 1, "train_loss": 2.0, "val_auc": None},
    {"epoch": 2, "train_loss": 1.5, "val_auc": 0.8124},
    {"epoch": 3, "train_loss": 1.0, "val_auc": 0.75},
]


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    save_config(tmp_path, make_model(), kind="face_voice", data=DATA, training={"seed": 7, "batch_size": 32})
    return tmp_path


def write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value), encoding="utf-8")


MEASURE = {"value": 0.8, "low": 0.7, "high": 0.9, "chance": 0.5}
RESULTS = {
    "verification": {"all": {"auc": MEASURE, "eer": MEASURE | {"value": math.nan}}},
    "retrieval": {"top_1": {"value": 0.25, "chance": 0.05}},
    "warnings": ["only 20 people"],
    "tested": {"origin": "the test people of split.json"},
}


def test_card_is_word_for_word_what_it_was(model_dir: Path) -> None:
    write(model_dir, "history.json", HISTORY)
    write(model_dir, "evaluation_results.json", RESULTS)
    config = read_json(model_dir / "config.json")
    versions = ", ".join(f"{name} {value}" for name, value in config["versions"].items())
    text = write_model_card(model_dir).read_text(encoding="utf-8").replace(versions, "VERSIONS")
    assert text == Path(__file__).with_name("model_card.md").read_text(encoding="utf-8")


def test_the_card_says_what_learnt_from_whom_and_how_well(model_dir: Path) -> None:
    write(model_dir, "history.json", HISTORY)
    write(model_dir, "evaluation_results.json", RESULTS)
    text = write_model_card(model_dir).read_text(encoding="utf-8")
    for words in (
        "face_encoder: vit, 2 layers of 16",
        "audio_encoder: wav2vec2, 2 layers of 16",
        "embeddings of 8 numbers",
        "train: 70 people, 140 pairs",
        "test: 20 people, 40 pairs",
        "abc123",
        "--identity_csv groups.csv",
        "3 epochs. seed 7, batch_size 32",
        "Best epoch by validation: 2, AUC 0.812",
        "**only 20 people**",
        "| verification all auc | 0.800 | 0.700 to 0.900 | 0.500 |",
        "| verification all eer | – | 0.700 to 0.900 | 0.500 |",
        "| retrieval top 1 | 0.250 | – | 0.050 |",
        "Tested: the test people of split.json.",
        "torch 2",
    ):
        assert words in text, words


def test_a_model_without_history_validation_or_scores_has_a_card(model_dir: Path) -> None:
    text = write_model_card(model_dir).read_text(encoding="utf-8")
    assert "0 epochs" in text
    assert "Not evaluated yet" in text
    write(model_dir, "history.json", [{"epoch": 1, "train_loss": 1.0}, {"epoch": 2, "val_auc": None}])
    text = write_model_card(model_dir).read_text(encoding="utf-8")
    assert "2 epochs" in text
    assert "Best epoch" not in text


def test_a_broken_file_is_named(model_dir: Path) -> None:
    (model_dir / "history.json").write_text("[{")
    with pytest.raises(UserError, match=r"history\.json"):
        write_model_card(model_dir)
