"""The first thing that happens in a program of the project, before its imports: see `facevox/__init__.py`.

Streams that were closed are opened, and stop signals end the program with exit code 75, which Python itself
does not before the program has loaded what it needs. A signal before Python runs our first line cannot be
handled: it ends Python as usual (143 for SIGTERM).
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from facevox.errors import ExitCode
from facevox.streams import open_closed

# Sent by schedulers and people. submitit signals USR2, NCCL may take USR1, SLURM ends with TERM.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
_FOLDERS = {"benchmarks", "emotion", "examples", "facevox_programs", "lipsync", "scripts"}  # of programs
_IMPORTS = "<frozen importlib._bootstrap>"  # the file of Python's import, in a stack
_process = os.getpid()

Handler = Callable[[int, FrameType | None], object]


def begin() -> None:
    """Opens closed streams and handles stop signals, if Python runs a program of the project.

    Nothing is done in a notebook or another program that imports the package, and in worker processes.
    """
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    root = Path(__file__).resolve().parent.parent
    if file is None or not (path := Path(file).resolve()).is_relative_to(root):
        return
    if path.relative_to(root).parts[0] in _FOLDERS:
        # Python puts the program's folder first: benchmarks/lipsync.py would hide the package of that name.
        if sys.path and path.parent != root and Path(sys.path[0] or ".").resolve() == path.parent:
            del sys.path[0]
        open_closed()
        _handle(_end)


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """Makes stop signals raise KeyboardInterrupt with the name of the signal while the block lasts.

    During an import they end the program at once: C extensions and `except ImportError` lose exceptions.
    """
    former = _handle(_interrupt)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def stopped_text(name: str) -> str:
    """The line that a program shows when a signal has ended it; `name` is that of the signal."""
    name = "Ctrl-C" if name in ("", "SIGINT") else name
    return f"stopped by {name}; run the same command again to continue"


def _handle(handler: Handler) -> dict[int, Handler | int | None]:
    """Sets the handler of each stop signal that has none or one of ours; returns the former ones."""
    former: dict[int, Handler | int | None] = {}
    with contextlib.suppress(ValueError):  # not the main thread, where Python allows no handlers
        for number in STOP_SIGNALS:
            before = signal.getsignal(number)
            # Not one that is ignored: nohup, a shell's background.
            if before in (signal.SIG_DFL, signal.default_int_handler, _end, _interrupt):
                former[number] = signal.signal(number, handler)
    return former


def _interrupt(number: int, frame: FrameType | None) -> None:
    stack = frame
    while stack is not None:
        if stack.f_code.co_filename == _IMPORTS:
            _end(number, frame)
        stack = stack.f_back
    _default_in_child(number)
    raise KeyboardInterrupt(signal.Signals(number).name)


def _end(number: int, frame: FrameType | None) -> None:
    _default_in_child(number)
    with contextlib.suppress(Exception):  # a write that the signal has interrupted
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, f"{stopped_text(signal.Signals(number).name)}\n".encode())
    os._exit(ExitCode.STOPPED)


def _default_in_child(number: int) -> None:
    """Ends a forked process, which inherits the handler, as the signal does by itself."""
    if os.getpid() != _process:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
