"""Standard streams that are closed or break: the work goes on, and the exit code is that of the work."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from facevox.media import write_video

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = shlex.quote(sys.executable)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two with a tone, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("videos")
    tone = np.sin(np.arange(8000) * 0.2).astype(np.float32)
    for name in ("a", "b"):
        write_video(folder / f"{name}.mp4", [np.zeros((32, 32, 3), np.uint8)] * 12, 25, tone)
    (folder / "bad.mp4").write_bytes(b"no video")
    return folder


def shell(command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of bash, whose exit code is that of the first program of a pipe."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
    return subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def voices(videos: Path, out: Path, *, workers: int = 0) -> str:
    where = f"--workers {workers}" if workers else "--debug"
    program = f"{PYTHON} scripts/preprocessing/extract_voices.py"
    return f"{program} --dataset_path {shlex.quote(str(videos))} --output_dir {shlex.quote(str(out))} {where}"


FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
STREAMS = [  # with PYTHONUNBUFFERED and the number of workers
    (">&-", "", 1),
    ("2>&-", "1", 1),
    ("<&- >&- 2>&-", "", 1),
    ("| true", "1", 0),
    ("2>&1 | head -1", "", 0),
    ("2>&1 | head -1", "1", 1),
    pytest.param("> /dev/full", "", 0, marks=FULL),
    pytest.param("> /dev/full 2>&1", "1", 0, marks=FULL),
    pytest.param("2>&1 | tee /dev/full", "", 0, marks=FULL),
]


@pytest.mark.parametrize(("streams", "unbuffered", "workers"), STREAMS)
def test_batch_does_its_work_whatever_its_streams_are(
    streams: str, unbuffered: str, workers: int, videos: Path, tmp_path: Path
) -> None:
    command = voices(videos, tmp_path / "out", workers=workers)
    result = shell(f"{command} {streams}", PYTHONUNBUFFERED=unbuffered)
    assert result.returncode == 1, result.stderr  # of the item that failed
    assert "Traceback" not in result.stderr + result.stdout
    assert "ignored" not in result.stderr + result.stdout
    table = (tmp_path / "out" / "voices.csv").read_text(encoding="utf-8")
    assert table.count(",done,") == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.wav",
        "b.wav",
        "manifests",
        "voices.csv",
    ]
    manifest = (tmp_path / "out" / "manifests" / "extract_voices.jsonl").read_text(encoding="utf-8")
    assert all(line.startswith("{") for line in manifest.splitlines())


@pytest.mark.parametrize(
    ("streams", "unbuffered"),
    [("| true", ""), ("| true", "1"), pytest.param("> /dev/full", "", marks=FULL), (">&-", "")],
)
def test_help_ends_with_0_whether_it_is_read_or_not(streams: str, unbuffered: str) -> None:
    result = shell(
        f"{PYTHON} scripts/preprocessing/merge_manifests.py --help {streams}", PYTHONUNBUFFERED=unbuffered
    )
    assert result.returncode == 0
    assert "Traceback" not in result.stderr
    assert "ignored" not in result.stderr
    assert ("No space left" in result.stderr) == (streams == "> /dev/full")


def test_error_keeps_its_code_where_nobody_reads_it() -> None:
    for streams in ("2>&-", "2>&1 | true"):
        command = f"{PYTHON} scripts/preprocessing/merge_manifests.py --output_dir /nothing {streams}"
        assert shell(command).returncode == 2


def test_what_a_program_opens_never_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """Else the next print, or a message of a library in C, would be written into a result."""
    for name in ("scripts", "facevox"):
        (tmp_path / name).mkdir()
    for name in ("__init__", "errors", "program", "streams"):
        shutil.copy(REPOSITORY / "facevox" / f"{name}.py", tmp_path / "facevox")
    program = tmp_path / "scripts" / "x.py"
    program.write_text(
        "import os, sys\n"
        "import facevox\n"
        "file = open('result', 'w')\n"
        "print('lost')\n"
        "print('lost', file=sys.stderr)\n"
        "os.write(1, b'lost'), os.write(2, b'lost')\n"
        "os.system('echo lost; echo lost >&2')\n"
        "assert sys.stdin.read() == ''\n"
        "file.write(str(file.fileno() > 2))\n",
        encoding="utf-8",
    )
    folder = shlex.quote(str(tmp_path))
    result = shell(f"cd {folder}; {PYTHON} scripts/x.py <&- >&- 2>&-", PYTHONPATH=str(tmp_path))
    assert result.returncode == 0
    assert (tmp_path / "result").read_text(encoding="utf-8") == "True"


def test_program_without_a_console_writes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    from facevox import cli

    def main(argv: object) -> int:
        print("lost")
        print("lost", file=sys.stderr, flush=True)
        return 1

    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.run(main, []) == 1
