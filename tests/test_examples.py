"""The examples run on a few synthetic people."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from tiny_trained_model import write_model, write_people

from facevox import cli
from facevox_demo.tiny_encoders import write_tiny_encoders

PEOPLE = [f"p{number:02}" for number in range(20)]


def load_example(repository: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, repository / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_face_and_one_voice_are_compared(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces, voices = write_people(tmp_path, PEOPLE[:2], clips=1)
    write_model(tmp_path / "model", PEOPLE, num_test=4)
    example = load_example(repository, "embed_and_compare")
    options = ["--model_dir", str(tmp_path / "model"), "--face", str(faces / "p00" / "0.png")]
    assert cli.run(example.main, [*options, "--voice", str(voices / "p01" / "0.wav")]) == 0
    assert -1 <= float(capsys.readouterr().out) <= 1
    assert cli.run(example.main, [*options, "--voice", str(tmp_path / "none.wav")]) == 2


def test_training_in_python_ends_with_scores_of_held_out_people(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces, voices = write_people(tmp_path, PEOPLE)
    vit, wav2vec2 = write_tiny_encoders(tmp_path / "encoders", image_size=16)
    example = load_example(repository, "train_in_python")
    code = cli.run(
        example.main,
        [
            *("--image_folder", str(faces), "--audio_folder", str(voices), "--num_epochs", "1"),
            *("--face_model", str(vit), "--voice_model", str(wav2vec2)),
        ],
    )
    assert code == 0
    said = capsys.readouterr().out
    assert "epoch 1: loss" in said
    scores = re.search(r"4 people never seen: top-1 ([\d.]+), AUC ([\d.]+)", said)
    assert scores is not None
    assert all(0 <= float(score) <= 1 for score in scores.groups())
