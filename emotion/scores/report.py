"""Scores of a trained classifier on people it was not trained on: files for programs and for people.

report.json            all numbers: macro-F1 with its interval, accuracy, calibration, classes, slices
per_class.csv          precision, recall, F1 and pictures of each class
confusion_matrix.csv   rows: true class, columns: answer
slices.csv             macro-F1 by gender and by age
predictions.csv        a row for each picture: true class, answer, calibrated probabilities
confusion_matrix.png, reliability.png
"""

import csv
import functools
import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsFloat, TypedDict

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from emotion.data.samples import Samples
from emotion.scores.calibration import (
    calibration_error,
    cross_entropy,
    cross_fitted,
    log_probabilities,
    reliability_bins,
)
from emotion.scores.measures import confusion_counts, macro_f1, over_people
from facevox.files import replacing, write_json, write_text
from facevox.intervals import PlainMeasure
from facevox.spreadsheets import safe_rows

Bins = Sequence[Mapping[str, float]]
REPORT_FILE = "report.json"
FORMAT = 1
DIGITS = 4  # of measures


# In this form, because "class" cannot be the name of an attribute.
ClassScores = TypedDict(
    "ClassScores", {"class": str, "precision": float, "recall": float, "f1": float, "pictures": int}
)


class SliceScores(TypedDict):
    """Scores of the pictures of one gender or age."""

    slice: str
    value: str
    pictures: int
    people: int
    macro_f1: PlainMeasure
    accuracy: float


class Calibration(TypedDict):
    """Calibration before and after the temperature; bins are those of `emotion.scores.calibration.Bin`."""

    temperature: float
    cross_entropy_before: float
    cross_entropy_after: float
    calibration_error_before: float
    calibration_error_after: float
    bins_before: list[dict[str, float]]
    bins_after: list[dict[str, float]]


class Evaluation(TypedDict):
    """All numbers about a classifier, as `report.json` has them."""

    format: int
    class_names: list[str]
    pictures: int
    people: int
    macro_f1: PlainMeasure
    chance_macro_f1: float
    accuracy: float
    calibration: Calibration
    classes: list[ClassScores]
    confusion: list[list[int]]
    slices: list[SliceScores]


@dataclass(frozen=True)
class Answers:
    """The network's answers to n pictures.

    Attributes:
        samples: Of the whole part.
        order: (n,) int64, indices of the pictures in it.
        logits: (n, C) float32.
        temperature: Fitted on these people.
    """

    samples: Samples
    order: NDArray[np.int64]
    logits: NDArray[np.float32]
    temperature: float

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) true classes."""
        return self.samples.labels[self.order]

    @property
    def people(self) -> list[str]:
        """(n,)."""
        return [self.samples.people[index] for index in self.order]


def evaluate(answers: Answers, class_names: Sequence[str]) -> Evaluation:
    """All numbers, as JSON-able values."""
    labels, chosen = answers.labels, answers.logits.argmax(axis=1)
    num_classes = len(class_names)
    counts = confusion_counts(labels, chosen, num_classes)
    raw = np.exp(log_probabilities(answers.logits))
    fitted = cross_fitted(answers.logits, labels, answers.people)
    return {
        "format": FORMAT,
        "class_names": list(class_names),
        "pictures": len(labels),
        "people": len(set(answers.people)),
        "macro_f1": over_people(macro_f1, labels, chosen, answers.people, num_classes).to_plain(DIGITS),
        "chance_macro_f1": round(1 / num_classes, 4),
        "accuracy": _number(np.trace(counts) / counts.sum()),
        "calibration": {
            "temperature": _number(answers.temperature),
            "cross_entropy_before": _number(cross_entropy(answers.logits, labels)),
            "cross_entropy_after": _number(-np.log(fitted[np.arange(len(labels)), labels]).mean()),
            "calibration_error_before": _number(calibration_error(raw, labels)),
            "calibration_error_after": _number(calibration_error(fitted, labels)),
            "bins_before": [row._asdict() for row in reliability_bins(raw, labels)],
            "bins_after": [row._asdict() for row in reliability_bins(fitted, labels)],
        },
        "classes": per_class(counts, class_names),
        "confusion": counts.tolist(),
        "slices": slices_of(answers, num_classes),
    }


def per_class(counts: NDArray[np.int64], class_names: Sequence[str]) -> list[ClassScores]:
    """Precision, recall, F1 and number of pictures of each class; 0 without answers or pictures."""
    rows: list[ClassScores] = []
    for index, name in enumerate(class_names):
        right = int(counts[index, index])
        answers, pictures = int(counts[:, index].sum()), int(counts[index].sum())
        rows.append(
            {
                "class": name,
                "precision": _number(right / max(answers, 1)),
                "recall": _number(right / max(pictures, 1)),
                "f1": _number(2 * right / max(answers + pictures, 1)),
                "pictures": pictures,
            }
        )
    return rows


def slices_of(answers: Answers, num_classes: int) -> list[SliceScores]:
    """Macro-F1 and accuracy of each gender and each decade of age in the table."""
    samples, order = answers.samples, answers.order
    genders = np.array([samples.genders[index] for index in order])
    ages = samples.ages[order]
    groups = [("gender", str(value), genders == value) for value in np.unique(genders) if value]
    groups += [("age", str(value), ages == value) for value in np.unique(ages) if value >= 0]
    labels, chosen = answers.labels, answers.logits.argmax(axis=1)
    people = np.array(answers.people, dtype=object)
    rows: list[SliceScores] = []
    for slice_name, value, inside in groups:
        score = over_people(macro_f1, labels[inside], chosen[inside], list(people[inside]), num_classes)
        rows.append(
            {
                "slice": slice_name,
                "value": value,
                "pictures": int(inside.sum()),
                "people": len(set(people[inside])),
                "macro_f1": score.to_plain(DIGITS),
                "accuracy": _number((labels[inside] == chosen[inside]).mean()),
            }
        )
    return rows


def write_evaluation(
    folder: Path, report: Evaluation, answers: Answers, *, spreadsheet_safe: bool = False
) -> None:
    """Writes all files, each whole; `spreadsheet_safe`: see `facevox.spreadsheets`."""
    write_table = functools.partial(_write_csv, spreadsheet_safe=spreadsheet_safe)
    names = report["class_names"]
    write_json(folder / REPORT_FILE, report)
    write_table(
        folder / "per_class.csv", list(report["classes"][0]), [[*r.values()] for r in report["classes"]]
    )
    write_table(
        folder / "confusion_matrix.csv",
        ["true class", *names],
        [[name, *row] for name, row in zip(names, report["confusion"], strict=True)],
    )
    columns = ["slice", "value", "pictures", "people", "macro_f1", "low", "high", "accuracy"]
    rows = [{**row, **row["macro_f1"], "macro_f1": row["macro_f1"]["value"]} for row in report["slices"]]
    write_table(folder / "slices.csv", columns, [[row[column] for column in columns] for row in rows])
    write_table(folder / "predictions.csv", *_prediction_rows(answers, names))
    calibration = report["calibration"]
    figures = {
        "confusion_matrix.png": draw_confusion(names, report["confusion"]),
        "reliability.png": draw_reliability(
            (calibration["bins_before"], calibration["calibration_error_before"]),
            (calibration["bins_after"], calibration["calibration_error_after"]),
        ),
    }
    for name, figure in figures.items():
        with replacing(folder / name) as file:
            figure.savefig(file, format="png", dpi=110)


def _prediction_rows(answers: Answers, names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The columns and the rows of the table of answers."""
    shares = np.exp(log_probabilities(answers.logits, answers.temperature))
    samples = answers.samples
    rows = [
        [
            samples.names[index],
            samples.people[index],
            names[samples.labels[index]],
            names[int(row.argmax())],
            *(f"{share:.4f}" for share in row),
        ]
        for index, row in zip(answers.order, shares, strict=True)
    ]
    return ["crop", "person", "true class", "answer", *names], rows


def _write_csv(
    path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]], *, spreadsheet_safe: bool
) -> None:
    buffer = io.StringIO()
    lines = itertools.chain([columns], rows)
    csv.writer(buffer, lineterminator="\n").writerows(safe_rows(lines) if spreadsheet_safe else lines)
    write_text(path, buffer.getvalue())


def _number(value: SupportsFloat) -> float:
    return round(float(value), DIGITS)


def draw_confusion(names: Sequence[str], counts: Sequence[Sequence[int]]) -> Figure:
    """A matplotlib figure: the share of each true class (rows) that got each answer, with the counts."""
    figure = Figure(figsize=(0.9 * len(names) + 2.2, 0.8 * len(names) + 1.6), layout="constrained")
    axes = figure.add_subplot()
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row, (share_row, count_row) in enumerate(zip(shares, counts, strict=True)):
        for column, (share, count) in enumerate(zip(share_row, count_row, strict=True)):
            colour = "white" if share > 0.5 else "black"
            axes.text(
                column, row, f"{share:.0%}\n{count}", ha="center", va="center", fontsize=8, color=colour
            )
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="answer", ylabel="true class")
    figure.colorbar(image, ax=axes, label="share of the true class")
    return figure


def draw_reliability(before: tuple[Bins, float], after: tuple[Bins, float]) -> Figure:
    """A matplotlib figure: accuracy over confidence, before and after the temperature; with the errors."""
    figure = Figure(figsize=(4.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for when, marker, (bins, error) in (("before", "o", before), ("after", "s", after)):
        axes.plot(
            [row["confidence"] for row in bins],
            [row["accuracy"] for row in bins],
            marker=marker,
            label=f"{when} scaling, error {error:.3f}",
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.legend(fontsize=8)
    return figure
