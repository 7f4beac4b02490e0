"""Stopping in good order: a signal only sets a flag, and the work ends after the current item."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

# What schedulers and people send. submitit signals USR2, NCCL may take USR1, SLURM ends with TERM.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class StopFlag:
    """True once a stop signal came; a context manager that puts the former handlers back.

    A second Ctrl-C raises KeyboardInterrupt, for people who cannot wait for the current item.
    One inside another begins raised where the outer one is: nothing is lost between them.
    Outside the main thread, where Python allows no handlers, the flag just stays down.
    """

    def __init__(self) -> None:
        self.signal_name = ""
        self._former: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return bool(self.signal_name)

    def _raise_flag(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal_name:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name

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


def ignore_stop_signals() -> None:
    """For worker processes: schedulers signal the whole group, and only the parent decides."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # the pool starts workers with them blocked
