"""Labels and people from annotations, file names, folders and archive names; limits over archives."""

import json
import unicodedata
from pathlib import Path

import pytest

from emotion.landmarks.plan import plan_shards, spread
from facevox_demo.example.aihub import write_zip

AIHUB_NAME = "0a1b_남_20_{}_도심 환경_2021-001-001.jpg"


def make_zip(path: Path, names: list[str], encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_zip(path, ((name, b"x") for name in names), encoding)
    return path


def only_picture(*zips: Path, labels: tuple[str, ...] = ()):
    (item,) = plan_shards(zips, labels).items
    (picture,) = item.pictures
    return picture


@pytest.mark.parametrize("encoding", ["utf-8", "cp949"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_label_and_person_come_from_the_name_in_any_encoding(tmp_path, encoding, form):
    name = unicodedata.normalize("NFC" if encoding == "cp949" else form, AIHUB_NAME.format("불안"))
    archive = make_zip(
        tmp_path / unicodedata.normalize(form, "[원천]EMOIMG_중립_TRAIN_01.zip"), [name], encoding
    )
    picture = only_picture(archive)
    assert (picture.label, picture.person) == ("anxiety", "0a1b")
    assert picture.member == AIHUB_NAME.format("불안")


@pytest.mark.parametrize(
    ("archive", "member", "label"),
    [
        ("[원천]EMOIMG_중립_TRAIN_01.zip", "1.jpg", "neutral"),
        ("[원천]EMOIMG_중립_TRAIN_01.zip", "불안/1.jpg", "anxiety"),
        ("x.zip", "a/슬픔/b/1.jpg", "sad"),
        ("happy.zip", "1.jpg", "happy"),
        ("x.zip", "1.jpg", ""),
    ],
)
def test_label_comes_from_the_nearest_place_that_tells_one(tmp_path, archive, member, label):
    assert only_picture(make_zip(tmp_path / archive, [member])).label == label


def test_annotators_outvote_the_name_and_tell_the_box(tmp_path):
    name = AIHUB_NAME.format("불안")
    box = {"minX": 1, "minY": 2, "maxX": 30, "maxY": 40}
    record = {
        "filename": name,
        "faceExp_uploader": "불안",
        **{f"annot_{letter}": {"boxes": box, "faceExp": "중립"} for letter in "ABC"},
    }
    pictures = make_zip(tmp_path / "a.zip", [name])
    write_zip(
        tmp_path / "라벨.zip",
        iter([("불안.json", json.dumps([record], ensure_ascii=False).encode())]),
        "utf-8",
    )
    plan = plan_shards([pictures, tmp_path / "라벨.zip"])
    (picture,) = plan.items[0].pictures
    assert picture.label == "neutral"
    assert picture.edges == ((1.0, 2.0, 30.0, 40.0),) * 3
    assert only_picture(pictures, tmp_path / "라벨.zip", labels=("happy", "-")).label == "happy"


def test_other_names_with_underscores_are_no_people(tmp_path):
    plan = plan_shards([make_zip(tmp_path / "a.zip", ["Anna_Maria_de_Vries_0003.jpg", "IMG_1.jpg"])])
    assert [picture.person for picture in plan.items[0].pictures] == ["", ""]
    assert (plan.num_unnamed, plan.num_unlabelled) == (2, 2)


def test_archive_reached_twice_is_read_once(tmp_path):
    archive = make_zip(tmp_path / "a.zip", ["1.jpg", "2.jpg"])
    assert plan_shards([archive, tmp_path]).num_pictures == 2


def test_limit_is_met_as_evenly_as_sizes_allow():
    assert spread([5, 100, 100], 65) == [5, 30, 30]
    assert spread([5, 5], 100) == [5, 5]
    assert spread([7, 9], 0) == [7, 9]
    for counts, limit in (([3, 1, 9, 9], 17), ([10, 20, 30], 11), ([1] * 7, 4)):
        quotas = spread(counts, limit)
        assert sum(quotas) == min(limit, sum(counts))
        assert all(quota <= count for quota, count in zip(quotas, counts, strict=True))
