"""Full disks, and the half-written files of processes that were killed."""

import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import batch_jobs
import numpy as np
import pytest
import torch

from facevox import cli
from facevox.batch import run_batch
from facevox.files import replacing, temporary_folder, write_arrays
from facevox.locks import OutputLock
from facevox.training.checkpoint import save_checkpoint
from facevox.training.run_folder import run_folder

STATE = {"large": torch.zeros(50_000), "small": {str(index): torch.zeros(100) for index in range(20)}}


class SmallDisk(io.FileIO):
    """A file that takes some bytes, and then says what the kernel says of a full disk."""

    space_bytes = 0

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.space_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@pytest.mark.parametrize("space_bytes", [0, 100, 5_000, 199_000, 201_000, 206_000, 212_000])
def test_a_checkpoint_that_does_not_fit_is_a_full_disk_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], space_bytes: int
) -> None:
    save_checkpoint(tmp_path / "fits.pth", STATE)
    assert (tmp_path / "fits.pth").stat().st_size > 212_000
    monkeypatch.setattr(SmallDisk, "space_bytes", space_bytes)
    file = tmp_path / "last.pth"

    def main(argv: object) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", lambda path, mode, **_: io.BufferedWriter(SmallDisk(path, mode)))
            save_checkpoint(file, STATE)
        return 0

    assert cli.run(main, []) == 2
    error = capsys.readouterr().err
    assert f"disk full: No space left on device ({file}); make room" in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["fits.pth"]


@pytest.mark.parametrize("space_bytes", [0, 50, 500, 3_000, 4_200])
@pytest.mark.filterwarnings("error")  # an archive that stays open complains when it is collected
def test_arrays_that_do_not_fit_are_a_full_disk_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space_bytes: int
) -> None:
    monkeypatch.setattr(SmallDisk, "space_bytes", space_bytes)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left") as refusal:
        patch.setattr(Path, "open", lambda path, mode, **_: io.BufferedWriter(SmallDisk(path, mode)))
        write_arrays(tmp_path / "x.npz", {"a": np.ones(1000, np.float32)})
    assert refusal.value.filename == str(tmp_path / "x.npz")
    assert not list(tmp_path.iterdir())


def test_other_faults_of_torch_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no such kind of tensor")

    monkeypatch.setattr(torch, "save", refuse)
    with pytest.raises(RuntimeError, match="no such kind"):
        save_checkpoint(tmp_path / "x.pth", STATE)


def killed(lock_file: Path, leave: Callable[[], None]) -> None:
    """Leaves the lock and the files of a run whose process is no more."""
    from facevox.files import set_run_token

    with OutputLock(lock_file) as lock:
        owner = json.loads(lock_file.read_text(encoding="utf-8"))
        set_run_token(lock.token)
        leave()
        set_run_token("")
    lock_file.write_text(json.dumps({**owner, "pid": 2**22 + 1}), encoding="utf-8")


def half_file(path: Path) -> None:
    """The temporary file of a write that was cut off."""
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        os.link(file.name, path.with_name("kept"))
        raise KeyboardInterrupt
    path.with_name("kept").rename(file.name)


def test_the_next_training_removes_what_a_killed_one_was_writing(
    tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "locks").mkdir()

    def leave() -> None:
        half_file(tmp_path / "last.pth")
        folder = temporary_folder(tmp_path)
        Path(folder.name, "model.h5").write_bytes(b"half")
        folder._finalizer.detach()  # type: ignore[attr-defined]  # as after kill -9

    killed(tmp_path / "locks" / "training.lock", leave)
    half_file(tmp_path / "of another run")
    assert len(list(tmp_path.glob(".*.tmp"))) == 3
    with run_folder(tmp_path):
        assert len(list(tmp_path.glob(".*.tmp"))) == 1
        half_file(tmp_path / "last.pth")
    assert "taking over from process" in logged.text
    assert "(2 half-written files removed)" in logged.text


def test_the_files_of_a_worker_that_was_killed_alone_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a", "b", "c"):
        (source / name).write_text("killed" if name == "b" else name, encoding="utf-8")
    summary = run_batch(KilledInWriting(), batch_jobs.items_of(source), batch_jobs.config_of(out, workers=1))
    assert (summary.done, summary.failed) == (2, 1)
    assert not list(out.rglob(".*.tmp"))


class KilledInWriting(batch_jobs.Upper):
    def process(self, item: batch_jobs.Item) -> batch_jobs.Outcome:
        if Path(item.path).read_text(encoding="utf-8") == "killed":
            with replacing(self.output_dir / "half.out") as file:
                assert Path(file.name).exists()
                os.kill(os.getpid(), 9)
        return super().process(item)
