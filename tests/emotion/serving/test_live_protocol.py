"""What a client of the WebSocket sends and gets, with the real server."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from face_pictures import frame_of_faces, jpeg_of_faces
from live_server import LiveServer, ask, binary_message, receive
from PIL import Image
from small_classifier import CLASSES, NAME

from emotion.live.analysis import Classifier, FaceAnalyser
from facevox.files import decode_image


def test_greeting_tells_classes_labels_and_limits_and_equals_the_http_one(server: LiveServer) -> None:
    with server.connect() as client:
        hello = receive(client)
    assert hello == json.loads(server.request("/api/model")[1])
    assert (hello["type"], hello["version"], hello["ready"], hello["model"]) == ("hello", 1, True, NAME)
    assert hello["classes"] == list(CLASSES)
    assert hello["labels"]["ko"] == ["기쁨", "슬픔", "중립", "당황", "불안"]
    limits = hello["limits"]
    assert (limits["frame_bytes"], limits["frames_per_s"], limits["faces"]) == (2_000_000, 60, 4)


def test_result_equals_the_analysis_in_this_process(server: LiveServer, model_path: Path) -> None:
    with server.connect() as client:
        result = ask(client, jpeg_of_faces(2))
    with FaceAnalyser(Classifier(model_path), max_faces=4) as analyser:
        expected = analyser.analyse(decode_image(jpeg_of_faces(2), "frame"))
    assert (result["type"], result["frame"], result["dropped"]) == ("result", 1, 0)
    assert (result["width"], result["height"]) == (640, 480)
    assert len(result["faces"]) == len(expected) == 2
    for number, (face, wanted) in enumerate(zip(result["faces"], expected, strict=True), 1):
        np.testing.assert_allclose(face["box"], wanted.box, atol=0.06)
        np.testing.assert_allclose(face["probabilities"], wanted.probabilities, atol=1e-4)
        assert face["smoothed"] == face["probabilities"]  # of a first frame
        assert face["label"] == CLASSES[int(wanted.probabilities.argmax())]
        assert face["id"] == number
    assert set(result["ms"]) == {"wait", "decode", "detect", "classify", "total"}
    assert result["ms"]["total"] >= result["ms"]["detect"] > 0


def test_face_keeps_its_number_and_each_client_counts_by_itself(server: LiveServer) -> None:
    with server.connect() as first, server.connect() as second:
        seen = [[face["id"] for face in ask(first, jpeg_of_faces(2, s))["faces"]] for s in (0, 15, 30, 45)]
        assert seen == [[1, 2]] * 4
        assert [face["id"] for face in ask(second, jpeg_of_faces(1))["faces"]] == [1]


def test_newest_frame_wins_and_every_frame_is_accounted_for(server: LiveServer) -> None:
    with server.connect() as client:
        receive(client)
        frame = binary_message(jpeg_of_faces(1))
        client.socket.sendall(40 * frame)  # at once: a machine that does other work does not spread them
        results = []
        while not results or results[-1]["frame"] < 40:
            results.append(receive(client))
    numbers = [result["frame"] for result in results]
    assert numbers == sorted(set(numbers))
    assert len(results) + results[-1]["dropped"] == 40
    assert results[-1]["dropped"] > 0  # more came than can be analysed meanwhile


@pytest.mark.parametrize("format_name", ["PNG", "WEBP"])
def test_other_formats_of_browsers_are_taken(format_name: str, server: LiveServer) -> None:
    buffer = io.BytesIO()
    Image.fromarray(frame_of_faces(1)).save(buffer, format_name)
    with server.connect() as client:
        assert len(ask(client, buffer.getvalue())["faces"]) == 1


def test_frame_that_is_stored_turned_is_analysed_upright(server: LiveServer) -> None:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise for showing
    Image.fromarray(np.rot90(frame_of_faces(1)).copy()).save(buffer, "JPEG", exif=exif)
    with server.connect() as client:
        turned, upright = ask(client, buffer.getvalue()), ask(client, jpeg_of_faces(1))
    assert (turned["width"], turned["height"]) == (640, 480)
    np.testing.assert_allclose(turned["faces"][0]["box"], upright["faces"][0]["box"], atol=5)


def test_picture_without_a_face_has_an_empty_list(server: LiveServer) -> None:
    with server.connect() as client:
        assert ask(client, jpeg_of_faces(0))["faces"] == []


def test_busy_clients_get_equal_shares(server: LiveServer) -> None:
    clients = [server.connect() for _ in range(6)]
    counts = [0] * len(clients)
    try:
        for client in clients:
            receive(client)
            client.send(jpeg_of_faces(1))
        while sum(counts) < 120:  # however long that takes
            for place, client in enumerate(clients):
                try:
                    receive(client, timeout_s=0)
                except TimeoutError:
                    continue
                counts[place] += 1
                client.send(jpeg_of_faces(1))
    finally:
        for client in clients:
            client.close()
    assert min(counts) / max(counts) > 0.7


def test_metrics_count_what_happened(server: LiveServer) -> None:
    before = {name: server.metric(name) for name in ("emotion_frames_analysed_total", "emotion_faces_total")}
    with server.connect() as client:
        ask(client, jpeg_of_faces(2))
        assert server.metric("emotion_connections") == 1
    assert server.metric("emotion_frames_analysed_total") == before["emotion_frames_analysed_total"] + 1
    assert server.metric("emotion_faces_total") == before["emotion_faces_total"] + 2
    assert server.metric('emotion_frame_seconds_count{stage="total"}') == server.metric(
        "emotion_frames_analysed_total"
    )
    assert 50e6 < server.metric("emotion_memory_bytes") < 400e6
