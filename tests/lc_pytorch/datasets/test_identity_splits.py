"""Splits by identity: disjoint, the same for a seed whatever the order, balanced, and checked when read."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from facevox.errors import UserError
from lc_pytorch.datasets.splits import (
    Split,
    audit_split,
    check_split,
    load_split,
    normalise_identity,
    select_items,
    split_identities,
    write_split,
)

PEOPLE = [f"id{number:03d}" for number in range(100)]


def test_each_person_is_in_one_part_of_the_size_asked_for() -> None:
    split = split_identities(PEOPLE, test_size=0.2, val_size=0.1, seed=3)
    assert [len(names) for names in split.parts.values()] == [70, 10, 20]
    assert sorted(split.train + split.val + split.test) == PEOPLE


def test_split_depends_on_seed_but_not_on_order_or_repetition() -> None:
    split = split_identities(PEOPLE, test_size=0.2, val_size=0.1, seed=3)
    assert split_identities([*PEOPLE[::-1], *PEOPLE], test_size=0.2, val_size=0.1, seed=3) == split
    assert split_identities(PEOPLE, test_size=0.2, val_size=0.1, seed=4).test != split.test


def test_a_split_of_a_seed_stays_what_it_is() -> None:
    # Another draw in a later version would quietly move tested people into training.
    drawn = sorted(PEOPLE[:6], key=lambda name: hashlib.sha256(f"7:{name}".encode()).hexdigest())
    split = split_identities(PEOPLE[:6], test_size=0.2, val_size=0.2, seed=7)
    assert (split.test, split.val, split.train) == ((drawn[0],), (drawn[1],), tuple(sorted(drawn[2:])))


@pytest.mark.parametrize("num_women", [50, 31, 7, 1])
def test_each_part_has_its_share_of_each_stratum(num_women: int) -> None:
    strata = {name.upper(): "f" if number < num_women else "m" for number, name in enumerate(PEOPLE)}
    split = split_identities(PEOPLE, test_size=0.2, val_size=0.1, seed=1, strata=strata)
    assert sorted(split.train + split.val + split.test) == PEOPLE
    for names, share in ((split.test, 0.2), (split.val, 0.1), (split.train, 0.7)):
        women = Counter(strata[name.upper()] for name in names)["f"]
        assert abs(women - share * num_women) <= 1


def test_people_without_a_stratum_are_a_group_of_their_own() -> None:
    split = split_identities(
        PEOPLE, test_size=0.5, val_size=0, seed=1, strata=dict.fromkeys(PEOPLE[:40], "f")
    )
    assert sum(name in PEOPLE[:40] for name in split.test) == 20


@pytest.mark.parametrize(("num", "sizes"), [(3, (1, 1, 1)), (4, (2, 1, 1)), (10, (8, 1, 1))])
def test_few_people_still_fill_every_part_asked_for(num: int, sizes: tuple[int, ...]) -> None:
    split = split_identities(PEOPLE[:num], test_size=0.05, val_size=0.05, seed=0)
    assert tuple(map(len, split.parts.values())) == sizes


def test_large_shares_leave_someone_to_train_on() -> None:
    split = split_identities(PEOPLE[:3], test_size=0.5, val_size=0.49, seed=0)
    assert tuple(map(len, split.parts.values())) == (1, 1, 1)


def test_parts_not_asked_for_are_empty() -> None:
    split = split_identities(PEOPLE[:1], test_size=0, val_size=0, seed=0)
    assert (split.train, split.val, split.test) == (("id000",), (), ())


@pytest.mark.parametrize(
    ("people", "test_size", "val_size", "seed", "reason"),
    [
        (["a", "A "], 0.2, 0.1, 0, "1 identity: too few for train and val and test"),
        (["a", "b"], 0.2, 0.1, 0, "2 identities: too few"),
        (PEOPLE, 1.0, 0.1, 0, "--test_size 1: a share"),
        (PEOPLE, float("nan"), -0.1, 0, "--val_size -0.1: a share"),
        (PEOPLE, 0.5, 0.5, 0, "nobody would be left"),
        (PEOPLE, 0.2, 0.1, -1, "--seed -1"),
    ],
)
def test_impossible_splits_say_why(
    people: list[str], test_size: float, val_size: float, seed: int, reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        split_identities(people, test_size=test_size, val_size=val_size, seed=seed)


def test_names_are_compared_normalised() -> None:
    ways = ["Harry Connick_Jr.", " harry__connick jr. ", "HARRY_CONNICK\tJR."]
    assert {normalise_identity(name) for name in ways} == {"harry_connick_jr."}
    assert normalise_identity("Zoe\u0308") == normalise_identity("zoë")
    assert normalise_identity("한국") == normalise_identity("\u1112\u1161\u11ab\u1100\u116e\u11a8")
    assert normalise_identity("id1") != normalise_identity("id10")


def test_written_split_is_read_back(tmp_path: Path) -> None:
    split = split_identities(["한 국", "b", "c", "d"], test_size=0.3, val_size=0.3, seed=5)
    write_split(tmp_path / "split.json", split)
    assert load_split(tmp_path / "split.json") == split
    value = json.loads((tmp_path / "split.json").read_text(encoding="utf-8"))
    assert value["format"] == 1
    assert value["hash"] == split.hash
    assert sorted(value["train"] + value["val"] + value["test"]) == ["b", "c", "d", "한_국"]


def test_hash_tells_other_people_and_other_parts() -> None:
    splits = [
        Split(train=("a",), test=("b",)),
        Split(train=("b",), test=("a",)),
        Split(train=("a",), val=("b",)),
        Split(train=("a", "b")),
    ]
    assert len({split.hash for split in splits}) == 4
    assert Split(train=("a", "b"), seed=1).hash == Split(train=("b", "a"), seed=2).hash


def test_changed_lists_are_noticed_and_hand_written_ones_taken(tmp_path: Path) -> None:
    file = tmp_path / "split.json"
    write_split(file, split_identities(PEOPLE, test_size=0.2, val_size=0.1, seed=3))
    value = json.loads(file.read_text(encoding="utf-8"))
    value["train"].append(value["test"].pop())
    file.write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(UserError, match="lists were changed"):
        load_split(file)
    file.write_text('\ufeff{"train": ["B ", "a"], "val": [], "test": ["C d"]}', encoding="utf-8")
    assert load_split(file) == Split(train=("a", "b"), test=("c_d",))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "no split"),
        ('{"train": []}', "no split"),
        ('{"train": "a", "val": [], "test": []}', "'train' must be a list"),
        ('{"train": [1], "val": [], "test": []}', "'train' must be a list"),
        ('{"format": 2, "train": [], "val": [], "test": []}', "format 2"),
        ('{"seed": "x", "train": [], "val": [], "test": []}', "'seed' must be a number"),
        ("{", "not JSON"),
    ],
)
def test_files_that_are_no_split_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "split.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=reason):
        load_split(tmp_path / "split.json")


def test_audit_finds_leaks_and_differences_by_normalised_name() -> None:
    split = Split(train=("a", "Harry C."), val=("v",), test=("harry_c.", "gone"))
    findings = audit_split(split, ["A", "harry_C.", "v", "new one"])
    assert [(finding.kind, finding.identity) for finding in findings] == [
        ("in_two_parts", "harry_c."),
        ("not_in_split", "new_one"),
        ("not_in_data", "gone"),
    ]
    assert findings[0].text == "'harry_c.' is in train and in test"
    assert audit_split(Split(train=("a",), test=("b",)), ["B", "A"]) == []


def test_check_says_what_does_not_fit_this_run() -> None:
    split = split_identities(PEOPLE, test_size=0.2, val_size=0.1, seed=3)
    assert check_split(split, PEOPLE, test_size=0.2, val_size=0.1, seed=3) == []
    reasons = check_split(split, [*PEOPLE[4:], "new"], test_size=0.3, val_size=0.1, seed=4)
    assert reasons == [
        "it was drawn with --test_size 0.2, not 0.3",
        "it was drawn with --seed 3, not 4",
        "1 identity of the data are in no part of it ('new')",
        "4 identities of it are not in the data ('id000', 'id001', 'id002' and 1 more)",
    ]
    assert check_split(Split(train=("a",), test=("b",)), ["a", "b"], test_size=0.3, seed=9) == []


def test_items_of_a_part_are_found_in_any_spelling() -> None:
    split = Split(train=("a_b",), val=("c",), test=("d",))
    items = ["A b", "d", "c", "a_b", "stranger"]
    assert [select_items(split, items, part) for part in ("train", "val", "test")] == [[0, 3], [2], [1]]
