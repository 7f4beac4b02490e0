"""What is read of crops: labels from folders, votes and people from the table, or from names without one."""

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from emotion.data.samples import class_weights, people_in_both, read_samples
from facevox.errors import UserError
from facevox.files import write_image

CLASSES = ("happy", "sad", "neutral")


def write_crop(folder: Path, name: str) -> None:
    write_image(folder / name, np.zeros((8, 8, 3), np.uint8))


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """Three pictures for training, one of a hostile name; three of other people for validation."""
    for part, person in (("train", "a"), ("validation", "b")):
        write_crop(tmp_path, f"{part}/happy/{person}_여_20_기쁨_실내_1-1-1.jpg")
        write_crop(tmp_path, f"{part}/sad/-{person}_남_30_슬픔_실내 '\n_1-1-1.jpg")
        write_crop(tmp_path, f"{part}/neutral/picture.png")
    return tmp_path


def write_table(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "crops.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["crop", "person", "gender", "age", "annot_A", "annot_B", "annot_C"])
        writer.writeheader()
        writer.writerows(rows)


def test_names_tell_people_where_there_is_no_table(crops: Path) -> None:
    samples = read_samples(crops / "train", CLASSES, what="x")
    np.testing.assert_array_equal(samples.labels, [0, 1, 2])
    np.testing.assert_array_equal(samples.targets, np.eye(3))
    assert samples.people == ["a", "-a", "unknown: train/neutral/picture.png"]
    assert samples.genders == ["female", "male", ""]
    assert list(samples.ages) == [20, 30, -1]
    assert samples.num_people == 3


def test_table_tells_votes_and_people(crops: Path) -> None:
    name = "train/happy/a_여_20_기쁨_실내_1-1-1.jpg"
    votes = {"annot_A": "happy", "annot_B": "sad", "annot_C": "unknown"}
    write_table(crops, [{"crop": name, "person": "other", "gender": "male", "age": "fifty", **votes}])
    samples = read_samples(crops / "train", CLASSES, what="x")
    np.testing.assert_allclose(samples.targets[0], [0.5, 0.5, 0])
    assert (samples.people[0], samples.genders[0], samples.ages[0]) == ("other", "male", -1)
    assert samples.labels[0] == 0
    assert samples.num_voted == 1


def test_people_of_both_parts_are_counted(crops: Path) -> None:
    train, validation = (read_samples(crops / part, CLASSES, what="x") for part in ("train", "validation"))
    assert people_in_both(train, validation) == 0
    write_crop(crops, "validation/happy/a_여_20_기쁨_실내_2-1-1.jpg")
    assert people_in_both(train, read_samples(crops / "validation", CLASSES, what="x")) == 1


def test_all_classes_without_pictures_are_named_at_once(crops: Path) -> None:
    with pytest.raises(UserError, match=r"DATA_DIR_TRAIN: .* no pictures of anger, hurt .*preprocess.py"):
        read_samples(crops / "train", (*CLASSES, "anger", "hurt"), what="DATA_DIR_TRAIN")
    with pytest.raises(UserError, match="DATA_DIR_VAL: no such folder"):
        read_samples(crops / "no", CLASSES, what="DATA_DIR_VAL")


def test_class_weights_are_scikit_learns() -> None:
    labels = np.array([0] * 7 + [1] * 2 + [2] * 1)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    weights = class_weights(labels, 3)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert weights[labels].mean() == pytest.approx(1)
