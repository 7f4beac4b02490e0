"""Stop signals at any time: exit code 75 and one line, from a program's first import on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from program_help import REPOSITORY

from facevox import cli
from facevox.errors import ExitCode
from facevox.program import STOP_SIGNALS

VOICES = ["scripts/preprocessing/extract_voices.py", "--dataset_path", "none", "--output_dir", "none"]
TRAIN = ["scripts/training/train_face_voice.py", "--image_folder", "none", "--audio_folder", "none"]
TRAIN += ["--save_dir", "none"]


def ended_at(module: str, number: signal.Signals, command: Sequence[str]) -> tuple[int, str]:
    """Exit code and last messages of a program that gets a signal when it has imported a module."""
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", *command],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.rpartition("|")[2].strip() == module:
                process.send_signal(number)
                break
        rest = process.stderr.read()
    return process.returncode, "".join(
        line for line in rest.splitlines(keepends=True) if not line.startswith("import time:")
    )


@pytest.mark.parametrize(
    ("module", "number", "command"),
    [
        ("numpy._core.multiarray", signal.SIGTERM, VOICES),
        ("numpy._core.multiarray", signal.SIGINT, ["-m", "emotion.server"]),
        ("facevox.files", signal.SIGUSR2, ["lipsync/inference.py"]),
        ("torch._C", signal.SIGTERM, TRAIN),  # within main
        ("torch._C", signal.SIGINT, TRAIN),
    ],
)
def test_signal_during_the_imports(module: str, number: signal.Signals, command: list[str]) -> None:
    code, shown = ended_at(module, number, command)
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert (code, shown) == (75, f"stopped by {name}; run the same command again to continue\n")


def test_signal_is_not_lost_where_an_import_swallows_exceptions(tmp_path: Path) -> None:
    (tmp_path / "swallowing.py").write_text(
        "import os, signal, time\n"
        "try:\n    os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)\n"
        "except BaseException:\n    pass\n",
        encoding="utf-8",
    )
    code = "from facevox import cli; cli.run(lambda argv: __import__('swallowing') and 0, [])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (75, 1)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signal_outside_of_any_loop_cleans_up(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    former = [signal.getsignal(each) for each in STOP_SIGNALS]

    def main(argv: object) -> int:
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            (tmp_path / "cleaned").touch()
        return 0

    assert cli.run(main, []) == ExitCode.STOPPED
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert capsys.readouterr().err == f"stopped by {name}; run the same command again to continue\n"
    assert (tmp_path / "cleaned").exists()
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == former


def test_ignored_signal_stays_ignored() -> None:
    """As nohup and a shell's background want it."""

    def main(argv: object) -> int:
        os.kill(os.getpid(), signal.SIGUSR1)
        return 0

    former = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        assert cli.run(main, []) == 0
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_forked_process_ends_as_by_itself() -> None:
    def main(argv: object) -> int:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(writing, b"!")  # Python drops signals that come while it forks
                time.sleep(10)
            finally:
                os._exit(9)
        os.read(reading, 1)
        os.close(reading)
        os.close(writing)
        os.kill(child, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert cli.run(main, []) == -signal.SIGTERM


def test_importing_the_package_changes_no_handler() -> None:
    code = "import signal, facevox.cli; print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == "True\n"
