"""What the server's process is: small, quick, alone with its log."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from face_pictures import jpeg_of_faces
from live_server import REPOSITORY, LiveServer, ask, receive
from small_classifier import NAME

from facevox.media import write_video

HEAVY = ("tensorflow", "torch", "keras", "matplotlib", "jax", "transformers")


def files_below(folder: Path) -> dict[str, tuple[int, int]]:
    """Path -> (size, time) of everything there."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
    }


def test_small_and_nothing_is_written_but_the_log(model_path: Path, tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    write_video(video, (np.full((120, 160, 3), k, np.uint8) for k in range(100)), 25.0, crf=0)
    big = np.random.default_rng(0).integers(0, 255, (1200, 1200, 3), np.uint8)  # above a spooled megabyte
    write_video(tmp_path / "noise.mp4", [big] * 3, 25.0, crf=10)
    content = (tmp_path / "noise.mp4").read_bytes()
    assert len(content) > 1_200_000
    before = files_below(tmp_path)
    code = files_below(REPOSITORY / "emotion")
    with LiveServer(tmp_path, model_path.parent) as server:
        with server.connect() as client:
            for shift in range(30):
                ask(client, jpeg_of_faces(2, shift))
        for upload in (video.read_bytes(), content, jpeg_of_faces(1)):
            assert server.upload(upload)[0] == 200
        assert server.memory_mb() < 400
        mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
        for name in HEAVY:
            assert f"site-packages/{name}/" not in mapped
        assert server.stop() == 0
        log = next((tmp_path / "logs").iterdir())
        new = set(files_below(tmp_path)) - set(before)
        assert new == {f"logs/{log.name}"}
        assert files_below(REPOSITORY / "emotion") == code
    lines = log.read_text(encoding="utf-8").splitlines()
    assert lines == server.output.splitlines()
    assert all(" - emotion.server - INFO - " in line for line in lines)
    assert any("30 frames, 30 analysed" in line and "p95" in line for line in lines)
    assert not any("얼굴" in line or "127.0.0.1" in line for line in lines)  # file names, addresses


def test_imports_of_the_application_leave_the_heavy_packages_out() -> None:
    program = (
        "import sys; import emotion.serving.app, emotion.serving.protocols, emotion.live.analysis; "
        "from facevox.mesh.face_mesh import FaceMesh; FaceMesh().close(); "
        f"print([name for name in {HEAVY} if sys.modules.get(name)])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_a_model_it_starts_and_says_how_to_train_one(tmp_path: Path) -> None:
    with LiveServer(tmp_path, tmp_path / "models", "--max_connections", "1") as server:
        assert server.request("/health")[0] == 200
        status, body, _ = server.request("/ready")
        assert status == 503
        message = json.loads(body)["message"]
        assert "make emotion-preprocess emotion-train" in message["en"]
        assert "make demo" in message["ko"]
        with server.connect() as client:
            hello = receive(client)
            assert (hello["ready"], hello["model"], hello["classes"]) == (False, None, [])
            assert ask(client, jpeg_of_faces(1))["code"] == "no_model"
        assert server.upload(jpeg_of_faces(1))[1]["error"]["code"] == "no_model"
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        assert server.stop(signal.SIGINT) == 0  # a second signal, of another kind: still an orderly end


def test_pages_need_nothing_from_outside_and_carry_the_security_headers(server: LiveServer) -> None:
    for path in ("/docs", "/openapi.json", "/api/model", "/nowhere", "/"):
        _, body, headers = server.request(path)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe-inline" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Permissions-Policy"].startswith("camera=(self)")
        assert "Server" not in headers
        assert b"//cdn" not in body
    page = server.request("/docs")[1].decode()
    assert "<script" not in page
    for text in ("POST /api/predict", "GET /metrics", "1013", "frame"):
        assert text in page
    described = json.loads(server.request("/openapi.json")[1])["paths"]
    assert set(described) == {"/health", "/ready", "/metrics", "/api/model", "/api/predict"}


@pytest.mark.parametrize("path", ["/static/../server.py", "/static/%2e%2e/server.py", "/static//etc/passwd"])
def test_static_files_end_at_their_folder(path: str, server: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize("content", [b"", b"no model", None])
def test_model_that_cannot_be_read_is_told_at_the_start(
    content: bytes | None, model_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken").mkdir()
    whole = model_path.read_bytes()
    # None: the network is damaged, what the model says of itself is not.
    damaged = bytes(400) + whole[400:] if content is None else content
    (tmp_path / "broken" / NAME).write_bytes(damaged)
    server = LiveServer(tmp_path, tmp_path / "broken")
    try:
        assert server.wait() == 2
    finally:
        server.kill()
    line = server.output.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert NAME in line
    assert "Traceback" not in server.output


def test_port_that_is_taken_is_told_at_once(model_path: Path, server: LiveServer, tmp_path: Path) -> None:
    second = LiveServer(tmp_path, model_path.parent, "--server_port", str(server.port))
    try:
        assert second.wait() == 2
    finally:
        second.kill()
    assert f"SERVER_PORT={server.port}" in second.output
    assert len(second.output.strip().splitlines()) == 1
