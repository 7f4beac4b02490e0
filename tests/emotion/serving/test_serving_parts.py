"""The parts of the server that can be looked at by themselves."""

import asyncio
import io
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from emotion.serving import refusals, session
from emotion.serving.app import make_app
from emotion.serving.config import ServerConfig
from emotion.serving.connections import Connections
from emotion.serving.guard import is_host_known, is_origin_allowed
from emotion.serving.metrics import BUCKETS_S, STAGES, Metrics
from emotion.serving.pictures import decode_frame, decode_upload
from emotion.serving.refusals import Refusal
from emotion.serving.service import Service
from emotion.serving.session import TokenBucket
from emotion.serving.workers import AnalysisWorkers
from facevox.files import decode_image


def test_bucket_equals_a_count_in_small_steps() -> None:
    # Eighths of a token in sixty-fourths of a second: numbers that floating point holds exactly.
    times = np.cumsum(np.random.default_rng(0).integers(0, 17, 300))
    bucket = TokenBucket(8, 5, now_s=0.0)
    level, last = 40, 0
    waits_s = []
    for time in times:
        for _ in range(last, int(time)):
            level = min(level + 1, 40)
        last = int(time)
        level -= 8
        waits_s.append(max(-level, 0) / 64)
        assert bucket.take(time / 64) == waits_s[-1]
    assert 10 < np.count_nonzero(waits_s) < 290


def test_histogram_equals_a_slow_count() -> None:
    rng = np.random.default_rng(1)
    seconds = np.concatenate([rng.exponential(0.05, 200), BUCKETS_S, [9.0]])
    metrics = Metrics()
    for value in seconds:
        metrics.observe("total", float(value))
    text = metrics.expose({})
    for end, count in re.findall(r'_bucket\{stage="total",le="([^"]+)"\} (\d+)', text):
        assert int(count) == sum(value <= float(end.replace("+Inf", "inf")) for value in seconds)
    total = re.search(r'_sum\{stage="total"\} (\S+)', text)
    assert total is not None
    assert float(total.group(1)) == pytest.approx(seconds.sum(), abs=1e-5)
    assert f'_count{{stage="total"}} {len(seconds)}' in text


def test_metrics_are_in_the_format_of_prometheus() -> None:
    metrics = Metrics()
    metrics.count("frames_refused_total", label='code="rate"')
    metrics.count("frames_refused_total", 2, label='code="failed"')
    lines = metrics.expose({"emotion_memory_bytes": ("Memory.", 123456789.0)}).splitlines()
    sample = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"(,le="[^"]+")?\})? -?\d+(\.\d+)?(e[+-]\d+)?')
    assert all(line.startswith(("# HELP ", "# TYPE ")) or sample.fullmatch(line) for line in lines)
    assert 'emotion_frames_refused_total{code="failed"} 2' in lines
    assert "emotion_memory_bytes 123456789" in lines
    assert len([line for line in lines if "_count{" in line]) == len(STAGES)


@pytest.mark.parametrize(
    ("mode", "format_name"),
    [
        *(("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "JPEG"), ("RGBA", "PNG"), ("P", "PNG"), ("I;16", "PNG")),
        *(("1", "PNG"), ("RGB", "WEBP"), ("RGBA", "WEBP")),
    ],
)
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_decoded_frame_equals_that_of_the_foundation(mode: str, format_name: str, orientation: int) -> None:
    rng = np.random.default_rng(2)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (40, 60), dtype=np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).convert(mode)
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    image.save(buffer, format_name, exif=exif)
    expected = decode_image(buffer.getvalue(), "picture")
    np.testing.assert_array_equal(decode_frame(buffer.getvalue(), 10_000), expected)
    decoded, width, height = decode_upload(buffer.getvalue(), 20_000)
    np.testing.assert_array_equal(decoded, expected)
    assert (height, width) == expected.shape[:2]


def test_upload_of_a_large_jpeg_is_decoded_smaller_and_others_have_an_eighth_of_the_pixels() -> None:
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (100, 6400, 3), dtype=np.uint8))
    assert image.width > 16 * 100
    with pytest.raises(Refusal, match="odd_shape"):
        decode_upload(_saved(image, "JPEG"), 10**7)
    image = image.resize((6400, 800))
    decoded, width, height = decode_upload(_saved(image, "JPEG"), 6400 * 800)
    assert (decoded.shape, width, height) == ((200, 1600, 3), 6400, 800)
    with pytest.raises(Refusal, match="too_many_pixels"):
        decode_upload(_saved(image, "JPEG"), 6400 * 800 - 1)
    with pytest.raises(Refusal, match="too_many_pixels"):
        decode_upload(_saved(image, "WEBP"), 8 * 6400 * 800 - 8)
    assert decode_upload(_saved(image, "WEBP"), 8 * 6400 * 800)[0].shape == (800, 6400, 3)


def _saved(image: Image.Image, format_name: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name)
    return buffer.getvalue()


@pytest.mark.parametrize("format_name", ["ICO", "PPM", "TGA", "PCX"])
def test_formats_that_no_camera_sends_reach_no_decoder(format_name: str) -> None:
    with pytest.raises(Refusal, match="not_an_image"):
        decode_frame(_saved(Image.new("RGB", (64, 64)), format_name), 10_000)


PEAK_OF_A_PNG = """
import sys
from emotion.serving.pictures import decode_frame, decode_upload, read_header
from emotion.serving.refusals import Refusal

def peak_mb():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

def refusal(decode, data, most):
    try:
        decode(data, most)
    except Refusal as refused:
        return refused.code

decode_frame(open(sys.argv[1], "rb").read(), 10_000)  # the decoders are loaded
bomb, before_mb = open(sys.argv[2], "rb").read(), peak_mb()
codes = {refusal(decode_frame, bomb, 4_000_000), refusal(decode_upload, bomb, 30_000_000)}
print(codes, read_header(bomb)[:3], peak_mb() - before_mb)
"""


def test_png_of_too_many_pixels_is_refused_undecoded(tmp_path: Path) -> None:
    side = 12_000

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, row = zlib.compressobj(1), bytes(1 + 3 * side)
    pixels = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    Image.new("RGB", (64, 64)).save(tmp_path / "small.png")
    command = [sys.executable, "-c", PEAK_OF_A_PNG, str(tmp_path / "small.png"), str(tmp_path / "bomb.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    told, _, grown_mb = done.stdout.strip().rpartition(" ")
    assert told == "{'too_many_pixels'} ('PNG', 12000, 12000)"
    assert float(grown_mb) < 20  # its 432 MB of pixels never were in memory


CORS = "access-control-allow-origin"
HOSTS = [  # Host header, the server's host, known?
    ("localhost:8001", "127.0.0.1", True),
    ("127.0.0.1", "127.0.0.1", True),
    ("[::1]:8001", "127.0.0.1", True),
    ("page.example", "127.0.0.1", True),  # in ALLOWED_ORIGINS
    ("evil.example:8001", "127.0.0.1", False),
    ("localhost.evil.example", "127.0.0.1", False),
    ("", "127.0.0.1", False),
    ("[", "127.0.0.1", False),
    ("evil.example", "0.0.0.0", False),
    ("127.0.0.1.evil.example", "0.0.0.0", False),
    ("2130706433", "0.0.0.0", False),
    ("", "::", False),
    ("localhost:8001", "0.0.0.0", True),
    ("192.168.1.5:8001", "0.0.0.0", True),
    ("[fe80::1]:8001", "::", True),
    ("page.example", "0.0.0.0", True),
    (socket.gethostname().upper(), "0.0.0.0", True),
    ("faces.lan:8001", "faces.lan", True),
    ("192.168.1.5:8001", "127.0.0.1", False),
]


@pytest.mark.parametrize(("header", "host", "expected"), HOSTS)
def test_server_of_this_machine_goes_by_its_own_names(header: str, host: str, expected: bool) -> None:
    config = ServerConfig(model=None, host=host, allowed_origins=("https://page.example",))
    assert is_host_known(header, config) is expected


ORIGINS = [  # Origin, Host, allowed?
    (None, "localhost:8001", True),
    ("http://localhost:8001", "localhost:8001", True),
    ("https://Faces.example", "faces.example", True),  # behind a proxy that speaks HTTPS
    ("https://page.example", "localhost:8001", True),  # in ALLOWED_ORIGINS
    ("http://page.example", "localhost:8001", False),
    ("http://localhost:3000", "localhost:8001", False),
    ("http://localhost:8001.evil.example", "localhost:8001", False),
    ("null", "localhost:8001", False),
    ("", "localhost:8001", False),
]


@pytest.mark.parametrize(("origin", "host", "expected"), ORIGINS)
def test_origin_is_held_against_the_own_and_the_allowed_ones(
    origin: str | None, host: str, expected: bool
) -> None:
    config = ServerConfig(model=None, allowed_origins=("https://page.example",))
    assert is_origin_allowed(origin, host, config) is expected


@pytest.mark.parametrize("code", refusals.CODES)
def test_every_refusal_has_a_status_and_words_in_both_languages(code: str) -> None:
    refusal = Refusal(code)
    assert 400 <= refusal.status < 600
    assert re.search("[가-힣]", refusal.message["ko"])
    assert refusal.message["en"].isascii() or "“" in refusal.message["en"]


def test_turns_are_given_in_the_order_of_asking() -> None:
    async def run() -> list[str]:
        workers = AnalysisWorkers(ServerConfig(model=None, num_workers=1))
        order: list[str] = []

        async def client(name: str, requests: int) -> None:
            for _ in range(requests):
                async with workers.turns:
                    order.append(name)
                    await asyncio.sleep(0)

        try:
            async with asyncio.timeout(120):
                await asyncio.gather(client("a", 5), client("b", 5), client("c", 2))
        finally:
            workers.close()
        return order

    assert asyncio.run(run()) == list("abcabcababab"[:6]) + list("ababab")


def test_failed_analysis_is_refused_and_the_next_picture_has_a_new_detector(model_path: Path) -> None:
    image = np.zeros((64, 64, 3), np.uint8)

    async def run() -> tuple[str, int]:
        workers = AnalysisWorkers(ServerConfig(model=model_path, num_workers=1))
        try:
            await workers.warm_up()
            before = threading.active_count()
            with pytest.raises(Refusal) as refusal:
                await workers.faces(np.zeros((64, 64), np.uint8))  # no picture: FaceMesh raises
            async with asyncio.timeout(120):
                findings = await workers.faces(image)
            assert threading.active_count() == before
            return refusal.value.code, len(findings.sightings)
        finally:
            workers.close()

    assert asyncio.run(run()) == ("failed", 0)


def test_stopped_workers_refuse() -> None:
    async def run() -> None:
        workers = AnalysisWorkers(ServerConfig(model=None, num_workers=1))
        workers.close()
        with pytest.raises(Refusal, match="stopping"):
            await workers.frame(b"")

    asyncio.run(run())


def test_workers_that_cannot_be_started_are_told(model_path: Path, tmp_path: Path) -> None:
    copy = tmp_path / model_path.name
    copy.write_bytes(model_path.read_bytes())
    service = Service(ServerConfig(model=copy, num_workers=2))
    copy.unlink()
    start_s = monotonic()
    with TestClient(make_app(service), base_url="http://localhost") as http:
        while (answer := http.get("/ready").json())["status"] == "starting":
            assert monotonic() - start_s < 120
            sleep(0.02)
        assert answer["status"] == "failed"
        assert copy.name in answer["reason"]
        assert http.get("/ready").status_code == 503
        assert http.get("/api/model").json()["ready"] is False


def test_silent_client_makes_room_for_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "IDLE_S", 0.0)

    async def run() -> tuple[dict[str, Any], dict[str, Any]]:
        app = make_app(Service(ServerConfig(model=None, max_connections=1)))
        headers = [(b"host", b"localhost")]
        scope = {
            "type": "websocket",
            "path": "/ws",
            "raw_path": b"/ws",
            "query_string": b"",
            "headers": headers,
        }
        answers: list[asyncio.Queue[dict[str, Any]]] = [asyncio.Queue(), asyncio.Queue()]
        tasks = []
        async with asyncio.timeout(120):
            for queue in answers:
                requests: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
                requests.put_nowait({"type": "websocket.connect"})
                task = asyncio.create_task(app(dict(scope), requests.get, queue.put))
                tasks.append((task, requests))
                assert (await queue.get())["type"] == "websocket.accept"
                greeting = await queue.get()
            farewell = await answers[0].get()
            await tasks[0][0]
            tasks[1][1].put_nowait({"type": "websocket.disconnect", "code": 1000})
            await tasks[1][0]
        return greeting, farewell

    greeting, farewell = asyncio.run(run())
    assert json.loads(greeting["text"])["type"] == "hello"
    assert (farewell["type"], farewell["code"]) == ("websocket.close", 1013)


def test_page_of_an_allowed_origin_may_read_the_answers() -> None:
    origin = "https://page.example"
    app = make_app(Service(ServerConfig(model=None, allowed_origins=(origin,))))
    with TestClient(app, base_url="http://localhost") as http:
        assert http.get("/api/model", headers={"Origin": origin}).headers[CORS] == origin
        assert CORS not in http.get("/api/model", headers={"Origin": "https://evil.example"}).headers


def test_connection_whose_request_may_be_on_its_way_gives_way_last() -> None:
    connections, ended = Connections(3, 9, ()), list[str]()

    def admit(name: str, address: str, idle_s: float) -> bool:
        protocol = SimpleNamespace(idle_since_s=monotonic() - idle_s)
        transport = MagicMock(get_protocol=lambda: protocol, abort=lambda: ended.append(name))
        return connections.admit(transport, address)

    for name, idle_s in (("waits", 2.0), ("has just come", 0.1)):
        assert admit(name, "192.0.2.1", idle_s)
    assert admit("other", "192.0.2.2", 3.0)
    assert admit("newcomer", "192.0.2.3", 0.0)
    assert ended == ["waits"]
    assert admit("newcomer", "192.0.2.4", 0.0)
    assert ended == ["waits", "other"]
    assert admit("newcomer", "192.0.2.5", 0.0)  # none has been idle for long
    assert ended == ["waits", "other", "has just come"]
