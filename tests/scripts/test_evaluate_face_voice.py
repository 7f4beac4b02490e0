"""The program evaluate_face_voice.py."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from tiny_trained_model import write_model, write_people, write_split
from torch import Tensor

from facevox import cli
from facevox.files import read_image

PEOPLE = ["anna b.", "it's", "-dash", "김민수", *(f"p{number}" for number in range(8))]
OUTPUTS = ["evaluation_results.json", "roc.png", "rank_cdf.png", "gallery.png"]


@pytest.fixture
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("evaluation/evaluate_face_voice")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model`, `faces`, `voices`: twelve people with two clips each; the last six are for testing."""
    folder = tmp_path_factory.mktemp("a model's folder")
    write_people(folder, PEOPLE)
    write_model(folder / "model", [name.replace(" ", "_") for name in PEOPLE], num_test=6)
    return folder


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(made, tmp_path / "data"))


def options(data: Path, *more: str) -> list[str]:
    return [
        "--image_folder", str(data / "faces"), "--audio_folder", str(data / "voices"),
        "--model_dir", str(data / "model"), "--output_file", str(data / "out" / "results.csv"),
        "--device", "cpu", "--num_workers", "0", *more,
    ]  # fmt: skip


def results(data: Path) -> dict:
    return json.loads((data / "model" / "evaluation_results.json").read_text(encoding="utf-8"))


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return list(csv.DictReader(stream))


def test_test_people_are_evaluated_and_all_outputs_agree(
    script: ModuleType, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(script.main, options(data, "--top_k", "3")) == 0
    shown = capsys.readouterr().out
    assert "6 people (test people of split.json), 12 faces x 12 voices" in shown
    found = results(data)
    assert found["tested"]["identities"] == sorted(PEOPLE[6:])
    assert found["gallery"] == {"faces": 12, "voices": 12, "identities": 6}
    split = json.loads((data / "model" / "split.json").read_text(encoding="utf-8"))
    assert found["tested"]["split_hash"] == split["hash"]
    assert (found["warnings"], found["left_out"]) == ([], {"faces": [], "voices": []})
    rows = rows_of(data / "out" / "results.csv")
    assert len(rows) == 24
    for direction in ("face_to_voice", "voice_to_face"):
        mine = [row for row in rows if row["direction"] == direction]
        top_1 = np.mean([row["match_1_identity"] == row["query_identity"] for row in mine])
        reciprocal = np.mean([1 / float(row["rank"]) for row in mine])
        measures = found[direction]["all"]
        assert measures["top_1"]["value"] == pytest.approx(top_1)
        assert measures["mean_reciprocal_rank"]["value"] == pytest.approx(reciprocal)
        assert measures["top_1"]["low"] <= top_1 <= measures["top_1"]["high"]
        assert measures["top_1"]["chance"] == pytest.approx(1 / 6)
        assert f"{top_1:.4f}" in next(line for line in shown.splitlines() if line.split()[:1] == ["top_1"])
    for name in OUTPUTS[1:]:
        assert read_image(data / "model" / name).size > 10_000
    assert "Not evaluated yet" not in (data / "model" / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_second_run_gives_the_same_bytes_from_the_cache(
    script: ModuleType, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [data / "out" / "results.csv", *(data / "model" / name for name in OUTPUTS)]
    assert cli.run(script.main, options(data)) == 0
    before = [file.read_bytes() for file in files]
    from lc_pytorch.models.face_voice import FaceVoiceModel

    monkeypatch.setattr(FaceVoiceModel, "embed_faces", lambda *_: pytest.fail("embedded again"))
    monkeypatch.setattr(FaceVoiceModel, "embed_voices", lambda *_: pytest.fail("embedded again"))
    assert cli.run(script.main, options(data)) == 0
    assert [file.read_bytes() for file in files] == before


def test_matched_file_is_the_same_as_folders_and_bad_files_are_left_out_with_code_1(
    script: ModuleType, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        f"{data}/faces/{person}/{clip}.png\t{data}/voices/{person}/{clip}.wav\r\n"
        for person in PEOPLE
        for clip in (0, 1)
    ]
    (data / "pairs.txt").write_text("\ufeff" + "".join(lines), encoding="utf-8", newline="")
    assert cli.run(script.main, options(data)) == 0
    folders = results(data)
    # By the paths' own rule all would be "data", the folder above faces/.
    matched = ["--matched_file", str(data / "pairs.txt"), "--identity_regex", "(?:faces|voices)/([^/]+)/"]
    matched += options(data)[4:]
    assert cli.run(script.main, matched) == 0
    assert results(data)["face_to_voice"] == folders["face_to_voice"]
    (data / "faces" / "p4" / "0.png").write_text("no picture", encoding="utf-8")
    (data / "voices" / "p5" / "1.wav").write_bytes(b"")
    capsys.readouterr()
    assert cli.run(script.main, matched) == 1
    left_out = results(data)["left_out"]
    assert [Path(one["file"]).parts[-2:] for one in left_out["faces"]] == [("p4", "0.png")]
    assert left_out["faces"][0]["reason"] == "not a picture"
    assert "0 bytes" in left_out["voices"][0]["reason"]
    shown = capsys.readouterr().out
    assert "faces left out: 1:" in shown
    assert "11 faces x 11 voices" in shown
    (data / "faces" / "p0" / "0.png").unlink()  # of a person who is not tested: the list has a missing path
    assert cli.run(script.main, matched) == 1


def test_signal_ends_the_run_with_code_75_and_the_next_one_goes_on(
    script: ModuleType, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lc_pytorch.models.face_voice import FaceVoiceModel

    embed, sizes = FaceVoiceModel.embed_faces, []

    def embed_and_signal(model: FaceVoiceModel, faces: Tensor) -> Tensor:
        sizes.append(len(faces))
        if len(sizes) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return embed(model, faces)

    monkeypatch.setattr(FaceVoiceModel, "embed_faces", embed_and_signal)
    assert cli.run(script.main, options(data, "--batch_size", "5")) == 75
    assert "run the same command again" in capsys.readouterr().err
    assert not (data / "out").exists()
    assert cli.run(script.main, options(data, "--batch_size", "5")) == 0
    assert sizes == [5, 5, 2]  # each of the twelve once


def test_without_cache_nothing_is_kept(script: ModuleType, data: Path) -> None:
    assert cli.run(script.main, options(data, "--no_cache", "--precision", "bf16")) == 0
    assert not (data / "model" / "embeddings").exists()
    assert results(data)["settings"]["precision"] == "bf16"


def test_metadata_adds_strata_and_floors_and_counts_people_it_does_not_know(
    script: ModuleType, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n" + "".join(
        f"id{number}\t{name}\t{'mf'[number % 2]}\tKR\tdev\n" for number, name in enumerate(PEOPLE[:-1])
    )
    (data / "meta.csv").write_text(table, encoding="utf-8")
    assert cli.run(script.main, options(data, "--metadata", str(data / "meta.csv"))) == 0
    found = results(data)
    assert set(found["verification"]) == {"all", "gender", "nationality", "both"}
    assert 0.5 < found["floors"]["gender"]["auc"] < 1
    assert found["metadata"]["unmatched"] == ["p7"]
    shown = capsys.readouterr().out
    assert "1 of 6 people are not in meta.csv: p7" in shown
    assert "what the metadata alone would score" in shown
    assert "against people of the same gender and nationality" in shown


def test_people_are_drawn_from_those_not_seen_where_no_test_person_is_there(
    script: ModuleType, data: Path
) -> None:
    write_split(data / "model" / "split.json", train=PEOPLE[4:6], val=PEOPLE[6:7], test=["x", "y"])
    assert cli.run(script.main, options(data, "--test_size", "0.5", "--seed", "1")) == 0
    tested = results(data)["tested"]
    assert len(tested["identities"]) == 4  # half of nine, rounded to even
    assert not set(tested["identities"]) & set(PEOPLE[4:7])
    assert "4 drawn from 9 people that the model has not seen" in tested["origin"]
    assert tested["num_seen_in_training"] == 0


def test_people_seen_in_training_are_an_error_unless_allowed_and_then_said_everywhere(
    script: ModuleType, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # " P4 " is p4: names are compared normalised.
    write_split(data / "model" / "split.json", train=[" P4 ", *PEOPLE[:3]], val=[], test=PEOPLE[6:])
    assert cli.run(script.main, options(data)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "p4" in said
    assert "--allow_seen" in said
    titles = []
    from lc_pytorch.evaluation import pictures

    for name in ("draw_roc", "draw_rank_cdf", "draw_gallery"):
        draw = getattr(pictures, name)
        monkeypatch.setattr(
            pictures, name, lambda *given, draw=draw: (titles.append(given[-2]), draw(*given))
        )
    assert cli.run(script.main, options(data, "--allow_seen")) == 0
    assert [title.startswith("SEEN IN TRAINING: 1 people") for title in titles] == [True] * 3
    assert "1 of 6 people were seen in training" in capsys.readouterr().out
    assert "1 of 6 people were seen" in results(data)["warnings"][0]
    assert results(data)["tested"]["num_seen_in_training"] == 1


def test_model_without_split_is_tested_only_where_allowed(
    script: ModuleType, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "model" / "split.json").unlink()
    assert cli.run(script.main, options(data)) == 2
    assert "split.json: no such file" in capsys.readouterr().err
    assert cli.run(script.main, options(data, "--allow_seen", "--test_size", "1")) == 0
    assert results(data)["tested"]["num_seen_in_training"] == 12


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


BAD_INPUTS: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "no model": (lambda d: empty(d / "model"), [], "no trained model here"),
    "no weights": (lambda d: (d / "model/best_model.pth").unlink(), [], "no trained model here"),
    "another file as weights": (
        lambda d: (d / "model/best_model.pth").write_text("text"), [], "no checkpoint of facevox",
    ),
    "weights of a part": (
        lambda d: shutil.copy(d / "model/face_encoder.pth", d / "model/best_model.pth"), [],
        "weights of another model",
    ),
    "another program's config": (
        lambda d: (d / "model/config.json").write_text('{"kind": "cat"}'), [],
        "not the configuration of a face-voice model",
    ),
    "changed split": (
        lambda d: (d / "model/split.json").write_text(
            (d / "model/split.json").read_text().replace("p5", "p9")
        ), [], "hash",
    ),
    "no faces folder": (lambda d: shutil.rmtree(d / "faces"), [], "--image_folder: no such folder"),
    "empty voices folder": (lambda d: empty(d / "voices"), [], "it is empty"),
    "one identity": (
        lambda d: [shutil.rmtree(d / "faces" / name) for name in PEOPLE[:-1]], [], "one identity",
    ),
    "one test person": (
        lambda d: [shutil.rmtree(d / "faces" / name) for name in PEOPLE[6:-1]], [],
        "one identity of the test people",
    ),
    "all pictures broken": (
        lambda d: [file.write_bytes(b"") for file in (d / "faces").rglob("*.png")], [],
        "none of 12 faces can be used",
    ),
    "output below a file": (
        lambda d: None, ["--output_file", "{d}/model/config.json/results.csv"], "is not a folder",
    ),
    "output is a folder": (lambda d: None, ["--output_file", "{d}/model"], "is a folder"),
    "other rate": (lambda d: None, ["--target_sr", "8000"], "this model hears 16000 Hz"),
    "no metadata": (lambda d: None, ["--metadata", "{d}/none.csv"], "--metadata: no such file"),
    "folders and list": (lambda d: None, ["--matched_file", "x.txt"], "or --matched_file"),
    "top_k": (lambda d: None, ["--top_k", "0"], "--top_k"),
    "cache is a file": (lambda d: None, ["--cache_dir", "{d}/model/config.json"], "config.json"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input_ends_in_one_line_and_code_2(
    script: ModuleType, data: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, more, message = BAD_INPUTS[case]
    spoil(data)
    assert cli.run(script.main, options(data, *(text.replace("{d}", str(data)) for text in more))) == 2
    said = capsys.readouterr().err.splitlines()
    assert message in said[-1]
    assert len(said) == 1
    assert not (data / "out").exists()


@pytest.mark.slow
def test_program_runs_on_two_processes_and_tells_the_same(data: Path, repository: Path) -> None:
    """As torchrun starts it; only the first one prints."""
    from gloo_processes import free_port, torchrun_variables

    port = free_port()
    program = [sys.executable, str(repository / "scripts/evaluation/evaluate_face_voice.py")]
    # One clip that fails on one process only must be known to both.
    (data / "faces" / "p4" / "1.png").write_bytes(b"broken")
    processes = [
        subprocess.Popen(
            [*program, *options(data)],
            env=os.environ | torchrun_variables(rank, 2, port),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    shown = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [1, 1], shown
    assert "6 people (test people of split.json), 11 faces x 12 voices" in shown[0][0]
    assert shown[1][0] == ""
    (log,) = data.rglob("log.txt")
    assert log.read_text(encoding="utf-8").count(" - INFO - started on ") == 1
    assert results(data)["gallery"]["faces"] == 11


def test_dry_run_counts_estimates_and_writes_nothing(
    script: ModuleType, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "voices" / PEOPLE[6]).rename(data / "away")
    before = {file: file.stat().st_mtime_ns for file in data.rglob("*")}
    assert cli.run(script.main, options(data, "--dry_run")) == 0
    assert {file: file.stat().st_mtime_ns for file in data.rglob("*")} == before
    shown = capsys.readouterr().out
    assert "10 faces of 5 people" in shown
    assert "10 voices of 5 people" in shown
    assert "0 of 10 tried cannot be used" in shown


def test_two_evaluations_of_one_model_at_once_are_refused(
    script: ModuleType, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from facevox.training.run_folder import run_folder

    with run_folder(data / "model", work="evaluation"):
        assert cli.run(script.main, options(data)) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert "evaluation.lock" in errors[0] or "another" in errors[0]
    assert cli.run(script.main, options(data)) == 0
