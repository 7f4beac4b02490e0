"""Live streams of servers on this machine: verdicts with their delay, breaks, reconnections, and ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import live_servers
import numpy as np
import pytest
from live_servers import MediaServer, send_file, send_live, write_transport_stream
from program_help import REPOSITORY
from talking_clips import make_talking

from facevox import cli
from facevox.addresses import Address
from facevox.errors import UserError
from lipsync import realtime
from lipsync.clips import live
from lipsync.clips.live import GaveUpError, LiveAddress
from lipsync.clips.sounds import SAMPLE_RATE_HZ

QUICK_S = 0.6  # in which six seconds are sent
Material = tuple[float, int, int]  # start of a stretch, pictures, samples


@pytest.fixture(scope="module")
def talking(load_script, tmp_path_factory) -> Path:
    return make_talking(load_script, tmp_path_factory)[0]


@pytest.fixture(scope="module")
def stream(talking: Path, tmp_path_factory) -> bytes:
    return write_transport_stream(talking, tmp_path_factory.mktemp("live") / "talk.ts").read_bytes()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits, which are as long as the real ones in proportion."""
    monkeypatch.setattr(live, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(live, "MOST_WAIT_S", 0.2)


def read(source: LiveAddress) -> list[Material]:
    """Reads all stretches to the end of the last try to connect."""
    material: list[Material] = []

    def counted() -> Iterator[Material]:
        for stretch in source.stretches():
            pieces = list(stretch.pieces())
            num_frames = sum(kind == "frame" for kind, _ in pieces)
            yield stretch.start_s, num_frames, sum(len(part) for kind, part in pieces if kind == "sound")

    with pytest.raises(GaveUpError):
        material.extend(counted())
    return material


def source_of(url: str, max_retries: int = 0) -> LiveAddress:
    return LiveAddress(Address(url), max_retries, lambda: False)


def test_stream_is_read_by_its_own_clock(stream: bytes) -> None:
    with MediaServer(lambda handler: send_live(handler, stream, QUICK_S)) as server:
        ((start_s, num_frames, num_samples),) = read(source_of(server.url()))
    assert start_s == 0.0
    assert 140 <= num_frames <= 150
    assert num_samples / SAMPLE_RATE_HZ == pytest.approx(num_frames / 25, abs=0.15)


def test_server_that_dies_and_comes_back_starts_a_new_stretch(stream: bytes, waits: None, caplog) -> None:
    half = stream[: len(stream) // 2 // 188 * 188]
    with MediaServer(lambda handler: send_live(handler, half, QUICK_S)) as server:
        port = server.port
        url = server.url(login="user:secret@")
        source = source_of(url, max_retries=6)
        stretches = source.stretches()
        first = next(stretches)
        assert sum(kind == "frame" for kind, _ in first.pieces()) >= 50

    def come_back() -> None:
        time.sleep(0.3)
        with MediaServer(lambda handler: send_live(handler, half, QUICK_S), port):
            time.sleep(3)

    with live_servers.in_thread(come_back):
        second = next(stretches)
        assert second.start_s >= first.start_s + first.num_frames / 25
        assert sum(kind == "frame" for kind, _ in second.pieces()) >= 50
    assert "Connection refused" in caplog.text
    assert "connecting again in" in caplog.text
    assert "(try 2 of 6)" in caplog.text
    assert "secret" not in caplog.text


def test_waits_grow_and_begin_again_after_a_healthy_connection(
    stream: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([None, None, stream, None])
    seconds = []

    def answer(handler: Any) -> None:
        content = next(answers, None)
        if content:
            send_live(handler, content, QUICK_S)
        else:
            handler.send_error(503)

    monkeypatch.setattr(LiveAddress, "_wait", lambda self, wait_s: seconds.append(wait_s))
    with MediaServer(answer) as server:
        assert len(read(source_of(server.url(), max_retries=3))) == 1
    assert seconds == [1.0, 2.0, 1.0, 2.0, 4.0]


@pytest.mark.parametrize("jump_s", [3600.0, -8.0])
def test_stamps_that_jump_start_a_new_stretch(
    talking: Path, stream: bytes, jump_s: float, tmp_path: Path, caplog
) -> None:
    after = write_transport_stream(talking, tmp_path / "b.ts", start_s=16.0 + jump_s).read_bytes()
    with MediaServer(lambda handler: send_live(handler, stream + after, 2 * QUICK_S)) as server:
        material = read(source_of(server.url()))
    assert [num_frames >= 130 for _, num_frames, _ in material] == [True, True]
    # Nothing of before the jump is after it: neither pictures nor sound are longer than a part.
    assert all(num_frames <= 152 and num_samples <= 6.2 * 16_000 for _, num_frames, num_samples in material)
    assert material[1][0] >= material[0][0] + 5
    assert "time stamps jump" in caplog.text


def test_stamps_that_wrap_go_on(talking: Path, tmp_path: Path) -> None:
    wrap_s = 2**33 / 90_000  # a day and two hours and a half, where those of MPEG-TS begin again
    content = write_transport_stream(talking, tmp_path / "w.ts", start_s=wrap_s - 3.0).read_bytes()
    with MediaServer(lambda handler: send_live(handler, content, QUICK_S)) as server:
        material = read(source_of(server.url()))
    assert sum(num_frames for _, num_frames, _ in material) >= 140
    assert len(material) == 1


def test_scorer_that_does_not_keep_up_loses_whole_windows(
    stream: bytes, talking: Path, tmp_path: Path, caplog
) -> None:
    parts = [
        write_transport_stream(talking, tmp_path / f"{n}.ts", start_s=10.0 + 6 * n).read_bytes()
        for n in range(4)
    ]
    with MediaServer(lambda handler: send_live(handler, b"".join(parts), 1.0)) as server:
        source = source_of(server.url())
        lengths = []
        with pytest.raises(GaveUpError):
            for stretch in source.stretches():
                for kind, _ in stretch.pieces():
                    time.sleep(0.01 * (kind == "frame"))
                lengths.append(stretch.num_frames / 25)
    assert lengths[0] >= live.LEAST_STRETCH_S
    assert source.left_out_s > 5.0
    assert source.left_out_s + sum(lengths) == pytest.approx(24, abs=1.0)
    assert f"{source.left_out_s:.1f} s in all" in caplog.text


def test_waiting_packets_are_limited(stream: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_WAITING", 50)
    with MediaServer(lambda handler: send_live(handler, stream, 0.2)) as server:
        connection = live._Connection(Address(server.url()))
        while connection.fault is None:
            time.sleep(0.02)
            assert len(connection._waiting) <= 52
        connection.stop()
    assert connection.num_lost >= 3
    assert connection.newest_s == pytest.approx(5.9, abs=0.2)


def test_streams_stay_open_for_the_decoder(stream: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder reads of the streams what is the container's, also after the last packet came."""
    containers = []
    opened = live._opened
    monkeypatch.setattr(live, "_opened", lambda address: containers.append(opened(address)) or containers[0])
    with MediaServer(lambda handler: send_live(handler, stream, 0.1)) as server:
        connection = live._Connection(Address(server.url()))
        while connection.fault is None:
            time.sleep(0.02)
        time.sleep(0.1)
        (container,) = containers
        assert container.duration is None or container.duration >= 0  # raises once it is closed
        connection.stop()
        with pytest.raises(AssertionError, match="not open"):
            for _ in range(100):
                time.sleep(0.02)
                assert container.duration is None or container.duration >= 0


@pytest.mark.parametrize(("kinds", "missing"), [(("video",), "sound"), (("audio",), "pictures")])
def test_stream_without_one_of_both_is_refused(
    talking: Path, kinds: tuple[str, ...], missing: str, tmp_path: Path, capsys
) -> None:
    content = write_transport_stream(talking, tmp_path / "x.ts", kinds=kinds).read_bytes()
    with MediaServer(lambda handler: send_live(handler, content, 0.1)) as server:
        assert cli.run(realtime.main, ["--video", server.url()]) == 2
    message = capsys.readouterr().err
    assert f"the stream has no {missing}" in message
    assert message.count("\n") == 1


def test_server_that_sends_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "DEAD_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        start_s = time.monotonic()
        with pytest.raises(GaveUpError, match="nothing came for 0 s; given up after 0 tries"):
            list(source_of(f"tcp://127.0.0.1:{server.getsockname()[1]}").stretches())
    assert time.monotonic() - start_s < 3


def test_stream_that_falls_silent_is_noticed(stream: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "DEAD_S", 0.8)

    def answer(handler: Any) -> None:
        send_live(handler, stream, 0.3)
        time.sleep(8)

    with MediaServer(answer) as server:
        start_s = time.monotonic()
        assert len(read(source_of(server.url()))) == 1
    assert time.monotonic() - start_s < 5


def test_host_that_is_not_there_ends_with_one_line(capsys) -> None:
    words = ["--video", "rtsp://user:secret@no-such-host.invalid/x", "--max_retries", "0"]
    assert cli.run(realtime.main, words) == 1
    message = capsys.readouterr().err
    assert "rtsp://***@no-such-host.invalid/x: no host no-such-host.invalid is known; given up" in message
    assert "secret" not in message
    assert message.count("\n") == 1


def test_datagrams_are_read(stream: bytes) -> None:
    port, stop = live_servers.free_port(socket.SOCK_DGRAM), threading.Event()
    source = LiveAddress(Address(f"udp://127.0.0.1:{port}"), 0, stop.is_set)
    with live_servers.in_thread(lambda: live_servers.send_datagrams(port, stream, 1.5, stop)):
        num_frames = 0
        for stretch in source.stretches():  # a new one each time that the stream begins again
            num_frames += sum(kind == "frame" for kind, _ in stretch.pieces())
            if num_frames > 100:
                stop.set()
    assert stop.is_set()


def test_rtmp_is_read(talking: Path, tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        live_servers.in_thread(lambda: live_servers.serve_rtmp(listener, talking, tmp_path)),
    ):
        url = f"rtmp://127.0.0.1:{listener.getsockname()[1]}/live/talk"
        ((_, num_frames, num_samples),) = read(source_of(url))
    assert num_frames >= 140
    assert num_samples >= 5.5 * SAMPLE_RATE_HZ


def test_rtsp_is_read(stream: bytes) -> None:
    with live_servers.RtspServer(stream, 1.0) as server:
        ((_, num_frames, num_samples),) = read(source_of(f"rtsp://127.0.0.1:{server.port}/talk"))
    assert num_frames >= 135
    assert num_samples >= 5.5 * SAMPLE_RATE_HZ


def test_protocol_that_ffmpeg_lacks_is_named() -> None:
    with pytest.raises(UserError, match=r"srt://127.0.0.1:9: FFmpeg in this PyAV has no srt"):
        list(source_of("srt://127.0.0.1:9").stretches())


def test_play_list_is_no_live_stream(tmp_path: Path) -> None:
    secret = tmp_path / "secret.ts"
    secret.write_bytes(b"G" + bytes(187))
    texts = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n",
        f"ffconcat version 1.0\nfile '{secret}'\n",
    ]
    for text in texts:
        with MediaServer(lambda handler, text=text: send_live(handler, text.encode(), 0.1)) as server:
            with pytest.raises(UserError, match="no live stream that can be read"):
                list(source_of(server.url("/live.m3u8"), max_retries=5).stretches())
            assert set(server.requests) == {"/live.m3u8"}


def test_redirection_leads_to_no_file(tmp_path: Path, stream: bytes) -> None:
    (tmp_path / "secret.ts").write_bytes(stream)

    def answer(handler: Any) -> None:
        handler.send_response(302)
        handler.send_header("Location", f"file://{tmp_path / 'secret.ts'}")
        handler.end_headers()

    with MediaServer(answer) as server, pytest.raises(UserError):
        list(source_of(server.url()).stretches())


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scorer that sees no faces, which takes no time."""
    from lipsync.clips.features import FaceFeatureStream, FrameFeatures

    count = {}

    def push(self: FaceFeatureStream, image: np.ndarray, time_s: float | None = None) -> list[FrameFeatures]:
        count[id(self)] = count.get(id(self), -1) + 1
        return [FrameFeatures(count[id(self)], count[id(self)] / 25, 0, ())]

    monkeypatch.setattr(FaceFeatureStream, "push", push)
    monkeypatch.setattr(FaceFeatureStream, "finish", lambda self: [])


def test_program_prints_the_delay(stream: bytes, blind: None, waits: None, capsys) -> None:
    with MediaServer(lambda handler: send_live(handler, stream, 2.0)) as server:
        url = server.url("/live.ts?token=secret", "user:secret@")
        assert cli.run(realtime.main, ["--video", url, "--max_retries", "0", "--json"]) == 1
        output = capsys.readouterr()
        lines = [json.loads(line) for line in output.out.splitlines()]
        assert [line["end_s"] for line in lines][:2] == [pytest.approx(4.48), pytest.approx(5.48)]
        assert all(0.0 <= line["delay_s"] < 3.0 and line["left_out_s"] == 0.0 for line in lines)
        assert output.err.count("\n") == 1
        assert f"http://***@127.0.0.1:{server.port}/live.ts?token=***: the " in output.err
        assert "given up after 0 tries" in output.err
        assert cli.run(realtime.main, ["--video", url, "--max_duration_s", "5"]) == 1
    output = capsys.readouterr()
    assert " s  delay " in output.out
    assert "secret" not in output.out + output.err


def test_address_of_a_file_is_scored_as_a_file(talking: Path, blind: None, capsys) -> None:
    content = talking.read_bytes()
    with MediaServer(lambda handler: send_file(handler, content)) as server:
        assert cli.run(realtime.main, ["--video", server.url("/talk.mp4"), "--json"]) == 1
        assert len(server.requests) == 1
    output = capsys.readouterr()
    assert "delay_s" not in output.out
    assert "x real time" in output.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("state", ["blocked", "waiting"])
def test_signal_ends_it_at_any_time(number: signal.Signals, state: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1] if state == "blocked" else live_servers.free_port()
        with ExitStack() as stack, subprocess.Popen(
            [sys.executable, "lipsync/realtime.py", "--video", f"tcp://127.0.0.1:{port}"],
            cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, env=os.environ,
        ) as program:  # fmt: skip
            if state == "blocked":
                server.settimeout(60)
                client, _ = server.accept()
                stack.enter_context(client)
            else:
                assert program.stderr is not None
                while "(try 3 of" not in program.stderr.readline():
                    pass
            time.sleep(0.3)
            program.send_signal(number)
            start_s = time.monotonic()
            assert program.wait(timeout=20) == 75
            assert time.monotonic() - start_s < 5


def test_real_stream_gets_the_verdicts_of_its_file(talking: Path, stream: bytes, capsys) -> None:
    """At the pace of the stream, with faces: the numbers of the file, and a delay below two seconds."""
    with MediaServer(lambda handler: send_live(handler, stream, 6.0)) as server:
        options = ["--method", "untrained", "--json"]
        cli.run(realtime.main, ["--video", server.url(), "--max_retries", "0", *options])
        of_stream = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert cli.run(realtime.main, ["--video", str(talking), *options]) == 0
    of_file = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert abs(len(of_stream) - len(of_file)) <= 1
    assert {line["verdict"] for line in of_stream} == {"in_sync"}
    assert all(line["delay_s"] < 2.0 for line in of_stream)
    assert of_stream[0]["offset_ms"] == pytest.approx(of_file[0]["offset_ms"], abs=20)
