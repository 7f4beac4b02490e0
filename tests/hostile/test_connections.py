"""Sockets that hold the server, floods and fake addresses; honest clients beside them notice nothing."""

import contextlib
import http.client
import json
import select
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import hostile_clients
import pytest
from face_pictures import jpeg_of_faces
from live_server import HANG_S, LiveServer, ask, receive
from small_classifier import write_small_classifier
from websockets.exceptions import ConnectionClosed

if sys.platform != "linux":
    pytest.skip("other systems have one loopback address", allow_module_level=True)

GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Server without a model, which takes connections like one with a model."""
    folder = tmp_path_factory.mktemp("server")
    with LiveServer(folder, folder / "models", "--trusted_proxies", "127.0.9.9") as running:
        yield running


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_classifier(tmp_path_factory.mktemp("small model"))


@pytest.fixture
def opened(server: LiveServer) -> Iterator[contextlib.ExitStack]:
    """Closes what was opened at the end, and checks that the server still answers."""
    with contextlib.ExitStack() as stack:
        yield stack
    end_s = time.monotonic() + HANG_S
    while server.request("/health")[0] != 200:
        assert time.monotonic() < end_s
    assert server.process.poll() is None


def connect(server: LiveServer, address: str, first: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), HANG_S, (address, 0))
    client.sendall(first)
    return client


def read_all(client: socket.socket) -> bytes:
    """What the server sends until it closes."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            answer += piece
    return answer


def test_every_connection_has_a_deadline(server: LiveServer, opened: contextlib.ExitStack) -> None:
    kinds = {
        "silent": (b"", False),
        "half a head": (GET[:30], True),
        "body after the answer": (
            GET.replace(b"GET", b"POST")[:-2] + b"Content-Length: 9999999\r\n\r\n",
            True,
        ),
        "chunks after the answer": (GET[:-2] + b"Transfer-Encoding: chunked\r\n\r\n", False),
        "half a second head": (GET, True),
        "keep-alive": (GET, False),
    }
    clients = {name: opened.enter_context(connect(server, "127.0.0.2", kinds[name][0])) for name in kinds}
    honest = http.client.HTTPConnection("127.0.0.1", server.port, timeout=HANG_S)
    start_s, sent_s = time.monotonic(), 0.0
    ends_s: dict[str, float] = {}
    while len(ends_s) < len(kinds):
        now_s = time.monotonic() - start_s
        assert now_s < 60, f"still open: {set(kinds) - set(ends_s)}"
        honest.request("GET", "/health")
        assert honest.getresponse().read() == b'{"status":"ok"}'  # over one connection all the time
        for name, client in clients.items():
            if name in ends_s:
                continue
            try:
                if kinds[name][1] and now_s - sent_s > 0.3:
                    client.sendall(b"x")
                readable, _, _ = select.select([client], [], [], 0.02)
                if readable and not client.recv(65536):
                    ends_s[name] = now_s
            except OSError:
                ends_s[name] = now_s
        sent_s = now_s if now_s - sent_s > 0.3 else sent_s
    honest.close()
    assert ends_s["body after the answer"] < ends_s["half a head"]  # 2 s, 10 s


def test_address_has_a_limit_of_its_own(server: LiveServer, opened: contextlib.ExitStack) -> None:
    clients = [opened.enter_context(connect(server, "127.0.0.3", GET)) for _ in range(32)]
    assert all(client.recv(12) == b"HTTP/1.1 200" for client in clients)
    beyond = opened.enter_context(connect(server, "127.0.0.3"))
    head, _, body = read_all(beyond).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert json.loads(body)["error"]["code"] == "too_many_connections"
    other = opened.enter_context(connect(server, "127.0.0.4", GET))
    assert other.recv(12) == b"HTTP/1.1 200"
    clients[0].close()
    end_s, status = time.monotonic() + HANG_S, b""
    while status != b"HTTP/1.1 200":
        assert time.monotonic() < end_s
        with connect(server, "127.0.0.3") as client, contextlib.suppress(OSError):
            client.sendall(GET)
            status = client.recv(12)


def test_idle_connections_give_way_to_those_who_want_something(
    server: LiveServer, opened: contextlib.ExitStack
) -> None:
    camera = opened.enter_context(server.connect())
    for k in range(200):
        opened.enter_context(connect(server, f"127.0.1.{2 + k // 25}"))
        if k % 10 == 0:
            assert server.request("/health")[0] == 200
    assert ask(camera, b"frame")["code"] == "no_model"
    with server.connect() as newcomer:
        assert receive(newcomer)["type"] == "hello"


def test_silent_cameras_of_many_addresses_give_way(server: LiveServer, opened: contextlib.ExitStack) -> None:
    camera = opened.enter_context(server.connect())
    ask(camera, b"frame")
    for k in range(50):
        opened.enter_context(connect(server, f"127.0.2.{2 + k}", hostile_clients.HANDSHAKE))
    with server.connect() as newcomer:
        assert ask(newcomer, b"frame")["code"] == "no_model"
        assert ask(camera, b"frame")["code"] == "no_model"


def test_many_requests_in_one_packet_are_one(server: LiveServer, opened: contextlib.ExitStack) -> None:
    client = opened.enter_context(connect(server, "127.0.0.5", 100 * GET))
    assert read_all(client).count(b"HTTP/1.1") == 1


def test_what_is_not_http_ends_the_connection_without_an_error(model_path: Path, tmp_path: Path) -> None:
    head = b"POST /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    upload = head.replace(b"/health", b"/api/predict").replace(b"\r\n\r\n", b"\r\nContent-Type: %s\r\n\r\n")
    upload %= b"multipart/form-data; boundary=wall"
    with LiveServer(tmp_path, model_path.parent) as server:
        for first in (b"", GET, head, upload, upload + b"6\r\n--wall\r\n"):
            with connect(server, "127.0.0.2", first) as client:
                if first in (GET, head):
                    assert client.recv(12).startswith(b"HTTP/1.1 ")
                time.sleep(0.1)
                with contextlib.suppress(OSError):
                    client.sendall(b"\x00zzz\r\n\r\n")
                read_all(client)
        assert server.request("/health")[0] == 200
        assert server.stop() == 0
    assert "Traceback" not in server.output
    assert "ERROR" not in server.output


def camera_behind(server: LiveServer, address: str, forwarded: str) -> str:
    """The close code of a WebSocket that `address` forwards for somebody; "hello" where it stays open."""
    with server.connect(
        source_address=(address, 0), additional_headers={"X-Forwarded-For": forwarded}
    ) as client:
        try:
            kind = str(receive(client)["type"])
        except ConnectionClosed as closed:
            return str(closed.rcvd.code if closed.rcvd else 0)
        return kind


def test_trusted_proxy_names_the_client_and_nobody_else_does(
    tmp_path: Path, server: LiveServer, opened: contextlib.ExitStack
) -> None:
    many = [opened.enter_context(connect(server, "127.0.9.9")) for _ in range(40)]
    many[-1].sendall(GET)
    assert many[-1].recv(12) == b"HTTP/1.1 200"  # 32 would be the limit of an ordinary address
    options = ("--trusted_proxies", "127.0.9.9, 10.1.0.0/16", "--max_connections_per_address", "2")
    with LiveServer(tmp_path, tmp_path, *options) as small:
        for forwarded in ("192.0.2.1", "192.0.2.1, 10.1.2.3"):  # through a second proxy
            held = small.connect(
                source_address=("127.0.9.9", 0), additional_headers={"X-Forwarded-For": forwarded}
            )
            opened.enter_context(held)
            assert receive(held)["type"] == "hello"
        # The client itself wrote what is on the left.
        assert camera_behind(small, "127.0.9.9", "192.0.2.7, 192.0.2.1") == "1013"
        assert camera_behind(small, "127.0.9.9", "192.0.2.1, 192.0.2.7") == "hello"
        assert camera_behind(small, "127.0.0.6", "192.0.2.1") == "hello"  # no proxy: counted as 127.0.0.6


@pytest.mark.slow
@pytest.mark.parametrize("num_addresses", [20, 300])
def test_honest_clients_beside_three_hundred_sockets_and_two_cameras(
    num_addresses: int, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    frame, model = jpeg_of_faces(1), write_small_classifier(tmp_path / "models")
    (tmp_path / "frame.jpg").write_bytes(frame)
    with LiveServer(tmp_path, model.parent) as server, server.connect() as camera:
        times_s: list[float] = []
        is_over = threading.Event()

        def film() -> None:
            while not is_over.is_set():
                assert ask(camera, frame)["type"] == "result"
                times_s.append(time.monotonic())
                time.sleep(max(0.0, 0.1 - time.monotonic() % 0.1))

        thread = threading.Thread(target=film)
        thread.start()
        time.sleep(10)
        before, before_mb = len(times_s), server.memory_mb()
        command = [sys.executable, hostile_clients.__file__, str(server.port), "20", "300"]
        command += [str(num_addresses), "2", str(tmp_path / "frame.jpg")]
        hostile = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        waits_s = []
        while hostile.poll() is None:
            start_s = time.monotonic()
            with server.connect() as newcomer:
                assert ask(newcomer, frame)["type"] == "result"
            waits_s.append(time.monotonic() - start_s)
            time.sleep(1)
        during = len(times_s) - before
        is_over.set()
        thread.join()
        print(f"{before / 10:.1f}, {during / 20:.1f} results/s; newcomers {statistics.median(waits_s):.2f}, "
              f"at most {max(waits_s):.2f} s; {before_mb:.0f}, {server.memory_mb():.0f} MB")  # fmt: skip
        assert during / 20 > 0.8 * before / 10
        assert max(waits_s) < 2
        assert server.memory_mb() < before_mb + 30
        assert server.stop() == 0
    assert "Traceback" not in server.output


HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
)
ODD_HANDSHAKES = {
    "with a body": HANDSHAKE + b"Content-Length: 5\r\n\r\nabcde",
    "with a body to come": HANDSHAKE + b"Content-Length: 5\r\n\r\n",
    "in chunks": HANDSHAKE + b"Transfer-Encoding: chunked\r\n\r\n",
    "with a control character": HANDSHAKE + b"X: \x1b[31m\r\n\r\n",
    "with a long header": HANDSHAKE + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
    "with many headers": HANDSHAKE + b"a: b\r\n" * 300 + b"\r\n",
    "of another version": HANDSHAKE.replace(b": 13", b": 7") + b"\r\n",
    "without a key": HANDSHAKE.replace(b"Sec-WebSocket-Key", b"X") + b"\r\n",
    "of POST": HANDSHAKE.replace(b"GET", b"POST") + b"\r\n",
}


@pytest.mark.parametrize("name", ODD_HANDSHAKES)
def test_handshake_that_cannot_be_is_answered_and_ended(
    server: LiveServer, opened: contextlib.ExitStack, name: str
) -> None:
    client = opened.enter_context(connect(server, "127.0.0.2", ODD_HANDSHAKES[name]))
    client.settimeout(HANG_S)
    start_s = time.monotonic()
    answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 4") or (not answer and name == "with a control character"), answer
    assert time.monotonic() - start_s < 4
