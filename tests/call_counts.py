"""Counts the work of a function: seconds differ between machines and with their other work."""

import cProfile
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def count_calls(function: Callable[[], T]) -> tuple[T, int]:
    """Result of a function, and the calls it takes: of Python's and C's functions, in this thread."""
    profile = cProfile.Profile(subcalls=False)
    result = profile.runcall(function)
    return result, sum(entry.callcount for entry in profile.getstats())
