"""Items made ahead by a thread: in their order, with their errors, and never after their reader is gone."""

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from facevox.ahead import iter_ahead


def numbers(made: list[int], count: int | None = None) -> Iterator[int]:
    try:
        for number in itertools.count():
            if number == count:
                return
            made.append(number)
            yield number
    finally:
        made.append(-1)


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_all_items_come_in_their_order(count: int) -> None:
    made: list[int] = []
    assert list(iter_ahead(numbers(made, count))) == list(range(count))
    assert made == [*range(count), -1]


def test_a_few_items_are_made_before_they_are_asked_for() -> None:
    made: list[int] = []
    reader = iter_ahead(numbers(made), most=3)
    assert next(reader) == 0
    deadline_s = time.monotonic() + 5
    while len(made) < 5 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    time.sleep(0.05)
    # One is read, three wait, one is in the making.
    assert made == [0, 1, 2, 3, 4]
    assert [next(reader) for _ in range(3)] == [1, 2, 3]
    reader.close()


def test_error_comes_behind_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise ZeroDivisionError("third")

    reader = iter_ahead(broken())
    assert [next(reader), next(reader)] == [1, 2]
    with pytest.raises(ZeroDivisionError, match="third"):
        next(reader)


def test_thread_ends_with_its_reader() -> None:
    made: list[int] = []
    before = threading.active_count()
    for number in iter_ahead(numbers(made)):
        if number == 3:
            break
    assert threading.active_count() == before
    assert made[-1] == -1
    with pytest.raises(KeyboardInterrupt):
        stop_at_two(made)
    assert threading.active_count() == before


def stop_at_two(made: list[int]) -> None:
    for number in iter_ahead(numbers(made)):
        if number == 2:
            raise KeyboardInterrupt


def test_generator_runs_in_one_other_thread() -> None:
    """MediaPipe's and PyAV's objects stay where they were made."""
    names = []

    def named() -> Iterator[int]:
        names.append(threading.get_ident())
        try:
            yield 1
        finally:
            names.append(threading.get_ident())

    assert list(iter_ahead(named())) == [1]
    assert len(set(names)) == 1
    assert names[0] != threading.get_ident()
