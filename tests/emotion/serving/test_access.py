"""The token of page, WebSocket and API, and the log line about names that are refused."""

import logging
import re
from pathlib import Path

import pytest
from live_server import LiveServer, receive
from starlette.testclient import TestClient, WebSocketDenialResponse
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from emotion.serving import guard
from emotion.serving.access import COOKIE
from emotion.serving.app import make_app
from emotion.serving.config import ServerConfig
from emotion.serving.service import Service
from emotion.settings import Secret, text_of

TOKEN = "a-token.of_24~letters-99"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def http():
    """A client of a server with a token that follows the page's own address alone."""
    config = ServerConfig(model=None, server_token=Secret(TOKEN), allowed_origins=("https://page.example",))
    with TestClient(make_app(Service(config)), base_url="http://localhost", follow_redirects=False) as client:
        yield client


def test_everything_but_health_asks_for_the_token(http: TestClient) -> None:
    assert http.get("/health").status_code == 200
    paths = (
        "/",
        "/docs",
        "/openapi.json",
        "/metrics",
        "/ready",
        "/api/model",
        "/static/style.css",
        "/nowhere",
    )
    for path in (*paths, "/api/predict", "/health/", "//health"):
        answer = http.get(path)
        assert answer.status_code == 401, path
        assert http.post(path).status_code == 401, path
    assert http.get("/api/model").json()["error"]["code"] == "unauthorized"
    assert http.get("/api/model").headers["WWW-Authenticate"] == "Bearer"
    with pytest.raises(WebSocketDenialResponse) as refused, http.websocket_connect("ws://localhost/ws"):
        pass
    assert refused.value.status_code == 401


@pytest.mark.parametrize(
    "value",
    ["", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ", "Bearer \xe9" * 3],
)
def test_wrong_token_is_refused(http: TestClient, value: str) -> None:
    headers = [(b"authorization", value.encode("latin-1"))]
    assert http.get("/api/model", headers=headers).status_code == 401
    assert http.get(f"/api/model?token={TOKEN}").status_code == 401  # addresses are for the page alone
    assert http.get("/?token=").status_code == 401
    http.cookies.set(COOKIE, TOKEN)
    assert http.get("/").status_code == 401


def test_program_has_the_token_in_its_header(http: TestClient) -> None:
    assert http.get("/api/model", headers=BEARER).status_code == 200
    assert http.get("/api/model", headers={"Authorization": f"bearer  {TOKEN}"}).status_code == 200
    assert http.post("/api/predict", headers=BEARER).json()["error"]["code"] == "no_model"
    assert http.post("/api/predict", headers={**BEARER, "Origin": "https://evil.example"}).status_code == 403
    assert http.get("/api/model", headers={**BEARER, "Host": "evil.example"}).status_code == 421


def test_page_gets_a_cookie_for_the_token_once(http: TestClient) -> None:
    form = http.get("/")
    assert 'name="token"' in form.text
    assert "토큰" in form.text
    welcome = http.get(f"/?token={TOKEN}")
    assert welcome.status_code == 200
    assert TOKEN not in welcome.text  # the address bar shows / after it
    assert 'http-equiv="refresh" content="0;url=./"' in welcome.text
    cookie = welcome.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(re.split("; ?", cookie))
    assert TOKEN not in cookie
    assert "frame-ancestors 'none'" in welcome.headers["content-security-policy"]
    assert http.get("/").status_code in (200, 404)  # 404: the page's files are elsewhere
    assert http.get("/api/model").status_code == 200
    secure = TestClient(http.app, base_url="https://localhost").get(f"/?token={TOKEN}")
    assert "Secure" in secure.headers["set-cookie"]


def test_other_origins_may_ask_for_leave_without_the_token(http: TestClient) -> None:
    asking = {
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization",
    }
    answer = http.options("/api/model", headers={**asking, "Origin": "https://page.example"})
    assert answer.status_code == 200
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    assert http.options("/api/model", headers={**asking, "Origin": "https://evil.example"}).status_code == 401


def test_token_is_never_shown(tmp_path: Path) -> None:
    secret = Secret(TOKEN)
    config = ServerConfig(model=None, server_token=secret)
    assert TOKEN not in f"{secret} {secret!r} {config} {text_of(secret)}"
    with LiveServer(tmp_path, tmp_path / "models", "--server_token", TOKEN, headers=BEARER) as server:
        cookie = server.request(f"/?token={TOKEN}")[2]["Set-Cookie"].partition(";")[0]
        assert server.request("/ready", headers=BEARER)[0] == 503
        with pytest.raises(InvalidStatus) as refused:
            server.connect()
        assert refused.value.response.status_code == 401
        for headers in (BEARER, {"Cookie": cookie}):
            with server.connect(additional_headers=headers) as client:
                assert receive(client)["type"] == "hello"
        with connect(f"ws://127.0.0.1:{server.port}/ws?token={TOKEN}", legacy=True) as client:
            assert receive(client)["type"] == "hello"
        assert server.stop() == 0
    assert TOKEN not in server.output
    assert "ERROR" not in server.output
    wrong = LiveServer(tmp_path / "wrong", tmp_path / "models", "--server_token", "too-short!")
    try:
        assert wrong.wait() == 2
    finally:
        wrong.kill()
    assert "SERVER_TOKEN=(hidden)" in wrong.output
    assert "too-short!" not in wrong.output


def test_refused_name_is_in_the_log_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("emotion"), "propagate", True)
    app = make_app(Service(ServerConfig(model=None, host="0.0.0.0")))
    with TestClient(app) as http, caplog.at_level(logging.WARNING, "emotion"):
        for name in ("evil.example:8001", "other.example"):
            answer = http.get("/api/model", headers=[(b"host", name.encode())])
            assert (answer.status_code, answer.json()["error"]["code"]) == (421, "foreign_host")
        assert http.get("/api/model", headers={"Host": "192.0.2.7:8001"}).status_code == 200
        # As a set: what other tests have done to the loggers may show a line twice.
        (line,) = {line for line in caplog.messages if "ALLOWED_ORIGINS" in line}
        assert "'evil.example:8001'" in line
        monkeypatch.setattr(guard, "REPORT_S", 0.0)
        app._report_s = 0.0
        for _ in range(2):
            caplog.clear()
            http.get("/api/model", headers=[(b"host", b"x\xc2\x85" + 300 * b"y")])
            assert any("ALLOWED_ORIGINS" in line for line in caplog.messages)
        assert len(caplog.messages[-1]) < 300
        assert caplog.messages[-1].isprintable()
