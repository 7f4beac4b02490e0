"""Hundreds of sockets that want to hold the server, and cameras that flood it, from 127.0.0.2 and up.

    python hostile_clients.py PORT SECONDS NUM_SOCKETS NUM_ADDRESSES NUM_CAMERAS FRAME...

A program of its own, so that its work does not slow the honest clients of a test. A socket that is cut off
comes back after RENEWAL_S. FRAMEs are files with the pictures that the cameras send, one each in turn.
"""

import asyncio
import contextlib
import socket
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

RENEWAL_S = 0.5
SLOW_S = 2.0  # between two bytes that keep a connection busy
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
UPLOAD = (
    b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=wall\r\n"
    b"Content-Length: 1000000\r\n\r\n--wall\r\n"
)
Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def dribble(peer: Peer) -> None:
    """A byte now and then, and nothing is read, until the server ends it."""
    while True:
        peer[1].write(b"x")
        await peer[1].drain()
        await asyncio.sleep(SLOW_S)


async def wait(peer: Peer) -> None:
    """Reads until the server ends it."""
    while await peer[0].read(65536):
        pass


# What is sent at first, and what is done then.
KINDS: dict[str, tuple[bytes, Callable[[Peer], Awaitable[None]]]] = {
    "silent": (b"", wait),
    "half a head": (b"GET /health HTTP/1.1\r\nHost: local", dribble),
    "body after the answer": (
        b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n",
        dribble,
    ),
    "half a second head": (b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", dribble),
    "keep-alive": (b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", wait),
    "many requests at once": (200 * b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n", dribble),
    "slow upload": (UPLOAD, dribble),
    "silent WebSocket": (HANDSHAKE, wait),
}


async def connect(port: int, address: str) -> Peer:
    """A connection with small buffers from `address`."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    raw.bind((address, 0))
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
    return await asyncio.open_connection(sock=raw, limit=4096)


async def hold(port: int, address: str, kind: str, cuts: Counter[str]) -> None:
    """Holds a connection of a kind, again and again."""
    first, then = KINDS[kind]
    while True:
        with contextlib.suppress(OSError):
            peer = await connect(port, address)
            try:
                peer[1].write(first)
                await then(peer)
            finally:
                peer[1].transport.abort()
        cuts[kind] += 1
        await asyncio.sleep(RENEWAL_S)


async def flood(port: int, address: str, frame: bytes) -> None:
    """A camera that sends as fast as it can and comes back when it is cut off."""
    message = b"\x82" + struct.pack(">BQ", 0x80 | 127, len(frame)) + bytes(4) + frame
    while True:
        with contextlib.suppress(OSError):
            peer = await connect(port, address)
            peer[1].write(HANDSHAKE)
            reading = asyncio.create_task(wait(peer))
            try:
                while not reading.done():
                    peer[1].write(message)
                    await peer[1].drain()
            finally:
                reading.cancel()
                peer[1].transport.abort()
        await asyncio.sleep(RENEWAL_S)


async def attack(
    port: int, seconds: float, num_sockets: int, num_addresses: int, num_cameras: int, frames: list[bytes]
) -> None:
    """All of them for a while; prints how often each kind was cut off."""
    cuts: Counter[str] = Counter()
    kinds = list(KINDS)
    tasks = [
        asyncio.create_task(
            hold(port, f"127.0.{1 + (k % num_addresses) // 200}.{2 + k % num_addresses % 200}",
                 kinds[k % len(kinds)], cuts)
        )
        for k in range(num_sockets)
    ]  # fmt: skip
    tasks += [
        asyncio.create_task(flood(port, f"127.0.0.{2 + k}", frames[k % len(frames)]))
        for k in range(num_cameras)
    ]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(dict(cuts))


if __name__ == "__main__":
    numbers = [int(word) for word in (sys.argv[1], *sys.argv[3:6])]
    pictures = [Path(name).read_bytes() for name in sys.argv[6:]]
    asyncio.run(attack(numbers[0], float(sys.argv[2]), *numbers[1:], pictures))  # type: ignore[call-arg]
