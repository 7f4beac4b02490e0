"""The real server as a separate process, and clients that talk to it."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

REPOSITORY = Path(__file__).resolve().parents[3]
HANG_S = 120.0  # what takes longer never comes; nothing is judged by how fast it is


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LiveServer:
    """`python emotion/server.py` in folders of its own; a context manager that ends it.

    Args:
        folder: Gets cwd/, home/, tmp/, logs/.
        model_dir: MODEL_DIR.
        options: Of the program.
        headers: Of the requests that wait for its start.
        program: Python's arguments that start it.
    """

    def __init__(
        self,
        folder: Path,
        model_dir: Path,
        *options: str,
        headers: dict[str, str] | None = None,
        program: tuple[str, ...] = (str(REPOSITORY / "emotion" / "server.py"),),
    ) -> None:
        self.folder, self.port, self._headers = folder, free_port(), headers
        for name in ("cwd", "home", "tmp", "models"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        lines = (REPOSITORY / ".env.example").read_text(encoding="utf-8").splitlines()
        settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
        environment = {
            **kept, **settings, "MODEL_DIR": str(model_dir), "LOG_DIR": str(folder / "logs"),
            "SERVER_PORT": str(self.port), "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
            "FACEVOX_DEMO_DIR": str(folder / "no demo"),  # that of this working tree may hold a model
        }  # fmt: skip
        command = [sys.executable, *program, *options]
        self.start_s = time.monotonic()
        # Not a pipe: full of log lines that nobody reads, it would hold up the server.
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            command, cwd=folder / "cwd", env=environment, stdout=self._printed, stderr=subprocess.STDOUT
        )
        self.output = ""

    def __enter__(self) -> "LiveServer":
        try:
            self._wait("/health", {200})
            self._wait("/ready", {200, 503}, lambda body: b"starting" not in body)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def _wait(self, path: str, statuses: set[int], is_right: Any = lambda body: True) -> None:
        while time.monotonic() - self.start_s < HANG_S:
            assert self.process.poll() is None, self.wait()
            try:
                status, body, _ = self.request(path, headers=self._headers)
            except OSError:
                time.sleep(0.02)
                continue
            if status in statuses and is_right(body):
                return
            time.sleep(0.02)
        raise AssertionError(f"{path} never answered as expected")

    def kill(self) -> None:
        """Ends the process, whatever it is doing."""
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    def wait(self) -> int:
        """Waits for the exit code; the output is in `output`."""
        code = self.process.wait(HANG_S)
        self._printed.seek(0)
        self.output = self._printed.read().decode()
        return code

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Asks it to end; returns the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def request(
        self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, Any]:
        """Status, body and headers of a GET, or of a POST where there is a body."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, headers or {})
        try:
            with urllib.request.urlopen(request, timeout=HANG_S) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers

    def upload(self, content: bytes, field: str = "file", **headers: str) -> tuple[int, Any]:
        """Status and JSON of POST /api/predict."""
        boundary = "wall"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="얼굴 \'.jpg"\r\n'
        body = head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + content + b"\r\n--wall--\r\n"
        sent = {"Content-Type": f"multipart/form-data; boundary={boundary}", **headers}
        status, answer, _ = self.request("/api/predict", body, sent)
        return status, json.loads(answer)

    def metric(self, name: str) -> float:
        """A value of /metrics by its name with labels, 0 where it does not exist yet."""
        text = self.request("/metrics")[1].decode()
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return float(values.get(name, 0))

    def connect(self, **options: Any) -> ClientConnection:
        """A client that has not yet read the greeting."""
        address = f"ws://127.0.0.1:{self.port}/ws"
        return connect(address, compression=None, max_size=None, legacy=True, **options)

    def memory_mb(self) -> float:
        """Memory that the process holds now."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def binary_message(data: bytes) -> bytes:
    """A masked frame with a mask of zeros, of at most 65535 bytes."""
    return b"\x82" + struct.pack(">BH", 0x80 | 126, len(data)) + bytes(4) + data


def receive(client: ClientConnection, timeout_s: float = HANG_S) -> dict[str, Any]:
    """The next message."""
    message: dict[str, Any] = json.loads(client.recv(timeout=timeout_s))
    return message


def ask(client: ClientConnection, frame: bytes) -> dict[str, Any]:
    """Sends a frame and returns the answer to it, passing over the greeting."""
    client.send(frame)
    while True:
        message = receive(client)
        if message["type"] != "hello":
            return message
