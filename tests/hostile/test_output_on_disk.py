"""The summary of a batch is what is on the disk, also where the disk is full or the folder goes away."""

import errno
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batch_jobs import Upper, config_of, items_of

from facevox import cli
from facevox.batch import Item, Outcome, run_batch
from facevox.errors import ExitCode, UserError
from facevox.files import replacing
from facevox.training.run_folder import run_folder

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text(name)
    return folder


class Removing(Upper):
    """Changes the output folder after an item."""

    def __init__(self, change: Callable[[Path], object], after: str) -> None:
        self._change, self._after = change, after

    def process(self, item: Item) -> Outcome:
        outcome = super().process(item)
        if item.name == self._after:
            self._change(self.output_dir)
        return outcome


def rename(folder: Path) -> None:
    folder.rename(folder.with_name("former"))


def replace(folder: Path) -> None:
    shutil.copytree(folder, folder.with_name("copy"))
    rename(folder)
    folder.with_name("copy").rename(folder)


def replace_and_empty(folder: Path) -> None:
    rename(folder)
    folder.mkdir()


@pytest.mark.parametrize("after", ["a", "d"])
@pytest.mark.parametrize(
    "change", [shutil.rmtree, rename, replace, lambda folder: shutil.rmtree(folder / "manifests")]
)
def test_folder_that_goes_away_ends_the_run(
    change: Callable[[Path], object],
    after: str,
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"

    def main(argv: object) -> int:
        return run_batch(Removing(change, after), items_of(source), config_of(out)).exit_code

    assert cli.run(main, []) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert "was removed, renamed or replaced" in shown.err
    assert "done" not in shown.out
    assert run_batch(Upper(), items_of(source), config_of(out)).exit_code == ExitCode.DONE
    assert (out / "upper.csv").read_text().count("\n") == 1 + len(NAMES)
    assert all((out / f"{name}.out").exists() for name in NAMES)


def test_result_that_is_gone_is_no_result(source: Path, tmp_path: Path) -> None:
    task = Removing(lambda folder: (folder / "b.out").unlink(), "b")
    summary = run_batch(task, items_of(source), config_of(tmp_path / "out"))
    assert (summary.done, summary.failed) == (3, 1)
    assert summary.exit_code == ExitCode.SOME_FAILED
    assert summary.failures[0][0] == "b"
    assert "b.out: was written, and is gone" in (tmp_path / "out" / "upper.csv").read_text()
    assert run_batch(Upper(), items_of(source), config_of(tmp_path / "out")).done == 1


def test_results_that_go_later_are_no_success(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    task = Removing(lambda folder: (folder / "b.out").unlink(), "c")

    def main(argv: object) -> int:
        return run_batch(task, items_of(source), config_of(out)).exit_code

    assert cli.run(main, []) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert "1 of 4 files that this run has written were removed meanwhile (b.out …)" in shown.err
    assert "4 done" not in shown.out
    summary = run_batch(Upper(), items_of(source), config_of(out))
    assert (summary.done, summary.skipped, summary.exit_code) == (1, 3, ExitCode.DONE)
    assert all((out / f"{name}.out").exists() for name in NAMES)


@pytest.mark.parametrize("change", [shutil.rmtree, rename, replace_and_empty])
def test_training_whose_folder_goes_away_is_no_success(
    change: Callable[[Path], object], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="was removed or replaced"), run_folder(tmp_path / "run"):
        change(tmp_path / "run")
    with run_folder(tmp_path / "run"):
        (tmp_path / "run" / "last.pth").touch()
    with pytest.raises(ValueError, match="its own"), run_folder(tmp_path / "run"):
        shutil.rmtree(tmp_path / "run")
        raise ValueError("its own")


def test_file_in_a_folder_that_goes_away_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its folder was removed"), replacing(tmp_path / "run" / "x") as file:
        file.write(b"x")
        shutil.rmtree(tmp_path / "run")


class Full(io.FileIO):
    """A file on a disk that is full after so many lines, and half of the next one."""

    lines = 3

    def write(self, data: Any) -> int:
        if Full.lines <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        Full.lines -= 1
        return super().write(bytes(data)[: None if Full.lines else 20])


def test_full_disk_is_named_and_keeps_what_was_finished(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The header, the start and two items fit."""
    out, opened = tmp_path / "out", Path.open

    def open_full(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        return io.BufferedWriter(Full(path, mode)) if mode == "ab" else opened(path, mode, *rest, **named)

    def main(argv: object) -> int:
        return run_batch(Upper(), items_of(source), config_of(out)).exit_code

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        patch.setattr(Full, "lines", 5)
        assert cli.run(main, []) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert [text in shown.err for text in ("disk full", "upper.jsonl", "make room")] == [True] * 3
    assert "done" not in shown.out
    summary = run_batch(Upper(), items_of(source), config_of(out))
    assert (summary.skipped, summary.done) == (2, 2)


def test_file_that_a_full_disk_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("former")

    def main(argv: object) -> int:
        with replacing(tmp_path / "table.csv"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"table\.csv"):
        main([])
    assert cli.run(main, []) == ExitCode.USAGE
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    assert (tmp_path / "table.csv").read_text() == "former"


def test_full_disk_in_a_worker_is_named(source: Path, tmp_path: Path) -> None:
    (source / "c").write_text("full")
    with pytest.raises(UserError, match=r"No space left on device \(somewhere\); make room"):
        run_batch(Upper(), items_of(source), config_of(tmp_path / "out", workers=1))
