"""Users without a home folder, another locale, and what killed runs leave behind."""

import os
import pwd
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import batch_jobs
import pytest
from program_help import REPOSITORY

from facevox import cli
from facevox.files import scratch_folder
from facevox.options import path
from lc_pytorch.faces.weights import require_weights, weights_dir

NAMES = ("한국어 이름", "é😀", "plain", b"\xff\xc3.bytes", "가".encode() + b"\xe3")
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0"}
UTF8 = {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}


@pytest.mark.parametrize("first", [C_LOCALE, UTF8])
def test_items_are_the_same_in_each_locale(first: dict[str, str], tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in NAMES:
        (source / os.fsdecode(name)).write_text("text", encoding="utf-8")
    tables = []
    for locale in (first, UTF8, C_LOCALE):
        subprocess.run(
            [sys.executable, batch_jobs.__file__, str(source), str(out), "0"],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **locale},
            check=True,
            capture_output=True,
        )
        tables.append(sorted((out / "upper.csv").read_bytes().splitlines()))
    assert len(tables[0]) == 1 + len(NAMES)
    assert tables[1] == tables[2] == tables[0]
    assert len((out / "log").read_bytes().splitlines()) == len(NAMES)  # each was done once


@pytest.fixture
def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(uid: int) -> NoReturn:
        raise KeyError

    for name in ("HOME", "DEEPFACE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", refuse)


@pytest.mark.usefixtures("_no_home")
def test_user_without_a_home_folder_is_told_what_to_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(lambda argv: bool(weights_dir()), []) == 2
    assert capsys.readouterr().err == (
        "error: this user has no home folder: set HOME to a folder in which it may write\n"
    )
    with pytest.raises(ValueError, match="no home folder; set HOME or give a whole path"):
        path().read("~/x")
    assert path().read("/x") == Path("/x")
    assert require_weights((), "detector opencv") == []


@pytest.mark.parametrize(
    "error",
    [MemoryError(), ImportError("libopenblas.so: failed to map segment from shared object")],
)
def test_too_little_memory_is_no_bug(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: object) -> int:
        raise error

    assert cli.run(main, []) == 2
    assert capsys.readouterr().err.startswith("error: too little memory; give more")


def test_next_run_removes_the_folder_of_a_killed_one_only(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from facevox.files import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half.mp4').touch(); print(folder, flush=True); time.sleep(60)"
    )
    (tmp_path / ".facevox-mine").mkdir()
    (tmp_path / ".facevox-new.tmp").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    (tmp_path / ".facevox-link.tmp").symlink_to(elsewhere)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        folders = [Path((process.stdout or sys.stdin).readline().rstrip()) for process in processes]
        processes[0].kill()
        processes[0].wait()
        old_s = time.time() - 100
        for folder in (*folders, tmp_path / ".facevox-mine", elsewhere):
            os.utime(folder, (old_s, old_s))
        with scratch_folder(tmp_path) as own:
            assert own.is_dir()
        assert not own.exists()
        assert [folder.exists() for folder in folders] == [False, True]
        assert (elsewhere / "file").exists()
        assert (tmp_path / ".facevox-mine").exists()
        assert (tmp_path / ".facevox-new.tmp").exists()
    finally:
        for process in processes:
            process.kill()
            process.communicate()
