"""The model card: what the classifier is, learnt from and scores, and what it must not be used for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facevox.files import write_text

CARD_FILE = "MODEL_CARD.md"


def write_model_card(
    path: Path,
    about: dict[str, Any],
    data: dict[str, Any],
    settings: dict[str, str],
    history: Sequence[dict[str, float]],
    report: dict[str, Any],
) -> None:
    """Writes the card.

    Args:
        path: The file.
        about: Of `emotion.classifier.export.describe_model`.
        data: "train" and "validation": counts of pictures and people; "people_in_both"; "origin".
        settings: NAME -> value of those that shape the model.
        history: A row for each epoch.
        report: Of `emotion.scores.report.evaluate`.
    """
    preprocessing, names = about["preprocessing"], ", ".join(about["class_names"])
    lines = [
        "# Facial expressions: a classifier",
        "",
        "## Model",
        "",
        f"- {about['architecture']}, mean over the picture, Dense 256 ReLU, Dropout, softmax over: {names}",
        f"- input: one face, square crop with a margin of {preprocessing['crop_margin']:g} of the face box, "
        f"{preprocessing['img_size']} x {preprocessing['img_size']} RGB, values 0 to 255",
        f"- output: probabilities, calibrated inside the model (temperature {about['temperature']:.3f})",
        "",
        *_data_lines(data),
        *_training_lines(settings, history),
        *_score_lines(report),
        *_USE,
        "## Versions",
        "",
        ", ".join(f"{name} {version}" for name, version in about["versions"].items()),
        "",
    ]
    write_text(path, "\n".join(lines))


def _data_lines(data: dict[str, Any]) -> list[str]:
    lines = ["## Data", ""]
    for part in ("train", "validation"):
        counts = data[part]
        lines.append(f"- {part}: {counts['pictures']} pictures of {counts['people']} people")
    both = data["people_in_both"]
    if both:
        lines.append(f"- **{both} people are in both parts: every score below is too good**")
    else:
        lines.append("- nobody is in both parts")
    lines.append(
        f"- {data['train']['voted']} training pictures on which the annotators differ: "
        "their votes are the target"
    )
    if data["unreadable"]:
        lines.append(f"- {data['unreadable']} pictures could not be read and were left out")
    return [*lines, ""]


def _training_lines(settings: dict[str, str], history: Sequence[dict[str, float]]) -> list[str]:
    shown = ", ".join(f"{name}={value}" for name, value in settings.items())
    best = min(history, key=lambda row: row["val_loss"])
    return [
        "## Training",
        "",
        shown,
        "",
        f"{len(history)} epochs; the averaged weights of epoch {best['epoch']:g} are kept (validation loss "
        f"{best['val_loss']:.4f}).",
        "",
    ]


def _score_lines(report: dict[str, Any]) -> list[str]:
    score, calibration = report["macro_f1"], report["calibration"]
    lines = [
        "## Scores on the validation people",
        "",
        f"Macro-F1 **{score['value']:.3f}**{_interval(score)} (chance {report['chance_macro_f1']:g}), "
        f"accuracy {report['accuracy']:.3f}, on {report['pictures']} pictures of {report['people']} people. "
        "The interval draws people, not pictures. The best epoch was chosen on the same people: expect a "
        "little less on others.",
        "",
        f"Calibration error {calibration['calibration_error_before']:.3f} before the temperature, "
        f"{calibration['calibration_error_after']:.3f} after it (fitted on one half of the people, seen on "
        "the other).",
        "",
        "| class | precision | recall | F1 | pictures |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['class']} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} "
        f"| {row['pictures']} |"
        for row in report["classes"]
    ]
    if report["slices"]:
        lines += ["", "| group | macro-F1 | 95 % interval | pictures | people |", "|---|---|---|---|---|"]
        lines += [
            f"| {row['slice']} {row['value']} | {row['macro_f1']['value']:.3f} | "
            f"{_interval(row['macro_f1']).strip(' ()') or '–'} | {row['pictures']} | {row['people']} |"
            for row in report["slices"]
        ]
    return [*lines, ""]


def _interval(score: dict[str, Any]) -> str:
    if score["low"] is None:
        return ""
    return f" ({score['low']:.3f} to {score['high']:.3f})"


_USE = [
    "## Use",
    "",
    "It names the expression that a face shows, as annotators of such pictures would. An expression is not a "
    "feeling: people smile out of politeness and look neutral in grief.",
    "In the European Union, inferring emotions at work and in education is prohibited (AI Act, Art. "
    "5(1)(f)). Do not decide about a person by it, and ask the people whose faces it sees.",
    "It knows only the classes above: any other expression gets one of them. It was trained on acted and "
    "uploaded pictures of mostly Korean adults; look at the groups above before using it on others.",
    "",
]
