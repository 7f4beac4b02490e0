"""Bytes that take long to parse; an honest client beside those who send them keeps its rate."""

import contextlib
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import wasteful_clients
from face_pictures import jpeg_of_faces
from live_server import HANG_S, LiveServer, ask
from small_classifier import write_small_classifier
from wasteful_clients import KINDS
from websockets.sync.client import ClientConnection

if sys.platform != "linux":
    pytest.skip("other systems have one loopback address", allow_module_level=True)

FRAMES_PER_S = 25
FRAME = jpeg_of_faces(1)
STARTED_S = 0.4  # until the attack is on
NUM_FAST = list(KINDS).index("chunks after the answer")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Server with a tiny model."""
    folder = tmp_path_factory.mktemp("server")
    with LiveServer(folder, write_small_classifier(tmp_path_factory.mktemp("small model")).parent) as running:
        yield running
        assert running.stop() == 0, running.output
    assert "Traceback" not in running.output


@pytest.fixture(scope="module")
def camera(server: LiveServer) -> Iterator[ClientConnection]:
    """An honest client, connected before the attacks."""
    with server.connect() as client:
        ask(client, FRAME)
        yield client


@pytest.fixture(scope="module")
def rate_alone(camera: ClientConnection) -> float:
    return rate_of(camera, 0.6)


def rate_of(camera: ClientConnection, seconds: float) -> float:
    """Answers a second to a camera that sends FRAMES_PER_S, the next one after the answer."""
    start_s = next_s = time.monotonic()
    num_answers = 0
    while next_s < start_s + seconds:
        assert ask(camera, FRAME)["type"] == "result"
        num_answers += 1
        next_s = max(next_s + 1 / FRAMES_PER_S, time.monotonic())
        time.sleep(next_s - time.monotonic() if next_s > time.monotonic() else 0)
    return num_answers / (time.monotonic() - start_s)


@contextlib.contextmanager
def attack(server: LiveServer, *words: object) -> Iterator[None]:
    command = [sys.executable, wasteful_clients.__file__, str(server.port), *map(str, words)]
    with subprocess.Popen(command) as hostile:
        try:
            time.sleep(STARTED_S)
            yield
            assert hostile.poll() is None
        finally:
            hostile.kill()


def check(server: LiveServer, camera: ClientConnection, rate_alone: float, num_times: int) -> None:
    """Compares the camera's rate, a median, with that before the attack, and lets a newcomer in."""
    rate = statistics.median(rate_of(camera, 0.6) for _ in range(num_times))
    start_s = time.monotonic()
    with server.connect(open_timeout=HANG_S) as newcomer:
        assert ask(newcomer, FRAME)["type"] == "result"
    wait_s = time.monotonic() - start_s
    print(f"{rate_alone:.1f} answers/s alone, {rate:.1f} beside; newcomer {wait_s:.3f} s")
    assert rate > 0.8 * rate_alone
    assert wait_s < 2


@pytest.mark.parametrize("kind", list(KINDS)[:NUM_FAST])
def test_one_client_takes_nobody_elses_time(
    kind: str, server: LiveServer, camera: ClientConnection, rate_alone: float
) -> None:
    with attack(server, 8 if kind == "header lines" else 1, 1, kind):
        check(server, camera, rate_alone, 1)


@pytest.mark.slow
@pytest.mark.parametrize("num_connections", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_connections_of_an_address_take_nobody_elses_time(
    kind: str, num_connections: int, server: LiveServer, camera: ClientConnection, rate_alone: float
) -> None:
    with attack(server, num_connections, 1, kind):
        check(server, camera, rate_alone, 7)


@pytest.mark.slow
def test_three_hundred_connections_of_twenty_addresses_take_nobody_elses_time(
    server: LiveServer, camera: ClientConnection, rate_alone: float
) -> None:
    before_mb = server.memory_mb()
    # Without those that send whole messages: these are cameras, which have their turns at the analysis.
    kinds = [kind for kind in KINDS if "messages" not in kind and "fragments" not in kind]
    with attack(server, 300, 20, *kinds):
        check(server, camera, rate_alone, 15)
        assert server.memory_mb() < before_mb + 40


def test_head_of_a_request_is_limited(server: LiveServer) -> None:
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    for num_lines, status in ((100, b"200"), (6000, b"400")):
        with socket.create_connection(("127.0.0.1", server.port), HANG_S, ("127.0.0.2", 0)) as client:
            client.sendall(head + num_lines * b"a: b\r\n" + b"\r\n")
            assert client.recv(12) == b"HTTP/1.1 " + status


@pytest.mark.slow
def test_flood_of_pings_is_cut_off_with_1008(server: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), HANG_S, ("127.0.0.3", 0)) as client:
        client.sendall(KINDS["pings"][0])
        time.sleep(0.1)
        client.setblocking(False)
        answers = b""
        while b"small or empty frames" not in answers:
            with contextlib.suppress(BlockingIOError):
                client.send(KINDS["pings"][1])
            with contextlib.suppress(BlockingIOError):
                piece = client.recv(1 << 20)
                assert piece, "closed without its message"
                answers = answers[-100:] + piece
        assert b"\x03\xf0too many small or empty frames" in answers  # 1008
