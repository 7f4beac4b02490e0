"""Signs of life: long work reports its progress, so that a time limit counts from the last report."""

import time
from collections.abc import Callable

INTERVAL_S = 0.2
_listener: Callable[[], None] | None = None
_next_s = 0.0


def set_listener(listener: Callable[[], None] | None) -> None:
    """Sets what `report_progress` calls in this process, at most five times a second; None: nothing."""
    global _listener
    _listener = listener


def report_progress() -> None:
    """Reports that a further part of a file was read; cheap enough for each packet."""
    global _next_s
    if _listener is not None and (now_s := time.monotonic()) >= _next_s:
        _next_s = now_s + INTERVAL_S
        _listener()
