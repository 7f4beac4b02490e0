"""Servers of live streams and of files on this machine, for tests."""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av

BLOCK_BYTES = 188 * 20


def write_transport_stream(
    video: Path, target: Path, *, start_s: float = 10.0, kinds: tuple[str, ...] = ("video", "audio")
) -> Path:
    """The streams of a file, not encoded again, as MPEG-TS whose stamps begin at `start_s`."""
    with av.open(str(video)) as source, av.open(str(target), "w", format="mpegts") as sink:
        streams: dict[int, Any] = {
            stream.index: sink.add_stream_from_template(stream)
            for stream in source.streams
            if stream.type in kinds
        }
        for packet in source.demux():
            if packet.dts is None or packet.stream_index not in streams:
                continue
            base = packet.time_base or Fraction(1)
            packet.pts = (packet.pts or 0) + round(start_s / base)
            packet.dts = packet.dts + round(start_s / base)
            packet.stream = streams[packet.stream_index]
            sink.mux(packet)
    return target


class MediaServer:
    """An HTTP server of this machine, whose answers a function makes; a context manager.

    Args:
        answer: Called with the handler for each request.
        port: 0: any that is free.
    """

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], None], port: int = 0) -> None:
        self.requests: list[str] = []
        self.logins: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append(self.path)
                server.logins.append(self.headers.get("Authorization", ""))
                with contextlib.suppress(ConnectionError):
                    answer(self)

            def log_message(self, format: str, *values: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "MediaServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Speaks HTTPS from here on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def url(self, path: str = "/live.ts", login: str = "") -> str:
        return f"http://{login}127.0.0.1:{self.port}{path}"


def send_live(handler: BaseHTTPRequestHandler, content: bytes, seconds: float) -> None:
    """Answers with content of unknown length, at an even pace over `seconds`."""
    handler.send_response(200)
    handler.send_header("Content-Type", "video/mp2t")
    handler.end_headers()
    blocks = [content[at : at + BLOCK_BYTES] for at in range(0, len(content), BLOCK_BYTES)]
    start_s = time.monotonic()
    for number, block in enumerate(blocks):
        time.sleep(max(start_s + number * seconds / len(blocks) - time.monotonic(), 0.0))
        handler.wfile.write(block)


def send_file(handler: BaseHTTPRequestHandler, content: bytes, *, with_length: bool = True) -> None:
    """Answers with a whole file, whatever range was asked for."""
    handler.send_response(200)
    if with_length:
        handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


@contextlib.contextmanager
def in_thread(work: Callable[[], None]) -> Iterator[threading.Thread]:
    """Runs `work` beside the block."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield thread
    thread.join(timeout=10)


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def send_datagrams(port: int, content: bytes, seconds: float, stop: threading.Event) -> None:
    """Sends a transport stream by UDP, at an even pace, again and again until `stop`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while not stop.is_set():
            start_s, size = time.monotonic(), 188 * 7
            for at in range(0, len(content), size):
                if stop.is_set():
                    return
                time.sleep(max(start_s + at / len(content) * seconds - time.monotonic(), 0.0))
                sender.sendto(content[at : at + size], ("127.0.0.1", port))


def serve_rtmp(listener: socket.socket, video: Path, folder: Path) -> None:
    """Sends the packets of a file to one RTMP client: a handshake, three answers in advance, FLV's tags."""
    film = folder / "talk.flv"
    with av.open(str(video)) as source, av.open(str(film), "w", format="flv") as sink:
        streams: dict[int, Any] = {s.index: sink.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                sink.mux(packet)
    client, _ = listener.accept()
    with client, client.makefile("rb") as requests:
        hello = requests.read(1 + 1536)
        client.sendall(b"\x03" + bytes(1536) + hello[1:])
        client.sendall(_rtmp_message(1, struct.pack(">I", 1 << 24)))  # the size of a chunk
        ok = (
            b"\x03" + _rtmp_pair("level", "status") + _rtmp_pair("code", "NetStream.Play.Start") + b"\0\0\x09"
        )
        for name, number, content in (
            ("_result", 1, b"\x05\x05"),  # of connect
            ("_result", 2, b"\x05" + b"\0" + struct.pack(">d", 1.0)),  # of createStream
            ("onStatus", 0, b"\x05" + ok),
        ):
            client.sendall(_rtmp_message(20, _rtmp_text(name) + b"\0" + struct.pack(">d", number) + content))
        content = film.read_bytes()
        at = 9 + 4
        while at < len(content):
            kind, size = content[at], int.from_bytes(content[at + 1 : at + 4], "big")
            stamp_ms = int.from_bytes(content[at + 4 : at + 7], "big")
            client.sendall(_rtmp_message(kind, content[at + 11 : at + 11 + size], stamp_ms, 1))
            at += 11 + size + 4
        client.shutdown(socket.SHUT_WR)
        requests.read()  # a connection with unread requests would be reset


def _rtmp_text(text: str) -> bytes:
    return b"\x02" + struct.pack(">H", len(text)) + text.encode()


def _rtmp_pair(name: str, value: str) -> bytes:
    return struct.pack(">H", len(name)) + name.encode() + _rtmp_text(value)


def _rtmp_message(kind: int, content: bytes, stamp_ms: int = 0, stream: int = 0) -> bytes:
    head = b"\x03" + stamp_ms.to_bytes(3, "big") + len(content).to_bytes(3, "big")
    return head + bytes([kind]) + stream.to_bytes(4, "little") + content


class RtspServer:
    """Serves one transport stream by RTSP, as RTP packets within the connection; a context manager."""

    def __init__(self, content: bytes, seconds: float) -> None:
        self._content, self._seconds = content, seconds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.logins: list[str] = []

    def __enter__(self) -> "RtspServer":
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, client.makefile("rb") as requests:
                    self._answer(client, requests)

    def _answer(self, client: socket.socket, requests: Any) -> None:
        while line := requests.readline().decode():
            headers = {}
            while (header := requests.readline().decode().strip()) != "":
                name, _, value = header.partition(":")
                headers[name.lower()] = value.strip()
            self.logins.append(headers.get("authorization", ""))
            method, body, further = line.split()[0], "", ""
            if method == "OPTIONS":
                further = "Public: DESCRIBE, SETUP, PLAY\r\n"
            elif method == "DESCRIBE":
                origin = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n"
                body = f"{origin}m=video 0 RTP/AVP 33\r\na=control:s\r\n"
                further = "Content-Type: application/sdp\r\n"
            elif method == "SETUP":
                further = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
            answer = f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq']}\r\nSession: 1\r\n{further}"
            client.sendall(f"{answer}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            if method == "PLAY":
                self._play(client)
                return

    def _play(self, client: socket.socket) -> None:
        start_s, size = time.monotonic(), 188 * 7
        for number, at in enumerate(range(0, len(self._content), size)):
            elapsed_s = at / len(self._content) * self._seconds
            time.sleep(max(start_s + elapsed_s - time.monotonic(), 0.0))
            packet = struct.pack(">BBHII", 0x80, 33, number & 0xFFFF, round(elapsed_s * 90_000), 1)
            packet += self._content[at : at + size]
            client.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
