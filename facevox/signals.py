"""Clean stops: a signal only sets a flag, and the work ends after the current item."""

import atexit
import contextlib
import math
import multiprocessing.util  # registers its exit hook, which must come before ours: hooks run backwards
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

from facevox.program import STOP_SIGNALS as STOP_SIGNALS  # workers import it from here

# From a signal on, for the item at hand: SLURM kills 30 s after SIGTERM, and our jobs get the others 300 s
# before their end. A person who presses Ctrl-C may press it again.
PATIENCE_S = {"SIGTERM": 20.0, "SIGUSR1": 240.0, "SIGUSR2": 240.0}
EXIT_GRACE_S = 1.0  # for worker processes that are left over when a program ends


class StopFlag:
    """True once a stop signal came; a context manager that restores the former handlers.

    A second Ctrl-C raises KeyboardInterrupt, for people who cannot wait for the current item.
    A flag inside another is raised from the start if the outer one is: no signal between them is lost.
    Outside the main thread, where Python allows no handlers, the flag is never raised.
    """

    def __init__(self) -> None:
        self.signal_name = ""
        self._deadline_s = math.inf  # of the item at hand
        self._former: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __bool__(self) -> bool:
        return bool(self.signal_name)

    @property
    def is_overdue(self) -> bool:
        """True once the item at hand has had its `PATIENCE_S`; who sent the signal will soon kill."""
        return time.monotonic() > self._deadline_s

    def _raise_flag(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal_name:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
        patience_s = PATIENCE_S.get(self.signal_name, math.inf)
        self._deadline_s = min(self._deadline_s, time.monotonic() + patience_s)
        if number == signal.SIGINT:
            _write_to_terminal("stopping cleanly; Ctrl-C again stops at once")

    def __enter__(self) -> "StopFlag":
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                self._former[number] = signal.signal(number, self._raise_flag)
            outer = {getattr(former, "__self__", None) for former in self._former.values()}
            for flag in outer:
                if isinstance(flag, StopFlag) and flag:
                    self.signal_name = self.signal_name or flag.signal_name
                    self._deadline_s = min(self._deadline_s, flag._deadline_s)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        self._former.clear()


def _write_to_terminal(text: str) -> None:
    """Writes a line to a terminal, bypassing Python's buffer, which the handler may have interrupted."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), f"\n{text}\n".encode())


def ignore_stop_signals() -> None:
    """Ignores them in a worker process: schedulers signal the whole group, but only the parent decides."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # the pool starts workers with them blocked


def end_children_at_exit() -> None:
    """Makes sure that this process can end although its worker processes ignore stop signals.

    At exit multiprocessing sends SIGTERM to its remaining daemons and waits for them without limit. A worker
    that ignores SIGTERM, and that an error kept from being closed, would block it for ever.
    """
    atexit.unregister(_end_children)
    atexit.register(_end_children)


def _end_children() -> None:
    children = [child for child in multiprocessing.active_children() if child.daemon]
    for child in children:
        child.terminate()
    end_s = time.monotonic() + EXIT_GRACE_S
    for child in children:
        child.join(max(end_s - time.monotonic(), 0))
        if child.is_alive():
            child.kill()
