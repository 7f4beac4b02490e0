"""Annotations in each encoding and form, labels by majority, boxes mended."""

import json
import math
import statistics
import unicodedata

import numpy as np
import pytest

from emotion.data.aihub.annotations import Annotation, read_annotations
from emotion.data.aihub.labels import agreement, majority_label, soft_label
from emotion.data.boxes import Box, clean_box, middle_box, overlap
from facevox.errors import UserError

FILENAME = "ab_남_20_기쁨_도심 환경_2021-1.jpg"


def record(**own: object) -> dict[str, object]:
    def annot(word: str, edges: tuple[float, ...]) -> dict[str, object]:
        return {"boxes": dict(zip(("minX", "minY", "maxX", "maxY"), edges, strict=True)), "faceExp": word}

    return {
        "filename": FILENAME,
        "gender": "남",
        "age": 20,
        "faceExp_uploader": "기쁨",
        "annot_A": annot("기쁨", (1, 2, 3, 4)),
        "annot_B": annot("알수없음", (9, 2, 3, -4)),
        "annot_C": annot("불안", (0, 0, 0, 0)),
        **own,
    }


WANTED = Annotation(
    FILENAME,
    "male",
    20,
    "happy",
    ("happy", "unknown", "anxiety"),
    ((1, 2, 3, 4), (9, 2, 3, -4), (0, 0, 0, 0)),
)


def read(value: object, encoding: str = "utf-8") -> list[Annotation | str]:
    return list(read_annotations(json.dumps(value, ensure_ascii=False).encode(encoding), "x.json"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949"])
def test_list_is_read_in_each_encoding(encoding):
    assert read([record(), record()], encoding) == [WANTED, WANTED]


def test_flat_keys_mean_the_same():
    nested = record()
    flat = {key: value for key, value in nested.items() if not key.startswith("annot_")}
    for letter in "ABC":
        annot = nested[f"annot_{letter}"]
        flat[f"faceExp_{letter}"], flat[f"faceBB_{letter}"] = annot["faceExp"], annot["boxes"]
    assert read([flat]) == [WANTED]


def test_boxes_as_lists_and_numbers_in_quotes_are_read():
    drawn = {"faceExp": "기쁨", "boxes": [["1", "2", 3, 4.5]]}
    (found,) = read([record(annot_A=drawn, annot_B={"faceExp": "기쁨", "boxes": [1, 2, 3]}, annot_C=None)])
    assert found.boxes == ((1, 2, 3, 4.5),)
    assert found.votes == ("happy", "happy", "")


def test_names_in_nfd_and_with_folders_are_the_same_names():
    (found,) = read([record(filename=unicodedata.normalize("NFD", f"기쁨\\{FILENAME}"))])
    assert found == WANTED


def test_one_object_in_place_of_a_list_is_read():
    assert read(record()) == [WANTED]


def test_useless_records_are_told_and_the_others_kept():
    found = read([record(), {"age": 3}, "text", record(filename=" "), record(age="x", gender=7, annot_A=3)])
    assert found[1:4] == [f"record {number} has no filename" for number in (1, 2, 3)]
    assert (found[4].age, found[4].gender, found[4].votes) == (-1, "", ("", "unknown", "anxiety"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"), (b"{", "not JSON"), (b"[" * 100_000, "not JSON"), (b"3", "holds a int"),
        (b'{"a": 1}', "holds a dict"), (b"\xff\xfe[\x00]\x00\x00", "neither UTF-8 nor cp949"),
        (b"[" + b"9" * 5000 + b"]", "not JSON"),
    ],
)  # fmt: skip
def test_broken_file_is_named_with_its_fault(data, words):
    with pytest.raises(UserError, match=words) as caught:
        list(read_annotations(data, "img(기쁨).json"))
    assert str(caught.value).startswith("img(기쁨).json: ")


@pytest.mark.parametrize(
    ("votes", "uploader", "label"),
    [
        (("happy", "happy", "sad"), "sad", "happy"),
        (("happy", "sad", "anger"), "neutral", "neutral"),  # no majority
        (("happy", "unknown", "sad"), "sad", "sad"),
        (("unknown", "unknown", "happy"), "happy", "unknown"),
        (("happy", "sad", ""), "hurt", "hurt"),  # a tie of two
        (("happy", "happy", ""), "hurt", "happy"),
        (("happy", "", ""), "sad", "happy"),
        (("", "", ""), "sad", "sad"),
        (("", "", ""), "", ""),
    ],
)
def test_majority_labels_and_ties_go_to_the_uploader(votes, uploader, label):
    assert majority_label(votes, uploader) == label
    assert majority_label(votes[::-1], uploader) == label


def test_soft_label_keeps_the_votes():
    classes = ("happy", "sad", "neutral")
    assert soft_label(("happy", "sad", "happy"), classes, "happy") == pytest.approx([2 / 3, 1 / 3, 0])
    assert soft_label(("happy", "unknown", "anger"), classes, "sad") == [1, 0, 0]
    assert soft_label(("unknown", "", "hurt"), classes, "sad") == [0, 1, 0]
    with pytest.raises(ValueError):
        soft_label(("", "", ""), classes, "anger")


def test_agreement_equals_a_count_over_all_pairs():
    rng = np.random.default_rng(0)
    votes = [tuple(rng.choice(["happy", "sad", "unknown", ""], 3)) for _ in range(200)]
    pairs = [(v[i], v[j]) for v in votes for i in range(3) for j in range(i) if v[i] and v[j]]
    assert agreement(votes) == pytest.approx(np.mean([a == b for a, b in pairs]))
    assert math.isnan(agreement([("", "", "happy")]))


@pytest.mark.parametrize(
    ("edges", "wanted"),
    [
        ((10, 20, 30, 60), (10, 20, 30, 60)),
        ((30, 60, 10, 20), (10, 20, 30, 60)),  # swapped
        ((-5, -7, 30, 60), (0, 0, 30, 60)),  # negative
        ((50, 50, 500, 500), (50, 50, 100, 80)),  # beyond the border
        ((0, 0, 0, 0), None), ((10, 10, 11, 50), None), ((-30, -30, -5, -5), None),
        ((200, 10, 300, 50), None), ((math.nan, 0, 5, 5), None), ((0, 0, math.inf, 5), None),
    ],
)  # fmt: skip
def test_boxes_are_mended_or_dropped(edges, wanted):
    assert clean_box(edges, 100, 80) == wanted


def test_middle_box_is_the_median_of_each_edge():
    rng = np.random.default_rng(1)
    for count in (1, 2, 3, 4, 5):
        corners = rng.uniform(0, 50, (count, 2)), rng.uniform(51, 99, (count, 2))
        boxes = [Box(*low, *high) for low, high in zip(*corners, strict=True)]
        wanted = [statistics.median(box[edge] for box in boxes) for edge in range(4)]
        assert middle_box(boxes) == pytest.approx(wanted)
    assert middle_box([]) is None


def test_overlap_equals_a_count_of_pixels():
    rng = np.random.default_rng(2)
    for _ in range(50):
        left, top = rng.integers(0, 30, (2, 2))
        right, bottom = left + rng.integers(1, 30, 2), top + rng.integers(1, 30, 2)
        boxes = [Box(*map(float, edges)) for edges in zip(left, top, right, bottom, strict=True)]
        masks = np.zeros((2, 60, 60), bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
            mask[int(y0) : int(y1), int(x0) : int(x1)] = True
        assert overlap(*boxes) == pytest.approx((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())
