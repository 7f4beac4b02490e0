"""The audit of a split: people, upload bursts, classes, and who is on both sides.

A picture of a person of the training part tests the memory of a model, not what it has learned: a split by
picture puts nearly everybody on both sides and scores far too well.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple, TypedDict

from emotion.data.aihub.collection import PictureFile, read_collection
from emotion.data.aihub.names import TEST, TRAINING, VALIDATION, emotion_of, parse_picture_name
from facevox.errors import UserError
from facevox.spreadsheets import TableReader

PARTS = (TRAINING, VALIDATION, TEST)


class Sample(NamedTuple):
    """A picture of a split. `person` and `burst` are "" where its name has none."""

    part: str
    label: str
    person: str
    burst: str


class PartCounts(TypedDict):
    """Counts of one part; `classes`: pictures of each."""

    pictures: int
    people: int
    classes: dict[str, int]


class Bursts(TypedDict):
    """Number of uploads, and their sizes."""

    count: int
    largest: int
    mean_pictures: float


class Leak(TypedDict):
    """Number of people in both of two parts, and their share of the later part."""

    parts: list[str]
    people: int
    people_of_second: int
    pictures: int
    pictures_of_second: int
    bursts: int


class Audit(TypedDict):
    """Counts of a split; `num_unnamed`: pictures whose names have no person."""

    parts: dict[str, PartCounts]
    bursts: Bursts
    leaks: list[Leak]
    is_disjoint: bool  # nobody is in two parts
    num_unnamed: int


def sample_of(part: str, filename: str, label: str = "") -> Sample:
    """The sample of a picture by its file name; without a label it gets the uploader's emotion."""
    parsed = parse_picture_name(filename)
    if parsed is None:
        return Sample(part, label, "", "")
    return Sample(part, label or parsed.emotion, parsed.person, parsed.burst)


def read_samples(table: Path, train_folder: str) -> Iterator[Sample]:
    """The crops in the table of `preprocess.py`, each once; those of `train_folder` are in training.

    Raises:
        UserError: A row lacks a column.
    """
    columns = ("status", "crop", "split", "class", "person", "burst")
    with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        for line, row in enumerate(TableReader(file), start=2):
            if missing := [name for name in columns if row.get(name) is None]:
                raise UserError(f"{table}, row {line}: without {', '.join(missing)}; run preprocess.py again")
            if row["status"] == "done" and row["crop"]:
                part = TRAINING if row["split"] == train_folder else VALIDATION
                yield Sample(part, row["class"], row["person"], row["burst"])


def audit_split(samples: Iterable[Sample]) -> Audit:
    """Counts of a split."""
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    people: dict[str, Counter[str]] = defaultdict(Counter)
    bursts: dict[str, Counter[str]] = defaultdict(Counter)
    num_unnamed = 0
    for sample in samples:
        classes[sample.part][sample.label] += 1
        if sample.person:
            people[sample.part][sample.person] += 1
            bursts[sample.part][sample.burst] += 1
        else:
            num_unnamed += 1
    order = [*(part for part in PARTS if part in classes), *sorted(set(classes) - set(PARTS))]
    leaks = [_leak(first, second, people, bursts) for first, second in combinations(order, 2)]
    sizes: Counter[str] = sum(bursts.values(), Counter())
    return {
        "parts": {
            part: {
                "pictures": classes[part].total(),
                "people": len(people[part]),
                "classes": dict(sorted(classes[part].items())),
            }
            for part in order
        },
        "bursts": {
            "count": len(sizes),
            "largest": max(sizes.values(), default=0),
            "mean_pictures": round(sizes.total() / len(sizes), 2) if sizes else 0.0,
        },
        "leaks": leaks,
        "is_disjoint": not any(leak["people"] for leak in leaks),
        "num_unnamed": num_unnamed,
    }


def _leak(first: str, second: str, people: dict[str, Counter[str]], bursts: dict[str, Counter[str]]) -> Leak:
    both = people[first].keys() & people[second].keys()
    pictures = sum(people[second][person] for person in both)
    return {
        "parts": [first, second],
        "people": len(both),
        "people_of_second": len(people[second]),
        "pictures": pictures,
        "pictures_of_second": people[second].total(),
        "bursts": len(bursts[first].keys() & bursts[second].keys()),
    }


def audit_folder(folder: Path) -> Audit:
    """The audit of a split in folders or ZIPs: `train/`, `validation/`, `test/`, `1.Training/` …

    Raises:
        UserError: No pictures, or none in a part of one of these names.
    """
    collection = read_collection(folder, what="--audit", with_annotations=False)
    for name, reason in collection.problems:
        raise UserError(f"--audit: {name}: {reason}")
    samples = [sample_of(p.part, p.filename, _label_of(p)) for p in collection.pictures]
    if not any(sample.part for sample in samples):
        raise UserError(
            f"--audit: {folder}: none of its {len(samples)} pictures is in a folder or archive named "
            "train, validation or test"
        )
    return audit_split(sample for sample in samples if sample.part)


def _label_of(picture: PictureFile) -> str:
    """The class of a picture by its folder, where that has the name of an emotion, Korean or English."""
    return emotion_of(picture.name.split("/")[-2]) if "/" in picture.name else ""


def describe_audit(audit: Audit) -> Sequence[str]:
    """The lines of an audit, for people."""
    lines = []
    for part, counts in audit["parts"].items():
        classes = ", ".join(f"{name} {count}" for name, count in counts["classes"].items())
        lines.append(f"{part}: {counts['pictures']} pictures of {counts['people']} people ({classes})")
    bursts = audit["bursts"]
    sizes = f"on average {bursts['mean_pictures']} pictures, at most {bursts['largest']}"
    lines.append(f"uploads: {bursts['count']}, {sizes}")
    for leak in audit["leaks"]:
        first, second = leak["parts"]
        if leak["people"]:
            people = (
                f"{leak['people']} of the {leak['people_of_second']} people of {second} are in {first} too"
            )
            pictures = f"{leak['pictures']} of its {leak['pictures_of_second']} pictures"
            lines.append(f"LEAK: {people}: {pictures}, {leak['bursts']} uploads on both sides")
        else:
            lines.append(f"nobody of {second} is in {first}")
    if audit["num_unnamed"]:
        lines.append(f"{audit['num_unnamed']} pictures have names that name no person")
    return lines
