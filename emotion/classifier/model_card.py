"""The model card: network, data, training and scores of the classifier, and what it must not be used for."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from emotion.classifier.about import About
from facevox.intervals import interval_text
from facevox.model_card import bullets, class_table, pairs, score_cells, table, write_card

if TYPE_CHECKING:
    from emotion.scores.report import Evaluation


class PartCounts(TypedDict):
    """Counts of one part; `voted`: pictures on which the annotators differ."""

    pictures: int
    people: int
    voted: int


class DataCounts(TypedDict):
    """Counts of the pictures for training and validation."""

    train: PartCounts
    validation: PartCounts
    people_in_both: int
    unreadable: int


def write_model_card(
    path: Path,
    about: About,
    data: DataCounts,
    settings: dict[str, str],
    history: Sequence[dict[str, float]],
    report: "Evaluation",
) -> None:
    """Writes the card.

    Args:
        path: The file.
        about: Of `emotion.classifier.export.describe_model`.
        data: Counts of the training and validation pictures.
        settings: NAME -> value of the settings that shape the model.
        history: A row for each epoch.
        report: Of `emotion.scores.report.evaluate`.
    """
    preprocessing, names = about["preprocessing"], ", ".join(about["class_names"])
    best = min(history, key=lambda row: row["val_loss"])
    model = [
        f"{about['architecture']}, mean over the picture, Dense 256 ReLU, Dropout, softmax over: {names}",
        f"input: one face, square crop with a margin of {preprocessing['crop_margin']:g} of the face box, "
        f"{preprocessing['img_size']} x {preprocessing['img_size']} RGB, values 0 to 255",
        f"output: probabilities, calibrated inside the model (temperature {about['temperature']:.3f})",
    ]
    training = (
        f"{len(history)} epochs; the averaged weights of epoch {best['epoch']:g} are kept (validation loss "
        f"{best['val_loss']:.4f})."
    )
    write_card(
        path,
        "Facial expressions: a classifier",
        {
            "Model": [bullets(model)],
            "Data": [_data(data)],
            "Training": [pairs(settings, "="), training],
            "Scores on the validation people": _scores(report),
            "Use": [_USE],
            "Versions": [pairs(about["versions"])],
        },
    )


def _data(data: DataCounts) -> str:
    lines = [
        f"{part}: {counts['pictures']} pictures of {counts['people']} people"
        for part, counts in (("train", data["train"]), ("validation", data["validation"]))
    ]
    both = data["people_in_both"]
    if both:
        lines.append(f"**{both} people are in both parts: every score below is too good**")
    else:
        lines.append("nobody is in both parts")
    lines.append(
        f"{data['train']['voted']} training pictures on which the annotators differ: "
        "their votes are the target"
    )
    if data["unreadable"]:
        lines.append(f"{data['unreadable']} pictures could not be read and were left out")
    return bullets(lines)


def _scores(report: "Evaluation") -> list[str]:
    score, calibration = report["macro_f1"], report["calibration"]
    interval = interval_text(score)
    groups = [
        (f"{row['slice']} {row['value']}", *score_cells(row["macro_f1"]), row["pictures"], row["people"])
        for row in report["slices"]
    ]
    return [
        f"Macro-F1 **{score['value']:.3f}**{f' ({interval})' if interval else ''} "
        f"(chance {report['chance_macro_f1']:g}), "
        f"accuracy {report['accuracy']:.3f}, on {report['pictures']} pictures of {report['people']} people. "
        "The interval draws people, not pictures. The best epoch was chosen on the same people: expect a "
        "little less on others.",
        f"Calibration error {calibration['calibration_error_before']:.3f} before the temperature, "
        f"{calibration['calibration_error_after']:.3f} after it (fitted on one half of the people, seen on "
        "the other).",
        class_table(report["classes"], "pictures"),
        table(["group", "macro-F1", "95 % interval", "pictures", "people"], groups) if groups else "",
    ]


_USE = (
    "It names the expression that a face shows, as annotators of such pictures would. An expression is not a "
    "feeling: people smile out of politeness and look neutral in grief.\n"
    "In the European Union, inferring emotions at work and in education is prohibited (AI Act, Art. "
    "5(1)(f)). Do not decide about a person by it, and ask the people whose faces it sees.\n"
    "It knows only the classes above: any other expression gets one of them. It was trained on acted and "
    "uploaded pictures of mostly Korean adults; look at the groups above before using it on others."
)
