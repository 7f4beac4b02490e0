"""Bytes of a client, parsed piece by piece, so that no client has the event loop to itself."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

from emotion.serving.loop_time import WASTE_WEIGHT, Account, LoopTime

# The costliest bytes, chunks of one byte, take 1.5 ms a kilobyte. Of an address that took little the piece
# after one without waste has twice its size, because each takes 0.01 ms besides.
PIECE_BYTES, LARGEST_BYTES = 2048, 32768
TURN_S = 0.002  # a connection parses at a time, and one piece more
# To read something takes 0.06 ms of the loop, which is counted where it is less than a packet carries.
CALL_S, PACKET_BYTES = 6e-5, 1000
BYTE_S = 5e-9  # of useful bytes: three times what it takes to copy and join them
MOST_CREDIT_S = 1e-3  # kept for later: what measures a little too much finds it; and of a new connection
MOST_WASTE_S = 0.5  # of a connection, within some seconds; then it is cut off


class Intake:
    """The transport of a connection, for its protocol, which gets what was read through `put`.

    While something waits for a turn, or the protocol has paused reading, nothing more is read: a connection
    holds one read at most. All that it does not define is the transport's.

    Attributes:
        transport: The connection itself.

    Args:
        transport: The connection.
        loop_time: Counts what the connection takes.
        address: The account of its address; None: of a proxy, whose connections stand for many clients.
        parse: The protocol's parser.
        end: Cuts the connection off.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop_time: LoopTime,
        address: Account | None,
        parse: Callable[[bytes], None],
        end: Callable[[], None],
    ) -> None:
        self.transport = transport
        self._loop_time = loop_time
        self._account = loop_time.new_account()
        self._address = self._account if address is None else address
        self._judged = self._address  # decides whether it needs turns
        self._parse, self._end = parse, end
        self._rest = memoryview(b"")
        self._is_paused = False  # by the protocol
        self._credit_s = MOST_CREDIT_S

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def become_camera(self, parse: Callable[[bytes], None], end: Callable[[], None]) -> None:
        """Hands what comes to the WebSocket; from now on it is not held up by others of its address."""
        self._parse, self._end = parse, end
        self._judged = self._account
        self.drop()

    @property
    def has_rest(self) -> bool:
        """True if something has not been parsed yet."""
        return bool(self._rest)

    def put(self, data: bytes) -> None:
        """Parses what was read, now or when it has a turn."""
        self._rest = memoryview(bytes(self._rest) + data if self._rest else data)
        if len(data) < PACKET_BYTES:
            self._credit_s -= CALL_S
        self._continue()

    def drop(self) -> None:
        """Forgets what has not been parsed yet."""
        self._rest = memoryview(b"")
        self._loop_time.forget(self)

    def add_credit(self, seconds: float) -> None:
        """Allows some time for something useful, like a whole picture."""
        self._credit_s += seconds

    def add_work(self, seconds: float) -> None:
        """Counts the work for a connection or a request."""
        self._loop_time.add(self._address, seconds)
        self._loop_time.take(self._address, seconds)

    def pause_reading(self) -> None:
        """The protocol has enough for now."""
        self._is_paused = True
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        """The protocol takes more."""
        self._is_paused = False
        if self._rest:
            asyncio.get_running_loop().call_soon(self._continue)
        else:
            self.transport.resume_reading()

    def _continue(self) -> None:
        if self._rest and not self._is_paused and not self._loop_time.is_free(self._judged):
            self._loop_time.wait(self, self._address, self._take_turn)
            self.transport.pause_reading()
        else:
            self._take_turn()

    def _take_turn(self) -> None:
        num_bytes = PIECE_BYTES
        end_s = time.thread_time() + TURN_S
        while self._rest and not self._is_paused:
            if self.transport.is_closing():
                self.drop()
                return
            piece, self._rest = self._rest[:num_bytes], self._rest[num_bytes:]
            is_waste = self._parse_piece(piece) or self._loop_time.is_over(self._address)
            num_bytes = PIECE_BYTES if is_waste else min(2 * num_bytes, LARGEST_BYTES)
            if self._rest and time.thread_time() > end_s:
                asyncio.get_running_loop().call_soon(self._continue)
                break
        if self._rest or self._is_paused:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _parse_piece(self, piece: memoryview) -> bool:
        """Parses a piece; counts the time beyond its use and returns True if there was any."""
        self._credit_s += len(piece) * BYTE_S
        start_s = time.thread_time()  # other threads' time is not the client's fault
        self._parse(cast(bytes, piece))  # both parsers append it to a bytearray
        self._credit_s -= time.thread_time() - start_s
        seconds = max(-self._credit_s, 0.0)
        self._credit_s = min(max(self._credit_s, 0.0), MOST_CREDIT_S)
        if seconds > 0:
            level_s = self._loop_time.add(self._account, WASTE_WEIGHT * seconds)
            if self._address is not self._account:
                self._loop_time.add(self._address, WASTE_WEIGHT * seconds)
            self._loop_time.take(self._judged, seconds)
            if level_s > WASTE_WEIGHT * MOST_WASTE_S and not self.transport.is_closing():
                self._end()
        return seconds > 0
