"""The model card of the picture classifier, word for word."""

from pathlib import Path
from typing import Any

from emotion.classifier.model_card import write_model_card

ABOUT = {
    "architecture": "MobileNetV3Large",
    "class_names": ["anger", "joy"],
    "preprocessing": {"crop_margin": 0.2, "img_size": 224},
    "temperature": 1.2345,
    "versions": {"tensorflow": "2.20", "numpy": "2.3"},
}
DATA = {
    "train": {"pictures": 900, "people": 90, "voted": 31},
    "validation": {"pictures": 120, "people": 12, "voted": 0},
    "people_in_both": 0,
    "unreadable": 0,
}
HISTORY = [{"epoch": 1, "val_loss": 0.9}, {"epoch": 2, "val_loss": 0.61234}, {"epoch": 3, "val_loss": 0.7}]
NOBODY = {"value": 0.5, "low": None, "high": None}
REPORT = {
    "macro_f1": {"value": 0.8123, "low": 0.7, "high": 0.9},
    "chance_macro_f1": 0.5,
    "accuracy": 0.83,
    "pictures": 120,
    "people": 12,
    "calibration": {"calibration_error_before": 0.08, "calibration_error_after": 0.03},
    "classes": [
        {"class": "anger", "precision": 0.8, "recall": 0.75, "f1": 0.77, "pictures": 60},
        {"class": "joy", "precision": 0.85, "recall": 0.9, "f1": 0.86, "pictures": 60},
    ],
    "slices": [
        {"slice": "gender", "value": "female", "macro_f1": {"value": 0.82, "low": 0.6, "high": 0.95}},
        {"slice": "age", "value": "20", "macro_f1": NOBODY},
    ],
}
for row in REPORT["slices"]:
    row |= {"pictures": 60, "people": 6}


def written(folder: Path, data: dict[str, Any] = DATA, report: dict[str, Any] = REPORT) -> str:
    write_model_card(folder / "card.md", ABOUT, data, {"SEED": "0", "EPOCHS": "3"}, HISTORY, report)
    return (folder / "card.md").read_text(encoding="utf-8")


def test_card_is_word_for_word_what_it_was(tmp_path: Path) -> None:
    assert written(tmp_path) == Path(__file__).with_name("model_card.md").read_text(encoding="utf-8")


def test_what_spoils_the_scores_is_said(tmp_path: Path) -> None:
    text = written(
        tmp_path,
        DATA | {"people_in_both": 3, "unreadable": 2},
        REPORT | {"macro_f1": NOBODY, "slices": []},
    )
    assert "- **3 people are in both parts: every score below is too good**\n" in text
    assert "\n- 2 pictures could not be read and were left out\n" in text
    assert "Macro-F1 **0.500** (chance 0.5), accuracy 0.830" in text
    assert "| group |" not in text
