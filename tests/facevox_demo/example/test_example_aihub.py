"""The example set in AIHub's shape: its files, its names, its faults on purpose, always the same bytes."""

import io
import json
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facevox import cli
from facevox.files import read_image
from facevox.mesh.face_mesh import FaceMesh
from facevox_demo.example import aihub
from facevox_demo.example.expressions import EXPRESSIONS

SMALL = ["--shape", "aihub", "--num_people", "3", "--pictures_per_expression", "1", "--picture_size", "128"]


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("demo/make_example_data")


@pytest.fixture(scope="module")
def small_set(script, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("aihub_set")
    assert cli.run(script.main, ["--output_dir", str(folder), *SMALL, "--debug"]) == 0
    return folder / "aihub"


def files_of(folder: Path) -> dict[str, bytes]:
    kept = (p for p in sorted(folder.rglob("*")) if p.is_file() and "manifests" not in p.parts)
    return {str(p.relative_to(folder)): p.read_bytes() for p in kept}


def test_names_and_folders_are_those_of_aihub(small_set):
    names = list(files_of(small_set))
    root = f"{aihub.ROOT}/1.Training"
    for word in ("기쁨", "슬픔", "중립", "당황", "불안"):
        assert f"archives/{root}/원천데이터/[원천]EMOIMG_{word}_TRAIN_01.zip" in names
        assert f"archives/{root}/라벨링데이터/[라벨]EMOIMG_{word}_TRAIN.zip" in names
        json_name = f"EMOIMG_{word}_TRAIN/img_emotion_training_data({word}).json"
        assert f"folders/{root}/라벨링데이터/{json_name}" in names
    pictures = [name for name in names if name.endswith((".jpg", ".jpeg"))]
    assert len(pictures) == 3 * 5
    for name in pictures:
        uploader, gender, age, word, *_ = name.split("/")[-1].split("_")
        assert len(uploader) == 32
        assert gender in ("남", "여")
        assert int(age) in (20, 30, 40, 50)
        assert f"EMOIMG_{word}_" in name
    assert not any("videos" in name for name in names)


def test_archives_hold_the_files_of_the_folders_under_cp949_names(small_set):
    files = {name.split("/")[-1]: data for name, data in files_of(small_set / "folders").items()}
    found = {}
    for path in (small_set / "archives").rglob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                assert not info.flag_bits & 0x800
                found[info.filename.encode("cp437").decode("cp949")] = archive.read(info)
    assert found == files


def test_utf8_names_are_possible(script, small_set, tmp_path):
    options = [*SMALL, "--debug", "--zip_names", "utf-8"]
    assert cli.run(script.main, ["--output_dir", str(tmp_path), *options]) == 0
    (path,) = (tmp_path / "aihub" / "archives").rglob("*라벨*중립_TRAIN.zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["img_emotion_training_data(중립).json"]


def test_lists_come_in_three_encodings_and_name_each_picture(small_set):
    named = set()
    encodings = {"기쁨": "utf-8", "슬픔": "utf-8-sig", "중립": "cp949"}
    for path in (small_set / "folders").rglob("*.json"):
        word = path.stem.split("(")[1].rstrip(")")
        records = json.loads(path.read_bytes().decode(encodings.get(word, "utf-8")))
        for record in records:
            named.add(record["filename"])
            assert record["faceExp_uploader"] == word
            for letter in "ABC":
                assert set(record[f"annot_{letter}"]["boxes"]) == {"minX", "minY", "maxX", "maxY"}
    assert named == {p.name for p in (small_set / "folders").rglob("*.jp*g")}


def test_boxes_lie_on_the_face_of_the_upright_picture(small_set):
    with FaceMesh(max_faces=3) as mesh:
        for index in range(3):
            for shot in aihub.make_shots(
                config := aihub.AihubConfig(pictures_per_expression=1, picture_size=128), index
            ):
                image = read_image(small_set / "folders" / shot.folder / shot.filename)
                assert image.shape == (shot.height, shot.width, 3)
                box = aihub.portrait_box(shot.person, config.picture_size) + (shot.left, shot.top) * 2
                faces = mesh.find(image)
                assert faces
                middle = [(f[:, :2].min(axis=0) + f[:, :2].max(axis=0)) / 2 for f in faces]
                assert any(box[0] < x < box[2] and box[1] < y < box[3] for x, y in middle)


def test_turned_picture_is_stored_on_its_side(small_set):
    config = aihub.AihubConfig(num_people=3, pictures_per_expression=1, picture_size=128)
    shots = [shot for index in range(3) for shot in aihub.make_shots(config, index)]
    assert any(shot.is_turned for shot in shots)
    for shot in shots:
        data = (small_set / "folders" / shot.folder / shot.filename).read_bytes()
        with Image.open(io.BytesIO(data)) as picture:
            sides = (shot.height, shot.width) if shot.is_turned else (shot.width, shot.height)
            assert picture.size == sides


def test_large_set_has_every_fault_that_the_real_one_has():
    config = aihub.AihubConfig(num_people=60, pictures_per_expression=4)
    shots = [shot for index in range(60) for shot in aihub.make_shots(config, index)]
    people = {part: {aihub.uploader_of(s.person) for s in shots if s.part == part} for part in aihub.PARTS}
    assert len(people["train"] & people["valid"]) > 40  # AIHub's own parts share people
    votes = [(s, s.annotation[f"annot_{letter}"]) for s in shots for letter in "ABC"]
    right = np.mean([vote["faceExp"] == aihub.KOREAN[s.expression] for s, vote in votes])
    assert abs(right - aihub.AGREES) < 0.02
    assert {vote["faceExp"] for _, vote in votes} == {*aihub.KOREAN.values(), *aihub.OTHER_ANSWERS}
    boxes = [vote["boxes"] for _, vote in votes]
    assert any(box["minX"] > box["maxX"] for box in boxes)
    assert any(box["minX"] < -1 for box in boxes)
    assert any(box["minX"] == box["maxX"] == 0 for box in boxes)
    assert 0.05 < np.mean([s.is_turned for s in shots]) < 0.2
    assert 0.05 < np.mean([s.has_company for s in shots]) < 0.15
    assert Counter(s.expression for s in shots) == dict.fromkeys(EXPRESSIONS, 240)
    assert len({s.filename for s in shots}) == len(shots)


@pytest.mark.numeric
def test_workers_and_the_number_of_people_change_no_picture(script, small_set, tmp_path):
    more = [*SMALL, "--workers", "2", "--num_people", "4"]
    assert cli.run(script.main, ["--output_dir", str(tmp_path), *more]) == 0
    made = files_of(tmp_path / "aihub")
    pictures = {name: data for name, data in files_of(small_set).items() if name.endswith(("jpg", "jpeg"))}
    assert len(pictures) == 15
    assert {name: made[name] for name in pictures} == pictures


def test_second_run_gives_the_same_bytes(script, small_set, capsys):
    before = files_of(small_set)
    next((small_set / "archives").rglob("*.zip")).unlink()
    assert cli.run(script.main, ["--output_dir", str(small_set.parent), *SMALL, "--debug"]) == 0
    assert "0 done, 3 skipped" in capsys.readouterr().out
    assert files_of(small_set) == before


def test_bad_options_are_told_together(script, tmp_path, capsys):
    options = ["--shape", "aihub", "--picture_size", "64", "--pictures_per_expression", "100"]
    assert cli.run(script.main, ["--output_dir", str(tmp_path / "new"), *options]) == 2
    said = capsys.readouterr().err
    assert "--picture_size: '64'" in said
    assert "--pictures_per_expression: '100'" in said
    assert not (tmp_path / "new").exists()
