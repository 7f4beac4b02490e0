"""The answers of the real server compared with /openapi.json: every status, every shape."""

import http.client
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from face_pictures import jpeg_of_faces
from live_server import HANG_S, LiveServer
from PIL import Image

from emotion.serving.openapi import UPLOAD_REFUSALS
from emotion.serving.refusals import CODES, Refusal

FRAMES_ALONE = {"unauthorized", "foreign_host", "too_many_connections"}


@pytest.fixture(scope="module")
def document(server: LiveServer) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(server.request("/openapi.json")[1])
    return described


def fault(document: dict[str, Any], method: str, path: str, status: int, kind: str, body: bytes) -> str:
    """The difference between an answer and the document, "" where there is none."""
    operation = document["paths"].get(path, {}).get(method.lower())
    if operation is None:
        return "" if status in (404, 405) else f"{status} for a path or method that is not described"
    answer = operation["responses"].get(str(status))
    if answer is None:
        return f"{status} is not described"
    kind = kind.partition(";")[0]
    if kind not in answer["content"]:
        return f"{status} with {kind}"
    if kind == "application/json":
        try:
            jsonschema.validate(json.loads(body), answer["content"][kind]["schema"])
        except jsonschema.ValidationError as error:
            return f"{status}: {error.message}"
    return ""


def ask(server: LiveServer, method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
    """Status, Content-Type and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=HANG_S)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read()
    finally:
        connection.close()


def form(content: bytes, name: str = "file") -> bytes:
    head = f'--wall\r\nContent-Disposition: form-data; name="{name}"; filename="a"\r\n\r\n'
    return head.encode() + content + b"\r\n--wall--\r\n"


def requests(folder: Path) -> list[tuple[str, str, dict[str, str], bytes]]:
    """Whole and broken requests to all paths; the same ones each time."""
    rng = random.Random(0)
    paths = ("/health", "/ready", "/metrics", "/api/model", "/api/predict", "/nowhere", "/api", "/ws")
    methods = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")
    plain = [(method, path, {}, b"") for method in methods for path in paths]
    hosts = [("GET", path, {"Host": "evil.example"}, b"") for path in paths[:4]]
    Image.new("RGB", (1, 1)).save(folder / "pixel.png")
    Image.new("L", (6400, 6400)).save(folder / "large.png")
    pixel, large = ((folder / name).read_bytes() for name in ("pixel.png", "large.png"))
    contents = [jpeg_of_faces(1), pixel, large, b"", bytes(3_000_001), b"GIF89a", jpeg_of_faces(1)[:-2000]]
    contents += [rng.randbytes(rng.randrange(2000)) for _ in range(30)]
    kind = {"Content-Type": "multipart/form-data; boundary=wall"}
    uploads = [("POST", "/api/predict", kind, form(content)) for content in contents]
    uploads += [("POST", "/api/predict", kind, form(b"x", name)) for name in ("other", "", "file\x00", "é")]
    uploads += [("POST", "/api/predict", {**kind, "Origin": "null"}, form(jpeg_of_faces(1)))]
    for _ in range(60):
        body = bytearray(form(pixel))
        for _ in range(rng.randrange(1, 6)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        value = rng.choice(
            (kind["Content-Type"], "multipart/form-data", "text/plain", "multipart/form-data; boundary=")
        )
        uploads.append(("POST", "/api/predict", {"Content-Type": value}, bytes(body)))
    return plain + hosts + uploads


def test_every_answer_is_described(server: LiveServer, document: dict[str, Any], tmp_path: Path) -> None:
    faults, statuses = {}, set()
    for method, path, headers, body in requests(tmp_path):
        status, kind, answer = ask(server, method, path, headers, body)
        statuses.add(status)
        text = fault(document, method, path, status, kind, answer)
        if text:
            faults[f"{method} {path} {headers} {body[:80]!r}"] = text
    assert faults == {}
    assert statuses >= {200, 400, 403, 404, 405, 413, 415, 421, 422}
    assert server.process.poll() is None


def test_connection_that_is_refused_or_no_http_is_described(
    model_path: Path, tmp_path: Path, document: dict[str, Any]
) -> None:
    with LiveServer(tmp_path, model_path.parent, "--max_connections_per_address", "1") as server:
        answers = [ask(server, "GET", "/ready", {"Bad name": "x"}, b"")]
        held = http.client.HTTPConnection("127.0.0.1", server.port, source_address=("127.0.0.2", 0))
        held.connect()
        held.request("GET", "/health")
        held.getresponse().read()
        beyond = http.client.HTTPConnection("127.0.0.1", server.port, source_address=("127.0.0.2", 0))
        beyond.request("GET", "/ready")
        refused = beyond.getresponse()
        answers.append((refused.status, refused.headers["Content-Type"], refused.read()))
        held.close()
        beyond.close()
    assert [answer[0] for answer in answers] == [400, 503]
    assert [fault(document, "GET", "/ready", *answer) for answer in answers] == ["", ""]


def test_every_refusal_is_in_the_document(document: dict[str, Any]) -> None:
    assert set(UPLOAD_REFUSALS) | FRAMES_ALONE == set(CODES)
    described = document["paths"]["/api/predict"]["post"]["responses"]
    for code in CODES:
        schema = described[str(Refusal(code).status)]["content"]["application/json"]["schema"]
        assert code in schema["properties"]["error"]["properties"]["code"]["enum"]


@pytest.mark.slow
def test_schemathesis_finds_nothing(server: LiveServer, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    # A schema cannot say which bytes are a picture that can be analysed: these statuses are for the others.
    (tmp_path / "schemathesis.toml").write_text(
        '[checks.positive_data_acceptance]\nexpected-statuses = ["2xx", 413, 415, 422]\n'
    )
    command = [str(program), "run", f"http://127.0.0.1:{server.port}/openapi.json", "--seed", "1"]
    command += ["--max-examples", "50"]
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
