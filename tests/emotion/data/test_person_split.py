"""The split by person, and the audit that finds those on both sides."""

import math

import pytest

from emotion.data.audit import Sample, audit_split, describe_audit, sample_of
from emotion.data.split import FEW_PEOPLE, validation_people
from facevox.errors import UserError

MANY = [f"person{k}" for k in range(5000)]


def test_sides_of_many_people_do_not_depend_on_who_else_is_there():
    everybody = validation_people(MANY, 0, 0.2)
    half = MANY[::2]
    assert validation_people(half, 0, 0.2) == everybody & set(half)
    assert validation_people(reversed(MANY), 0, 0.2) == everybody


def test_share_is_met_within_four_deviations():
    for share in (0.05, 0.2, 0.5):
        count = len(validation_people(MANY, 1, share))
        assert abs(count - share * len(MANY)) < 4 * math.sqrt(len(MANY) * share * (1 - share))


def test_share_of_few_people_is_met_exactly_and_no_side_is_empty():
    for count in (2, 3, 10, FEW_PEOPLE - 1):
        for share in (0.001, 0.2, 0.999):
            chosen = validation_people(MANY[:count], 0, share)
            assert len(chosen) == min(max(round(share * count), 1), count - 1)


def test_another_seed_gives_another_split():
    first, second = (validation_people(MANY, seed, 0.2) for seed in (0, 1))
    assert len(first & second) < 0.3 * len(first)  # a fifth by chance


def test_one_person_cannot_be_split():
    with pytest.raises(UserError, match="1 people: at least two"):
        validation_people(["a", "a"], 0, 0.2)


def test_audit_counts_people_pictures_and_uploads_on_both_sides():
    samples = [
        *(Sample("train", "happy", "a", "a_1"), Sample("train", "sad", "a", "a_2")),
        *(Sample("train", "sad", "b", "b_1"), Sample("train", "sad", "b", "b_1")),
        *(Sample("validation", "sad", "b", "b_1"), Sample("validation", "happy", "b", "b_9")),
        *(Sample("validation", "happy", "c", "c_1"), Sample("validation", "happy", "", "")),
    ]
    audit = audit_split(samples)
    assert audit["parts"]["train"] == {"pictures": 4, "people": 2, "classes": {"happy": 1, "sad": 3}}
    assert audit["parts"]["validation"] == {"pictures": 4, "people": 2, "classes": {"happy": 3, "sad": 1}}
    assert audit["bursts"] == {"count": 5, "largest": 3, "mean_pictures": 1.4}
    assert audit["leaks"] == [
        {
            "parts": ["train", "validation"], "people": 1, "people_of_second": 2,
            "pictures": 2, "pictures_of_second": 3, "bursts": 1,
        }
    ]  # fmt: skip
    assert (audit["is_disjoint"], audit["num_unnamed"]) == (False, 1)
    said = "\n".join(describe_audit(audit))
    assert "LEAK: 1 of the 2 people of validation are in train too: 2 of its 3 pictures, 1 uploads" in said
    assert "1 pictures have names that name no person" in said


def test_audit_looks_at_each_two_of_three_parts():
    people = {"train": "a", "test": "b", "validation": "a"}
    samples = [Sample(part, "x", person, person) for part, person in people.items()]
    leaks = {tuple(leak["parts"]): leak["people"] for leak in audit_split(samples)["leaks"]}
    assert leaks == {("train", "validation"): 1, ("train", "test"): 0, ("validation", "test"): 0}


def test_sample_takes_person_upload_and_emotion_from_the_name():
    name = "ab_남_20_기쁨_집_77-3.jpg"
    assert sample_of("train", name) == Sample("train", "happy", "ab", "ab_77")
    assert sample_of("train", name, "sad").label == "sad"
    assert sample_of("train", "x.jpg", "sad") == Sample("train", "sad", "", "")
