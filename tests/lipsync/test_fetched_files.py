"""Files behind web addresses: fetched whole, scored as files, and refused in one line."""

import csv
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from live_servers import MediaServer, send_file, send_live, write_transport_stream
from talking_clips import make_talking

from facevox import cli
from facevox.addresses import Address
from facevox.errors import UserError
from lipsync import inference
from lipsync.clips import fetching
from lipsync.clips.fetching import FetchError, local_file
from lipsync.clips.live import GaveUpError, LiveAddress

SHORT = ("--method", "untrained", "--set", "data.max_duration_s=3")


@pytest.fixture(scope="module")
def talking(load_script, tmp_path_factory) -> tuple[Path, ...]:
    return make_talking(load_script, tmp_path_factory)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def scratch() -> set[str]:
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith(".facevox-")}


@pytest.mark.parametrize("with_length", [True, False])
def test_file_is_fetched_and_removed(with_length: bool, talking: tuple[Path, ...]) -> None:
    content, before = talking[0].read_bytes(), scratch()
    with (
        MediaServer(lambda handler: send_file(handler, content, with_length=with_length)) as server,
        local_file(Address(server.url("/talk.mp4", "user:p%40ss@"))) as file,
    ):
        assert file.read_bytes() == content
        assert file.suffix == ".mp4"
    assert not file.exists()
    assert scratch() <= before
    assert server.logins == ["Basic dXNlcjpwQHNz"]  # of "user:p@ss"


def test_program_scores_an_address_as_its_file(talking: tuple[Path, ...], capsys) -> None:
    content = talking[0].read_bytes()
    with MediaServer(lambda handler: send_file(handler, content)) as server:
        url = server.url("/talk.mp4?token=secret", "user:secret@")
        assert cli.run(inference.main, ["--video", url, "--json", *SHORT]) == 0
    output = capsys.readouterr()
    details = json.loads(output.out)
    assert details["video"] == f"http://***@127.0.0.1:{server.port}/talk.mp4?token=***"
    assert details["ffmpeg"] == ""
    assert "secret" not in output.out + output.err
    assert cli.run(inference.main, ["--video", str(talking[0]), "--json", *SHORT]) == 0
    of_file = json.loads(capsys.readouterr().out)
    assert {**of_file, "video": "", "ffmpeg": ""} == {**details, "video": "", "ffmpeg": ""}


def test_batch_takes_addresses(talking: tuple[Path, ...], tmp_path: Path, capsys) -> None:
    content = talking[0].read_bytes()
    (tmp_path / "here.mp4").write_bytes(content)

    def answer(handler: Any) -> None:
        send_file(handler, content) if "talk" in handler.path else handler.send_error(404)

    with MediaServer(answer) as server:
        good = server.url("/talk.mp4?key=secret", "user:secret@")
        table = tmp_path / "pairs.csv"
        table.write_text(f"video,audio\n{good},\n{server.url('/gone.mp4')},\nhere.mp4,{good}\n")
        words = ["--batch", str(table), "--output_dir", str(tmp_path / "out"), "--workers", "0", *SHORT]
        assert cli.run(inference.main, words) == 1
        with (tmp_path / "out" / "sync.csv").open(encoding="utf-8") as opened:
            rows = list(csv.DictReader(opened))
        rows.sort(key=lambda row: ("gone" in row["pair"], row["audio"]))
        assert [row["status"] for row in rows] == ["done", "done", "failed"]
        assert rows[0]["video"] == f"http://***@127.0.0.1:{server.port}/talk.mp4?key=***"
        assert rows[0]["json_file"].endswith("talk.json")
        assert rows[1]["audio"] == rows[0]["video"]
        assert "the server answers 404" in rows[2]["reason"]
        server.requests.clear()
        cli.run(inference.main, words)
        assert server.requests == ["/gone.mp4"]  # what is done stays
    output = capsys.readouterr()
    written = [file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert len(written) >= 4
    assert not any(b"secret" in text for text in (output.out.encode(), output.err.encode(), *written))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["rtsp://user:secret@host/x"], "pairs.csv:2: rtsp://***@host/x: a live address; realtime.py"),
        (["ftp://user:secret@host/x"], "pairs.csv:2: ftp:// addresses are not read"),
        (["file://localhost/a"], "name the file itself"),
        (["http://u:secret1@h/a.mp4", "http://u:secret2@h/a.mp4"], "differ only in a password"),
    ],
)
def test_addresses_of_a_table_are_checked_first(rows: list[str], words: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "pairs.csv").write_text("video\n" + "\n".join(rows) + "\n")
    options = ["--batch", str(tmp_path / "pairs.csv"), "--output_dir", str(tmp_path / "out")]
    assert cli.run(inference.main, options) == 2
    message = capsys.readouterr().err
    assert words in message
    assert "secret" not in message
    assert not (tmp_path / "out").exists()


def test_live_address_leads_to_the_other_program(talking: tuple[Path, ...], tmp_path: Path, capsys) -> None:
    assert cli.run(inference.main, ["--video", "rtsp://user:secret@127.0.0.1/x"]) == 2
    content = write_transport_stream(talking[0], tmp_path / "x.ts").read_bytes()
    with MediaServer(lambda handler: send_live(handler, content, 1)) as server:
        assert cli.run(inference.main, ["--video", server.url()]) == 2
    message = capsys.readouterr().err
    assert message.count("realtime.py") == message.count("\n") == 2
    assert "secret" not in message


def broken(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"x" * 10)


def huge(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(10**13))
    handler.end_headers()


def endless(handler: Any) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(1 << 16))
        time.sleep(0.001)


def redirect(target: str) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()

    return answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda handler: handler.send_error(403), "the server answers 403"),
        (broken, "the connection broke after 10 of 1000 bytes"),
        (huge, "more than 1000000 bytes"),
        (endless, "more than 1000000 bytes"),
        (redirect("file://localhost/a"), "the server answers 302"),
        (redirect("ftp://127.0.0.1/x"), "redirected to something else than http"),
        (lambda handler: time.sleep(3), "no answer for"),
        (lambda handler: send_file(handler, b"#EXTM3U\nhttp://127.0.0.1/x\n"), "not a readable media file"),
        (lambda handler: send_file(handler, b""), "the file is empty"),
    ],
)
def test_servers_that_send_something_else_give_one_line(
    answer: Callable[[Any], None], words: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(fetching, "ANSWER_S", 1.0)
    monkeypatch.setattr(fetching, "MAX_FILE_BYTES", 1_000_000)
    before = scratch()
    with MediaServer(answer) as server:
        url = server.url("/talk.mp4", "user:secret@")
        assert cli.run(inference.main, ["--video", url]) == 2
    message = capsys.readouterr().err
    assert f"http://***@127.0.0.1:{server.port}/talk.mp4: " in message
    assert words in message
    assert "secret" not in message
    assert message.count("\n") == 1
    assert scratch() <= before


def test_file_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "UNKNOWN_LENGTH_S", 0.5)
    with (
        MediaServer(endless) as server,
        pytest.raises(FetchError, match="has not ended after"),
        local_file(Address(server.url("/talk.mp4"))),
    ):
        pass


def test_login_is_not_passed_on_to_another_host(talking: tuple[Path, ...]) -> None:
    content = talking[0].read_bytes()
    with (
        MediaServer(lambda handler: send_file(handler, content)) as other,
        MediaServer(redirect(other.url("/talk.mp4"))) as server,
        local_file(Address(server.url("/talk.mp4", "user:secret@"))) as file,
    ):
        assert file.stat().st_size == len(content)
    assert server.logins[0]
    assert other.logins == [""]


@pytest.mark.parametrize("host", ["no-such-host.invalid", "127.0.0.1:9"])
def test_host_that_is_not_there_is_one_line(host: str) -> None:
    with (
        pytest.raises(FetchError, match=f"http://{host}/a.mp4: cannot be fetched: "),
        local_file(Address(f"http://{host}/a.mp4")),
    ):
        pass


def test_certificates_are_checked(talking: tuple[Path, ...], tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes a certificate, is not installed")
    key, certificate = tmp_path / "k.pem", tmp_path / "c.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    content = write_transport_stream(talking[0], tmp_path / "x.ts").read_bytes()
    with MediaServer(lambda handler: send_live(handler, content, 0.5)) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.encrypt(context)
        address = Address(server.url().replace("http:", "https:"))
        with pytest.raises(UserError, match="CERTIFICATE_VERIFY_FAILED"), local_file(address):
            pass
        with pytest.raises(GaveUpError):
            list(LiveAddress(address, 0, lambda: False).stretches())
    assert server.requests == []
