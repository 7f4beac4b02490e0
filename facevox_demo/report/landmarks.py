"""The demo's part on the landmark classifier: its programs, and its part of the report."""

from pathlib import Path

from emotion.landmarks.normalisation import ALIGNED, normalise_landmarks
from emotion.landmarks.plots import draw_faces, mean_faces
from emotion.landmarks.table import LandmarkTable, load_table
from emotion.scores.report import REPORT_FILE
from facevox.files import read_image, read_json
from facevox.intervals import interval_text
from facevox_demo.report.page import Report

LANDMARKS_DIR, MODEL_DIR = "landmarks", "model"
FIGURES = ("confusion_matrix.png", "reliability.png")
CLASS_NAMES = ("happy", "sad", "neutral", "embarrassed", "anxiety")
MEAN_OF = 200  # faces of each class, in the picture of mean faces
SHOWN_WIDTH_PX = 900


def extract_arguments(archives: Path, folder: Path, workers: int) -> list[str]:
    """The command that reads the landmarks.

    Args:
        archives: Of the example set in AIHub's shape.
        folder: Of the demo's landmark part.
        workers: Processes.
    """
    return [
        "emotion/landmarks/extract.py",
        *("--zips", str(archives), "--output_dir", str(folder / LANDMARKS_DIR)),
        *("--workers", str(workers), "--log_dir", str(folder / "logs")),
    ]


def train_arguments(folder: Path, seed: int) -> list[str]:
    """The command that trains on them."""
    return [
        "emotion/landmarks/train.py",
        *("--landmarks_dir", str(folder / LANDMARKS_DIR), "--save_dir", str(folder / MODEL_DIR)),
        *("--class_names", *CLASS_NAMES, "--seed", str(seed), "--log_dir", str(folder / "logs")),
    ]


def add_landmarks(report: Report, folder: Path) -> dict[str, object]:
    """Mean faces, training curves, scores and confusion matrix.

    Args:
        report: The page.
        folder: Of the demo's landmark part: `landmarks/` (of extract.py) and `model/` (of train.py).

    Returns:
        `people` and `pictures` of validation, `balanced_accuracy` with `low` and `high`, `chance`.
    """
    from emotion.landmarks.run import EVALUATION_DIR  # loads torch, which planning the demo does without

    model = folder / MODEL_DIR
    scores = read_json(model / EVALUATION_DIR / REPORT_FILE)
    table = load_table(folder / LANDMARKS_DIR, scores["class_names"])
    report.section("Expressions from landmarks")
    report.text(
        f"FaceMesh's 478 points of {len(table)} faces, read out of ZIP archives; a network of a million "
        f"weights learns the expression from them. Scores on {scores['people']} people who were not trained "
        "on (the best epoch was chosen on them)."
    )
    _add_mean_faces(report, table, scores["class_names"])
    table.close()
    rows = []
    for name in ("balanced_accuracy", "macro_f1"):
        score = scores[name]
        chance = scores[f"chance_{name}"]
        rows.append((name.replace("_", " "), score["value"], interval_text(score), chance))
    error = scores["calibration"]["calibration_error_after"]
    rows.append(("calibration error, other people", error, "", 0.0))
    report.table(["measure", "value", "95 % interval of people", "chance"], rows)
    for path in (model / "curves.png", *(model / EVALUATION_DIR / name for name in FIGURES)):
        picture = read_image(path)
        report.images([(picture, path.name)], width_px=min(picture.shape[1], SHOWN_WIDTH_PX))
    score = scores["balanced_accuracy"]
    return {
        "people": scores["people"],
        "pictures": scores["pictures"],
        "balanced_accuracy": score["value"],
        "low": score["low"],
        "high": score["high"],
        "chance": scores["chance_balanced_accuracy"],
    }


def _add_mean_faces(report: Report, table: LandmarkTable, class_names: list[str]) -> None:
    rows = [
        row
        for name in class_names
        for row in [index for index, label in enumerate(table.labels) if label == name][:MEAN_OF]
    ]
    faces = normalise_landmarks(table.rows.read(rows), table.sizes[rows], ALIGNED)
    means = mean_faces(faces, [table.labels[row] for row in rows], class_names)
    report.figure(draw_faces(means, class_names), "the mean face of each expression")
