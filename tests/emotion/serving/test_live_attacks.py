"""Strangers at the door: the server neither falls nor lets an honest client beside them suffer."""

import contextlib
import io
import os
import signal
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from face_pictures import jpeg_of_faces
from live_server import HANG_S, LiveServer, ask, binary_message, receive
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection


@pytest.fixture
def honest(server: LiveServer) -> Iterator[ClientConnection]:
    """A client that is connected before the attack and gets its answers after it."""
    with server.connect() as client:
        assert len(ask(client, jpeg_of_faces(1))["faces"]) == 1
        yield client
        assert len(ask(client, jpeg_of_faces(1))["faces"]) == 1
    assert server.process.poll() is None
    assert server.memory_mb() < 400


def close_code(client: ClientConnection) -> int:
    """Reads until the server closes."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            client.recv(timeout=HANG_S)
    assert closed.value.rcvd is not None, closed.value
    return closed.value.rcvd.code


def huge_png() -> bytes:
    """A header of 50,000 x 50,000 pixels and hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))


def picture(width: int, height: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "grey").save(buffer, "PNG")
    return buffer.getvalue()


BAD_FRAMES = {
    "huge png header": (huge_png, "too_many_pixels"),
    "five megapixels": (lambda: picture(2600, 2000), "too_many_pixels"),
    "truncated jpeg": (lambda: jpeg_of_faces(1)[:-3000], "not_an_image"),
    "jpeg header alone": (lambda: jpeg_of_faces(1)[:300], "not_an_image"),
    "noise": (lambda: os.urandom(5000), "not_an_image"),
    "empty": (lambda: b"", "not_an_image"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image"),
    "one pixel": (lambda: picture(1, 1), "odd_shape"),
    "a line": (lambda: picture(30_000, 20), "odd_shape"),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_bad_frame_gets_its_reason_and_the_connection_goes_on(name: str, server: LiveServer) -> None:
    make, code = BAD_FRAMES[name]
    with server.connect() as client:
        error = ask(client, make())
        assert (error["type"], error["code"], error["frame"]) == ("error", code, 1)
        assert error["message"]["en"]
        assert error["message"]["ko"]
        assert ask(client, jpeg_of_faces(1))["frame"] == 2
    assert server.memory_mb() < 400


def test_text_on_the_binary_channel_closes_with_1003(server: LiveServer, honest: ClientConnection) -> None:
    with server.connect() as client:
        with contextlib.suppress(ConnectionClosed):
            client.send("take this")
        assert close_code(client) == 1003


def test_frame_over_the_byte_limit_closes_with_1009(server: LiveServer, honest: ClientConnection) -> None:
    with server.connect() as client:
        with contextlib.suppress(ConnectionClosed):  # before the last was sent
            client.send(bytes(2_000_001))
        assert close_code(client) == 1009
    with server.connect() as client:  # the limit holds for all parts of a message together
        with contextlib.suppress(ConnectionClosed):
            client.send([bytes(1_500_000), bytes(1_500_000)])
        assert close_code(client) == 1009


def test_message_of_endless_empty_fragments_closes_with_1008(
    server: LiveServer, honest: ClientConnection
) -> None:
    with server.connect() as client:
        assert len(ask_in_parts(client, jpeg_of_faces(1), 1000)["faces"]) == 1
    with server.connect() as client:
        before_mb = server.memory_mb()
        with contextlib.suppress(ConnectionClosed):
            client.send(b"" for _ in range(100_000))
        assert close_code(client) == 1008
        assert server.memory_mb() - before_mb < 20


def ask_in_parts(client: ClientConnection, data: bytes, num_parts: int) -> dict[str, Any]:
    """The answer to a frame that is sent in so many fragments."""
    size = -(-len(data) // (num_parts - 1))
    parts = [data[size * k : size * (k + 1)] for k in range(num_parts - 1)]
    client.send(parts)  # and an empty one that ends the message
    while (message := receive(client))["type"] == "hello":
        pass
    return message


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_page_of_a_foreign_origin_is_refused_with_403(origin: str, server: LiveServer) -> None:
    with pytest.raises(InvalidStatus) as refused:
        server.connect(origin=origin)
    assert refused.value.response.status_code == 403
    status, answer = server.upload(jpeg_of_faces(1), Origin=origin)
    assert (status, answer["error"]["code"]) == (403, "foreign_origin")


def test_own_page_is_served(server: LiveServer) -> None:
    with server.connect(origin=f"http://127.0.0.1:{server.port}") as client:
        assert receive(client)["type"] == "hello"


def test_name_that_was_made_to_point_here_is_refused(server: LiveServer) -> None:
    name = f"evil.example:{server.port}"
    status, body, _ = server.request("/api/model", headers={"Host": name, "Origin": f"http://{name}"})
    assert status == 421
    assert b"foreign_host" in body


def test_many_frames_at_once_are_taken_at_the_allowed_pace(
    server: LiveServer, honest: ClientConnection
) -> None:
    with server.connect() as client:
        start_s = time.monotonic()
        for _ in range(200):
            client.send(jpeg_of_faces(1))
        while receive(client).get("frame") != 200:
            pass
        assert time.monotonic() - start_s > (200 - 60) / 60 - 0.1  # a second's worth at once


@pytest.mark.parametrize("in_flight", [1, 2])
def test_client_that_waits_for_its_answers_is_never_refused(
    in_flight: int, model_path: Path, tmp_path: Path
) -> None:
    options = ("--max_frames_per_s", "8")
    with LiveServer(tmp_path, model_path.parent, *options) as server, server.connect() as client:
        receive(client)
        start_s = time.monotonic()
        for _ in range(in_flight):
            client.send(jpeg_of_faces(1))
        frame, num_answers = 0, 0
        while frame < 24:
            answer = receive(client)
            assert answer["type"] == "result"
            frame, num_answers = answer["frame"], num_answers + 1
            client.send(jpeg_of_faces(1))
        assert num_answers >= 24 - answer["dropped"]
        assert time.monotonic() - start_s > (24 - 8) / 8 - 0.2


def test_of_a_hundred_connections_those_beyond_the_limit_are_told_to_come_later(
    server: LiveServer, honest: ClientConnection
) -> None:
    clients = [server.connect() for _ in range(100)]
    try:
        for client in clients[:31]:  # 32 have room, one of them is the honest client
            assert receive(client)["type"] == "hello"
        assert [close_code(client) for client in clients[31:]] == [1013] * 69
        assert server.metric("emotion_connections") == 32
        assert len(ask(honest, jpeg_of_faces(1))["faces"]) == 1
    finally:
        for client in clients:
            client.close()
    while server.metric("emotion_connections") > 1:
        time.sleep(0.02)
    with server.connect() as client:
        assert receive(client)["type"] == "hello"


def raw_client(server: LiveServer, receive_bytes: int) -> socket.socket:
    """A WebSocket by hand, after its handshake, with a small window for answers."""
    before = server.metric("emotion_connections_total")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.connect(("127.0.0.1", server.port))
    client.sendall(
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    while server.metric("emotion_connections_total") == before:
        time.sleep(0.02)
    return client


@pytest.mark.slow
def test_client_that_reads_nothing_is_cut_off(model_path: Path, tmp_path: Path) -> None:
    # Every frame above the rate is answered: that fills the buffers on the way.
    with (
        LiveServer(tmp_path, model_path.parent, "--max_frames_per_s", "1000") as server,
        server.connect() as honest,
        raw_client(server, 2048) as deaf,
    ):
        before_mb = server.memory_mb()
        deaf.settimeout(1)
        with contextlib.suppress(TimeoutError):  # in the end the server takes nothing more of it
            deaf.sendall(5000 * binary_message(os.urandom(200)))
        start_s = time.monotonic()
        while server.metric("emotion_connections") > 1:
            assert time.monotonic() - start_s < HANG_S, "never cut off"
            assert len(ask(honest, jpeg_of_faces(1))["faces"]) == 1
            time.sleep(0.2)
        assert server.memory_mb() - before_mb < 30
        assert server.metric('emotion_closes_total{code="1006"}') == 1


def test_silent_connection_without_a_request_does_not_stop_others(server: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as silent:
        silent.sendall(b"GET / HT")
        assert server.request("/health")[0] == 200


def test_sigterm_under_load_tells_clients_to_come_back(model_path: Path, tmp_path: Path) -> None:
    with LiveServer(tmp_path, model_path.parent) as server:
        clients = [server.connect() for _ in range(4)]
        for client in clients:
            for _ in range(20):
                client.send(jpeg_of_faces(2))
        deaf = raw_client(server, 2048)
        for _ in range(50):
            deaf.sendall(binary_message(os.urandom(200)))
        server.process.send_signal(signal.SIGTERM)
        assert [close_code(client) for client in clients] == [1012] * 4
        assert server.wait() == 0
        deaf.close()
        for client in clients:
            client.close()
    assert "Traceback" not in server.output
    assert "stopped; " in server.output.splitlines()[-1]
