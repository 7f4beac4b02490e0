"""Names of output files."""

import random

import pytest

from facevox.naming import MAX_NAME_BYTES, plan_names


def test_name_is_the_same_path_with_another_suffix() -> None:
    assert plan_names(["a/vid_123.mp4", "b.c/x.y.mov"], ".jpg") == ["a/vid_123.jpg", "b.c/x.y.jpg"]


def test_same_stem_keeps_both() -> None:
    names = ["a/vid.avi", "a/vid.mov", "a/vid.mp4", "b/vid.mp4"]
    assert plan_names(names, ".jpg") == ["a/vid.jpg", "a/vid_mov.jpg", "a/vid_mp4.jpg", "b/vid.jpg"]


def test_a_name_that_a_later_file_owns_is_not_given_away() -> None:
    assert plan_names(["vid.avi", "vid.mov", "vid_mov.mp4"], ".jpg") == [
        "vid.jpg",
        "vid_mov_2.jpg",
        "vid_mov.jpg",
    ]


def test_case_alone_does_not_tell_names_apart() -> None:
    planned = plan_names(["A.mp4", "a.MOV"], ".wav")
    assert len({name.casefold() for name in planned}) == 2


def test_no_two_of_many_awkward_names_are_alike() -> None:
    rng = random.Random(0)
    stems = ["v", "v_mp4", "v_mp4_2", "V", "v_mov", "v.mp4", "-v", "영상", "a b", 'q"']
    names = sorted({f"{rng.choice(stems)}.{rng.choice(['mp4', 'MP4', 'mov', 'avi'])}" for _ in range(200)})
    planned = plan_names(names, ".jpg")
    assert len({name.casefold() for name in planned}) == len(names)


def size_bytes(name: str) -> int:
    return len(name.rpartition("/")[2].encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("letter", ["a", "é", "가", "😀", "\udcff"])
def test_long_names_are_shortened_between_characters_and_stay_unique(letter: str) -> None:
    stem = letter * (250 // size_bytes(letter))
    names = [f"d/{stem}.mkv", f"d/{stem}.mov", f"d/{stem}.mp4", f"d/{stem}x.mp4", f"e/{stem}.mp4"]
    planned = plan_names(names, ".jpg")
    assert len({name.casefold() for name in planned}) == len(names)
    for name in planned:
        assert MAX_NAME_BYTES - 4 < size_bytes(name) <= MAX_NAME_BYTES
        folder, _, last = name.partition("/")
        kept, _, digest = last.removesuffix(".jpg").rpartition("-")
        assert set(kept) == {letter}
        assert (folder in "de", len(digest)) == (True, 8)
    assert planned == plan_names(names, ".jpg")


def test_name_at_the_limit_is_left_alone_and_one_above_is_not() -> None:
    stem = "a" * (MAX_NAME_BYTES - 4)
    assert plan_names([f"{stem}.mp4"], ".jpg") == [f"{stem}.jpg"]
    assert plan_names([f"{stem}a.mp4"], ".jpg") != [f"{stem}a.jpg"]


def test_a_name_that_grows_by_its_suffix_is_held_to_the_limit() -> None:
    stem = "a" * (MAX_NAME_BYTES - 4)
    first, second = plan_names([f"{stem}.mov", f"{stem}.mp4"], ".jpg")
    assert first == f"{stem}.jpg"
    assert size_bytes(second) == MAX_NAME_BYTES


def test_suffixes_that_were_added_later_leave_the_earlier_names_alone() -> None:
    before = ["a/vid.avi", "a/vid.mp4", "b/x.mov", "b/x_mov.mp4"]
    added = ["a/vid.3gp", "a/vid.mts", "a/vid_mp4.ts", "b/X.M2TS", "c/new.mts"]
    names = sorted(before + added)
    planned = dict(zip(names, plan_names(names, ".jpg"), strict=True))
    assert [planned[name] for name in before] == plan_names(before, ".jpg")
    assert planned["a/vid.3gp"] == "a/vid_3gp.jpg"
    assert planned["a/vid_mp4.ts"] == "a/vid_mp4_ts.jpg"
    assert planned["c/new.mts"] == "c/new.jpg"
    assert len({name.casefold() for name in planned.values()}) == len(names)
