"""Shards of every job that can be cut up are found where its program writes them, and joined into a table."""

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from face_models import make_onnx, write_faces

from facevox import cli
from facevox.cluster.jobs import Request
from facevox.cluster.plan import shard_of_task
from facevox.cluster.progress import progress_text
from facevox.cluster.records import Record
from facevox.files import write_image
from facevox_programs.jobs import TABLE

# What a job is given, made below a folder: (options, folder of its manifests' owner, its table, rows in it).
Case = tuple[list[str], Path, str, int]


def make_media(folder: Path) -> Path:
    """Two files that are no videos: quick work, of which all fails and is recorded."""
    folder.mkdir()
    for name in ("one.mp4", "두 번째 two.mp4"):
        (folder / name).write_text("no video")
    return folder


def faces(base: Path) -> Case:
    options = [f"--dataset_path={make_media(base / 'v')}", f"--output_dir={base / 'out'}"]
    return [*options, "--detector_backend=opencv"], base / "out", "faces.csv", 2


def voices(base: Path) -> Case:
    options = [f"--dataset_path={make_media(base / 'v')}", f"--output_dir={base / 'out'}"]
    return options, base / "out", "voices.csv", 2


def groups(base: Path) -> Case:
    write_faces(base / "faces", {f"vid_{number}.jpg": number % 2 for number in range(4)})
    options = [f"--faces_dir={base / 'faces'}", f"--dedupe_dir={base / 'out'}"]
    options += [f"--representative_dir={base / 'best'}", "--threshold=0.2"]
    return (
        [*options, f"--model_name={make_onnx(base / 'm.onnx', batch='faces')}"],
        base / "out",
        "groups.csv",
        4,
    )


def prepared(base: Path) -> Case:
    options = [f"--dataset_path={make_media(base / 'v')}", f"--output_base_dir={base / 'out'}"]
    options += [
        "--detector_backend=opencv",
        f"--model_name={make_onnx(base / 'm.onnx', batch='faces')}",
        "--threshold=0.2",
    ]
    return options, base / "out", "extracted_faces/faces.csv", 2


def mels(base: Path) -> Case:
    for number in range(2):
        folder = base / "hq" / "vox1" / "mel_spectrograms" / f"person {number}"
        folder.mkdir(parents=True)
        np.save(folder / "a.npy", np.ones((40, 90)))
        (base / "hq" / "vox1" / "masked_faces" / folder.name).mkdir(parents=True)
    return [f"--vox_dir={base / 'hq'}"], base / "hq", "mels.csv", 2


def clips(base: Path) -> Case:
    text = f"paths: {{videos_dir: '{make_media(base / 'v')}', processed_dir: '{base / 'my clips'}'}}\n"
    (base / "my.yaml").write_text(text, encoding="utf-8")
    return [f"--config={base / 'my.yaml'}"], base / "my clips", "manifest.csv", 2


def cleaned(base: Path) -> Case:
    options = [f"--videos={make_media(base / 'v')}", f"--output_dir={base / 'out'}"]
    return options, base / "out", "clips.csv", 2


def crops(base: Path) -> Case:
    """The folders stand in a .env of their own."""
    names = [f"{person}p_남_20_기쁨_집_1-1.jpg" for person in range(3)]
    for name in names:
        write_image(base / "raw" / name, np.full((64, 64, 3), 120, np.uint8))
    answers = {f"annot_{letter}": {"faceExp": "기쁨"} for letter in "ABC"}
    labels = [{"filename": name, "faceExp_uploader": "기쁨", **answers} for name in names]
    (base / "raw" / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    changes = {"RAW": base / "raw", "TRAIN": base / "other crops" / "a", "VAL": base / "other crops" / "b"}
    example = Path(__file__).resolve().parents[2] / ".env.example"
    lines = [
        *example.read_text(encoding="utf-8").splitlines(),
        *(f"DATA_DIR_{name}='{folder}'" for name, folder in changes.items()),
        f"LOG_DIR='{base / 'logs'}'",
    ]
    (base / ".env").write_text("\n".join(lines), encoding="utf-8")
    return [], base / "other crops", "crops.csv", 3


def landmarks(base: Path) -> Case:
    for number in range(2):
        with zipfile.ZipFile(base / f"{number}.zip", "w") as archive:
            archive.writestr(f"{number}.jpg", b"no picture")
    zips = [str(base / f"{number}.zip") for number in range(2)]
    return (
        ["--zips", *zips, f"--output_dir={base / 'out'}", f"--log_dir={base}"],
        base / "out",
        "index.csv",
        2,
    )


CASES: dict[str, Callable[[Path], Case]] = {
    "extract_faces": faces,
    "extract_voices": voices,
    "deduplicate_faces": groups,
    "prepare_faces": prepared,
    "convert_mels": mels,
    "process_lipsync": clips,
    "clean_lipsync": cleaned,
    "preprocess_emotion": crops,
    "extract_landmarks": landmarks,
}


def run(request: Request, shard: tuple[int, int] = (0, 1)) -> int:
    return cli.run(request.module.main, request.command(shard=shard)[1:])


@pytest.mark.parametrize("name", TABLE.sharded_jobs())
def test_shards_are_found_and_joined(
    name: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, folder, table, num_rows = CASES[name](tmp_path)
    monkeypatch.setattr("emotion.settings.ENV_FILE", tmp_path / ".env")
    request = TABLE.request(name, [*options, "--workers=0"])
    assert Path(request.output_dir) == folder
    for index in range(2):
        assert run(request, (index, 2)) in (0, 1)
    assert not (folder / table).exists()
    # What status.py and a task that is run again alone look for.
    record = Record(
        folder=tmp_path, job=name, arguments=[], cluster="local", root=repository, output_dir=str(folder)
    )
    assert f"/{num_rows}" in progress_text(record)
    alone = {"ID": 1, "MIN": 1, "MAX": 1, "COUNT": 1}
    variables = {f"SLURM_ARRAY_TASK_{key}": str(value) for key, value in alone.items()}
    assert shard_of_task(variables, request) == (1, 2)
    assert run(request.join_request()) in (0, 1)
    with (folder / table).open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == num_rows
    assert (folder / "audit.json").exists() == (name == "preprocess_emotion")


@pytest.mark.parametrize(
    ("name", "options", "folder"),
    [
        ("convert_mels", ["--vox_dir=a", "--output_dir=b c"], "b c"),
        ("process_lipsync", [], "data/processed"),
        ("process_lipsync", ["--set=paths.processed_dir=x", "--set", "paths.processed_dir = y # z"], "y # z"),
        ("train_lipsync", ["--set=paths.processed_dir=x"], "checkpoints"),
        ("preprocess_emotion", ["--data_dir_train=c/t"], "c"),
        ("train_emotion", ["--model_dir=~/m"], str(Path.home() / "m")),
        ("train_hq", ["--save_dir=runs/hq"], "runs/hq"),
    ],
)
def test_folder_is_the_one_that_the_program_would_take(
    name: str, options: list[str], folder: str, repository: Path
) -> None:
    assert TABLE.request(name, options, is_later=True).output_dir == folder


def test_environment_wins_over_env_file(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops(tmp_path)
    monkeypatch.setattr("emotion.settings.ENV_FILE", tmp_path / ".env")
    monkeypatch.setenv("DATA_DIR_TRAIN", "elsewhere/train")
    assert TABLE.request("preprocess_emotion", []).output_dir == "elsewhere"


@pytest.fixture
def submit(load_script: Any) -> ModuleType:
    return load_script("cluster/submit")


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (["preprocess_emotion"], "set them in .env"),
        (["process_lipsync", "--set", "paths.processed=x"], "paths.processed: no such setting"),
    ],
)
def test_wrong_settings_are_told_before_anything_is_submitted(
    submit: ModuleType, job: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("emotion.settings.ENV_FILE", tmp_path / "none")
    for name in ("DATA_DIR_TRAIN", "DATA_DIR_VAL", "IMG_SIZE"):
        monkeypatch.delenv(name, raising=False)
    own = ["--cluster", "local", "--shards", "2", "--log_dir", str(tmp_path / "logs")]
    assert cli.run(submit.main, [*own, "--", *job]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "logs").exists()
