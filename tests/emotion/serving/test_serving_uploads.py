"""Uploaded pictures and videos, with the real server."""

import contextlib
import http.client
import io
import json
import os
import select
import signal
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from face_pictures import frame_of_faces, jpeg_of_faces
from heic_files import heic, require_hevc
from live_server import HANG_S, LiveServer
from PIL import Image
from small_classifier import CLASSES

from facevox.media import write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Two seconds of a face that moves to the right; 320 x 240."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    frames = (frame_of_faces(1, 4 * k)[::2, ::2] for k in range(20))
    write_video(path, frames, 10.0)
    return path.read_bytes()


def saved(image: np.ndarray, name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, name, **options)
    return buffer.getvalue()


def test_picture_answers_with_its_faces(server: LiveServer) -> None:
    status, answer = server.upload(jpeg_of_faces(2))
    assert status == 200
    assert (answer["kind"], answer["width"], answer["height"]) == ("image", 640, 480)
    assert answer["classes"] == list(CLASSES)
    assert [face["id"] for face in answer["faces"]] == [1, 2]
    for face in answer["faces"]:
        assert abs(sum(face["probabilities"]) - 1) < 1e-3
        assert face["label"] == CLASSES[int(np.argmax(face["probabilities"]))]


def test_boxes_of_a_large_photograph_are_in_its_own_pixels(server: LiveServer) -> None:
    small, large = frame_of_faces(1), frame_of_faces(1).repeat(7, axis=0).repeat(7, axis=1)
    exif = Image.Exif()
    exif[0x0112] = 6  # decoded smaller, and turned
    content = saved(np.rot90(large).copy(), "JPEG", quality=60, exif=exif)
    _, expected = server.upload(saved(small, "JPEG", quality=95))
    status, answer = server.upload(content)
    assert (status, answer["width"], answer["height"]) == (200, 4480, 3360)
    np.testing.assert_allclose(answer["faces"][0]["box"], 7 * np.array(expected["faces"][0]["box"]), atol=60)


def test_video_answers_with_five_frames_a_second(server: LiveServer, clip: bytes) -> None:
    status, answer = server.upload(clip)
    assert status == 200
    assert (answer["kind"], answer["width"], answer["height"], answer["fps"]) == ("video", 320, 240, 5.0)
    assert answer["duration_s"] == pytest.approx(2, abs=0.15)
    assert [frame["time_s"] for frame in answer["frames"]] == [round(0.2 * k, 3) for k in range(10)]
    lefts = []
    for frame in answer["frames"]:
        (face,) = frame["faces"]
        assert face["id"] == 1
        lefts.append(face["box"][0])
    assert lefts == sorted(lefts)
    assert lefts[-1] - lefts[0] == pytest.approx(36, abs=6)  # 18 frames of 4 pixels, at half size


@pytest.mark.parametrize("name", ["HEIC", "AVIF", "BMP", "TIFF", "GIF"])
def test_other_pictures_are_answered_as_a_jpeg_is(server: LiveServer, name: str) -> None:
    picture = frame_of_faces(1)
    if name == "HEIC":
        require_hevc()
        content = heic(np.rot90(picture).copy(), tile_px=256, turns=3, exif_orientation=6)
    else:
        content = saved(picture, name)
    status, answer = server.upload(content)
    assert (status, answer.get("kind"), answer.get("width"), answer.get("height")) == (200, "image", 640, 480)
    _, expected = server.upload(jpeg_of_faces(1))
    np.testing.assert_allclose(answer["faces"][0]["box"], expected["faces"][0]["box"], atol=8)


def test_heic_that_cannot_be_decoded_is_no_video_of_a_tile(server: LiveServer) -> None:
    require_hevc()
    content = heic(frame_of_faces(1), tile_px=256)
    place = content.index(b"pitm")
    status, answer = server.upload(content[:place] + b"zzzz" + content[place + 4 :])
    assert (status, answer["error"]["code"]) == (415, "not_media")
    for language in ("en", "ko"):
        assert "JPEG, PNG, WebP, HEIC, AVIF, BMP, TIFF" in answer["error"]["message"][language]


def damaged(content: bytes) -> bytes:
    return content[: len(content) // 2]


BAD_FILES = {
    "truncated picture": (lambda clip: damaged(jpeg_of_faces(1)), 415, "not_an_image"),
    "text": (lambda clip: b"no picture at all\n" * 50, 415, "not_media"),
    "nothing": (lambda clip: b"", 415, "not_media"),
    "play list": (lambda clip: b"ffconcat version 1.0\nfile '/etc/passwd'\n", 415, "not_media"),
    "half of a video": (damaged, 415, "not_media"),
    "too many bytes": (lambda clip: bytes(3_000_001), 413, "too_large"),
    "too many pixels": (
        lambda clip: saved(np.zeros((3200, 3200, 3), np.uint8), "PNG"),
        413,
        "too_many_pixels",
    ),
    "one pixel": (lambda clip: saved(np.zeros((1, 1, 3), np.uint8), "PNG"), 422, "odd_shape"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_gets_its_reason(name: str, server: LiveServer, clip: bytes) -> None:
    make, expected_status, code = BAD_FILES[name]
    status, answer = server.upload(make(clip))
    assert (status, answer["error"]["code"]) == (expected_status, code)
    assert answer["error"]["message"]["ko"]
    assert server.memory_mb() < 400


def test_video_over_the_limits_is_refused(server: LiveServer, tmp_path: Path) -> None:
    black = np.zeros((48, 64, 3), np.uint8)
    write_video(tmp_path / "long.mp4", (black for _ in range(50)), 10.0)
    status, answer = server.upload((tmp_path / "long.mp4").read_bytes())
    assert (status, answer["error"]["code"]) == (413, "too_long")
    wide = np.zeros((1700, 2400, 3), np.uint8)
    write_video(tmp_path / "wide.mp4", (wide for _ in range(2)), 10.0)
    status, answer = server.upload((tmp_path / "wide.mp4").read_bytes())
    assert (status, answer["error"]["code"]) == (413, "too_many_pixels")
    with av.open(str(tmp_path / "anamorphic.mp4"), "w") as container:  # few pixels, each five times as wide
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 1000, 1000, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(5)
        frame = av.VideoFrame.from_ndarray(np.zeros((1000, 1000, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    status, answer = server.upload((tmp_path / "anamorphic.mp4").read_bytes())
    assert (status, answer["error"]["code"]) == (413, "too_many_pixels")


def test_frames_of_a_variable_rate_are_answered_once_at_their_own_times(
    server: LiveServer, tmp_path: Path
) -> None:
    times_ms = [0, 300, 420, 2700, 2900]
    with av.open(str(tmp_path / "x.mkv"), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time_ms in times_ms:
            image = np.ascontiguousarray(frame_of_faces(1)[::2, ::2])
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    status, answer = server.upload((tmp_path / "x.mkv").read_bytes())
    assert status == 200
    assert [frame["time_s"] for frame in answer["frames"]] == [time_ms / 1000 for time_ms in times_ms]
    # The second one was shown for two seconds, with its face.
    assert [[face["id"] for face in frame["faces"]] for frame in answer["frames"]] == [[1]] * 5


@pytest.mark.parametrize("content_type", ["multipart/form-data", "text/plain", ""])
def test_request_without_a_form_is_refused(content_type: str, server: LiveServer) -> None:
    status, body, _ = server.request("/api/predict", b"x", {"Content-Type": content_type})
    assert (status, json.loads(body)["error"]["code"]) == (400, "missing_file")


def test_form_without_the_field_is_refused(server: LiveServer) -> None:
    status, answer = server.upload(jpeg_of_faces(1), field="picture")
    assert (status, answer["error"]["code"]) == (400, "missing_file")


def test_too_large_a_file_is_refused_by_its_length_or_else_on_the_way(server: LiveServer) -> None:
    def endless() -> Iterator[bytes]:
        yield b'--wall\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(1000):
            yield os.urandom(100_000)

    kind = {"Content-Type": "multipart/form-data; boundary=wall"}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=HANG_S)
    connection.request("POST", "/api/predict", headers={**kind, "Content-Length": "9000000000"})
    assert connection.getresponse().status == 413  # nothing of it was sent yet
    connection.close()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=HANG_S)
    try:
        connection.request("POST", "/api/predict", endless(), kind, encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # cut off before all of it was sent
    connection.close()
    assert server.memory_mb() < 400
    assert server.metric('emotion_uploads_refused_total{code="too_large"}') >= 2


def crawling_video(path: Path, num_frames: int) -> bytes:
    """A black picture and copies of one that repeats it, of 25 bytes each, 1/90000 s apart; 1920 x 1080."""
    import av

    tick = Fraction(1, 90_000)
    with av.open(str(path), "w", format="mp4") as container:
        options = {"preset": "ultrafast", "tune": "zerolatency"}
        stream: Any = container.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        stream.codec_context.time_base = stream.time_base = tick
        packets = []
        for k in range(2):
            frame = av.VideoFrame.from_ndarray(np.zeros((1080, 1920, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = k, tick
            packets += stream.encode(frame)
        container.mux(packets[0])
        for k in range(1, num_frames):
            packet = av.Packet(bytes(packets[1]))
            packet.pts = packet.dts = k
            packet.time_base, packet.stream, packet.duration = tick, stream, 1
            container.mux(packet)
    return path.read_bytes()


def begin_upload(
    server: LiveServer, content: bytes, num_bytes: int, address: str = "127.0.0.1"
) -> http.client.HTTPConnection:
    """A connection from `address` over which the beginning of an upload of so many bytes was sent."""
    head = b'--wall\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    connection = http.client.HTTPConnection(
        "127.0.0.1", server.port, timeout=HANG_S, source_address=(address, 0)
    )
    connection.putrequest("POST", "/api/predict")
    connection.putheader("Content-Type", "multipart/form-data; boundary=wall")
    connection.putheader("Content-Length", str(len(head) + num_bytes))
    connection.endheaders(head + content)
    return connection


def send_whole(server: LiveServer, content: bytes, address: str = "127.0.0.1") -> http.client.HTTPConnection:
    """A connection over which a whole upload was sent; its answer is not awaited."""
    body = content + b"\r\n--wall--\r\n"
    return begin_upload(server, body, len(body), address)


def code_of(connection: http.client.HTTPConnection) -> str:
    """The code of a refused upload."""
    return str(json.loads(connection.getresponse().read())["error"]["code"])


def use_processor(server: LiveServer, seconds: float) -> None:
    """Waits until the server has decoded for so long."""
    process = psutil.Process(server.process.pid)

    def decoded_s() -> float:
        """Of the decoders that run now."""
        total_s = 0.0
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                total_s += sum(child.cpu_times()[:2])
        return total_s

    end_s = decoded_s() + seconds
    while decoded_s() < end_s:
        time.sleep(0.02)


def test_thousands_of_frames_a_second_are_too_many(server: LiveServer, tmp_path: Path) -> None:
    content = crawling_video(tmp_path / "crawling.mp4", 3000)  # of 1/30 s
    status, answer = server.upload(content)
    assert (status, answer["error"]["code"]) == (413, "too_long")


def test_third_file_is_told_to_wait_and_abandoned_ones_are_given_up(model_path: Path, tmp_path: Path) -> None:
    # Decoding these takes half a minute; only the answers to their first pictures are ready before.
    content = crawling_video(tmp_path / "crawling.mp4", 60_000)
    with LiveServer(tmp_path, model_path.parent, "--max_video_s", "3600") as server:
        first = send_whole(server, content, "127.0.0.2")
        use_processor(server, 1)  # it was read by then; a picture would take a place
        assert code_of(send_whole(server, jpeg_of_faces(1), "127.0.0.2")) == "busy"
        connections = [first, send_whole(server, content, "127.0.0.3")]
        use_processor(server, 1)
        status, answer = server.upload(jpeg_of_faces(1))
        assert (status, answer["error"]["code"]) == (503, "busy")
        for connection in connections:
            connection.close()
        end_s = time.monotonic() + HANG_S
        while status == 503 and time.monotonic() < end_s:
            time.sleep(0.05)
            status, answer = server.upload(jpeg_of_faces(1))
        assert status == 200
        assert server.metric('emotion_uploads_refused_total{code="stopping"}') > 0
        assert server.metric('emotion_uploads_total{kind="video"}') == 0


def test_sigterm_ends_while_a_video_is_decoded_and_another_arrives(model_path: Path, tmp_path: Path) -> None:
    content = crawling_video(tmp_path / "crawling.mp4", 60_000)
    with LiveServer(tmp_path, model_path.parent, "--max_video_s", "3600") as server:
        decoded, arriving = send_whole(server, content), begin_upload(server, bytes(100_000), 200_000)
        use_processor(server, 1)
        server.process.send_signal(signal.SIGTERM)
        answers = [json.loads(connection.getresponse().read()) for connection in (decoded, arriving)]
        assert [answer["error"]["code"] for answer in answers] == ["stopping"] * 2
        assert server.wait() == 0
        decoded.close()
        arriving.close()
    assert "Traceback" not in server.output
    assert "ERROR" not in server.output


def test_video_that_no_decoder_here_reads_is_refused(server: LiveServer, clip: bytes) -> None:
    assert clip.count(b"avc1") == 2  # the brand and the codec
    place = clip.rindex(b"avc1")
    status, answer = server.upload(clip[:place] + b"zzzz" + clip[place + 4 :])
    assert (status, answer["error"]["code"]) == (415, "not_media")


def test_files_that_arrive_slowly_keep_nobody_waiting(server: LiveServer) -> None:
    places = [f"127.0.0.{2 + k // 4}" for k in range(7)]
    connections = [begin_upload(server, bytes(100_000), 1_000_000, place) for place in places]
    for _ in range(5):
        assert server.upload(jpeg_of_faces(1))[0] == 200
    assert code_of(send_whole(server, jpeg_of_faces(1), "127.0.0.2")) == "busy"  # four are on the way
    connections.append(begin_upload(server, bytes(100_000), 1_000_000, "127.0.0.3"))
    status, answer = server.upload(jpeg_of_faces(1))
    end_s = time.monotonic() + HANG_S
    while status == 200 and time.monotonic() < end_s:  # the eighth has not been read yet
        status, answer = server.upload(jpeg_of_faces(1))
    assert (status, answer["error"]["code"]) == (503, "busy")
    for connection in connections:
        connection.close()
    end_s = time.monotonic() + HANG_S
    while status == 503 and time.monotonic() < end_s:
        status, answer = server.upload(jpeg_of_faces(1))
    assert status == 200


def test_file_that_arrives_byte_by_byte_is_given_up(server: LiveServer) -> None:
    connection = begin_upload(server, b"", 1000)
    try:
        num_sent = 0
        while not select.select([connection.sock], [], [], 0.2)[0]:
            connection.send(b"x")
            num_sent += 1
            assert num_sent < 500
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]["code"]) == (408, "too_slow")
    finally:
        connection.close()
