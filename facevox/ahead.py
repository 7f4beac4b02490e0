"""Items that a thread makes ahead of their reader: decoding and looking at pictures then share two cores."""

import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

ItemT = TypeVar("ItemT")
CHECK_S = 0.1  # a thread with nothing to do checks that its reader is still there this often


@dataclass(frozen=True)
class _End:
    error: BaseException | None


def iter_ahead(items: Generator[ItemT, None, None], most: int = 2) -> Iterator[ItemT]:
    """The items in their order, up to `most` of them made before they are asked for.

    The generator runs in a thread of its own and is closed there, at the end or once this one is. An
    exception from it is raised here, behind the items before it.

    Args:
        items: Releases Python's lock for most of its time, as decoders do; else nothing is gained.
        most: Items that wait; one more is in the making.
    """
    ready: queue.Queue[ItemT | _End] = queue.Queue(most)
    is_over = threading.Event()

    def hand_over(item: ItemT | _End) -> None:
        while not is_over.is_set():
            try:
                ready.put(item, timeout=CHECK_S)
                return
            except queue.Full:
                continue

    def make() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                hand_over(item)
                if is_over.is_set():
                    break
        except BaseException as raised:  # of any kind: it belongs to the reader
            error = raised
        finally:
            items.close()
        hand_over(_End(error))

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        is_over.set()
        thread.join()
