"""The program match.py."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from tiny_trained_model import DURATION_S, IMAGE_SIZE_PX, RATE_HZ, write_model, write_people

from facevox import cli
from lc_pytorch.datasets.face_voice import FaceVoiceDataset
from lc_pytorch.datasets.transforms import ImageTransform
from lc_pytorch.models import load_model

PEOPLE = ["anna b.", "it's", "-dash", "김민수", "new\nline"]


@pytest.fixture
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("evaluation/match")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_people(tmp_path, PEOPLE)
    write_model(tmp_path / "model", PEOPLE, num_test=2)
    return tmp_path


def options(data: Path, *more: str) -> list[str]:
    return ["--model_dir", str(data / "model"), "--device", "cpu", "--num_workers", "0", *more]


def similarities(data: Path, faces: list[Path], voices: list[Path]) -> np.ndarray:
    """(faces, voices) by the items of the data set, each alone through the model."""
    model = load_model(data / "model").model
    transform = ImageTransform(image_size=IMAGE_SIZE_PX)
    sides = []
    for name, files in (("face", faces), ("voice", voices)):
        pairs = [(file, voices[0]) if name == "face" else (faces[0], file) for file in files]
        dataset = FaceVoiceDataset(
            pairs,
            None,
            transform,
            audio_duration_sec=DURATION_S,
            target_sr=RATE_HZ,
            identities=["x"] * len(pairs),
        )
        embed = model.embed_faces if name == "face" else model.embed_voices
        with torch.inference_mode():
            sides.append(torch.cat([embed(dataset.load(n, None)[name][None]) for n in range(len(pairs))]))
    return (sides[0] @ sides[1].T).numpy()


@pytest.mark.parametrize("direction", ["face", "voice"])
def test_files_are_ranked_by_similarity(
    script: ModuleType, data: Path, direction: str, capsys: pytest.CaptureFixture[str]
) -> None:
    faces, voices = sorted((data / "faces").rglob("*.png")), sorted((data / "voices").rglob("*.wav"))
    if direction == "face":
        query, gallery, scores = faces[3], voices, similarities(data, faces[3:4], voices)[0]
        asked = ["--face", str(query), "--voices", str(data / "voices")]
    else:
        query, gallery, scores = voices[3], faces, similarities(data, faces, voices[3:4])[:, 0]
        asked = ["--voice", str(query), "--faces", str(data / "faces")]
    out = data / "new" / "match.csv"
    assert cli.run(script.main, options(data, *asked, "--top_k", "4", "--output_file", str(out))) == 0
    with out.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    order = np.argsort(-scores)[:4]
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["file"] for row in rows] == [str(gallery[place]) for place in order]
    np.testing.assert_allclose([float(row["similarity"]) for row in rows], scores[order], atol=1e-5)
    # The order below is not hoped for: similarities lie apart by more than rounding.
    assert np.diff(np.sort(scores)).min() > 1e-5
    shown = capsys.readouterr().out
    assert f"match: {query} against 10 {'voices' if direction == 'face' else 'faces'}" in shown
    first = next(line for line in shown.splitlines() if line.endswith(f"  {gallery[order[0]]}"))
    assert float(first.split()[1]) == pytest.approx(scores[order[0]], abs=1e-4)


def test_bad_files_are_skipped_and_said_with_code_1(
    script: ModuleType, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = data / "voices" / "it's" / "0.wav"
    bad.write_bytes(b"")
    asked = ["--face", str(data / "faces" / "it's" / "0.png"), "--voices", str(data / "voices")]
    assert cli.run(script.main, options(data, *asked)) == 1
    shown = capsys.readouterr().out
    assert "against 9 voices" in shown
    assert f"left out: {bad}: the file is empty (0 bytes)" in shown


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "give --face FILE with --voices DIR"),
        (["--face", "{d}/faces/it's/0.png", "--faces", "{d}/faces"], "give --face FILE with --voices DIR"),
        (["--face", "{d}/none.png", "--voices", "{d}/voices"], "--face {d}/none.png: "),
        (["--voice", "{d}/faces/it's/0.png", "--faces", "{d}/faces"], "--voice {d}/faces/it's/0.png: "),
        (["--voice", "{d}/voices/it's/0.wav", "--faces", "{d}/none"], "--faces: no such folder"),
        (["--voice", "{d}/voices/it's/0.wav", "--faces", "{d}/voices"], "--faces: nothing below"),
        (
            ["--voice", "{d}/voices/it's/0.wav", "--faces", "{d}/faces", "--output_file", "{d}"],
            "--output_file",
        ),
        (["--voice", "{d}/v.wav", "--faces", "{d}/faces", "--top_k", "0"], "--top_k"),
    ],
)
def test_bad_usage_ends_in_one_line_and_code_2(
    script: ModuleType, data: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(script.main, options(data, *(text.replace("{d}", str(data)) for text in more))) == 2
    said = capsys.readouterr().err
    assert message.replace("{d}", str(data)) in said
    assert said.count("\n") == 1


def test_folder_without_a_model_and_wrong_weights_end_in_code_2(
    script: ModuleType, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--face", str(data / "faces" / "it's" / "0.png"), "--voices", str(data / "voices")]
    shutil.copy(data / "model" / "audio_encoder.pth", data / "model" / "best_model.pth")
    assert cli.run(script.main, options(data, *asked)) == 2
    assert "weights of another model" in capsys.readouterr().err
    shutil.rmtree(data / "model")
    assert cli.run(script.main, options(data, *asked)) == 2
    assert "--model_dir: no such folder" in capsys.readouterr().err
