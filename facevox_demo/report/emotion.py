"""The demo report's part on expressions: crops, training, scores."""

from pathlib import Path

from emotion.classifier.start import EVALUATION_DIR, TRAINING_DIR
from emotion.data.audit import describe_audit
from emotion.scores.report import REPORT_FILE
from facevox.files import read_image, read_json
from facevox.intervals import interval_text
from facevox.spreadsheets import TableReader
from facevox_demo.report.page import Report

SHOWN_CROPS = 8  # of each class
SHOWN_WIDTH_PX = 900


def add_emotion(report: Report, folder: Path) -> dict[str, object]:
    """Crops by expression, the audit of the split, training curves, confusion matrix, calibration.

    Args:
        report: The page.
        folder: Holds `crops/` (of emotion/preprocess.py) and `models/` (of emotion/main.py).

    Returns:
        `people` and `pictures` of validation, `macro_f1` with `low` and `high`, `chance`.
    """
    crops, models = folder / "crops", folder / "models"
    scores = read_json(models / EVALUATION_DIR / REPORT_FILE)
    report.section("Expressions")
    _add_crops(report, crops, scores["class_names"])
    history = read_json(models / TRAINING_DIR / "history.json")
    macro_f1, calibration = scores["macro_f1"], scores["calibration"]
    report.text(
        f"MobileNetV3Large from scratch, {len(history)} epochs; scores on {scores['people']} people "
        "who were not trained on (the best epoch was chosen on them)."
    )
    report.table(
        ["measure", "value", "95 % interval of people", "chance"],
        [
            ("macro-F1", macro_f1["value"], interval_text(macro_f1), scores["chance_macro_f1"]),
            ("accuracy", scores["accuracy"], "", ""),
            ("calibration error before temperature", calibration["calibration_error_before"], "", 0.0),
            ("calibration error after it, other people", calibration["calibration_error_after"], "", 0.0),
        ],
    )
    report.table(
        ["class", "precision", "recall", "F1", "pictures"],
        [
            (row["class"], row["precision"], row["recall"], row["f1"], row["pictures"])
            for row in scores["classes"]
        ],
    )
    report.table(
        ["group", "macro-F1", "95 % interval", "pictures", "people"],
        [
            (
                f"{row['slice']} {row['value']}",
                row["macro_f1"]["value"],
                interval_text(row["macro_f1"]),
                row["pictures"],
                row["people"],
            )
            for row in scores["slices"]
        ],
    )
    for path in (
        models / TRAINING_DIR / "curves.png",
        models / EVALUATION_DIR / "confusion_matrix.png",
        models / EVALUATION_DIR / "reliability.png",
    ):
        picture = read_image(path)
        report.images([(picture, path.name)], width_px=min(picture.shape[1], SHOWN_WIDTH_PX))
    return {
        "people": scores["people"],
        "pictures": scores["pictures"],
        "macro_f1": macro_f1["value"],
        "low": macro_f1["low"],
        "high": macro_f1["high"],
        "chance": scores["chance_macro_f1"],
    }


def _add_crops(report: Report, crops: Path, class_names: list[str]) -> None:
    """Some crops of each class, of different people, and the audit's findings on both splits."""
    with (crops / "crops.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = [row for row in TableReader(file) if row["status"] == "done"]
    for name in class_names:
        of_class = {row["person"]: row for row in rows if row["class"] == name}  # one of each person
        crop_rows = list(of_class.values())[:SHOWN_CROPS]
        report.images(((read_image(crops / row["crop"]), name) for row in crop_rows), width_px=96, row=True)
    audit = read_json(crops / "audit.json")
    for line in describe_audit(audit["crops"]):
        report.text(line)
    for leak in audit["aihub"]["leaks"]:
        first, second = leak["parts"]
        report.text(
            f"The set's own {first} and {second} parts, as AIHub divides them, share {leak['people']} of "
            f"{leak['people_of_second']} people: scores on such a split are too good."
        )
