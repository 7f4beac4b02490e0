"""Clients whose frames take long to decode: they wait, so that they cannot keep the decoders busy.

A client that has had no result yet could be one that was just cut off and came back. So the first frames of
clients of one address are decoded one at a time, and after a frame that took too long the next has to wait.
Clients that get results are not held up by others of their address.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

# After a frame that was given up clients of its address without a result wait: twice as long each time, until
# there was none for a while.
FIRST_WAIT_S, LONGEST_WAIT_S, FORGOTTEN_S = 2.0, 32.0, 60.0


class Address:
    """The clients of one address."""

    def __init__(self) -> None:
        self.num_clients = 0
        self._first = asyncio.Lock()
        self._next_wait_s = FIRST_WAIT_S
        self._until_s = -FORGOTTEN_S

    @property
    def is_forgotten(self) -> bool:
        """True if nothing of it has to be remembered."""
        return time.monotonic() > self._until_s + FORGOTTEN_S

    @property
    def wait_s(self) -> float:
        """Seconds until a client without a result has a turn."""
        return max(self._until_s - time.monotonic(), 0.0)

    def add_costly(self) -> None:
        """Counts a frame that was given up."""
        if self.is_forgotten:
            self._next_wait_s = FIRST_WAIT_S
        self._until_s = time.monotonic() + self._next_wait_s
        self._next_wait_s = min(2 * self._next_wait_s, LONGEST_WAIT_S)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The turn of a client without a result, alone among those of the address."""
        async with self._first:
            while wait_s := self.wait_s:
                await asyncio.sleep(wait_s)
            yield


class Addresses:
    """Those with clients, and those that have to wait; for the event loop alone."""

    def __init__(self) -> None:
        self._addresses: dict[str, Address] = {}

    @contextlib.contextmanager
    def client(self, host: str) -> Iterator[Address]:
        """The address of a client, for the time of its connection."""
        for name, known in list(self._addresses.items()):
            if not known.num_clients and known.is_forgotten:
                del self._addresses[name]
        address = self._addresses.setdefault(host, Address())
        address.num_clients += 1
        try:
            yield address
        finally:
            address.num_clients -= 1
