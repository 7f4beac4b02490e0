"""The training program: its files, its formats in fresh processes, resuming after a signal, bad input."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from small_emotion_training import CLASSES, SIZE, write_crops

from emotion import settings
from emotion.classifier import backbone
from facevox import cli
from facevox.files import read_json, write_image

NAME = "emotion_classifier_3_classes"
SMALL = (
    *("--class_names", ",".join(CLASSES), "--img_size", str(SIZE), "--batch_size", "8", "--device", "cpu"),
    *("--backbone_weights", "none", "--freeze_bn_mode", "none", "--unfreeze_from", "0"),
)
ONE_EPOCH = ("--epochs_head", "0", "--epochs_finetune", "1", "--learning_rate_finetune", "0.01")


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One picture of them is broken."""
    folder = write_crops(tmp_path_factory.mktemp("crops"))
    write_image(
        folder / "train" / "red" / "-x '\n 가_남_20_기쁨_실내_9-1-1.jpg", np.zeros((40, 30, 3), np.uint8)
    )
    broken = sorted((folder / "train" / "blue").iterdir())[0]
    broken.write_bytes(b"no picture")
    return folder


def arguments(crops: Path, model_dir: Path, *options: str) -> list[str]:
    folders = ["--data_dir_train", str(crops / "train"), "--data_dir_val", str(crops / "validation")]
    return [*SMALL, *folders, "--model_dir", str(model_dir), "--log_dir", str(model_dir / "logs"), *options]


def environment(repository: Path) -> dict[str, str]:
    """The settings of .env.example in the environment of a separate process."""
    lines = (repository / ".env.example").read_text(encoding="utf-8").splitlines()
    values = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {**os.environ, **values, "CUDA_VISIBLE_DEVICES": "-1"}


@pytest.fixture(scope="module")
def trained(
    crops: Path, repository: Path, load_script: Callable[[str], ModuleType],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:  # fmt: skip
    """The model folder of a run of one epoch; its backbone has three of the blocks."""
    model_dir = tmp_path_factory.mktemp("run") / "models 모델"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(repository).items():
            patch.setenv(name, value)
        patch.setattr(settings, "ENV_FILE", model_dir / "no.env")
        patch.setattr(backbone, "BLOCKS", backbone.BLOCKS[2:5])  # with a squeeze, and fast
        code = cli.run(load_script("emotion/main").main, arguments(crops, model_dir, *ONE_EPOCH))
    assert code == 1  # done, but for the broken picture
    return model_dir


def test_run_writes_all_that_it_promises(trained: Path) -> None:
    for name in (
        *(f"{NAME}.h5", f"{NAME}.tflite", f"{NAME}.json", f"{NAME}_savedmodel/saved_model.pb"),
        *("MODEL_CARD.md", "training/history.json", "training/curves.png", "training/unreadable.csv"),
        *("evaluation/report.json", "evaluation/per_class.csv", "evaluation/confusion_matrix.csv"),
        *("evaluation/confusion_matrix.png", "evaluation/reliability.png", "evaluation/slices.csv"),
        "evaluation/predictions.csv",
    ):
        assert (trained / name).stat().st_size > 0, name
    assert list((trained / "training" / "tensorboard").glob("events.out.tfevents.*"))
    assert not [path for path in trained.rglob(".*") if path.name != ".export"]
    report = read_json(trained / "evaluation" / "report.json")
    assert (report["pictures"], report["people"]) == (24, 4)
    rows = (trained / "evaluation" / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 25
    assert {(row["slice"], row["value"]) for row in report["slices"]} == {
        ("gender", "female"), ("gender", "male"), ("age", "20"), ("age", "30"),
    }  # fmt: skip
    unreadable = (trained / "training" / "unreadable.csv").read_text(encoding="utf-8")
    assert "train/blue/" in unreadable
    assert "not a picture" in unreadable


def test_log_begins_with_the_hyperparameters(trained: Path) -> None:
    (log,) = (trained / "logs").glob("app_*.log")
    lines = log.read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - emotion\.main - INFO - 🔧 하이퍼파라미터 설정:", lines[0]
    )
    assert any("   - 백본: MobileNetV3Large" in line for line in lines)
    assert any("   - BATCH_SIZE: 8" in line for line in lines)
    assert any("epoch 1 (finetune)" in line for line in lines)
    start, *of_run = (trained / "training" / "log.txt").read_text(encoding="utf-8").splitlines()
    assert " - facevox.logs - INFO - started on " in start
    assert of_run == lines


def test_card_names_scores_people_and_limits(trained: Path) -> None:
    card = (trained / "MODEL_CARD.md").read_text(encoding="utf-8")
    report = read_json(trained / "evaluation" / "report.json")
    assert f"Macro-F1 **{report['macro_f1']['value']:.3f}**" in card
    assert "nobody is in both parts" in card
    assert "1 pictures could not be read" in card
    assert "gender female" in card
    assert "An expression is not a feeling" in card


@pytest.fixture
def run_main(
    load_script: Callable[[str], ModuleType], example_settings: dict[str, str], crops: Path
) -> Callable[..., int]:
    def run(model_dir: Path, *options: str) -> int:
        return cli.run(load_script("emotion/main").main, arguments(crops, model_dir, *options))

    return run


def test_dry_run_counts_estimates_and_writes_nothing(
    run_main: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(backbone, "BLOCKS", backbone.BLOCKS[2:5])
    assert run_main(tmp_path / "models", "--epochs_head", "2", "--epochs_finetune", "3", "--dry_run") == 0
    assert list(tmp_path.iterdir()) == []
    shown = capsys.readouterr().out
    assert "validation: 24 pictures of 4 people" in shown
    assert "head: 2 epochs of " in shown
    assert "finetune: 3 epochs of " in shown


def test_complete_run_is_not_run_again(
    trained: Path, run_main: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / f"{NAME}.h5").stat().st_mtime_ns
    assert run_main(trained, *ONE_EPOCH) == 0
    assert "trained already" in capsys.readouterr().err
    assert (trained / f"{NAME}.h5").stat().st_mtime_ns == before


def test_run_with_other_settings_in_the_same_folder_is_refused(
    trained: Path, run_main: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(trained, *ONE_EPOCH, "--dropout_rate", "0.5", "--seed", "4") == 2
    error = capsys.readouterr().err
    assert "DROPOUT_RATE=0.5 (was 0.25), SEED=4 (was 0)" in error
    assert "--overwrite" in error


def test_missing_weights_are_asked_for_once_and_told(
    run_main: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from emotion.classifier import pretrained

    asked: list[tuple[str, str]] = []

    def refuse(request: urllib.request.Request, timeout: float) -> None:
        asked.append((request.get_method(), request.full_url))
        raise ConnectionRefusedError

    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert run_main(tmp_path, "--backbone_weights", "imagenet") == 2
    assert asked == [("HEAD", pretrained.SERVER + pretrained.FILE_NAME)]
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "make weights" in error
    assert pretrained.FILE_NAME in error


def test_folder_without_crops_and_state_that_is_none_are_one_line(
    run_main: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(tmp_path, "--data_dir_train", str(tmp_path / "no")) == 2
    assert "DATA_DIR_TRAIN: no such folder" in capsys.readouterr().err
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "state.npz").write_bytes(b"something else")
    assert run_main(tmp_path) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "not a state of emotion/main.py" in error


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM])
def test_signal_ends_training_in_good_order_and_the_same_command_goes_on(
    sent: signal.Signals, crops: Path, repository: Path, tmp_path: Path
) -> None:
    options = ("--epochs_head", "2", "--epochs_finetune", "3", "--batch_size", "4")
    command = [sys.executable, "emotion/main.py", *arguments(crops, tmp_path, *options)]
    process = subprocess.Popen(
        command, cwd=repository, env=environment(repository), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "epoch 1 (head)" in line:
            process.send_signal(sent)
            break
    rest = process.stderr.read()
    assert process.wait() == 75, rest
    assert f"stopped by {sent.name}" in rest
    done = subprocess.run(
        command, cwd=repository, env=environment(repository), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "continues after epoch" in done.stderr
    history = read_json(tmp_path / "training" / "history.json")
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert [row["phase"] for row in history] == [0, 0, 1, 1, 1]
