"""What is neither a file nor a folder as an option's path: refused at once, in one line.

The reader of a FIFO would wait for ever, and that of /dev/zero would never end.
"""

import argparse
import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from program_help import REPOSITORY

from emotion.settings import SettingsError, read_settings
from facevox.errors import UserError
from facevox.file_kinds import file_fault
from facevox.files import read_image, read_json
from facevox.media import read_audio
from facevox.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.timeout(60)
FOLDERS = ("scripts/*", "lipsync", "emotion", "emotion/landmarks", "examples")
PROGRAMS = sorted(
    file.relative_to(REPOSITORY).as_posix()
    for folder in FOLDERS
    for file in REPOSITORY.glob(f"{folder}/*.py")
    if "cli.make_parser(" in file.read_text(encoding="utf-8")
)


@pytest.fixture(params=["FIFO", "device", "socket"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "special.json"
    if request.param == "device":
        return Path("/dev/zero")
    if request.param == "FIFO":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    return path


def paths_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The options that take a path."""
    found = []
    for action in parser._actions:
        try:
            value = parser._get_value(action, "no/such.file")  # type: ignore[attr-defined]
        except argparse.ArgumentError:
            continue
        found += [action] if isinstance(value, Path) else []
    return found


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_path_option_of_each_program_refuses_them(program: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    spec = importlib.util.spec_from_file_location(f"single_{program.replace('/', '_')}", REPOSITORY / program)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    parser = module.get_args_parser()
    for action in paths_of(parser):
        try:
            message = getattr(parser._get_value(action, str(tmp_path / "fifo")), "message", "")
        except argparse.ArgumentError as error:
            message = str(error)
        assert "is a FIFO (as <(...) is), no file or folder" in message, action.dest


def test_programs_are_found_and_have_such_options() -> None:
    assert len(PROGRAMS) > 30
    assert {"scripts/evaluation/match.py", "lipsync/inference.py", "emotion/run_model.py"} <= set(PROGRAMS)


@pytest.mark.parametrize("read", [read_json, read_image, load_checkpoint, read_audio])
def test_readers_refuse_them_too(read: Callable[[Path], object], special: Path) -> None:
    """They come as names in other files, and inside folders."""
    with pytest.raises(UserError, match=r"is a |is empty"):
        read(special)


def test_kind_is_named(special: Path) -> None:
    assert file_fault(special, "weights").endswith(", no weights")


def test_setting_is_named_with_its_fault(special: Path) -> None:
    with pytest.raises(SettingsError) as refusal:
        read_settings(Path("/no/.env"), {"INPUT_PATH": str(special)}, {})
    (fault,) = [fault for fault in refusal.value.faults if fault.startswith("INPUT_PATH")]
    assert fault.startswith("INPUT_PATH (environment): ")
    assert fault.endswith(", no file or folder")


@pytest.mark.parametrize(
    "command",
    [
        "scripts/evaluation/match.py --model_dir . --voices . --face <(cat /dev/zero)",
        "scripts/cluster/pipeline.py <(echo 'stages: {}')",
        "emotion/landmarks/predict.py --output_dir out --inputs /dev/zero",
    ],
)
def test_program_is_not_kept_waiting(command: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"exec {sys.executable} {command}"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no file or folder" in done.stderr
