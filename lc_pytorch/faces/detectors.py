"""Seven face detectors of DeepFace, called directly: its weights, its settings, its boxes.

DeepFace's `extract_faces` copies each picture into one of four times its size before the detector sees
it. The boxes depend on that black border (detectors scale their input, so a border halves the faces in
it), so it is part of the settings here as well: on with alignment, off without, as in DeepFace. For
mediapipe the bordered picture is never made. deepface itself is never imported, because that takes
seconds, silences all warnings and creates a folder in the home folder.

Where the landmarks of each detector come from (`Candidate.points` is NaN where it returns none):

| detector   | turned by       | five landmarks                                               |
|------------|-----------------|--------------------------------------------------------------|
| retinaface | its eyes        | its own                                                      |
| mtcnn      | its eyes        | its own                                                      |
| yunet      | its eyes        | its own                                                      |
| mediapipe  | its eyes        | eyes and nose its own; mouth corners around its mouth centre |
| dlib       | its eyes        | eyes its own; nose and mouth by FaceMesh on the face         |
| opencv     | FaceMesh's eyes | by FaceMesh on the face                                      |
| ssd        | FaceMesh's eyes | by FaceMesh on the face                                      |

For opencv and ssd DeepFace finds the eyes with OpenCV's eye cascade. That is slower than FaceMesh and takes
a nostril or mouth corner for an eye in one face of five, so that the crop is turned on its side. Here the
cascade is used only where FaceMesh finds nothing; the landmarks are then those of an average face in the
box.
Other settings that differ from DeepFace's defaults: mediapipe gets RGB (DeepFace gives it BGR as if it were
RGB, which lowers its confidence), and finds faces at any distance (model 1) from a confidence of 0.6 on, its
graph's own, where DeepFace's model 0 misses most faces that do not fill the picture. It runs without the
package mediapipe (`facevox.mesh.blazeface`). yunet looks at a picture of 160 pixels without the border from a
confidence of 0.7 on, where DeepFace's looks at 640 with it from 0.9 on: a third of the time, and more faces.

Where a detector finds nothing, `Detector.search` has it look again in another way: it is the one place for
faces that fill the picture, are cut by its edge or are small.

The detectors' packages are imported in the constructors: each is optional, and takes seconds to import.

Source: DeepFace 0.0.103, deepface/models/face_detection and deepface/modules/detection.py.
"""

import contextlib
import importlib.util
import math
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from facevox.errors import UserError, one_line
from facevox.faces import ARCFACE_POINTS_112, five_points, similarity_transform
from facevox.mesh.blazeface import BlazeFace
from facevox.mesh.face_mesh import FaceMesh
from lc_pytorch.faces.crops import Box, Eyes, black_crop
from lc_pytorch.faces.options import BACKENDS
from lc_pytorch.faces.weights import WeightFile, require_weights

_RELEASES = "https://github.com/serengil/deepface_models/releases/download/v1.0/"
WEIGHTS: dict[str, tuple[WeightFile, ...]] = {
    "retinaface": (
        WeightFile(
            "retinaface.pth",
            (
                _RELEASES + "retinaface.pth",
                "https://huggingface.co/serengil/deepface/resolve/main/retinaface.pth",
            ),
        ),
    ),
    "ssd": (
        WeightFile(
            "deploy.prototxt",
            ("https://github.com/opencv/opencv/raw/3.4.0/samples/dnn/face_detector/deploy.prototxt",),
        ),
        WeightFile(
            "res10_300x300_ssd_iter_140000.caffemodel",
            (
                "https://github.com/opencv/opencv_3rdparty/raw/dnn_samples_face_detector_20170830/"
                "res10_300x300_ssd_iter_140000.caffemodel",
            ),
        ),
    ),
    "yunet": (
        WeightFile(
            "face_detection_yunet_2023mar.onnx",
            (
                "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/"
                "face_detection_yunet_2023mar.onnx",
            ),
        ),
    ),
    "dlib": (
        WeightFile(
            "shape_predictor_5_face_landmarks.dat",
            ("https://dlib.net/files/shape_predictor_5_face_landmarks.dat.bz2",),
        ),
    ),
}
# Packages besides the core ones, and the extra that installs them.
_PACKAGES = {
    "retinaface": (("torch", "retinaface"), "face-voice"),
    "mtcnn": (("mtcnn", "tensorflow"), "mtcnn"),
    "dlib": (("dlib",), "dlib"),
}
_RETINAFACE_CONFIDENCE = 0.9
_SSD_CONFIDENCE = 0.9
_SSD_INPUT_PX = 300
# Longer side of the picture that YuNet gets, at the first look and where it finds nothing. The first finds as
# many faces of 138 portraits and 107 frames of talks as 256 to 640 pixels do in two to four times the time,
# the second those from 32 pixels of 1280 on (MediaPipe: from 96). At 0.7 no face in 95 pictures of no one.
_YUNET_PX, _YUNET_AGAIN_PX = 160, 640
_YUNET_LEAST_PX = (
    64  # OpenCV reads numbers from nowhere in a strip of 640 x 32 pixels, and finds faces in them
)
_YUNET_CONFIDENCE = 0.7
# DeepFace's settings for OpenCV's cascades.
_CASCADE_STEP = 1.1
_CASCADE_NEIGHBOURS = 10
# From the mouth's centre to a corner as a share of the distance between the eyes: half of 0.83, the
# proportion of the ArcFace template (29.2 / 35.2).
_HALF_MOUTH = 0.414
# Positions of the five points of an upright face in its box, as shares of the sides: medians over FaceMesh
# points in the boxes of the opencv detector.
_AVERAGE_FACE = np.array([[0.31, 0.39], [0.69, 0.39], [0.50, 0.60], [0.36, 0.77], [0.64, 0.77]], np.float32)
# Margin around the box for FaceMesh, as a share of its sides: its detector misses faces that fill a picture.
# Larger pictures are reduced, because its landmark model gets 256 x 256 pixels of the face anyway.
_MESH_MARGIN = 0.5
_MESH_SIDE_PX = 512

# Least share of the picture's shorter side that a face fills for which the second look takes a border. In 72
# pictures of no one MediaPipe sees 6 faces with the border and 0 without; with this share 1 is left.
_CLOSE_SHARE = 0.4

LandmarkSource = Literal["detector", "facemesh", "average"]


def _unknown_points() -> NDArray[np.float32]:
    return np.full((5, 2), np.nan, np.float32)


@dataclass(frozen=True)
class Candidate:
    """A face as the detector returns it, in pixels of the picture (outside of it if it was in a border)."""

    box: Box
    confidence: float  # the detector's own measure; for opencv not a probability
    eyes: Eyes | None = None  # whole pixels, by which DeepFace turns the face
    # (5, 2): left eye, right eye, nose, left and right mouth corner, left and right as seen in the picture
    points: NDArray[np.float32] = field(default_factory=_unknown_points)


def check_backend(backend: str) -> None:
    """Checks that `backend` can run, without importing it: packages first, then weights.

    Missing weights are downloaded where the network answers.

    Raises:
        UserError: Something is missing; the message names it and how to get it.
    """
    if backend not in BACKENDS:
        raise UserError(f"detector {backend!r} is not known; choose from {', '.join(BACKENDS)}")
    packages, extra = _PACKAGES.get(backend, ((), ""))
    missing = [name for name in packages if not _is_installed(name)]
    if missing:
        raise UserError(
            f"--detector_backend {backend} needs {' and '.join(missing)}, not installed here; "
            f"run: uv pip install -e '.[{extra}]' in the repository, or use --detector_backend mediapipe"
        )
    require_weights(WEIGHTS.get(backend, ()), f"detector {backend}", "use --detector_backend mediapipe")


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a module blocked on purpose has no spec
        return False


def make_detector(backend: str, threads: int = 1) -> "Detector":
    """The detector `backend`, loaded and ready to use in this process.

    Args:
        backend: One of BACKENDS.
        threads: Processor threads it may use; 1 where several processes share the machine.

    Raises:
        UserError: A package or weights are missing, or the weights cannot be read.
    """
    check_backend(backend)
    cv2.setNumThreads(threads)
    try:
        return _DETECTORS[backend](threads)
    except UserError:
        raise
    except Exception as error:  # each package has errors of its own for a damaged file
        files = [str(path) for path in require_weights(WEIGHTS.get(backend, ()), f"detector {backend}")]
        if not files:
            raise
        raise UserError(
            f"detector {backend}: its weights cannot be read ({one_line(error)}); "
            f"delete {' and '.join(files)} and fetch them again"
        ) from error


class Detector:
    """Base of the detectors: `find` returns the faces, `landmarks` completes the five points of a face.

    Not thread-safe, and not usable in a forked child: make one in each process.
    """

    colour: Literal["rgb", "bgr"] = "bgr"  # channel order of the pictures for `find`
    # Whether every picture is reduced to one size: then a border halves the faces, and small ones are missed.
    has_fixed_input = False
    # Below it a face is looked at again (see `lc_pytorch.faces.usable`).
    sure_confidence = 0.0

    def __init__(self, threads: int = 1) -> None:
        self._mesh: FaceMesh | None = None

    def find(self, image: NDArray[np.uint8], border: bool = True) -> list[Candidate]:
        """The faces of an (H, W, 3) uint8 picture in the channel order `colour`.

        Args:
            image: The picture.
            border: DeepFace's black border of half the picture on every side (its default, with
                alignment). It changes the boxes a little, and lets faces that fill the picture be found.
        """
        raise NotImplementedError

    def search(
        self,
        image: NDArray[np.uint8],
        border: bool = True,
        min_confidence: float = 0.0,
        with_second_look: bool = True,
    ) -> list[Candidate]:
        """The faces of at least `min_confidence`; where `find` gives none, those of `find_again`."""
        faces = [face for face in self.find(image, border) if face.confidence >= min_confidence]
        if not faces and with_second_look:
            faces = [face for face in self.find_again(image, border) if face.confidence >= min_confidence]
        return faces

    def find_again(self, image: NDArray[np.uint8], border: bool) -> list[Candidate]:
        """The second look, where `find` with `border` found nothing.

        With the border, where there was none: faces that fill the picture or are cut by its edge are found,
        and only they count. Without it, where the detector reduces every picture to one size: faces are
        twice as large then.
        """
        if border:
            return self.find(image, border=False) if self.has_fixed_input else []
        size = image.shape[1::-1]
        return [face for face in self.find(image, border=True) if _fills_or_is_cut(face.box, size)]

    def find_close(self, image: NDArray[np.uint8]) -> list[Candidate]:
        """The faces of a picture that shows little more than one."""
        return self.find(image, border=False)

    def find_eyes(self, image: NDArray[np.uint8], candidate: Candidate, widened: Box) -> Eyes | None:
        """The eyes by which DeepFace turns `candidate`; `widened` is its box as DeepFace cuts it."""
        return candidate.eyes

    def landmarks(
        self, image: NDArray[np.uint8], candidate: Candidate
    ) -> tuple[NDArray[np.float32], LandmarkSource]:
        """The five points (5, 2) of a face in pixels of the picture, and where they come from."""
        is_known = np.isfinite(candidate.points).all(axis=1)
        if is_known.all():
            return candidate.points, "detector"
        mesh = self._mesh_points(image, candidate.box)
        source: LandmarkSource = "average" if mesh is None else "facemesh"
        points = _average_points(candidate) if mesh is None else mesh
        points[is_known] = candidate.points[is_known]
        return points, source

    def _mesh_points(self, image: NDArray[np.uint8], box: Box) -> NDArray[np.float32] | None:
        x, y, w, h = box
        if w <= 0 or h <= 0:
            return None
        if self._mesh is None:
            self._mesh = FaceMesh()
        left, top = x - int(_MESH_MARGIN * w), y - int(_MESH_MARGIN * h)
        part = black_crop(image, left, top, w + 2 * (x - left), h + 2 * (y - top))
        scale = min(1.0, _MESH_SIDE_PX / max(part.shape[:2]))
        if scale < 1:
            part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        faces = self._mesh.find(part if self.colour == "rgb" else part[..., ::-1])
        return five_points(faces[0]) / scale + np.array([left, top], np.float32) if faces else None

    def close(self) -> None:
        """Releases the memory of the detector."""
        if self._mesh is not None:
            self._mesh.close()
            self._mesh = None


def _average_points(candidate: Candidate) -> NDArray[np.float32]:
    """The five points of an average face, fitted to the points that are is_known, else to the box."""
    is_known = np.isfinite(candidate.points).all(axis=1)
    if is_known.sum() >= 2:
        matrix = similarity_transform(ARCFACE_POINTS_112[is_known], candidate.points[is_known])
        points: NDArray[np.float64] = ARCFACE_POINTS_112 @ matrix[:, :2].T + matrix[:, 2]
    else:
        x, y, w, h = candidate.box
        points = _AVERAGE_FACE * np.array([w, h]) + np.array([x, y])
    return points.astype(np.float32)


def _fills_or_is_cut(box: Box, size: tuple[int, ...]) -> bool:
    """True for a face that fills a picture of `size` (width, height) or reaches over its edge."""
    ends = np.add(box[:2], box[2:])
    return bool(max(box[2:]) >= _CLOSE_SHARE * min(size) or min(box[:2]) < 0 or (ends > size).any())


def _rims(image: NDArray[np.uint8], border: bool) -> tuple[int, int]:
    """Width of DeepFace's border at the left and right, and at the top and bottom, in pixels."""
    height, width = image.shape[:2]
    return (int(0.5 * width), int(0.5 * height)) if border else (0, 0)


def _bordered(image: NDArray[np.uint8], border: bool) -> NDArray[np.uint8]:
    rim_x, rim_y = _rims(image, border)
    if not border:
        return image
    bordered: NDArray[np.uint8] = cv2.copyMakeBorder(
        image, rim_y, rim_y, rim_x, rim_x, cv2.BORDER_CONSTANT, value=(0, 0, 0)
    )
    return bordered


def _candidate(
    box: tuple[float, ...], confidence: float, points: NDArray[np.float64] | None, rims: tuple[int, int]
) -> Candidate:
    """A candidate from the detector's numbers for the bordered picture; rounded there, as DeepFace does."""
    x, y, w, h = (int(value) for value in box)
    moved = (x - rims[0], y - rims[1], w, h)
    if points is None:
        return Candidate(moved, confidence)
    left, right = ((int(px) - rims[0], int(py) - rims[1]) for px, py in points[:2])
    return Candidate(moved, confidence, (left, right), (points - rims).astype(np.float32))


def _cascade(name: str) -> cv2.CascadeClassifier:
    return cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / name))


def _eyes_in(image: NDArray[np.uint8], box: Box, eye_cascade: cv2.CascadeClassifier) -> Eyes | None:
    """The two largest eyes in `box`, left and right as seen in the picture; None with fewer than two.

    The cascade takes brows, nostrils and mouth corners for eyes at times (in 5 of 25 clips of people
    talking), and DeepFace turns faces by these.
    """
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return None
    grey = cv2.cvtColor(black_crop(image, x, y, w, h), cv2.COLOR_BGR2GRAY)
    eyes = sorted(
        eye_cascade.detectMultiScale(grey, _CASCADE_STEP, _CASCADE_NEIGHBOURS),
        key=lambda eye: int(eye[2]) * int(eye[3]),
        reverse=True,
    )[:2]
    if len(eyes) < 2:
        return None
    if not eyes[0][0] < eyes[1][0]:
        eyes.reverse()
    left, right = ((x + int(eye[0] + eye[2] / 2), y + int(eye[1] + eye[3] / 2)) for eye in eyes)
    return left, right


class _BoxDetector(Detector):
    """A detector of boxes without landmarks, whose confidence says little: MediaPipe's looks closer."""

    sure_confidence = math.inf

    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        self._threads = threads
        self._second: Detector | None = None

    def find_close(self, image: NDArray[np.uint8]) -> list[Candidate]:
        if self._second is None:
            self._second = _MediaPipe(self._threads)
        return self._second.find(np.ascontiguousarray(image[..., ::-1]), border=False)


class _OpenCv(_BoxDetector):
    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        self._faces = _cascade("haarcascade_frontalface_default.xml")
        self._eyes = _cascade("haarcascade_eye.xml")

    def find(self, image: NDArray[np.uint8], border: bool = True) -> list[Candidate]:
        grey: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        boxes, _, weights = self._faces.detectMultiScale3(
            _bordered(grey, border), _CASCADE_STEP, _CASCADE_NEIGHBOURS, outputRejectLevels=True
        )
        rims = _rims(image, border)
        candidates = [
            _candidate(tuple(box), (100 - float(weight)) / 100, None, rims)
            for box, weight in zip(boxes, weights, strict=True)
        ]
        # The cascade's threads find faces in any order.
        return sorted(candidates, key=lambda candidate: candidate.box)

    def find_eyes(self, image: NDArray[np.uint8], candidate: Candidate, widened: Box) -> Eyes | None:
        # In the detector's own box, unlike ssd, as DeepFace does it.
        return _eyes_in(image, candidate.box, self._eyes)


class _Ssd(_BoxDetector):
    has_fixed_input = True

    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        layers, weights = require_weights(WEIGHTS["ssd"], "detector ssd")
        self._net = cv2.dnn.readNetFromCaffe(str(layers), str(weights))
        self._eyes = _cascade("haarcascade_eye.xml")

    def find(self, image: NDArray[np.uint8], border: bool = True) -> list[Candidate]:
        bordered = _bordered(image, border)
        size = (_SSD_INPUT_PX, _SSD_INPUT_PX)
        self._net.setInput(cv2.dnn.blobFromImage(cv2.resize(bordered, size)))
        rows = self._net.forward().reshape(-1, 7)  # picture, class, confidence, left, top, right, bottom
        rows = rows[(rows[:, 1] == 1) & (rows[:, 2] >= _SSD_CONFIDENCE)]
        aspect_x, aspect_y = (side / _SSD_INPUT_PX for side in bordered.shape[1::-1])
        corners = (rows[:, 3:] * _SSD_INPUT_PX).astype(np.int32) * np.array([aspect_x, aspect_y] * 2)
        rims = _rims(image, border)
        return [
            _candidate((left, top, right - left, bottom - top), float(row[2]), None, rims)
            for row, (left, top, right, bottom) in zip(rows, corners.astype(np.int32), strict=True)
        ]

    def find_eyes(self, image: NDArray[np.uint8], candidate: Candidate, widened: Box) -> Eyes | None:
        return _eyes_in(image, widened, self._eyes)


class _Dlib(Detector):
    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        import dlib

        (weights,) = require_weights(WEIGHTS["dlib"], "detector dlib")
        self._faces = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(str(weights))

    def find(self, image: NDArray[np.uint8], border: bool = True) -> list[Candidate]:
        bordered = _bordered(image, border)
        faces, scores, _ = self._faces.run(bordered, 1)
        candidates = []
        for face, score in zip(faces, scores, strict=True):
            left, top = max(0, face.left()), max(0, face.top())
            box = (
                left,
                top,
                min(face.right(), bordered.shape[1]) - left,
                min(face.bottom(), bordered.shape[0]) - top,
            )
            shape = self._predictor(bordered, face)
            part = [(shape.part(i).x, shape.part(i).y) for i in range(4)]
            points = np.full((5, 2), np.nan)
            # Parts 2 and 3 are the corners of the eye at the left of the picture, 0 and 1 of the other.
            points[0] = [(a + b) // 2 for a, b in zip(part[2], part[3], strict=True)]
            points[1] = [(a + b) // 2 for a, b in zip(part[0], part[1], strict=True)]
            candidates.append(_candidate(box, min(max(0.0, score), 1.0), points, _rims(image, border)))
        return candidates


class _MtCnn(Detector):
    colour = "rgb"

    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        # As DeepFace sets it before the first import of TensorFlow.
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        # mtcnn and Keras warn about their own code while they are imported; users can do nothing about it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import tensorflow
            from mtcnn import MTCNN

            # A TensorFlow that has run already refuses to change its threads.
            with contextlib.suppress(RuntimeError):
                tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
                tensorflow.config.threading.set_inter_op_parallelism_threads(threads)
            self._model = MTCNN()

    def find(self, image: NDArray[np.uint8], border: bool = True) -> list[Candidate]:
        rims = _rims(image, border)
        candidates = []
        for face in self._model.detect_faces(_bordered(image, border)) or []:
            names = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")  # as seen in the picture
            points = np.array([face["keypoints"][name] for name in names], np.float64)
            candidates.append(_candidate(face["box"], float(face["confidence"]), points, rims))
        return candidates


class _RetinaFace(Detector):
    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        os.environ["DEEPFACE_BACKEND_ENGINE"] = "pytorch"
        import torch

        torch.set_num_threads(threads)
        with warnings.catch_warnings():  # importing it silences the warnings of the whole process
            from retinaface import RetinaFace
        self._package = RetinaFace
        self._model = RetinaFace.build_model()

    def find(self, image: NDArray[np.uint8], border: bool = True) -> list[Candidate]:
        faces = self._package.detect_faces(
            _bordered(image, border), model=self._model, threshold=_RETINAFACE_CONFIDENCE
        )
        rims = _rims(image, border)
        # The package names sides as the person has them: its right is the left of the picture.
        names = ("right_eye", "left_eye", "nose", "mouth_right", "mouth_left")
        candidates = []
        for face in faces.values():
            left, top, right, bottom = face["facial_area"]
            points = np.array([face["landmarks"][name] for name in names], np.float64)
            box = (left, top, right - left, bottom - top)
            candidates.append(_candidate(box, float(face["score"]), points, rims))
        return candidates


class _MediaPipe(Detector):
    """MediaPipe's detector for faces at any distance, by our own runtime; its input is a small square."""

    colour = "rgb"
    has_fixed_input = True
    sure_confidence = 0.85

    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        self._model = BlazeFace("full", threads=threads)

    def find(self, image: NDArray[np.uint8], border: bool = True) -> list[Candidate]:
        rims = _rims(image, border)
        candidates = []
        for face in self._model.find(image, border=rims):
            marks = face.keypoints[:4].astype(np.float64) + rims  # eyes, nose, mouth
            half = _HALF_MOUTH * (marks[1] - marks[0])
            points = np.array([marks[0], marks[1], marks[2], marks[3] - half, marks[3] + half])
            x, y, w, h = face.box
            candidates.append(_candidate((x + rims[0], y + rims[1], w, h), face.score, points, rims))
        return candidates


class _YuNet(Detector):
    """OpenCV's YuNet. It finds faces that fill the picture without DeepFace's border, which is left out."""

    sure_confidence = 0.9

    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        (weights,) = require_weights(WEIGHTS["yunet"], "detector yunet")
        size = (_YUNET_PX, _YUNET_PX)
        self._model = cv2.FaceDetectorYN.create(str(weights), "", size, _YUNET_CONFIDENCE)
        # Another network loads as well, and fails at the first picture only.
        self._model.detect(np.zeros((*size, 3), np.uint8))

    def find(self, image: NDArray[np.uint8], border: bool = True) -> list[Candidate]:
        return self._find(image, _YUNET_PX)

    def find_again(self, image: NDArray[np.uint8], border: bool) -> list[Candidate]:
        return self._find(image, _YUNET_AGAIN_PX) if max(image.shape[:2]) > _YUNET_PX else []

    def _find(self, image: NDArray[np.uint8], longest_px: int) -> list[Candidate]:
        shrink = max(1.0, max(image.shape[:2]) / longest_px)
        size = tuple(max(1, round(side / shrink)) for side in image.shape[1::-1])
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if shrink > 1 else image
        rim_x, rim_y = (max(0, _YUNET_LEAST_PX - side) for side in size)
        small = cv2.copyMakeBorder(small, 0, rim_y, 0, rim_x, cv2.BORDER_CONSTANT)
        self._model.setInputSize(small.shape[1::-1])
        _, rows = self._model.detect(small)
        if rows is None:
            return []
        # x, y, width, height, five points, confidence
        numbers = rows[:, :14].reshape(-1, 7, 2) * (np.array(image.shape[1::-1]) / size)
        return [
            _candidate((*place[0], *place[1]), float(row[14]), place[2:], (0, 0))
            for place, row in zip(numbers, rows, strict=True)
        ]


_DETECTORS: dict[str, type[Detector]] = {
    "opencv": _OpenCv,
    "ssd": _Ssd,
    "dlib": _Dlib,
    "mtcnn": _MtCnn,
    "retinaface": _RetinaFace,
    "mediapipe": _MediaPipe,
    "yunet": _YuNet,
}
