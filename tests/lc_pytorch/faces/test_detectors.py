"""The detectors against DeepFace itself: same boxes and crops; and messages when weights are missing."""

import importlib.util
import io
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest

from facevox.errors import UserError
from facevox.media import iter_frames
from facevox.mesh.face_mesh import FaceMesh
from facevox_demo.deepface_mediapipe import fake_mediapipe
from lc_pytorch.faces import detectors, weights
from lc_pytorch.faces.crops import black_crop, cut_face, widen

DEEPFACE_VARIABLES = {
    "DEEPFACE_BACKEND_ENGINE": "pytorch",
    "MEDIAPIPE_MODEL_SELECTION": "1",
    "MEDIAPIPE_MIN_DETECTION_CONFIDENCE": "0.5",
}


@pytest.fixture(scope="session")
def weights_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A DEEPFACE_HOME of our own: nothing reaches the home folder."""
    home = tmp_path_factory.mktemp("deepface_home")
    (home / ".deepface" / "weights").mkdir(parents=True)
    patch = pytest.MonkeyPatch()
    for name, value in {**DEEPFACE_VARIABLES, "DEEPFACE_HOME": str(home)}.items():
        patch.setenv(name, value)
    yield home
    patch.undo()


@pytest.fixture(scope="module")
def deepface(weights_home: Path):
    """DeepFace's own extraction, its backend mediapipe with our BlazeFace."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "mediapipe", fake_mediapipe())
        from deepface.modules import detection

        yield detection


@pytest.fixture(scope="session")
def pictures(example_videos: Path) -> "list[np.ndarray]":
    """BGR frames of example people: whole, cut through a face, wide with an odd size, and without a face."""
    first = [
        next(iter_frames(path, colour="bgr")).image for path in sorted(example_videos.rglob("*.mp4"))[:4]
    ]
    cut = np.ascontiguousarray(first[0][:, :150])
    wide = cv2.copyMakeBorder(first[1], 20, 41, 60, 120, cv2.BORDER_REPLICATE)
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 255, (180, 240, 3), dtype=np.uint8), (9, 9), 3)
    return [*first, cut, wide, noise]


def ours(detector: detectors.Detector, image_bgr: np.ndarray, *, align: bool, expand: int = 0):
    """(box, crop in BGR, confidence) of each face, cut by the eyes that DeepFace uses."""
    image = image_bgr if detector.colour == "bgr" else np.ascontiguousarray(image_bgr[..., ::-1])
    faces = []
    for face in detector.find(image, border=align):
        box = widen(face.box, (image.shape[1], image.shape[0]), align, expand)
        crop = cut_face(image, box, detector.find_eyes(image, face, box), align=align)
        if crop is not None:
            bgr = crop.image if detector.colour == "bgr" else crop.image[..., ::-1]
            faces.append((crop.box, bgr, face.confidence))
    return sorted(faces, key=lambda face: face[0])


def theirs(deepface, image_bgr: np.ndarray, backend: str, *, align: bool, expand: int = 0):
    # DeepFace's mediapipe takes its input for RGB, so it gets RGB.
    image = np.ascontiguousarray(image_bgr[..., ::-1]) if backend == "mediapipe" else image_bgr
    found = deepface.extract_faces(
        image,
        backend,
        enforce_detection=False,
        align=align,
        expand_percentage=expand,
        normalize_face=False,
        color_face="rgb" if backend == "mediapipe" else "bgr",
    )
    faces = [
        (tuple(face["facial_area"][key] for key in "xywh"), face["face"], face["confidence"])
        for face in found
        if face["confidence"] > 0
    ]
    return sorted(faces, key=lambda face: face[0])


def assert_same(mine, reference, tolerance_px: int = 0) -> None:
    assert len(mine) == len(reference)
    for (box, crop, confidence), (true_box, true_crop, true_confidence) in zip(mine, reference, strict=True):
        np.testing.assert_allclose(box, true_box, atol=tolerance_px)
        assert confidence == pytest.approx(true_confidence, abs=0.0051)  # DeepFace rounds to two places
        if tuple(box) == tuple(true_box):
            # DeepFace turns the whole picture and cuts afterwards: the same but for OpenCV's rounding of
            # positions to 1/32 pixel.
            difference = np.abs(crop.astype(int) - true_crop.astype(int))
            assert difference.max() <= 8  # 255 / 32
            assert difference.mean() < 0.05


@pytest.mark.parametrize(("align", "expand"), [(True, 0), (False, 0), (True, 30), (False, 20)])
@pytest.mark.parametrize("backend", ["opencv", "mediapipe"])
def test_boxes_and_crops_are_those_of_deepface(deepface, pictures, backend: str, align: bool, expand: int):
    detector = detectors.make_detector(backend)
    num_faces = 0
    for image in pictures:
        reference = theirs(deepface, image, backend, align=align, expand=expand)
        num_faces += len(reference)
        # With sizes that do not divide evenly mediapipe's sampling points are rounded: a pixel at most.
        tolerance_px = 2 if backend == "mediapipe" and expand else int(backend == "mediapipe")
        assert_same(ours(detector, image, align=align, expand=expand), reference, tolerance_px)
    detector.close()
    assert num_faces >= 4


@pytest.mark.parametrize("align", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_mtcnn_boxes_are_those_of_deepface(deepface, pictures, align: bool):
    pytest.importorskip("mtcnn", exc_type=ImportError)
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    detector = detectors.make_detector("mtcnn", threads=2)
    for image in pictures[:2]:
        assert_same(ours(detector, image, align=align), theirs(deepface, image, "mtcnn", align=align))
    (face,) = detector.find(np.ascontiguousarray(pictures[0][..., ::-1]))
    points, source = detector.landmarks(pictures[0], face)
    assert source == "detector"
    assert points[0, 0] < points[2, 0] < points[1, 0]
    assert points[0, 1] < points[2, 1] < points[3, 1]


@pytest.mark.real_data
@pytest.mark.parametrize("backend", ["opencv", "mediapipe"])
def test_boxes_on_real_pictures_are_those_of_deepface(deepface, real_data_dir: Path, backend: str):
    files = sorted((real_data_dir / "faces").glob("*/*/*.jpg"))[::9]
    detector = detectors.make_detector(backend)
    num_faces = 0
    for file in files:
        image = cv2.imread(str(file))
        if max(image.shape) <= 700:
            reference = theirs(deepface, image, backend, align=True)
            num_faces += len(reference)
            assert_same(ours(detector, image, align=True), reference, int(backend == "mediapipe"))
    detector.close()
    assert num_faces >= 5


@pytest.mark.parametrize("backend", ["opencv", "mediapipe"])
@pytest.mark.parametrize("shape", [(2, 2), (8, 8), (10, 300), (25, 24)])
def test_tiny_pictures_hold_no_face(backend: str, shape: tuple[int, int]):
    detector = detectors.make_detector(backend)
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    for border in (True, False):
        assert detector.find(image, border) == []
    detector.close()


def test_landmarks_agree_between_detectors(pictures):
    """MediaPipe's own points against FaceMesh's: within a fifth of the distance between the eyes."""
    image = pictures[0]
    by_detector, by_mesh = detectors.make_detector("mediapipe"), detectors.make_detector("opencv")
    rgb = np.ascontiguousarray(image[..., ::-1])
    points, source = by_detector.landmarks(rgb, by_detector.find(rgb)[0])
    assert source == "detector"
    face = max(by_mesh.find(image), key=lambda one: one.box[2])
    mesh, source = by_mesh.landmarks(image, face)
    assert source == "facemesh"
    eyes_px = np.linalg.norm(mesh[1] - mesh[0])
    assert np.linalg.norm(points - mesh, axis=1).max() < 0.2 * eyes_px
    by_detector.close()
    by_mesh.close()


def test_landmarks_where_nothing_is_known_are_those_of_an_average_face():
    detector = detectors.make_detector("opencv")
    image = np.full((100, 100, 3), 127, np.uint8)
    points, source = detector.landmarks(image, detectors.Candidate((20, 30, 50, 50), 0.9))
    assert source == "average"
    assert (points > [20, 30]).all()
    assert (points < [70, 80]).all()
    known = np.full((5, 2), np.nan, np.float32)
    known[:2] = [[30, 40], [50, 40]]
    points, _ = detector.landmarks(image, detectors.Candidate((20, 30, 50, 50), 0.9, points=known))
    np.testing.assert_array_equal(points[:2], known[:2])
    assert (points[2:, 1] > 40).all()
    detector.close()


def test_turned_face_keeps_its_landmarks(pictures):
    """The matrix takes a point to where its pixel is in the crop."""
    image = np.zeros((200, 300, 3), np.uint8)
    cv2.circle(image, (150, 110), 3, (255, 255, 255), -1)
    crop = cut_face(image, (90, 50, 100, 120), ((120, 80), (170, 100)), align=True)
    assert crop is not None
    x, y = crop.to_crop(np.array([[150, 110]], np.float32))[0]
    rows, columns = np.nonzero(crop.image[..., 0] > 128)
    assert (columns.mean(), rows.mean()) == pytest.approx((x, y), abs=0.6)
    left, right = crop.to_crop(np.array([[120, 80], [170, 100]], np.float32))
    assert left[1] == pytest.approx(right[1], abs=0.01)


def test_black_crop_is_black_outside_of_the_picture():
    image = np.full((10, 20, 3), 9, np.uint8)
    part = black_crop(image, -5, -5, 30, 20)
    assert part.shape == (20, 30, 3)
    np.testing.assert_array_equal(part[5:15, 5:25], image)
    assert part.sum() == image.sum()


@pytest.mark.slow
def test_retinaface_runs_with_weights_placed_by_hand(deepface, weights_home: Path, pictures):
    import torch
    from retinaface.model import retinaface_pth_model

    torch.manual_seed(0)
    model = retinaface_pth_model.RetinaFace()
    with torch.no_grad():  # sure of itself here and there, so that there are boxes to compare
        model.face_rpn_stride32.cls_score.weight.mul_(30)
    file = weights_home / ".deepface" / "weights" / "retinaface.pth"
    torch.save(model.state_dict(), file)
    image = pictures[0][100:124, :160]  # flat: its longer side is what the network scales by
    try:
        detector = detectors.make_detector("retinaface", threads=2)
        mine, reference = (
            ours(detector, image, align=True),
            theirs(deepface, image, "retinaface", align=True),
        )
        assert len(reference) > 0
        assert_same(mine, reference)
    finally:
        file.unlink()


def test_broken_weights_are_named(monkeypatch, weights_home: Path):
    from retinaface import RetinaFace

    monkeypatch.delattr(RetinaFace, "model", raising=False)  # the package keeps a loaded model
    file = weights_home / ".deepface" / "weights" / "retinaface.pth"
    file.write_bytes(b"\xfe these are no weights")
    try:
        with pytest.raises(UserError, match=r"retinaface.*cannot be read.*retinaface\.pth"):
            detectors.make_detector("retinaface")
    finally:
        file.unlink()


SSD_LAYERS = """
name: "constant" input: "data" input_dim: 1 input_dim: 3 input_dim: 300 input_dim: 300
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool"
  pooling_param { pool: AVE global_pooling: true } }
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc" inner_product_param { num_output: 7 } }
layer { name: "out" type: "Reshape" bottom: "fc" top: "out"
  reshape_param { shape { dim: 1 dim: 1 dim: 1 dim: 7 } } }
"""


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    size, length = len(payload), b""
    while size >= 128:
        length += bytes([size % 128 + 128])
        size //= 128
    key = number << 3 | 2
    return (
        (bytes([key]) if key < 128 else bytes([key % 128 + 128, key // 128]))
        + length
        + bytes([size])
        + payload
    )


def _blob(values: np.ndarray) -> bytes:
    shape = _field(1, bytes(values.shape))
    return _field(7, _field(5, struct.pack(f"<{values.size}f", *values.ravel())) + _field(7, shape))


def test_ssd_runs_with_weights_placed_by_hand(deepface, weights_home: Path, pictures):
    """A network in Caffe's own format that always sees one face, at a place that depends on the picture."""
    folder = weights_home / ".deepface" / "weights"
    matrix = np.zeros((7, 3), np.float32)
    matrix[3:, 0] = 1e-4  # the mean blue moves the box
    bias = np.array([0, 1, 0.95, 0.3, 0.35, 0.6, 0.7], np.float32)
    layer = _field(1, b"fc") + _field(2, b"InnerProduct") + _blob(matrix) + _blob(bias)
    files = [folder / "deploy.prototxt", folder / "res10_300x300_ssd_iter_140000.caffemodel"]
    files[0].write_text(SSD_LAYERS)
    files[1].write_bytes(_field(1, b"constant") + _field(100, layer))
    try:
        detector = detectors.make_detector("ssd")
        for image in pictures[:3]:
            for align in (True, False):
                reference = theirs(deepface, image, "ssd", align=align)
                assert len(reference) == 1
                assert_same(ours(detector, image, align=align), reference)
        detector.close()
    finally:
        for file in files:
            file.unlink()


def test_dlib_boxes_are_those_of_deepface(deepface, weights_home: Path, pictures):
    dlib = pytest.importorskip("dlib", reason="dlib is an optional extra, compiled while it installs")
    file = weights_home / ".deepface/weights/shape_predictor_5_face_landmarks.dat"
    train_landmarks(dlib, pictures[:3], file)
    try:
        detector = detectors.make_detector("dlib")
        for image in pictures:
            for align in (True, False):
                reference = theirs(deepface, image, "dlib", align=align)
                assert_same(ours(detector, image, align=align), reference)
        (face,) = detector.find(np.ascontiguousarray(pictures[0][..., ::-1]))
        points, _ = detector.landmarks(np.ascontiguousarray(pictures[0][..., ::-1]), face)
        assert points[0, 0] < points[2, 0] < points[1, 0]
        detector.close()
    finally:
        file.unlink()


def train_landmarks(dlib, images_bgr: "list[np.ndarray]", file: Path) -> None:
    """Landmark weights of dlib's own format, learned from a few example faces (eye corners and nose)."""
    corners = (263, 362, 33, 133, 2)  # FaceMesh's numbers in dlib's order: right eye in the picture first
    images, labels = [], []
    with FaceMesh() as mesh:
        for image in images_bgr:
            rgb = np.ascontiguousarray(image[..., ::-1])
            (box,) = dlib.get_frontal_face_detector()(rgb, 1)
            (found,) = mesh.find(rgb)
            parts = [dlib.point(int(found[k, 0]), int(found[k, 1])) for k in corners]
            images.append(rgb)
            labels.append([dlib.full_object_detection(box, parts)])
    options = dlib.shape_predictor_training_options()
    options.cascade_depth, options.num_trees_per_cascade_level, options.oversampling_amount = 4, 50, 20
    dlib.train_shape_predictor(images, labels, options).save(str(file))


@pytest.mark.parametrize("backend", ["retinaface", "ssd", "yunet"])
def test_missing_weights_say_what_where_and_what_else(monkeypatch, tmp_path: Path, backend: str):
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "answers", lambda url: False)
    with pytest.raises(UserError) as error:
        detectors.check_backend(backend)
    text = str(error.value)
    for word in (
        detectors.WEIGHTS[backend][-1].name,
        str(tmp_path / ".deepface" / "weights"),
        "make weights",
    ):
        assert word in text
    assert "--detector_backend mediapipe" in text
    assert "\n" not in text
    assert not list(tmp_path.iterdir())  # nothing was made


def test_weights_are_downloaded_and_unpacked(monkeypatch, tmp_path: Path):
    import bz2

    source = tmp_path / "points.dat.bz2"
    source.write_bytes(bz2.compress(b"\0weights"))
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(weights, "answers", lambda url: True)
    file = weights.WeightFile("points.dat", ((tmp_path / "gone").as_uri(), source.as_uri()))
    (path,) = weights.require_weights([file], "a test")
    assert path.read_bytes() == b"\0weights"
    assert path == tmp_path / "home" / ".deepface" / "weights" / "points.dat"


class _Response(io.BytesIO):
    headers: ClassVar = {"Content-Length": "9"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"\0cut", "cut off after 4 of 9 bytes"), (b"<html>...", "a web page")],
)
def test_downloads_that_are_no_weights_are_not_kept(monkeypatch, tmp_path: Path, content: bytes, reason: str):
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "answers", lambda url: True)
    monkeypatch.setattr(weights.urllib.request, "urlopen", lambda url, timeout: _Response(content))
    with pytest.raises(UserError, match=rf"a test: weights missing: x\.dat .*{reason}"):
        weights.require_weights([weights.WeightFile("x.dat", ("http://x/x.dat",))], "a test")
    assert not list((tmp_path / ".deepface" / "weights").iterdir())


def test_damaged_weights_are_fetched_again_or_named(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "answers", lambda url: False)
    (file := tmp_path / ".deepface" / "weights" / "x.pth").parent.mkdir(parents=True)
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "source").write_bytes(b"\0weights")
    source = weights.WeightFile("x.pth", ((tmp_path / "source").as_uri(),))
    other = weights.WeightFile("y.pth", ())
    with pytest.raises(
        UserError, match=r"missing: x\.pth is a Git LFS pointer, .*git lfs pull, y\.pth \(no net"
    ):
        weights.require_weights([source, other], "a test")
    monkeypatch.setattr(weights, "answers", lambda url: True)
    assert weights.require_weights([source], "a test") == [file]
    assert file.read_bytes() == b"\0weights"


@pytest.mark.parametrize(("backend", "package"), [("mtcnn", "tensorflow"), ("dlib", "dlib")])
def test_missing_package_says_what_to_install(monkeypatch, backend: str, package: str):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else real(name))
    with pytest.raises(UserError, match=rf"{package}.*pip install -e '\.\[{backend}\]'.*mediapipe"):
        detectors.check_backend(backend)


# The share of the picture's height that the face fills, and the share of the face that each edge cuts off.
CLOSE = {
    "fills 0.8": (0.8, 0.0, 0.0),
    "fills all": (1.0, 0.0, 0.0),
    "left": (0.5, 0.2, 0.0),
    "top": (0.5, 0.0, 0.2),
}


def close_up(image: np.ndarray, box: tuple[int, ...], case: str) -> np.ndarray:
    """A part of `image` with a face that fills it or is cut by its edge."""
    share, cut_x, cut_y = CLOSE[case]
    x, y, w, h = box
    side = int(max(w, h) / share)
    left = x + int(cut_x * w) if cut_x else max(x + (w - side) // 2, 0)
    top = y + int(cut_y * h) if cut_y else max(y + (h - side) // 2, 0)
    return np.ascontiguousarray(image[top : top + side, left : left + side])


@pytest.mark.parametrize("case", CLOSE)
@pytest.mark.parametrize("backend", ["opencv", "mediapipe"])
@pytest.mark.parametrize("align", [True, False])
def test_face_that_fills_the_picture_or_is_cut_by_its_edge_is_found(backend: str, case: str, align: bool):
    from skimage.data import astronaut

    detector = detectors.make_detector(backend)
    image = astronaut() if detector.colour == "rgb" else np.ascontiguousarray(astronaut()[..., ::-1])
    picture = close_up(image, (178, 68, 94, 104), case)
    faces = detector.search(picture, border=align)
    assert len(faces) == 1
    x, y, w, h = faces[0].box
    assert w > 0.25 * picture.shape[1]
    assert 0 < x + w / 2 < picture.shape[1]
    assert 0 < y + h / 2 < picture.shape[0]
    detector.close()


def test_second_look_is_taken_only_where_the_first_finds_nothing(monkeypatch: pytest.MonkeyPatch):
    detector = detectors.make_detector("mediapipe")
    face, small = detectors.Candidate((1, 2, 3, 4), 0.7), detectors.Candidate((1, 2, 3, 3), 0.9)
    looks: list[bool] = []

    def find(image: np.ndarray, border: bool = True) -> "list[detectors.Candidate]":
        looks.append(border)
        return [face, small] if border else []

    monkeypatch.setattr(detector, "find", find)
    image = np.zeros((8, 8, 3), np.uint8)
    assert detector.search(image, border=True) == [face, small]
    assert detector.search(image, border=False) == [face]
    assert detector.search(image, border=False, with_second_look=False) == []
    assert detector.search(image, border=True, min_confidence=0.95) == []
    assert looks == [True, False, True, False, True, False]
    detector.close()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["opencv", "mediapipe"])
def test_second_look_adds_no_face_where_nobody_is(backend: str):
    import skimage.data

    detector = detectors.make_detector(backend)
    for name in ("brick", "grass", "gravel", "page", "moon"):
        image = np.repeat(getattr(skimage.data, name)()[..., None], 3, axis=2)
        for align in (True, False):
            assert detector.search(image, border=align) == [], name
    detector.close()


@pytest.fixture
def yunet(
    real_data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> "Iterator[detectors.Detector]":
    """YuNet with the file of the sample data; it is not in the repository."""
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    target = weights.weights_dir() / detectors.WEIGHTS["yunet"][0].name
    target.parent.mkdir(parents=True)
    target.symlink_to(real_data_dir / "weights" / "yunet_n_640_640.onnx")
    detector = detectors.make_detector("yunet")
    yield detector
    detector.close()


@pytest.mark.real_data
def test_yunet_finds_what_mediapipe_finds(yunet, real_data_dir: Path, pictures):
    mediapipe = detectors.make_detector("mediapipe")
    files = sorted((real_data_dir / "faces").glob("*/*/*.jpg"))[::9]
    for image in [*pictures[:4], *(cv2.imread(str(file)) for file in files)]:
        rgb = np.ascontiguousarray(image[..., ::-1])
        for face in mediapipe.search(rgb):
            width = face.box[2]
            near = [
                other
                for other in yunet.search(image)
                if np.linalg.norm(np.subtract(other.points.mean(axis=0), face.points.mean(axis=0)))
                < 0.2 * width
            ]
            assert len(near) == 1
            assert yunet.landmarks(image, near[0])[1] == "detector"
            assert np.linalg.norm(near[0].points - face.points, axis=1).max() < 0.3 * width
    mediapipe.close()


@pytest.mark.real_data
def test_yunet_finds_close_and_small_faces_and_takes_every_size(yunet):
    from skimage.data import astronaut

    image = np.ascontiguousarray(astronaut()[..., ::-1])
    for case in CLOSE:
        assert len(yunet.search(close_up(image, (178, 68, 94, 104), case))) == 1
    small = np.full((720, 1280, 3), 90, np.uint8)
    small[300:556, 500:756] = image[::2, ::2]
    assert yunet.find(small) == []
    (face,) = yunet.search(small)
    assert abs(face.box[0] - 590) < 10
    assert 35 < face.box[2] < 60
    for shape in ((1, 1), (3000, 20), (3, 2000)):
        assert yunet.search(np.zeros((*shape, 3), np.uint8)) == []


def test_unknown_detector_lists_the_known_ones():
    with pytest.raises(
        UserError, match=r"centerface.*opencv, ssd, dlib, mtcnn, retinaface, mediapipe, yunet"
    ):
        detectors.check_backend("centerface")


def test_detectors_that_need_no_weights_import_no_deepface_and_no_tensorflow(
    repository: Path, tmp_path: Path
):
    import subprocess
    import sys

    code = (
        "import sys; from lc_pytorch.faces.detectors import make_detector\n"
        "for name in ('opencv', 'mediapipe'): make_detector(name).close()\n"
        "print([m for m in ('deepface', 'tensorflow', 'torch') if m in sys.modules])"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "DEEPFACE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=repository,
        check=True,
    )
    assert done.stdout.strip() == "[]"
    assert not (tmp_path / ".deepface").exists()
