"""Stopping in good order: a signal only sets a flag, and the work ends after the current item."""

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

# What schedulers and people send. submitit signals USR2, NCCL may take USR1, SLURM ends with TERM.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
EXIT_GRACE_S = 1.0  # for worker processes that are left over when a program ends


class StopFlag:
    """True once a stop signal came; a context manager that puts the former handlers back.

    A second Ctrl-C raises KeyboardInterrupt, for people who cannot wait for the current item.
    One inside another begins raised where the outer one is: nothing is lost between them.
    Outside the main thread, where Python allows no handlers, the flag just stays down.
    """

    def __init__(self) -> None:
        self.signal_name = ""
        self._former: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __bool__(self) -> bool:
        return bool(self.signal_name)

    def _raise_flag(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal_name:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
        if number == signal.SIGINT:
            _tell_terminal("stopping in good order; Ctrl-C again stops at once")

    def __enter__(self) -> "StopFlag":
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                self._former[number] = signal.signal(number, self._raise_flag)
            outer = {getattr(former, "__self__", None) for former in self._former.values()}
            raised = [flag.signal_name for flag in outer if isinstance(flag, StopFlag) and flag]
            self.signal_name = self.signal_name or (raised[0] if raised else "")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        self._former.clear()


def _tell_terminal(text: str) -> None:
    """A line for whoever pressed the keys; past Python's buffer, which the handler may have interrupted."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), f"\n{text}\n".encode())


def ignore_stop_signals() -> None:
    """For worker processes: schedulers signal the whole group, and only the parent decides."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # the pool starts workers with them blocked


def end_children_at_exit() -> None:
    """Makes sure that this process can end: for those whose worker processes ignore stop signals.

    multiprocessing ends what is left of its daemons by SIGTERM and waits without limit. A worker that
    ignores SIGTERM, left over where an error took the place of its orderly end, would never let it go.
    """
    import multiprocessing.util  # noqa: F401 — its own hook must be registered before: hooks run backwards

    atexit.unregister(_end_children)
    atexit.register(_end_children)


def _end_children() -> None:
    import multiprocessing

    children = [child for child in multiprocessing.active_children() if child.daemon]
    for child in children:
        child.terminate()
    end_s = time.monotonic() + EXIT_GRACE_S
    for child in children:
        child.join(max(end_s - time.monotonic(), 0))
        if child.is_alive():
            child.kill()
