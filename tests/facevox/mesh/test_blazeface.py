"""BlazeFace against the answers of mediapipe 0.10.21's FaceDetection to the same pictures."""

import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from facevox.errors import UserError
from facevox.mesh import face_landmarker, litert, network
from facevox.mesh.blazeface import BlazeFace, Range
from facevox.mesh.litert import MODELS_DIR, LiteRtModel

# Score; x, y, width, height of the box; x, y of the six key points. Stored from mediapipe 0.10.21.
MEDIAPIPE: dict[tuple[Range, str], list[tuple[float, ...]]] = {
    ("short", "whole"): [
        (
            0.9217,
            177.57,
            82.87,
            95.34,
            95.34,
            201.5,
            104.9,
            245.8,
            109.1,
            220.4,
            127.3,
            219.8,
            148.6,
            178.2,
            115.7,
            272.2,
            123.9,
        )
    ],
    ("short", "half"): [
        (
            0.9217,
            88.78,
            41.44,
            47.67,
            47.67,
            100.7,
            52.4,
            122.9,
            54.5,
            110.2,
            63.6,
            109.9,
            74.3,
            89.1,
            57.9,
            136.1,
            61.9,
        )
    ],
    ("short", "face"): [
        (
            0.926,
            61.81,
            72.86,
            103.99,
            103.98,
            93.5,
            102.7,
            135.5,
            105.4,
            113.7,
            131.8,
            112.9,
            150.5,
            70.4,
            108.0,
            157.7,
            112.2,
        )
    ],
    ("short", "two"): [],
    ("short", "tall"): [
        (
            0.94,
            25.88,
            84.3,
            94.29,
            94.29,
            46.6,
            108.6,
            90.9,
            105.7,
            68.4,
            126.3,
            71.5,
            148.3,
            26.3,
            124.3,
            120.0,
            117.9,
        )
    ],
    ("short", "flat"): [
        (
            0.863,
            176.62,
            12.24,
            97.24,
            97.24,
            198.3,
            42.5,
            238.7,
            38.0,
            216.5,
            62.1,
            221.5,
            82.1,
            184.1,
            54.8,
            270.4,
            44.6,
        )
    ],
    ("full", "whole"): [
        (
            0.9121,
            173.66,
            67.78,
            103.93,
            103.93,
            202.8,
            103.5,
            248.0,
            105.9,
            224.0,
            132.3,
            222.6,
            148.5,
            178.6,
            107.5,
            271.4,
            112.3,
        )
    ],
    ("full", "half"): [
        (
            0.9026,
            86.56,
            33.71,
            52.18,
            52.18,
            101.1,
            51.4,
            124.1,
            52.9,
            111.5,
            65.7,
            110.8,
            74.1,
            89.1,
            53.8,
            136.3,
            56.5,
        )
    ],
    ("full", "face"): [
        (
            0.9401,
            58.65,
            63.81,
            114.55,
            114.6,
            93.0,
            103.8,
            138.8,
            103.3,
            115.1,
            133.0,
            115.0,
            152.3,
            70.5,
            110.5,
            162.6,
            109.8,
        )
    ],
    ("full", "two"): [
        (
            0.9476,
            750.48,
            71.95,
            98.66,
            98.63,
            781.3,
            105.1,
            818.8,
            97.1,
            804.8,
            121.6,
            807.5,
            142.2,
            760.8,
            125.9,
            840.6,
            110.5,
        ),
        (
            0.7806,
            177.19,
            67.55,
            107.69,
            107.7,
            208.9,
            99.6,
            255.6,
            108.1,
            229.3,
            127.4,
            228.9,
            147.2,
            181.0,
            104.8,
            280.6,
            122.9,
        ),
    ],
    ("full", "tall"): [
        (
            0.9217,
            22.43,
            67.08,
            105.5,
            105.52,
            52.1,
            104.1,
            96.4,
            106.0,
            71.8,
            132.2,
            70.8,
            148.6,
            29.8,
            109.6,
            122.3,
            113.8,
        )
    ],
    ("full", "flat"): [
        (
            0.9326,
            174.26,
            9.91,
            102.02,
            102.01,
            203.5,
            41.9,
            246.3,
            45.4,
            221.7,
            66.8,
            219.9,
            85.6,
            183.2,
            51.9,
            271.3,
            59.2,
        )
    ],
}


@pytest.fixture(scope="module")
def pictures() -> dict[str, np.ndarray]:
    from skimage.data import astronaut

    whole = astronaut()
    return {
        "whole": whole,
        "half": whole[::2, ::2],
        "face": whole[0:230, 110:340],
        "two": np.concatenate([whole, whole[:, ::-1]], axis=1),
        "tall": whole[:, 150:300],
        "flat": whole[60:160],
    }


def overlap(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Intersection over union of two boxes (x, y, width, height)."""
    low, high = (
        np.maximum(first[:2], second[:2]),
        np.minimum(np.add(first[:2], first[2:]), np.add(second[:2], second[2:])),
    )
    shared = float(np.prod(np.clip(high - low, 0, None)))
    return shared / (first[2] * first[3] + second[2] * second[3] - shared)


@pytest.mark.parametrize(("reach", "name"), MEDIAPIPE)
def test_faces_are_those_of_mediapipe(reach: Range, name: str, pictures: dict[str, np.ndarray]) -> None:
    faces = BlazeFace(reach).find(pictures[name])
    expected = MEDIAPIPE[reach, name]
    assert len(faces) == len(expected)
    for face, (score, *numbers) in zip(faces, expected, strict=True):
        assert face.score == pytest.approx(score, abs=0.01)
        assert overlap(face.box, tuple(numbers[:4])) > 0.98
        points = np.array(numbers[4:]).reshape(6, 2)
        assert face.keypoints == pytest.approx(points, abs=0.01 * numbers[2] + 0.05)  # stored to 0.1 pixels


@pytest.mark.parametrize("reach", ["short", "full"])
def test_every_size_of_picture_is_taken(reach: Range, pictures: dict[str, np.ndarray]) -> None:
    finder = BlazeFace(reach)
    for height, width in ((1, 1), (3000, 20), (20, 3000), (0, 5), (5, 0), (1, 40000)):
        assert finder.find(np.zeros((height, width, 3), np.uint8)) == []
    wide = np.zeros((128, 40000, 3), np.uint8)
    assert finder.find(wide) == []
    (face,) = finder.find(pictures["face"])
    (mirrored,) = finder.find(pictures["face"][:, ::-1])  # negative strides
    assert 230 - mirrored.box[0] - mirrored.box[2] == pytest.approx(face.box[0], abs=10)
    assert mirrored.keypoints[0, 0] < mirrored.keypoints[1, 0]


@pytest.mark.parametrize("reach", ["short", "full"])
def test_border_is_as_if_the_picture_had_it(reach: Range, pictures: dict[str, np.ndarray]) -> None:
    finder = BlazeFace(reach)
    face = pictures["face"][40:210, 40:190]
    (thought,) = finder.find(face, border=(60, 30))
    (real,) = finder.find(np.pad(face, ((30, 30), (60, 60), (0, 0))))
    assert thought.score == pytest.approx(real.score, abs=0.01)
    assert thought.box == pytest.approx(np.subtract(real.box, (60, 30, 0, 0)), abs=1)
    assert thought.keypoints == pytest.approx(real.keypoints - [60, 30], abs=1)


def test_min_confidence_is_the_least_score(pictures: dict[str, np.ndarray]) -> None:
    many = BlazeFace("full", 0.01).find(pictures["two"])
    assert len(many) > 2
    assert [face.score for face in many] == sorted((face.score for face in many), reverse=True)
    one = BlazeFace("full", 0.9).find(pictures["two"])
    assert [face.score >= 0.9 for face in one] == [True]
    assert BlazeFace("full", 0.99).find(pictures["two"]) == []


def test_model_files_are_those_of_the_list() -> None:
    rows = re.findall(
        r"^\| `(\w+\.\w+)`.*`([0-9a-f]{64})`", (MODELS_DIR / "MODELS.md").read_text(), re.MULTILINE
    )
    assert {name for name, _ in rows} == {path.name for path in MODELS_DIR.glob("*.[tj]*")}
    for name, digest in rows:
        assert hashlib.sha256((MODELS_DIR / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize(
    "content", ["version https://git-lfs.github.com/spec/v1", "", b"\x1c\0\0\0TFL3" + bytes(99)]
)
@pytest.mark.parametrize("name", sorted(path.name for path in MODELS_DIR.glob("*.[tj]*")))
def test_damaged_models_of_the_installation_say_install_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str | bytes
) -> None:
    models = Path(shutil.copytree(MODELS_DIR, tmp_path / "models"))
    (models / name).write_bytes(content.encode() if isinstance(content, str) else content)
    for module in (litert, network, face_landmarker):
        monkeypatch.setattr(module, "MODELS_DIR", models)

    def load_all() -> None:
        network.MeshNetwork()
        BlazeFace("full", 0.5)
        BlazeFace("short", 0.5)
        if name.endswith(".task"):
            pytest.importorskip("mediapipe", reason="mediapipe is an extra")
            face_landmarker.FaceLandmarker()

    with pytest.raises(
        UserError, match=rf"{name}: .*; the installation of facevox is damaged: install it again"
    ):
        load_all()


def test_wrong_number_of_inputs_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        LiteRtModel("face_detection_short_range.tflite")()
