"""Whom an evaluation tests."""

import pytest

from facevox.errors import UserError
from lc_pytorch.datasets.splits import Split
from lc_pytorch.evaluation.subjects import Subjects, choose_subjects, require_same_people

PEOPLE = [f"p{number:02d}" for number in range(40)]


def choose(available: list[str], *, test: list[str], seen: list[str], **options: object) -> Subjects:
    return choose_subjects(available, test=test, seen=seen, **({"test_size": 0.05} | options))  # type: ignore[arg-type]


def test_people_of_the_test_part_are_tested_and_absent_ones_counted() -> None:
    found = choose(PEOPLE[:35], test=PEOPLE[30:], seen=PEOPLE[:30], test_size=0.5)
    assert found.identities == tuple(PEOPLE[30:35])
    assert found.origin == "test people of split.json"
    assert found.notes == ("5 of its 10 test people are not in the data",)
    assert found.warning == ""


@pytest.mark.parametrize(("share", "count"), [(0.05, 2), (0.25, 5), (1.0, 20), (0.0, 2)])
def test_share_is_drawn_from_people_not_seen_where_no_test_person_is_there(share: float, count: int) -> None:
    found = choose(PEOPLE, test=["x", "y"], seen=PEOPLE[:20], test_size=share, seed=3)
    assert len(found.identities) == count
    assert set(found.identities) <= set(PEOPLE[20:])
    assert f"{count} drawn from 20 people that the model has not seen" in found.origin
    again = choose(PEOPLE[::-1], test=["x", "y"], seen=PEOPLE[:20], test_size=share, seed=3)
    assert again == found
    if count == 5:
        other = choose(PEOPLE, test=["x", "y"], seen=PEOPLE[:20], test_size=share, seed=4)
        assert other.identities != found.identities


def test_test_person_who_was_trained_on_is_an_error_unless_allowed_and_then_said() -> None:
    with pytest.raises(UserError, match=r"1 test people .*p00.*--allow_seen"):
        choose(PEOPLE, test=["p00", "p01"], seen=["p00", "p02"])
    found = choose(PEOPLE, test=["p00", "p01"], seen=["p00", "p02"], is_seen_allowed=True)
    assert (found.identities, found.num_seen) == (("p00", "p01"), 1)
    assert "1 of 2 people were seen in training" in found.warning


def test_where_all_were_seen_only_allow_seen_goes_on() -> None:
    with pytest.raises(UserError, match=r"has not seen 0 of its 40 people.*--allow_seen"):
        choose(PEOPLE, test=[], seen=PEOPLE)
    found = choose(PEOPLE, test=[], seen=PEOPLE, test_size=0.2, is_seen_allowed=True)
    assert (len(found.identities), found.num_seen) == (8, 8)


def test_fewer_than_two_people_are_refused() -> None:
    with pytest.raises(UserError, match="1 identity in the data"):
        choose(["a", "a"], test=["a"], seen=[])
    with pytest.raises(UserError, match=r"one identity of the test people is in the data \(p00\)"):
        choose(PEOPLE, test=["p00", "x"], seen=PEOPLE[1:])


def test_split_of_another_training_is_refused() -> None:
    split = Split(train=("a", "b"), test=("c",))
    require_same_people(split, {"split_hash": split.hash}, ["c"], "")
    require_same_people(split, {}, ["c"], "")
    with pytest.raises(UserError, match="not the one that this model was trained with"):
        require_same_people(split, {"split_hash": Split(train=("a",), test=("b", "c")).hash}, ["c"], "")


def test_people_known_by_another_rule_are_refused_where_no_name_is_known() -> None:
    split = Split(train=("sub/v1", "sub/v2"), test=("sub/v3",))
    data = {"split_hash": split.hash, "identities_by": "--identity_csv groups.csv (9 pairs)"}
    with pytest.raises(UserError, match="nobody could tell who was trained on"):
        require_same_people(split, data, ["p0", "p1"], "the top sub-folder (9 pairs)")
    require_same_people(split, data, ["p0", "p1"], "--identity_csv other.csv (5 pairs)")
    require_same_people(split, data, ["sub/v3", "p1"], "the top sub-folder (9 pairs)")
