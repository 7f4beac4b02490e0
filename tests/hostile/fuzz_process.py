"""The process that reads changed files, one after another: outcome, time and memory of each."""

import contextlib
import dataclasses
import faulthandler
import hashlib
import importlib
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_targets import REPOSITORY, SilentDamageError, Target, load_program

from facevox import cli
from facevox.errors import ExitCode, UserError, one_line

SILENT = "silent damage"  # begins a signature
READ, REFUSED, FAULT = "read", "refused", "fault"
MAKE, READER, PROGRAM = "make", "reader", "program"  # requests
_UNSEEN = re.compile(r"Traceback \(most recent|Exception ignored|a bug in facevox")


@dataclass
class Result:
    """What became of a file.

    Attributes:
        outcome: READ, REFUSED or FAULT.
        text: Message, or content of a read file as a hash.
        signature: Of a fault: kind, file and line.
        seconds: Time that it took.
        memory_mb: Memory that it took at its peak, in this process, beyond what was in use before.
    """

    outcome: str
    text: str = ""
    signature: str = ""
    seconds: float = 0.0
    memory_mb: float = 0.0


def serve(connection: Connection, module: str, folder: str) -> None:
    """Answers requests of (MAKE, READER or PROGRAM, target's name, its folder) until the pipe closes.

    `module` has the targets, as `TARGETS`.

    What is written to stdout and stderr goes to `<folder>/output.txt`, the stack of a crash or a hang to
    `<folder>/stack.txt`.
    """
    os.setsid()  # the parent ends this process with its own children
    with contextlib.suppress(FileNotFoundError):
        for line in (REPOSITORY / ".env.example").read_text("utf-8").splitlines():
            if "=" in line and not line.startswith("#"):
                os.environ.setdefault(*line.split("=", 1))
    os.environ["LOG_DIR"] = str(Path(folder) / "logs")
    targets = {target.name: target for target in importlib.import_module(module).TARGETS}
    output, stack = Path(folder, "output.txt"), Path(folder, "stack.txt")
    streams = os.open(output, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(streams, 1)
    os.dup2(streams, 2)
    with stack.open("w") as file:
        faulthandler.enable(file)
        while True:
            try:
                way, name, work = connection.recv()
            except EOFError:
                return
            start = output.stat().st_size
            with _measured() as measured:
                result = run(targets[name], Path(work), way)
            result.seconds, result.memory_mb = measured["seconds"], measured["memory_mb"]
            sys.stdout.flush()
            sys.stderr.flush()
            shown = output.read_bytes()[start:].decode("utf-8", "replace")
            if result.outcome != FAULT and _UNSEEN.search(shown):
                signature = re.findall(
                    r'File "\S*?((?:facevox|lc_pytorch|lipsync|emotion)\w*/\S+)", line (\d+)', shown
                )
                where = ":".join(signature[-1]) if signature else name
                result = dataclasses.replace(
                    result, outcome=FAULT, signature=f"traceback shown at {where}", text=shown[-2000:]
                )
            connection.send(result)


def run(target: Target, folder: Path, way: str) -> Result:
    """The outcome of reading the target's file in a folder."""
    seen: list[Exception] = []
    try:
        if way == MAKE:
            return Result(READ, str(target.make(folder)))
        if way == READER:
            return Result(READ, digest(target.read(folder / target.file)))
        assert target.program is not None
        (folder / "new").mkdir(exist_ok=True)
        name, words = target.program(folder, folder / "new")
        code = cli.run(_recorded(load_program(name).main, seen), list(map(str, words)))
    except UserError as error:
        if "\n" in str(error):
            return Result(FAULT, str(error), f"message of several lines {_where(error)}")
        return Result(REFUSED, str(error))
    except SilentDamageError as error:
        return Result(FAULT, str(error), f"{SILENT}: {target.name}")
    except Exception as error:
        if isinstance(error, OSError) and error.errno in cli._USER_OS_ERRORS:
            return Result(REFUSED, str(error))  # one line and exit code 2, as for a name that is too long
        return Result(FAULT, traceback.format_exc(), f"{type(error).__name__} at {_where(error)}")
    if code == ExitCode.FAULT and seen:
        text = "".join(traceback.format_exception(seen[-1]))
        return Result(FAULT, text, f"exit 70: {type(seen[-1]).__name__} at {_where(seen[-1])}")
    if code not in (ExitCode.DONE, ExitCode.SOME_FAILED, ExitCode.USAGE):
        return Result(FAULT, f"exit code {code}", f"exit {code}: {name}")
    return Result(REFUSED if code else READ, one_line(seen[-1]) if seen else "")


def _recorded(main: Any, seen: list[Exception]) -> Any:
    def recorded(argv: Any) -> int:
        try:
            return int(main(argv))
        except Exception as error:
            seen.append(error)
            raise

    return recorded


def _where(error: BaseException) -> str:
    """File and line of the innermost frame in the code of the project."""
    frames = [
        f"{Path(frame.filename).relative_to(REPOSITORY)}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(f"{REPOSITORY}/") and ".venv" not in frame.filename
    ]
    own = [frame for frame in frames if not frame.startswith("tests/")]
    return (own or frames or ["?"])[-1]


@contextlib.contextmanager
def _measured() -> Iterator[dict[str, float]]:
    measured = {"memory_mb": 0.0}
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    before_kb, start_s = _memory_kb("VmRSS"), time.perf_counter()
    yield measured
    measured["seconds"] = time.perf_counter() - start_s
    measured["memory_mb"] = max(_memory_kb("VmHWM") - before_kb, 0) / 1024


def _memory_kb(name: str) -> int:
    """A value of /proc/self/status; 0 where there is none."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    match = re.search(rf"{name}:\s*(\d+)", text)
    return int(match[1]) if match else 0


def digest(value: object) -> str:
    """A hash of plain values, arrays, tensors, networks and dataclasses of them."""
    digest = hashlib.sha256()
    _feed(value, digest.update)
    return digest.hexdigest()


def _feed(value: Any, add: Any) -> None:
    if hasattr(value, "state_dict"):
        value = value.state_dict()
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        add(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            add(repr(key).encode("utf-8", "surrogatepass"))
            _feed(inner, add)
    elif isinstance(value, list | tuple):
        add(str(len(value)).encode())
        for inner in value:
            _feed(inner, add)
    elif isinstance(value, str | bytes | int | float | bool | type(None)):
        add(repr(value).encode("utf-8", "surrogatepass"))
    else:
        add(type(value).__name__.encode())


def stack_text(folder: Path) -> str:
    """The stack that a process left, or what it wrote last."""
    for name in ("stack.txt", "output.txt"):
        if (folder / name).exists() and (text := (folder / name).read_text(errors="replace")[-3000:]):
            return text
    return ""


def stack_signature(folder: Path, code: int | None) -> str:
    """Signal, file and line of a process that crashed or was aborted, by its stack."""
    name = signal.Signals(-code).name if code is not None and code < 0 else f"exit {code}"
    frames = re.findall(r'File "([^"]+)", line (\d+)', stack_text(folder))
    own = [
        f"{Path(file).relative_to(REPOSITORY)}:{line}"
        for file, line in frames
        if file.startswith(f"{REPOSITORY}/") and "/tests/" not in file and ".venv" not in file
    ]
    return f"{name} at {(own or ['?'])[0]}"
