"""emotion/preprocess.py from AIHub's folders and archives to crops, and its audit of a split."""

import csv
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion.data.aihub.names import emotion_of, parse_picture_name
from facevox.files import read_image
from facevox.mesh.face_mesh import FaceMesh
from facevox_demo.example.aihub import ROOT, write_zip

# Those that preprocessing needs: the server's image has neither TensorFlow nor torch.
OWN_MODULES = (
    *("settings", "logger_config", "preprocess", "data"),
)  # fmt: skip


def table_of(output: Path) -> list[dict[str, str]]:
    with (output / "crops.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def crops_of(output: Path) -> dict[str, bytes]:
    return {str(p.relative_to(output)): p.read_bytes() for p in sorted(output.glob("*/*/*.jpg"))}


@pytest.fixture(scope="session")
def crops_dir(aihub_dir, repository, tmp_path_factory, load_script) -> Path:
    """Crops of the folders, made in this process."""
    output = tmp_path_factory.mktemp("crops")
    lines = (repository / ".env.example").read_text(encoding="utf-8").splitlines()
    values = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    own = {
        "DATA_DIR_RAW": aihub_dir / "folders",
        "DATA_DIR_TRAIN": output / "train",
        "DATA_DIR_VAL": output / "validation",
        "LOG_DIR": output / "logs",
        "IMG_SIZE": 64,
    }
    options = [
        word for name, value in {**values, **own}.items() for word in (f"--{name.lower()}", str(value))
    ]
    assert load_script("emotion/preprocess").main([*options, "--debug"]) == 0
    return output


def test_every_picture_becomes_a_square_crop_below_its_class(crops_dir, aihub_dir):
    rows = table_of(crops_dir)
    pictures = list((aihub_dir / "folders").rglob("*.jp*g"))
    assert len(rows) == len(pictures) == 8 * 5 * 2
    done = [row for row in rows if row["status"] == "done"]
    assert {row["crop"] for row in done} == set(crops_of(crops_dir))
    # Labels are the majority's: nearly all are what was drawn.
    same = [row["class"] == emotion_of(row["picture"].split("/")[-1].split("_")[3]) for row in done]
    assert np.mean(same) > 0.9
    for row in done[::9]:
        assert read_image(crops_dir / row["crop"]).shape == (64, 64, 3)
        assert row["crop"].startswith(f"{row['split']}/{row['class']}/")


def test_nobody_is_in_training_and_validation(crops_dir):
    people: dict[str, set[str]] = {"train": set(), "validation": set()}
    for name in crops_of(crops_dir):
        parsed = parse_picture_name(name)
        assert parsed is not None
        people[name.split("/")[0]].add(parsed.person)
    assert not people["train"] & people["validation"]
    assert len(people["validation"]) == 2  # a fifth of 8, rounded


def test_crop_shows_the_annotated_face_upright_in_its_middle(crops_dir):
    rows = [row for row in table_of(crops_dir) if row["status"] == "done"]
    assert min(float(row["overlap"]) for row in rows) > 0.25
    assert any(int(row["faces"]) > 1 for row in rows)  # passers-by were seen and not taken
    with FaceMesh(min_confidence=0.3) as mesh:
        found = [
            mesh.find(np.asarray(Image.fromarray(read_image(crops_dir / row["crop"])).resize((256, 256))))
            for row in rows[::4]
        ]
    assert all(found)
    for face, *_ in found:
        centre = (face[:, :2].min(axis=0) + face[:, :2].max(axis=0)) / 2
        assert np.abs(centre - 128).max() < 26  # a tenth
        eyes, chin = face[[468, 473], 1].mean(), face[152, 1]
        assert eyes < chin


def test_votes_are_kept_in_the_table(crops_dir, aihub_dir):
    raw = {}
    for file in (aihub_dir / "folders").rglob("*.json"):
        data = file.read_bytes()
        text = data.decode("cp949") if "중립" in file.name else data.decode("utf-8-sig")
        raw |= {record["filename"]: record for record in json.loads(text)}
    for row in table_of(crops_dir):
        record = raw[row["picture"].split("/")[-1]]
        votes = [emotion_of(record[f"annot_{letter}"]["faceExp"]) for letter in "ABC"]
        assert [row["annot_A"], row["annot_B"], row["annot_C"]] == votes
        top, count = Counter(votes).most_common(1)[0]
        assert row["class"] == (top if count >= 2 else emotion_of(record["faceExp_uploader"]))


def test_archives_with_cp949_names_and_two_workers_give_the_same_bytes(
    preprocess, aihub_dir, crops_dir, tmp_path
):
    assert preprocess(aihub_dir / "archives", tmp_path, "--workers", "2") == 0
    assert crops_of(tmp_path) == crops_of(crops_dir)


def test_second_run_makes_only_what_is_missing(preprocess, aihub_dir, crops_dir, tmp_path, capsys):
    output = tmp_path / "copy"
    shutil.copytree(crops_dir, output)
    before = crops_of(output)
    lost = output / sorted(before)[3]
    lost.unlink()
    assert preprocess(aihub_dir / "folders", output) == 0
    assert "1 done, 79 skipped" in capsys.readouterr().out
    assert crops_of(output) == before


def test_shards_make_the_same_crops_as_one_run(preprocess, load_script, aihub_dir, crops_dir, tmp_path):
    raw = tmp_path / "raw"
    (raw / "1.Training").mkdir(parents=True)
    source = aihub_dir / "archives" / ROOT / "1.Training"
    for file in [*source.rglob("*기쁨*.zip"), *source.rglob("*슬픔*.zip")]:
        shutil.copy(file, raw / "1.Training")
    for index in ("1", "0"):
        assert preprocess(raw, tmp_path / "out", "--num_shards", "2", "--shard_index", index) == 0
    merge = load_script("preprocessing/merge_manifests")
    assert merge.main(["--output_dir", str(tmp_path / "out")]) == 0
    made = crops_of(tmp_path / "out")
    assert made == {name: data for name, data in crops_of(crops_dir).items() if name in made}
    assert len(made) == len(table_of(tmp_path / "out"))


def test_run_after_shards_joins_them_and_audits_as_one_run_does(
    preprocess, aihub_dir, crops_dir, tmp_path, capsys
):
    for index in ("0", "1"):
        shard = ("--num_shards", "2", "--shard_index", index)
        assert preprocess(aihub_dir / "folders", tmp_path / "out", *shard) == 0
        assert not (tmp_path / "out" / "audit.json").exists()
        assert "when all are done: the same with --num_shards 1 --shard_index 0" in capsys.readouterr().out
    assert preprocess(aihub_dir / "folders", tmp_path / "out") == 0
    assert "0 done, 80 skipped" in capsys.readouterr().out
    for name in ("audit.json", "crops.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (crops_dir / name).read_bytes()


def test_audit_tells_people_uploads_classes_and_aihubs_own_leak(crops_dir):
    audit = json.loads((crops_dir / "audit.json").read_text(encoding="utf-8"))
    assert audit["crops"]["is_disjoint"]
    rows = [row for row in table_of(crops_dir) if row["status"] == "done"]
    for part, counts in audit["crops"]["parts"].items():
        own = [row for row in rows if row["split"] == part]
        assert counts["pictures"] == len(own)
        assert counts["people"] == len({row["person"] for row in own})
        assert counts["classes"] == dict(sorted(Counter(row["class"] for row in own).items()))
    assert audit["crops"]["bursts"]["count"] == len({row["burst"] for row in rows})
    assert audit["aihub"]["leaks"][0]["people"] > 0
    assert 0.7 < audit["annotations"]["annotators_agree"] < 0.95


def test_random_split_by_picture_shows_its_leak_and_ours_shows_none(load_script, crops_dir, tmp_path, capsys):
    script = load_script("emotion/preprocess")
    rng = np.random.default_rng(0)
    for file in sorted(crops_dir.glob("*/*/*.jpg")):
        part = "validation" if rng.random() < 0.2 else "train"
        (tmp_path / part / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / part / file.parent.name)
    assert script.main(["--audit", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    people = len({file.name.split("_")[0] for file in (tmp_path / "validation").rglob("*.jpg")})
    assert f"LEAK: {people} of the {people} people of validation are in train too" in said
    assert script.main(["--audit", str(crops_dir)]) == 0
    assert "nobody of validation is in train" in capsys.readouterr().out


def test_audit_of_aihubs_own_archives_shows_that_they_share_people(load_script, aihub_dir, capsys):
    assert load_script("emotion/preprocess").main(["--audit", str(aihub_dir / "archives")]) == 1
    assert "LEAK" in capsys.readouterr().out


def annotation(filename: str, *answers: str) -> dict[str, object]:
    return {
        "filename": filename,
        "faceExp_uploader": "기쁨",
        **{f"annot_{a}": {"faceExp": word} for a, word in zip("ABC", answers, strict=True)},
    }


def test_bad_pictures_are_recorded_and_end_nothing(preprocess, aihub_dir, tmp_path, capsys):
    good = next((aihub_dir / "folders").rglob("*EMOIMG_기쁨_TRAIN_01/*.jpg")).read_bytes()
    names = {
        "good": good,
        'it\'s a "good" one': good,
        "줄\n바꿈": good,
        "empty": b"",
        "text": b"no picture",
        "cut": good[: len(good) // 2],
        "angry": good,
        "nobody knows": good,
        "forgotten": good,
    }
    files = {key: f"{n}p_남_20_기쁨_{key}_1-1.jpg" for n, key in enumerate(names)}
    raw = tmp_path / "raw"
    raw.mkdir()
    for key, data in names.items():
        (raw / files[key]).write_bytes(data)
    grey = np.full((300, 400), 120, np.uint8)
    files["wall"], files["dash"] = "-dash_남_20_기쁨_집_1.png", "x_남_20_기쁨_집_1.jpg"
    Image.fromarray(grey).save(raw / files["wall"])
    Image.open(next((aihub_dir / "folders").rglob("*.jpg"))).convert("CMYK").save(raw / files["dash"])
    (raw / "holiday.jpg").write_bytes(good)
    write_zip(raw / "twice.zip", iter([(files["good"], good)]), "cp949")
    (raw / "broken.zip").write_bytes(b"PK\5\6")
    happy = ("기쁨",) * 3
    answers = {"angry": ("분노", "분노", "기쁨"), "nobody knows": ("알수없음", "알수없음", "기쁨")}
    labels = [annotation(name, *answers.get(key, happy)) for key, name in files.items() if key != "forgotten"]
    (raw / "labels.json").write_text(json.dumps(labels, ensure_ascii=False), encoding="utf-8")
    assert preprocess(raw, tmp_path / "out") == 1
    rows = {row["picture"]: (row["status"], row["reason"]) for row in table_of(tmp_path / "out")}
    status = {key: rows[name][0] for key, name in files.items()}
    assert {key for key, value in status.items() if value == "done"} == {
        "good", "it's a \"good\" one", "줄\n바꿈", "dash"
    }  # fmt: skip
    assert rows[files["angry"]] == ("left_out", "its label is anger")
    assert rows[files["nobody knows"]] == ("left_out", "its label is unknown")
    assert rows[f"twice.zip/{files['good']}"] == ("left_out", f"the same picture as {files['good']}")
    reasons = {"empty": "0 bytes", "text": "not a picture", "cut": "broken picture", "wall": "no face found"}
    for key, words in {**reasons, "forgotten": "no annotation"}.items():
        assert rows[files[key]][0] == ("no_face" if key == "wall" else "failed")
        assert words in rows[files[key]][1]
    assert "names no person" in rows["holiday.jpg"][1]
    assert "not a readable ZIP" in rows["broken.zip"][1]
    assert "Traceback" not in capsys.readouterr().err


def test_face_elsewhere_than_annotated_is_refused(preprocess, aihub_dir, tmp_path):
    raw, picture = tmp_path / "raw", next((aihub_dir / "folders").rglob("*EMOIMG_중립_TRAIN_01/*.jpg"))
    raw.mkdir()
    labels = []
    for person, edges in (("a", [1, 1, 25, 25]), ("b", [])):
        name = f"{person}_남_20_기쁨_집_1-1.jpg"
        shutil.copy(picture, raw / name)
        labels.append(annotation(name, "기쁨", "기쁨", "기쁨") | {f"faceBB_{k}": edges for k in "ABC"})
    (raw / "labels.json").write_text(json.dumps(labels, ensure_ascii=False), encoding="utf-8")
    assert preprocess(raw, tmp_path / "out") == 0
    first, second = table_of(tmp_path / "out")
    assert first["status"] == "no_face"
    assert "none where the annotators marked one" in first["reason"]
    assert (second["status"], second["overlap"]) == ("done", "")


def test_large_turned_picture_is_decoded_smaller_and_its_box_stays(
    preprocess, aihub_dir, crops_dir, tmp_path
):
    row = next(r for r in table_of(crops_dir) if r["status"] == "done" and r["class"] == "neutral")
    image = Image.fromarray(read_image(aihub_dir / "folders" / row["picture"]))
    large = image.resize((image.width * 8, image.height * 8), Image.Resampling.BICUBIC)
    raw, name = tmp_path / "raw", "a_남_20_기쁨_집_1-1.jpg"
    raw.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    large.transpose(Image.Transpose.ROTATE_90).save(raw / name, quality=92, exif=exif)
    shutil.copy(raw / name, raw / name.replace("a_", "b_"))
    wanted = [8 * float(row[edge]) for edge in ("left", "top", "right", "bottom")]
    drawn = annotation(name, *["중립"] * 3) | {f"faceBB_{letter}": wanted for letter in "ABC"}
    labels = [drawn, drawn | {"filename": name.replace("a_", "b_")}]
    (raw / "labels.json").write_text(json.dumps(labels, ensure_ascii=False), encoding="utf-8")
    assert preprocess(raw, tmp_path / "out") == 0
    found, other = table_of(tmp_path / "out")
    assert found["overlap"] == other["overlap"]
    assert (int(found["width"]), int(found["height"])) == large.size
    assert int(found["reduction"]) in (2, 4)
    box = np.array([float(found[edge]) for edge in ("left", "top", "right", "bottom")])
    assert np.abs(box - wanted).max() < 0.06 * (wanted[2] - wanted[0])
    crop, before = (
        read_image(folder / r["crop"]).astype(int)
        for folder, r in ((tmp_path / "out", found), (crops_dir, row))
    )
    assert np.abs(crop - before).mean() < 12  # the same face in the same place


@pytest.mark.parametrize(
    ("prepare", "options", "words"),
    [
        (lambda raw: None, [], "DATA_DIR_RAW: no such folder"),
        (lambda raw: raw.mkdir(), [], "it is empty"),
        (lambda raw: (raw.mkdir(), (raw / "a_b_c_d_e.jpg").touch()), [], "no annotations (라벨링"),
        (lambda raw: (raw.mkdir(), (raw / "a.json").write_text("[]")), [], "no pictures (원천데이터)"),
        (lambda raw: None, ["--val_share", "0"], "--val_share: '0' is not"),
        (lambda raw: None, ["--data_dir_val", "elsewhere/validation"], "two folders of one parent"),
        (lambda raw: None, ["--audit", "no such folder"], "--audit: no such folder"),
        (lambda raw: None, ["--num_shards", "2", "--shard_index", "2"], "--shard_index 2"),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_one_line(preprocess, tmp_path, capsys, prepare, options, words):
    prepare(tmp_path / "raw")
    assert preprocess(tmp_path / "raw", tmp_path / "out", "--workers", "0", *options) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_other_settings_in_the_same_folder_are_refused(preprocess, aihub_dir, crops_dir, tmp_path, capsys):
    shutil.copytree(crops_dir, tmp_path / "out")
    assert preprocess(aihub_dir / "folders", tmp_path / "out", "--crop_margin", "0.5") == 2
    assert "crop_margin was 0.25, is 0.5" in capsys.readouterr().err


def test_dry_run_counts_and_writes_nothing(preprocess, aihub_dir, tmp_path, capsys):
    assert preprocess(aihub_dir / "archives", tmp_path / "out", "--dry_run") == 0
    assert "80 pictures, 0 finished before, 80 to do" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_log_tells_beginning_and_end(crops_dir):
    (log,) = (crops_dir / "logs").iterdir()
    first, last = log.read_text(encoding="utf-8").splitlines()
    assert " - emotion.preprocess - INFO - 80 pictures and 80 annotations below" in first
    assert "80 done, 0 failed, 0 finished before, in" in last


def test_modules_shadow_nothing_and_load_neither_tensorflow_nor_torch(repository):
    """In a process as `python emotion/preprocess.py` starts it: that folder first on the path."""
    own = sorted(
        path.stem
        for path in (repository / "emotion").glob("*")
        if path.suffix in ("", ".py") and path.name != "__pycache__"
    )
    package = sorted((repository / "emotion").rglob("*.py"))
    names = [".".join(path.relative_to(repository).with_suffix("").parts) for path in package]
    ours = [n for n in names if n.split(".")[1:2] and n.split(".")[1] in OWN_MODULES]
    code = (
        "import importlib, importlib.util, sys\n"
        f"print([n for n in {own!r} if n != '__init__' and importlib.util.find_spec(n) is not None])\n"
        f"sys.path.insert(0, {str(repository / 'emotion')!r})\n"
        f"for n in {ours!r}: importlib.import_module(n)\n"
        "print([n for n in ('tensorflow', 'torch', 'keras', 'mediapipe') if n in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n", done.stdout


def test_program_starts_from_the_repository_root(repository):
    command = [sys.executable, "emotion/preprocess.py", "--help"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: preprocess.py")


def test_pictures_of_other_classes_hide_neither_failures_nor_that_nobody_was_found(
    preprocess, aihub_dir, tmp_path, capsys
):
    raw = tmp_path / "raw"
    raw.mkdir()
    grey = np.full((300, 400), 120, np.uint8)
    labels = []
    for number, answer in enumerate(["기쁨", "분노", "분노", "분노"]):
        name = f"{number}p_남_20_{answer}_집_1-1.jpg"
        Image.fromarray(grey + np.uint8(number)).save(raw / name)
        labels.append(annotation(name, answer, answer, answer))
    (raw / "labels.json").write_text(json.dumps(labels, ensure_ascii=False), encoding="utf-8")
    assert preprocess(raw, tmp_path / "out") == 1
    said = capsys.readouterr().out
    assert "0 done, 0 skipped (finished before), 1 no_face, 3 left_out, 0 failed" in said
    assert "no item gave a result; made with detector FaceMesh, min_confidence 0.5" in said
    (raw / "0p_남_20_기쁨_집_1-1.jpg").write_bytes(b"no picture")
    good = next((aihub_dir / "folders").rglob("*EMOIMG_기쁨_TRAIN_01/*.jpg"))
    shutil.copy(good, raw / "9p_남_20_기쁨_집_1-1.jpg")
    labels.append(annotation("9p_남_20_기쁨_집_1-1.jpg", "기쁨", "기쁨", "기쁨"))
    (raw / "labels.json").write_text(json.dumps(labels, ensure_ascii=False), encoding="utf-8")
    for share, code in (("0.4", 1), ("0.5", 0)):  # one of the two that are wanted
        assert preprocess(raw, tmp_path / "out2", "--max_failed", share) == code
