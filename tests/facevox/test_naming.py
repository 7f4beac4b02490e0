"""Names of output files."""

import random

from facevox.naming import plan_names


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
