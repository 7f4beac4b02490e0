"""Faces that cannot be used do not count while a better one comes; wrong ones are looked at again."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut
from test_extractor import extract

from facevox.media import write_video
from lc_pytorch.faces.detectors import Candidate, Detector, make_detector
from lc_pytorch.faces.extractor import FaceTask, VideoItem
from lc_pytorch.faces.options import BACKENDS, MIN_CONFIDENCES, FaceConfig
from lc_pytorch.faces.usable import judge, judge_faces, prominence

Image = np.ndarray
PORTRAIT: Image = np.ascontiguousarray(astronaut()[:320, 80:400])
CONVERSIONS: dict[str, Callable[[Image], Image]] = {
    "nearly black": lambda image: np.round(image * 0.04).astype(np.uint8),
    "nearly white": lambda image: (255 - np.round((255.0 - image) * 0.04)).astype(np.uint8),
    "blurred beyond use": lambda image: cv2.GaussianBlur(image, (0, 0), 6),
    "upside down": lambda image: np.ascontiguousarray(image[::-1, ::-1]),
}


def face_of(image: Image, backend: str = "mediapipe") -> tuple[Candidate, Detector]:
    detector = make_detector(backend)
    picture = image if detector.colour == "rgb" else np.ascontiguousarray(image[..., ::-1])
    return max(detector.search(picture), key=prominence), detector


@pytest.mark.parametrize("fault", CONVERSIONS)
def test_face_that_cannot_be_used_waits_for_a_better_one(tmp_path: Path, fault: str) -> None:
    bad = CONVERSIONS[fault](PORTRAIT)
    outcome = extract(tmp_path, [bad] * 4 + [PORTRAIT] * 3)
    assert (outcome.status, outcome.rows[0]["frame_index"], outcome.reason) == ("done", 4, "")


@pytest.mark.parametrize("fault", ["nearly black", "blurred beyond use"])
def test_without_a_better_one_it_is_written_with_the_reason(tmp_path: Path, fault: str) -> None:
    face, detector = face_of(PORTRAIT)
    assert judge(CONVERSIONS[fault](PORTRAIT), face, detector)[1] == fault
    outcome = extract(tmp_path, [CONVERSIONS["blurred beyond use"](PORTRAIT)] * 3)
    assert outcome.status == "done"
    assert outcome.reason == (
        "the face is blurred beyond use; no better one in 3 frames tried (the whole video)"
    )


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_dim_and_slightly_blurred_faces_can_be_used(share: float) -> None:
    face, detector = face_of(PORTRAIT)
    dim = np.round(PORTRAIT * share).astype(np.uint8)
    assert judge(dim, face, detector)[1] == ""
    assert judge(cv2.GaussianBlur(dim, (0, 0), 1.0), face, detector)[1] == ""


def test_box_that_is_too_large_for_a_small_face_is_corrected() -> None:
    face, detector = face_of(PORTRAIT)
    x, y, w, h = face.box
    large = Candidate((x - w, y - h, 3 * w, 3 * h), 0.65, face.eyes, face.points)
    (found,), fault = judge_faces(PORTRAIT, [large], detector)
    assert fault == ""
    assert np.abs(np.subtract(found.box, face.box)).max() < 0.2 * w
    assert np.abs(found.points - face.points).max() < 0.1 * w
    assert found.confidence > 0.65


def test_nose_that_a_cascade_takes_for_a_face_is_no_face() -> None:
    face, detector = face_of(PORTRAIT, "opencv")
    assert judge(np.ascontiguousarray(PORTRAIT[..., ::-1]), face, detector)[1] == ""
    x, y, w, h = face.box
    nose = Candidate((x + w // 3, y + h // 2, w // 3, h // 3), 0.99)
    assert judge(np.ascontiguousarray(PORTRAIT[..., ::-1]), nose, detector)[1] == "not sure to be a face"
    ordered, fault = judge_faces(np.ascontiguousarray(PORTRAIT[..., ::-1]), [nose, face], detector)
    assert (ordered[0], fault) == (face, "")
    wall = np.full_like(PORTRAIT, 60)
    wall[::40] = wall[5::40] = wall[10::40] = 200
    assert judge(wall, face, detector)[1] == "not sure to be a face"


def test_face_on_its_side_waits_and_what_is_no_face_is_none(tmp_path: Path) -> None:
    face, detector = face_of(PORTRAIT)
    doubtful = Candidate((40, 40, 220, 220), 0.65, face.eyes, face.points)
    looks = iter([[], [], [face], []])  # as it is, turned by 180 degrees, and by 90 both ways
    detector.find_close = lambda image: next(looks)  # type: ignore[method-assign]
    assert judge(PORTRAIT, doubtful, detector)[1] == "on its side"
    detector = make_detector("mediapipe")
    wall = np.full_like(PORTRAIT, 60)
    wall[::40] = wall[5::40] = wall[10::40] = 200
    assert judge(wall, doubtful, detector)[1] == "not sure to be a face"
    task = FaceTask(FaceConfig(detector_backend="mediapipe"))
    task.open(tmp_path / "out")
    write_video(tmp_path / "x.mp4", [wall] * 3, 25)
    task._detector.search = lambda *args, **options: [doubtful]  # type: ignore[union-attr,method-assign]
    (outcome,) = task.process_chunk([VideoItem("x.mp4", str(tmp_path / "x.mp4"), "x.jpg")])
    assert (outcome.status, outcome.outputs) == ("no_face", [])
    assert outcome.reason.endswith("in 3 something that is hardly a face")


def test_usable_face_comes_before_a_larger_one_that_is_not(tmp_path: Path) -> None:
    picture = np.concatenate([cv2.resize(PORTRAIT, (480, 480)), np.zeros((480, 320, 3), np.uint8)], axis=1)
    picture = CONVERSIONS["blurred beyond use"](cv2.GaussianBlur(picture, (0, 0), 9))
    picture[:320, 480:] = PORTRAIT
    outcome = extract(tmp_path, [picture] * 2, all_faces=True)
    assert outcome.rows[0]["box_x_px"] > 480
    assert outcome.reason == ""


@pytest.mark.parametrize("rate_hz", [25, 60, pytest.param(240, marks=pytest.mark.slow)])
def test_frames_tried_reach_as_far_whatever_the_rate(tmp_path: Path, rate_hz: int) -> None:
    small = cv2.resize(PORTRAIT, (160, 160))
    frames = [np.full_like(small, 90)] * (2 * rate_hz) + [small] * rate_hz
    write_video(tmp_path / "x.mp4", frames, rate_hz, preset="ultrafast")
    task = FaceTask(FaceConfig(detector_backend="mediapipe", max_frames=40))
    task.open(tmp_path / "out")
    (outcome,) = task.process_chunk([VideoItem("x.mp4", str(tmp_path / "x.mp4"), "x.jpg")])
    task.close()
    assert outcome.status == "done", outcome.reason
    assert 2.0 <= outcome.rows[0]["time_s"] < 2.6


def test_each_detector_has_a_least_confidence_and_an_explicit_one_wins() -> None:
    assert MIN_CONFIDENCES.keys() == set(BACKENDS)
    for name in BACKENDS:
        assert FaceTask(FaceConfig(detector_backend=name)).min_confidence == MIN_CONFIDENCES[name]
    assert FaceTask(FaceConfig(detector_backend="yunet", min_confidence=0.0)).min_confidence == 0.0
