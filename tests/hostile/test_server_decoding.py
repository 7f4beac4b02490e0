"""Files made to be slow or large to decode: the process that reads them ends, the server does not."""

import contextlib
import io
import json
import os
import signal
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from face_pictures import jpeg_of_faces
from live_server import HANG_S, LiveServer, ask, receive
from PIL import Image
from small_classifier import write_small_classifier
from websockets.exceptions import ConnectionClosed

from emotion.serving import decoders
from emotion.serving.config import ServerConfig
from emotion.serving.decoders import DecoderStarter, FrameDecoder, UploadDecoder
from emotion.serving.memory import MemoryFile
from emotion.serving.pictures import decode_frame
from emotion.serving.refusals import Refusal

CONFIG = ServerConfig(model=None)
linux = pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
needs_memfd = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="uploads need Linux")


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def scan_bomb(side: int, num_bytes: int) -> bytes:
    """A grey progressive JPEG of very many scans, each of which says of all blocks that nothing follows."""
    num_blocks = (side // 8) ** 2
    assert num_blocks % 32 == 0, "whole bytes below"
    header = struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0])
    dc_codes = bytes([0x00, 1, 1]) + bytes(14) + bytes([0, 1])  # the code 0: no difference
    ac_codes = bytes([0x10, 0, 0, 0, 15]) + bytes(12) + bytes(run << 4 for run in range(15))
    first = segment(0xDA, bytes([1, 1, 0, 0, 0, 1])) + bytes(num_blocks // 8)
    # Runs of 2 ** 14 blocks without coefficients: code 14, of four bits, and 14 bits of 0.
    bits = "".join("1110" + "0" * 14 for _ in range(num_blocks >> 14))
    rest = num_blocks % (1 << 14)
    for power in range(14, -1, -1):
        if rest >> power & 1:
            bits += f"{power:04b}" + "0" * power
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    scan, refining = (segment(0xDA, bytes([1, 1, 0, 1, 63, low])) + data for low in (0x01, 0x10))
    head = b"\xff\xd8" + segment(0xDB, bytes([0, *[1] * 64])) + segment(0xC2, header)
    head += segment(0xC4, dc_codes) + segment(0xC4, ac_codes) + first + scan
    return head + refining * ((num_bytes - len(head)) // len(refining)) + b"\xff\xd9"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def chunk_bomb(num_bytes: int) -> bytes:
    """A PNG of very many chunks without content."""
    empty = chunk(b"abCd", b"")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(64 * 193))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + empty * (num_bytes // len(empty)) + pixels


def marker_bomb(num_bytes: int) -> bytes:
    """A JPEG of very many comments without content."""
    return b"\xff\xd8" + segment(0xFE, b"") * (num_bytes // 4) + jpeg_of_faces(1)[2:]


def box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def full(kind: bytes, *parts: bytes, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", flags), *parts)


def sample_bomb(num_samples: int, num_tracks: int = 2) -> bytes:
    """An mp4 of a kilobyte whose table of samples states very many, all of one size."""
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    entry = box(
        b"jpeg", bytes(6), struct.pack(">H", 1), bytes(16), struct.pack(">HHII", 64, 64, 0x480000, 0x480000),
        bytes(4), struct.pack(">H", 1), bytes(32), struct.pack(">Hh", 24, -1),
    )  # fmt: skip
    table = box(
        b"stbl", full(b"stsd", struct.pack(">I", 1), entry),
        full(b"stts", struct.pack(">III", 1, num_samples, 1)),
        full(b"stsc", struct.pack(">IIII", 1, 1, num_samples, 1)),
        full(b"stsz", struct.pack(">II", 16, num_samples)), full(b"stco", struct.pack(">II", 1, 40)),
    )  # fmt: skip
    source = box(b"dinf", full(b"dref", struct.pack(">I", 1), full(b"url ", flags=1)))
    media = box(
        b"mdia", full(b"mdhd", struct.pack(">IIIIHH", 0, 0, 25, 25, 0x55C4, 0)),
        full(b"hdlr", bytes(4), b"vide", bytes(12), b"x\0"),
        box(b"minf", full(b"vmhd", bytes(8), flags=1), source, table),
    )  # fmt: skip
    tracks = [
        box(b"trak", full(
            b"tkhd", struct.pack(">IIIII", 0, 0, k + 1, 0, 1000), bytes(16), matrix,
            struct.pack(">II", 64 << 16, 64 << 16), flags=7,
        ), media)
        for k in range(num_tracks)
    ]  # fmt: skip
    movie = full(
        b"mvhd", struct.pack(">IIIIIH", 0, 0, 1000, 1000, 0x10000, 0x100), bytes(10), matrix, bytes(24),
        struct.pack(">I", 2),
    )  # fmt: skip
    head = box(b"ftyp", b"isom\0\0\2\0isomiso2mp41") + box(b"mdat", b"\xff\xd8\xff\xd9" * 64)
    return head + box(b"moov", movie, *tracks)


def large_png(side: int) -> bytes:
    """A picture of many pixels and few bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "grey").save(buffer, "PNG")
    return buffer.getvalue()


SCANS = scan_bomb(1984, 1_900_000)
CHUNKS, MARKERS = chunk_bomb(1_900_000), marker_bomb(1_900_000)


# The limits have to hold for what the checks of headers do not know: decoders in these tests have none.
UNCHECKED = """
import facevox.files, facevox.media.container
facevox.files.cost_fault = facevox.media.container.table_fault = lambda *arguments: ""
"""
PROGRAM = f"""
import sys
from emotion import server
from emotion.serving import decoders
decoders._PROGRAM = {UNCHECKED!r} + decoders._PROGRAM
sys.exit(server.main())
"""


@pytest.fixture(scope="module")
def starter() -> Iterator[DecoderStarter]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoders, "_PROGRAM", UNCHECKED + decoders._PROGRAM)
        process = DecoderStarter()
        process.start()
    yield process
    process.close()


def unchecked_server(folder: Path, model_dir: Path) -> LiveServer:
    return LiveServer(folder, model_dir, program=("-c", PROGRAM))


@pytest.fixture
def decoder(starter: DecoderStarter) -> Iterator[FrameDecoder]:
    frames = FrameDecoder(starter, CONFIG)
    yield frames
    frames.close()


def process_of(decoder: FrameDecoder) -> psutil.Process:
    return psutil.Process(decoder.start()._process[0])


def wait_for_end(process: psutil.Process) -> None:
    end_s = time.monotonic() + HANG_S
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end_s:
            time.sleep(0.01)


def refusal(work: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as refused:
        work()
    return refused.value.code


# The parts: a process that decodes frames, one that decodes an upload.


def test_frame_is_decoded_as_in_this_process(decoder: FrameDecoder) -> None:
    for content in (jpeg_of_faces(1), large_png(300), jpeg_of_faces(4)):
        np.testing.assert_array_equal(decoder.decode(content), decode_frame(content, 10**6))
    assert refusal(lambda: decoder.decode(b"no picture")) == "not_an_image"
    assert refusal(lambda: decoder.decode(large_png(2100))) == "too_many_pixels"
    assert refusal(lambda: decoder.decode(bytes(CONFIG.max_frame_bytes + 1))) == "too_large"


def test_process_imports_neither_a_web_framework_nor_an_interpreter(decoder: FrameDecoder) -> None:
    maps = Path(f"/proc/{process_of(decoder).pid}/maps")
    if not maps.exists():
        pytest.skip("reads /proc")
    mapped = maps.read_text()
    for name in ("tensorflow", "ai_edge_litert", "torch", "cv2", "mediapipe", "pydantic_core", "uvloop"):
        assert f"site-packages/{name}/" not in mapped


def test_scan_bomb_ends_after_a_second_and_the_next_frame_is_decoded(decoder: FrameDecoder) -> None:
    former = process_of(decoder)
    start_s = time.monotonic()
    assert refusal(lambda: decoder.decode(SCANS)) == "too_costly"
    assert time.monotonic() - start_s >= decoders.FRAME_S
    np.testing.assert_array_equal(decoder.decode(jpeg_of_faces(1)), decode_frame(jpeg_of_faces(1), 10**6))
    assert process_of(decoder) != former
    assert not former.is_running()


@pytest.mark.parametrize("content", [CHUNKS, MARKERS], ids=["chunks", "markers"])
def test_picture_of_very_many_parts_takes_a_second_at_most(content: bytes, decoder: FrameDecoder) -> None:
    start_s = time.monotonic()
    with contextlib.suppress(Refusal):  # a fast machine reads it in time
        decoder.decode(content)
    assert time.monotonic() - start_s < decoders.FRAME_S + decoders.LATE_S + 2  # other work on this machine


def test_process_that_stands_still_is_ended_from_outside(decoder: FrameDecoder) -> None:
    former = process_of(decoder)
    former.suspend()  # its own alarm does not end it then
    assert refusal(lambda: decoder.decode(jpeg_of_faces(1))) == "too_costly"
    assert not former.is_running()
    assert decoder.decode(jpeg_of_faces(1)).shape == (480, 640, 3)


def test_process_that_was_killed_between_two_frames_is_replaced(decoder: FrameDecoder) -> None:
    process_of(decoder).kill()
    wait_for_end(process_of(decoder))
    assert decoder.decode(jpeg_of_faces(1)).shape == (480, 640, 3)


def test_process_that_is_killed_while_it_decodes_refuses_that_frame_alone(decoder: FrameDecoder) -> None:
    former = process_of(decoder)
    former.suspend()
    threading.Timer(0.2, former.kill).start()
    assert refusal(lambda: decoder.decode(jpeg_of_faces(1))) == "failed"
    assert decoder.decode(jpeg_of_faces(1)).shape == (480, 640, 3)


def test_starter_that_was_killed_is_started_again() -> None:
    starter = DecoderStarter()
    decoder = FrameDecoder(starter, CONFIG)
    try:
        first = process_of(decoder)
        for process in (first.parent(), first):
            process.kill()
            wait_for_end(process)
        assert decoder.decode(jpeg_of_faces(1)).shape == (480, 640, 3)
        assert process_of(decoder).parent().parent() == psutil.Process()
    finally:
        starter.close()
        decoder.close()
    assert refusal(lambda: decoder.decode(jpeg_of_faces(1))) == "stopping"


@pytest.mark.parametrize("has_memfd", [True, False])
def test_shared_memory_has_no_name_that_could_be_left(
    has_memfd: bool, starter: DecoderStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path("/dev/shm")
    before = set(folder.iterdir()) if folder.is_dir() else set()
    if not has_memfd:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    decoder = FrameDecoder(starter, CONFIG)
    try:
        assert decoder.decode(jpeg_of_faces(1)).shape == (480, 640, 3)
        assert not {path for path in set(folder.iterdir()) - before if "facevox" in path.name}
    finally:
        decoder.close()


@needs_memfd
@pytest.mark.parametrize("name", ["scans", "chunks"])
def test_picture_that_is_slow_to_decode_is_given_up(
    name: str, starter: DecoderStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "PICTURE_S", 1.0)  # of the server; the decoder's own alarm comes later
    content = {"scans": SCANS, "chunks": chunk_bomb(25_000_000)}[name]
    with contextlib.closing(MemoryFile()) as file:
        file.write(content)
        with contextlib.closing(UploadDecoder(starter, file, CONFIG)) as upload:
            assert refusal(upload.open) == "too_costly"


@needs_memfd
def test_upload_whose_client_left_is_ended_at_once(starter: DecoderStarter) -> None:
    with contextlib.closing(MemoryFile()) as file:
        file.write(SCANS)
        with contextlib.closing(UploadDecoder(starter, file, CONFIG)) as upload:
            start_s = time.monotonic()
            threading.Timer(0.3, upload.end).start()
            assert refusal(upload.open) == "stopping"
            assert time.monotonic() - start_s < decoders.PICTURE_S


@linux
@needs_memfd
def test_mp4_of_88_million_samples_takes_no_gigabytes(starter: DecoderStarter) -> None:
    sizes = []
    is_done = threading.Event()

    def watch() -> None:
        process = psutil.Process(starter._process.pid)
        while not is_done.wait(0.005):
            with contextlib.suppress(psutil.Error):
                sizes.extend(child.memory_info().rss for child in process.children())

    watching = threading.Thread(target=watch)
    with contextlib.closing(MemoryFile()) as file:
        file.write(sample_bomb(88_000_000))
        with contextlib.closing(UploadDecoder(starter, file, CONFIG)) as upload:
            watching.start()
            try:
                with contextlib.suppress(Refusal):  # it may as well be read, as what it has indeed
                    upload.open()
                    while not isinstance(upload.next_frame(), int):
                        pass
            finally:
                is_done.set()
                watching.join()
    assert max(sizes) < 10**9


# The real server.


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_classifier(tmp_path_factory.mktemp("model")).parent


@pytest.fixture(scope="module")
def server(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with unchecked_server(tmp_path_factory.mktemp("server"), model_dir) as running:
        yield running


def processes(server: LiveServer) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children(recursive=True)


def test_decoders_are_there_before_the_server_is_ready(server: LiveServer) -> None:
    num_workers = min(os.cpu_count() or 1, 3)
    assert len(processes(server)) == 1 + num_workers  # the starter, too


def attack(
    server: LiveServer, host: str, frame: bytes, is_over: threading.Event, codes: list[str | int]
) -> None:
    """Sends one frame again and again, and comes back when it is cut off."""
    while not is_over.is_set():
        with contextlib.suppress(OSError, TimeoutError), server.connect(source_address=(host, 0)) as client:
            try:
                receive(client)
                client.send(frame)
                while not is_over.is_set():
                    with contextlib.suppress(TimeoutError):  # it has to wait
                        codes.append(receive(client, 0.2).get("code", "result"))
                        client.send(frame)
            except ConnectionClosed as closed:
                codes.append(closed.rcvd.code if closed.rcvd else 0)


@linux  # other systems have no 127.0.1.2
@pytest.mark.parametrize("name", ["scans", pytest.param("chunks", marks=pytest.mark.slow)])
def test_honest_client_keeps_its_answers_beside_bombs(name: str, server: LiveServer) -> None:
    number, frame = {"scans": (1, SCANS), "chunks": (2, CHUNKS)}[name]
    is_over = threading.Event()
    codes: list[list[str | int]] = [[], []]
    with server.connect() as honest:
        ask(honest, jpeg_of_faces(1))
        before_mb = server.memory_mb()
        attackers = [
            threading.Thread(
                target=attack, args=(server, f"127.0.{number}.{2 + k}", frame, is_over, codes[k])
            )
            for k in range(2)
        ]
        for thread in attackers:
            thread.start()
        num_answers, longest_s = 0, 0.0
        end_s = time.monotonic() + 4
        while time.monotonic() < end_s:
            start_s = time.monotonic()
            assert len(ask(honest, jpeg_of_faces(1))["faces"]) == 1
            longest_s = max(longest_s, time.monotonic() - start_s)
            num_answers += 1
        is_over.set()
        for thread in attackers:
            thread.join(HANG_S)
        assert server.memory_mb() - before_mb < 100
    assert num_answers >= 5  # on a busy machine, too; one or two before decoders could be ended
    assert longest_s < 4  # two decoders that need a second each, on a busy machine
    assert all(codes)


@linux
def test_client_that_leaves_at_once_keeps_its_turn_until_the_decoder_is_free(server: LiveServer) -> None:
    before = server.metric('emotion_closes_total{code="1000"}')
    for _ in range(3):
        with server.connect(source_address=("127.0.8.2", 0)) as client:
            receive(client)
            client.send(SCANS)
            time.sleep(0.1)
    start_s = time.monotonic()
    with server.connect(source_address=("127.0.8.2", 0)) as client:
        ask(client, jpeg_of_faces(1))
    # The first of them had its second, and the address has to wait for it.
    assert time.monotonic() - start_s > 1
    assert server.metric('emotion_closes_total{code="1000"}') >= before + 3


@linux
def test_client_that_goes_on_is_told_and_cut_off(server: LiveServer) -> None:
    before = server.metric('emotion_frames_refused_total{code="too_costly"}')
    with server.connect(source_address=("127.0.9.2", 0)) as client:
        receive(client)
        told = []
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(10):
                told.append(ask(client, SCANS))  # noqa: PERF401  # keeps what came before the end
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "frames that take too long to decode")
    assert [message["code"] for message in told] == ["too_costly"] * 2
    assert server.metric('emotion_frames_refused_total{code="too_costly"}') == before + 2


@pytest.mark.parametrize("name", ["samples", "large"])
def test_upload_that_takes_much_memory_leaves_the_server_as_it_was(name: str, server: LiveServer) -> None:
    before_mb = server.memory_mb()
    content = {"samples": sample_bomb(88_000_000), "large": large_png(4000)}[name]
    status, _ = server.upload(content)
    assert status in (200, 413, 415)
    assert server.memory_mb() - before_mb < 50
    assert server.upload(jpeg_of_faces(1))[0] == 200


def test_sigterm_ends_the_server_within_five_seconds_under_attack(model_dir: Path, tmp_path: Path) -> None:
    with unchecked_server(tmp_path, model_dir) as server:
        upload = threading.Thread(target=server_upload, args=(server, SCANS))
        clients = [server.connect() for _ in range(3)]
        for client in clients:
            client.send(SCANS)
        upload.start()
        time.sleep(0.5)
        started = processes(server)
        start_s = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - start_s < 5 + 3  # other work on this machine
        assert not [process for process in started if process.is_running()]
        upload.join(HANG_S)
        for client in clients:
            client.close()
    assert "Traceback" not in server.output


def server_upload(server: LiveServer, content: bytes) -> None:
    with contextlib.suppress(OSError, json.JSONDecodeError):
        server.upload(content)


def test_no_process_is_left_when_the_server_is_killed(model_dir: Path, tmp_path: Path) -> None:
    with unchecked_server(tmp_path, model_dir) as server:
        upload = threading.Thread(target=server_upload, args=(server, SCANS))
        upload.start()
        with server.connect() as client:
            client.send(SCANS)
            time.sleep(0.5)
            started = processes(server)
            assert len(started) > 1 + min(os.cpu_count() or 1, 3)  # the upload's, too
            server.process.send_signal(signal.SIGKILL)
            server.wait()
        upload.join(HANG_S)
        _, alive = psutil.wait_procs(started, timeout=5)
    assert not alive
