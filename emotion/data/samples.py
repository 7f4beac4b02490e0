"""The face crops of a part: files, labels, votes, people; from its folders and the table of preprocessing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion.data.aihub.labels import soft_label
from emotion.data.aihub.names import parse_picture_name
from facevox.errors import UserError
from facevox.files import IMAGE_PATTERNS, find_files, relative_name
from facevox.spreadsheets import TableReader

VOTES = ("annot_A", "annot_B", "annot_C")
AGES = (-1, 150)  # years; a value outside is a mistake


@dataclass(frozen=True)
class Samples:
    """N pictures.

    Attributes:
        files: (N,) paths.
        names: (N,) the same relative to the folder that holds both parts, with forward slashes.
        labels: (N,) int64, index of the class: the folder that a picture is in.
        targets: (N, C) float32, the annotators' votes as a distribution; one-hot where there are none.
        people: (N,) the person; each picture of an unknown person counts as another person.
        genders: (N,) "male", "female" or "".
        ages: (N,) decade, -1 where unknown.
    """

    files: list[Path]
    names: list[str]
    labels: NDArray[np.int64]
    targets: NDArray[np.float32]
    people: list[str]
    genders: list[str]
    ages: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def num_people(self) -> int:
        """Number of different people."""
        return len(set(self.people))

    @property
    def num_voted(self) -> int:
        """Number of pictures whose annotators do not agree."""
        return int((self.targets.max(axis=1) < 1).sum())


def read_samples(folder: Path, class_names: Sequence[str], *, what: str) -> Samples:
    """The pictures below `folder/<class>/`, in the order of their names.

    Votes, person, gender and age come from the table `crops.csv` next to the folder; without a row there,
    person, gender and age from the file's name as AIHub writes it.

    Args:
        folder: DATA_DIR_TRAIN or DATA_DIR_VAL.
        class_names: Labels in the order of the model's outputs.
        what: The setting, for messages.

    Raises:
        UserError: The folder, or the pictures of a class, are missing; all such classes are named.
    """
    if not folder.is_dir():
        raise UserError(f"{what}: no such folder: {folder}; run python emotion/preprocess.py first")
    by_class = [_pictures(folder / name, what) for name in class_names]
    empty = [name for name, files in zip(class_names, by_class, strict=True) if not files]
    if empty:
        raise UserError(
            f"{what}: {folder} has no pictures of {', '.join(empty)} (folders named as in CLASS_NAMES are "
            "expected); run python emotion/preprocess.py first"
        )
    files = [file for of_class in by_class for file in of_class]
    labels = np.repeat(np.arange(len(class_names)), [len(of_class) for of_class in by_class])
    names = [relative_name(file, folder.parent) for file in files]
    rows = _read_table(folder.parent / "crops.csv")
    targets = np.zeros((len(files), len(class_names)), np.float32)
    people, genders, ages = [], [], []
    for index, (file, name) in enumerate(zip(files, names, strict=True)):
        row, parsed = rows.get(name, {}), parse_picture_name(file.name)
        votes = [row.get(column, "") for column in VOTES]
        targets[index] = soft_label(votes, class_names, class_names[labels[index]])
        people.append(row.get("person") or (parsed.person if parsed else f"unknown: {name}"))
        genders.append(row.get("gender") or (parsed.gender if parsed else ""))
        ages.append(_age(row.get("age") or (str(parsed.age) if parsed else "")))
    return Samples(files, names, labels, targets, people, genders, np.array(ages, np.int64))


def people_in_both(train: Samples, validation: Samples) -> int:
    """Number of people who are in both parts: above 0 the scores are too good."""
    return len(set(train.people) & set(validation.people))


def class_weights(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    """(C,) N / (C * n_c): a class weighs the more the rarer it is, and a picture 1 on average.

    Source: King and Zeng (2001), "Logistic Regression in Rare Events Data"; scikit-learn's "balanced".
    """
    counts = np.bincount(labels, minlength=num_classes)
    return (len(labels) / (num_classes * np.maximum(counts, 1))).astype(np.float32)


def _pictures(folder: Path, what: str) -> list[Path]:
    try:
        return find_files(folder, IMAGE_PATTERNS, what=what)
    except UserError:  # no such folder, or nothing in it: all such classes are reported together
        return []


def _read_table(table: Path) -> dict[str, dict[str, str]]:
    """crop -> row of the pictures that were cut out; {} where there is no table."""
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return {row["crop"]: row for row in TableReader(file) if row.get("crop")}


def _age(text: str) -> int:
    try:
        age = int(text)
    except ValueError:
        return -1
    return age if AGES[0] <= age <= AGES[1] else -1
