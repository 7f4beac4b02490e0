"""Clients whose bytes carry nothing and take long to parse, from 127.0.3.2 and up, until it is ended.

    python wasteful_clients.py PORT NUM_CONNECTIONS NUM_ADDRESSES KIND...

A program of its own, so that its work does not slow the honest clients of a test. Each connection is of the
next kind in turn, and comes back as soon as it is cut off.
"""

import asyncio
import contextlib
import os
import sys

from hostile_clients import HANDSHAKE, connect, wait

CHUNKED = (
    b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=wall\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
FORM = (
    b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=wall\r\n"
    b"Content-Length: 25000000\r\n\r\n"
)
FILE = b'--wall\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
CHUNKS = 10_000 * b"1\r\nx\r\n"
EMPTY = b"\x80\0\0\0\0"  # masked, without bytes
MANY_LINES = b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + 10_000 * b"a:b\r\n" + b"\r\n"
# What is sent at first, and what is then sent for ever.
KINDS: dict[str, tuple[bytes, bytes]] = {
    "chunks of one byte": (CHUNKED % b"/api/predict" + b"%x\r\n%s\r\n" % (len(FILE), FILE), CHUNKS),
    "pings": (HANDSHAKE, 10_000 * (b"\x89" + EMPTY)),
    "pongs": (HANDSHAKE, 10_000 * (b"\x8a" + EMPTY)),
    "fragments": (HANDSHAKE, 10 * (b"\x02" + EMPTY + 990 * (b"\0" + EMPTY) + b"\x80" + EMPTY)),
    "texts": (HANDSHAKE, 10_000 * b"\x81\x81\0\0\0\0x"),
    "header lines": (b"", MANY_LINES),
    "parts of a form": (FORM, 1000 * b"--wall\r\nContent-Disposition: form-data; name=x\r\n\r\n\r\n"),
    # In the slow tests alone.
    "chunks after the answer": (CHUNKED % b"/health", CHUNKS),
    "empty messages": (HANDSHAKE, 10_000 * (b"\x82" + EMPTY)),
    "messages of one byte": (HANDSHAKE, 10_000 * b"\x82\x81\0\0\0\0x"),
    "fragments of one byte": (HANDSHAKE, 10 * (b"\x02" + EMPTY + 990 * b"\0\x81\0\0\0\0x" + b"\x80" + EMPTY)),
    "close messages": (HANDSHAKE, 10_000 * (b"\x88" + EMPTY)),
    "many requests": (b"", 1000 * b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "no HTTP": (b"", b"\0zzz\r\n\r\n"),
}


async def waste(port: int, address: str, kind: str) -> None:
    """Sends for ever what a kind is."""
    first, then = KINDS[kind]
    while True:
        with contextlib.suppress(OSError):
            peer = await connect(port, address)
            reading = asyncio.create_task(wait(peer))
            try:
                peer[1].write(first)
                await asyncio.sleep(0.01)  # bytes right behind a handshake are not the WebSocket's
                while not reading.done():
                    peer[1].write(then)
                    await peer[1].drain()
                    await asyncio.sleep(0)
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                peer[1].transport.abort()


async def attack(port: int, num_connections: int, num_addresses: int, kinds: list[str]) -> None:
    """All connections, for ever."""
    wasters = (
        waste(port, f"127.0.3.{2 + k % num_addresses}", kinds[k % len(kinds)]) for k in range(num_connections)
    )
    await asyncio.gather(*wasters)


if __name__ == "__main__":
    os.nice(10)  # of two cores it would take one from those whose rate is measured
    asyncio.run(attack(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
