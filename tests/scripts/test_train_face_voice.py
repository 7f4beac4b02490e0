"""The programs train_face_voice.py and train_face_voice_from_matched_file.py."""

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
from typing import Any

import pytest
import torch
from small_training import (
    assert_same,
    options_for,
    plain_rows,
    read_scalars,
    write_encoders,
    write_people,
)

from facevox import cli
from facevox.files import read_image
from facevox.training.checkpoint import load_checkpoint
from facevox.training.trainer import Trainer
from lc_pytorch.models import load_model

pytestmark = pytest.mark.usefixtures("one_thread")
FILES = {
    "face_encoder.pth",
    "face_projection.pth",
    "audio_encoder.pth",
    "audio_projection.pth",
    "full_model.pth",
    "best_model.pth",
    "config.json",
    "split.json",
    "history.json",
    "curves.png",
    "last.pth",
    "events",
    "MODEL_CARD.md",
    "log.txt",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a set 한글")
    write_encoders(folder)
    write_people(folder / "data", 10)
    return folder


@pytest.fixture
def script(load_script) -> ModuleType:  # type: ignore[no-untyped-def]
    return load_script("training/train_face_voice_from_matched_file")


def options(base: Path, save_dir: Path, **changes: object) -> list[str]:
    return options_for(base / "data" / "pairs.txt", (base / "vit", base / "wav2vec2"), save_dir, **changes)


def run(script: ModuleType, arguments: list[str]) -> int:
    return cli.run(script.main, arguments)


def check_folder(folder: Path, num_epochs: int) -> None:
    """Everything that the documents name is there and fits together."""
    assert {file.name for file in folder.iterdir()} - {"locks"} == FILES
    trained = load_model(folder, "last")
    for name, part in trained.model.parts().items():
        part.load_state_dict(torch.load(folder / f"{name}.pth", weights_only=True), strict=True)
    trained.model.load_state_dict(torch.load(folder / "full_model.pth", weights_only=True), strict=True)
    trained.model.load_state_dict(torch.load(folder / "best_model.pth", weights_only=True), strict=True)
    rows = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    assert [row["epoch"] for row in rows] == list(range(1, num_epochs + 1))
    assert set(rows[0]) >= {
        "step",
        "train_loss",
        "val_auc",
        "val_top1",
        "val_eer",
        "val_loss",
        "learning_rate",
    }
    assert read_image(folder / "curves.png").size
    assert "## Scores on people never seen" in (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    for tag, points in read_scalars(folder / "events").items():
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps)), tag
        if tag.startswith("epoch/"):
            assert steps == [row["step"] for row in rows], tag


def test_matched_files_give_a_model_with_all_its_files(
    script: ModuleType, base: Path, tmp_path: Path
) -> None:
    assert run(script, options(base, tmp_path / "run", val_size=0.2)) == 0
    check_folder(tmp_path / "run", 3)


def test_folders_give_a_model_with_all_its_files(load_script, base: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for side, suffix in (("faces", "jpg"), ("voices", "wav")):
        for file in (base / "data").glob(f"*/{side}/*.{suffix}"):
            target = tmp_path / side / file.parts[-3] / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    arguments = options(base, tmp_path / "-a run", matched_file=None, val_size=0.2)
    arguments[arguments.index("--save_dir") : arguments.index("--save_dir") + 2] = [
        f"--save_dir={tmp_path / '-a run'}"
    ]
    folders = ["--image_folder", str(tmp_path / "faces"), "--audio_folder", str(tmp_path / "voices")]
    assert run(load_script("training/train_face_voice"), [*folders, *arguments]) == 0
    check_folder(tmp_path / "-a run", 3)


@pytest.mark.parametrize("name", ["train_face_voice", "train_face_voice_from_matched_file"])
def test_every_option_of_the_documents_is_there(load_script, name: str) -> None:  # type: ignore[no-untyped-def]
    parser = load_script(f"training/{name}").get_args_parser()
    required = (
        ["--image_folder", "a", "--audio_folder", "b"]
        if name == "train_face_voice"
        else ["--matched_file", "a", "b"]
    )
    args = vars(parser.parse_args([*required, "--save_dir", "c"]))
    documented: dict[str, Any] = {
        "embedding_dim": 512, "temperature": 0.07, "batch_size": 32, "num_epochs": 100, "learning_rate": 1e-4,
        "test_size": 0.2, "audio_duration_sec": 5, "target_sr": 16000, "weight_decay": 1e-4,
        "save_interval": 5,
        "face_model": "google/vit-base-patch16-224-in21k", "voice_model": "facebook/wav2vec2-base",
        "freeze_encoders": False, "precision": "fp32", "accum_freq": 1, "grad_checkpointing": False,
        "learnable_temperature": False, "resume": "auto", "device": "auto", "seed": 0, "save_dir": Path("c"),
    }  # fmt: skip
    assert {name: args[name] for name in documented} == documented
    assert {
        "num_workers",
        "warmup",
        "checkpoint_interval",
        "identity_csv",
        "identity_regex",
        "val_size",
    } <= set(args)


# --- the program itself, ended from outside ----------------------------------------------------------------

SLOWER = """
import os, sys, time
from facevox import cli
from lc_pytorch.training import task
plain = task.ContrastiveTask.after_step
def after_step(self):
    plain(self)
    print("step", flush=True)
    time.sleep(0.05)
task.ContrastiveTask.after_step = after_step
import torch
torch.set_num_threads(1)
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start(repository: Path, arguments: list[str]) -> subprocess.Popen[str]:
    program = repository / "scripts" / "training" / "train_face_voice_from_matched_file.py"
    return subprocess.Popen(
        [sys.executable, "-c", SLOWER, str(program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end_after(process: subprocess.Popen[str], step: int, number: signal.Signals) -> tuple[int, str]:
    """Sends a signal to the whole group, loader workers included, as schedulers do."""
    assert process.stdout is not None
    assert process.stderr is not None
    num_steps = 0
    for line in process.stdout:
        num_steps += line.strip() == "step"
        if num_steps == step:
            os.killpg(process.pid, number)
            break
    out = process.stdout.read()
    errors = process.stderr.read()
    return process.wait(120), out + errors


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory, load_script: Any) -> Path:
    """A run that nobody ended, in this process, without workers."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    module = load_script("training/train_face_voice_from_matched_file")
    assert run(module, options(base, folder, val_size=0.2, learnable_temperature=True)) == 0
    torch.set_num_threads(before)
    return folder


@pytest.mark.parametrize(
    ("numbers", "interval"),
    [
        ([signal.SIGTERM], 1),
        pytest.param([signal.SIGUSR1, signal.SIGUSR2], 100, marks=pytest.mark.slow),
        pytest.param([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM], 2, marks=pytest.mark.slow),
    ],
)
def test_a_program_ended_from_outside_goes_on_to_the_bit(
    script: ModuleType,
    repository: Path,
    base: Path,
    whole: Path,
    tmp_path: Path,
    numbers: list,
    interval: int,
) -> None:
    folder = tmp_path / "run"
    arguments = options(base, folder, val_size=0.2, learnable_temperature=True, checkpoint_interval=interval)
    with_workers = [*arguments, "--num_workers", "2"]
    for number in numbers:
        code, text = end_after(start(repository, with_workers), 3 if interval == 2 else 2, number)
        if number == signal.SIGKILL:
            assert code == -signal.SIGKILL, text
        else:
            assert code == 75, text
            assert f"stopped by {signal.Signals(number).name} after step" in text
            assert "Traceback" not in text
    assert (folder / "last.pth").exists()
    assert run(script, arguments) == 0
    files = [load_checkpoint(run_dir / "last.pth") for run_dir in (folder, whole)]
    for name in ("model", "optimizer", "random"):
        assert_same(files[0][name], files[1][name], name)
    assert_same(plain_rows(files[0]["history"]), plain_rows(files[1]["history"]))
    for name in ("best_model.pth", "full_model.pth", "face_encoder.pth"):
        assert_same(load_checkpoint(folder / name), load_checkpoint(whole / name), name)
    check_folder(folder, 3)
    log = (folder / "log.txt").read_text(encoding="utf-8")
    assert log.count(" - facevox.logs - INFO - started on ") == len(numbers) + 1
    assert log.count(" - INFO - resuming from ") == len(numbers)


def test_a_finished_run_takes_no_step_and_more_epochs_go_on(
    script: ModuleType,
    base: Path,
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    before = (folder / "last.pth").read_bytes()
    changes = {"val_size": 0.2, "learnable_temperature": True}
    with monkeypatch.context() as without_steps:
        without_steps.setattr(Trainer, "take_step", None)
        assert run(script, options(base, folder, **changes)) == 0
    assert (folder / "last.pth").read_bytes() == before
    assert "done: 3 epochs" in capsys.readouterr().out
    assert run(script, options(base, folder, num_epochs=4, **changes)) == 0
    check_folder(folder, 4)


def test_a_loss_that_is_not_finite_is_exit_code_1_and_one_line(
    script: ModuleType, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = options(base, tmp_path / "run", learning_rate=1e30, clip_norm=0, warmup=0, num_epochs=50)
    assert run(script, arguments) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "not finite" in line]
    assert len(lines) == 1
    saved = load_checkpoint(tmp_path / "run" / "last.pth") if (tmp_path / "run" / "last.pth").exists() else {}
    assert all(value.isfinite().all() for value in saved.get("model", {}).values())


def test_bad_files_are_replaced_and_listed(
    script: ModuleType, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    write_people(data, 6, clips=3)
    (data / "p00" / "faces" / "0.jpg").write_bytes(b"")
    (data / "p01" / "faces" / "1.jpg").write_text("no picture")
    (data / "p02" / "voices" / "2.wav").write_bytes(b"RIFF")
    (data / "p03" / "voices" / "0.wav").write_bytes((data / "p03" / "voices" / "0.wav").read_bytes()[:44])
    missing = data / "p04" / "faces" / "0.jpg"
    missing.unlink()  # listed, but not there: known before training, and said
    folder = tmp_path / "run"
    arguments = options_for(
        data / "pairs.txt", (base / "vit", base / "wav2vec2"), folder, test_size=0, val_size=0, num_epochs=4,
        num_workers=1,
    )  # fmt: skip
    assert run(script, arguments) == 0
    with (folder / "bad_files.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for name, row in zip(("0.jpg", "1.jpg", "2.wav", "0.wav"), rows, strict=True):
        assert name in row["files"]
        assert row["reason"]
    out = capsys.readouterr().out
    assert "4 pairs could not be read" in out
    assert "0.jpg" in out


def damage_last(folder: Path) -> None:
    (folder / "last.pth").write_bytes((folder / "last.pth").read_bytes()[:1000])


REFUSALS: dict[str, tuple[Callable[[Path], object], dict[str, object], str]] = {
    "other settings": (lambda folder: None, {"batch_size": 3}, "batch_size 4 → 3"),
    "a damaged checkpoint": (damage_last, {}, "last.pth: no checkpoint of facevox, or a damaged one"),
    "another file": (
        lambda folder: shutil.copy(folder / "full_model.pth", folder / "last.pth"),
        {},
        "not of this",
    ),
    "a checkpoint that is not there": (
        lambda folder: None,
        {"resume": "/none/last.pth"},
        "there is no such file",
    ),
    "a misspelt word": (lambda folder: None, {"resume": "nevr"}, "nevr"),
    "a changed split": (
        lambda folder: (folder / "split.json").write_text(
            (folder / "split.json").read_text().replace("p03", "p77")
        ),
        {},
        "split.json: the lists were changed",
    ),
    "another model": (lambda folder: None, {"face_model": "no/such-model"}, "--face_model no/such-model"),
    "fewer than two people": (lambda folder: None, {"identity_regex": "(data)"}, "identit"),
    "a fault in an option": (lambda folder: None, {"layer_decay": 0}, "--layer_decay: '0' is not"),
    "a warm-up that is none": (lambda folder: None, {"warmup": 1.5}, "--warmup is 1.5"),
    "a time that is none": (
        lambda folder: None,
        {"checkpoint_interval": "5 minutes"},
        "neither a number of steps",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_done_is_exit_code_2_and_one_line(
    script: ModuleType, base: Path, whole: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    change, changes, message = REFUSALS[name]
    change(folder)
    before = (folder / "last.pth").read_bytes()
    options_now: dict[str, object] = {
        "val_size": 0.2,
        "learnable_temperature": True,
        "num_epochs": 4,
    } | changes
    assert run(script, options(base, folder, **options_now)) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1, errors
    assert message in errors[0]
    assert (folder / "last.pth").read_bytes() == before


def test_a_folder_in_use_or_not_to_be_written_is_refused(
    script: ModuleType, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from facevox.training.run_folder import run_folder

    folder = tmp_path / "run"
    with run_folder(folder):
        before = sorted(folder.rglob("*"))
        for resume in ("auto", "never"):
            assert run(script, options(base, folder, resume=resume)) == 2
        assert sorted(folder.rglob("*")) == before
    (tmp_path / "file").write_text("x")
    assert run(script, options(base, tmp_path / "file")) == 2
    assert run(script, options(base, Path("/proc/none/run"))) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 4
    assert all(line.startswith("error: ") and "fault of facevox" not in line for line in errors)
    assert str(tmp_path / "file") in errors[2]


def test_an_empty_list_and_lists_that_are_none_are_refused(
    script: ModuleType, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "three.txt").write_text("a\tb\tc\n")
    (tmp_path / "gone.txt").write_text("/none/a.jpg\t/none/a.wav\n")
    for name in ("empty.txt", "three.txt", "gone.txt", "none.txt"):
        assert run(script, options(base, tmp_path / "run", matched_file=tmp_path / name)) == 2
        errors = capsys.readouterr().err.strip().splitlines()
        assert len(errors) == 1
        assert name in errors[0]
    assert not (tmp_path / "run").exists()


def test_dry_run_counts_estimates_and_writes_nothing(
    script: ModuleType, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, [*options(base, tmp_path / "run", val_size=0.2), "--dry_run"]) == 0
    assert list(tmp_path.iterdir()) == []
    shown = capsys.readouterr().out
    assert "people (pairs): train 6" in shown
    assert "3 epochs, " in shown
    assert "MB" in shown or "kB" in shown
