"""Faces and their expressions in pictures, by the exported model: for the server and emotion/run_model.py.

    classifier = Classifier(find_model(settings.model_dir))
    with FaceAnalyser(classifier, max_faces=4) as analyser:
        for face in analyser.analyse(image_rgb):
            print(face.track_id, face.box, classifier.class_names[face.best], face.smoothed)

Needs ai-edge-litert, neither TensorFlow nor torch. It writes notes to stderr when it starts; a program runs
inside of `facevox.native_silence`, which only its main thread may enter.
"""

import json
import os
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from emotion.classifier.about import FORMAT, MEMBER, About
from emotion.data.crops import cut_square, face_box, square_around
from emotion.live.face_tracks import Face, FaceTracks, Sighting
from facevox.archives import check_members
from facevox.errors import UserError, one_line
from facevox.file_kinds import file_fault
from facevox.mesh.face_mesh import FaceMesh

MODEL_PATTERN = "emotion_classifier_*_classes.tflite"
MAX_ABOUT_BYTES = 1_000_000
MAX_MARGIN = 2  # as CROP_MARGIN
# The model of `make demo` is used where MODEL_DIR has none. FACEVOX_DEMO_DIR names another folder than
# runs/demo; with a folder that does not exist no demo's model is used.
_DEMO_DIR = os.environ.get("FACEVOX_DEMO_DIR") or Path(__file__).resolve().parents[2] / "runs" / "demo"
DEMO_MODEL_DIR = Path(_DEMO_DIR) / "emotion" / "models"

# The five classes of the source document; names of other classes are shown as they are.
LABELS = {
    "en": {
        "happy": "Happy",
        "sad": "Sad",
        "neutral": "Neutral",
        "embarrassed": "Embarrassed",
        "anxiety": "Anxious",
    },
    "ko": {"happy": "기쁨", "sad": "슬픔", "neutral": "중립", "embarrassed": "당황", "anxiety": "불안"},
}


def find_model(model_dir: Path) -> Path | None:
    """The newest exported model in `model_dir`, or else the one of `make demo`; None where there is none."""
    for folder in (model_dir, DEMO_MODEL_DIR):
        models = [path for path in folder.glob(MODEL_PATTERN) if path.is_file()]
        if models:
            return max(models, key=lambda path: (path.stat().st_mtime, path.name))
    return None


def translate_labels(class_names: Sequence[str]) -> dict[str, list[str]]:
    """Language ("en", "ko") -> the label of each class, for people."""
    return {language: [words.get(name, name) for name in class_names] for language, words in LABELS.items()}


class Classifier:
    """An exported `.tflite` model with its description; one for each thread.

    Probabilities are calibrated inside of the model.

    Args:
        path: The file that emotion/main.py wrote.
        num_threads: For one picture; more than one gains nothing with a network this small.

    Attributes:
        class_names: In the order of the probabilities.
        img_size: Side of a crop, in pixels.
        crop_margin: Of the square around the face box, as in training.

    Raises:
        UserError: No such file, not such a model, or its description does not fit it.
    """

    def __init__(self, path: Path, num_threads: int = 1) -> None:
        about = read_about(path)
        self.path = path
        self.class_names: tuple[str, ...] = tuple(about["class_names"])
        self.img_size: int = about["preprocessing"]["img_size"]
        self.crop_margin = float(about["preprocessing"]["crop_margin"])
        try:
            self._interpreter: Any = Interpreter(str(path), num_threads=num_threads)
            self._interpreter.allocate_tensors()
            self._interpreter.invoke()  # of a damaged file only this fails
            (pixels,) = self._interpreter.get_input_details()
            (answer,) = self._interpreter.get_output_details()
        except Exception as error:
            reason = file_fault(path, "model") or f"not a model that can be read: {one_line(error)}"
            raise UserError(f"{path}: {reason}") from None
        side, count = self.img_size, len(self.class_names)
        expected = ([1, side, side, 3], [1, count])
        if (list(pixels["shape"]), list(answer["shape"])) != expected or pixels["dtype"] is not np.float32:
            raise UserError(
                f"{path}: takes {list(pixels['shape'])} and gives {list(answer['shape'])}; by its "
                f"description it is {expected[0]} and {expected[1]}; export it again with emotion/main.py"
            )
        self._input, self._output = pixels["index"], answer["index"]

    def predict(self, crops_NSS3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The probabilities (N, C) of crops (N, S, S, 3) uint8 RGB.

        One after the other: on a CPU core a batch takes as long as its pictures one by one.
        """
        probabilities_NC = np.empty((len(crops_NSS3), len(self.class_names)), np.float32)
        for row, crop in zip(probabilities_NC, crops_NSS3, strict=True):
            self._interpreter.set_tensor(self._input, crop[None].astype(np.float32))
            self._interpreter.invoke()
            row[:] = self._interpreter.get_tensor(self._output)[0]
        return probabilities_NC


def read_about(path: Path) -> About:
    """The description in a `.tflite` of emotion/main.py (see emotion/classifier/about.py).

    Raises:
        UserError: No such file, or it has no description, or one that lacks something.
    """
    if (path / "saved_model.pb").is_file():
        raise UserError(f"{path}: a SavedModel; give the .tflite beside it, which has the description")
    if not path.is_file():
        raise UserError(f"{path}: no such model; train one (make emotion-train) or run make demo")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(MEMBER).file_size > MAX_ABOUT_BYTES:
                raise UserError(f"{path}: its {MEMBER} is too large")
            check_members([archive.getinfo(MEMBER)], MAX_ABOUT_BYTES)
            about = json.loads(archive.read(MEMBER))
        names, preprocessing = about["class_names"], about["preprocessing"]
        is_usable = (
            about["format"] == FORMAT
            and isinstance(names, list)
            and len(names) >= 2
            and all(isinstance(name, str) for name in names)
            and isinstance(preprocessing["img_size"], int)
            and isinstance(preprocessing["crop_margin"], int | float)
            and 0 <= preprocessing["crop_margin"] <= MAX_MARGIN
        )
    except UserError:
        raise
    except Exception as error:  # of damaged archives zipfile and the unpackers raise anything
        raise UserError(_about_fault(path, error)) from None
    if not is_usable:
        raise UserError(f"{path}: its {MEMBER} is of another format; export it with emotion/main.py")
    checked: About = about
    return checked


def _about_fault(path: Path, error: Exception) -> str:
    if fault := file_fault(path, "model"):
        return f"{path}: {fault}"
    with path.open("rb") as file:
        is_tflite = file.read(8)[4:] == b"TFL3"
    # The description is at the end.
    cut = "; if it is one of emotion/main.py, it was cut off: fetch or export it again" if is_tflite else ""
    expected = "a .tflite of emotion/main.py is expected"
    return f"{path}: carries no readable {MEMBER} ({one_line(error)}); {expected}{cut}"


@dataclass(frozen=True)
class Findings:
    """The faces of a picture, without memory of others, and the seconds that finding them took."""

    sightings: list[Sighting]
    detect_s: float
    classify_s: float


class FaceAnalyser:
    """Finds faces and classifies them, cropped exactly as in training; a context manager.

    One for each thread, because FaceMesh is not thread-safe. Every picture is searched by itself: with
    several faces following them is no faster, the boxes differ from those of training, and a FaceMesh
    without memory serves any camera. The box of a face needs none of FaceMesh's heads.

    Args:
        classifier: None finds faces only.
        max_faces: Largest number of faces in a picture.
    """

    def __init__(self, classifier: Classifier | None, max_faces: int = 4) -> None:
        self.classifier = classifier
        self._mesh = FaceMesh(static=True, max_faces=max_faces, heads="none")
        self._tracks = FaceTracks()

    def find(self, image_rgb: NDArray[np.uint8]) -> Findings:
        """The faces of an (H, W, 3) uint8 RGB picture from left to right, without memory of others."""
        start_s = time.perf_counter()
        boxes = sorted(face_box(points) for points in self._mesh.find(image_rgb, with_border=True))
        detected_s = time.perf_counter()
        if self.classifier is None:
            probabilities_NC = np.zeros((len(boxes), 0), np.float32)
        else:
            size, margin = self.classifier.img_size, self.classifier.crop_margin
            crops = [cut_square(image_rgb, square_around(box, margin), size) for box in boxes]
            probabilities_NC = self.classifier.predict(np.asarray(crops, np.uint8).reshape(-1, size, size, 3))
        sightings = [Sighting(box, row) for box, row in zip(boxes, probabilities_NC, strict=True)]
        return Findings(sightings, detected_s - start_s, time.perf_counter() - detected_s)

    def analyse(
        self, image_rgb: NDArray[np.uint8], time_s: float | None = None, *, is_film: bool = False
    ) -> list[Face]:
        """The faces of the next picture of a camera or video, from left to right.

        Args:
            image_rgb: (H, W, 3) uint8, upright.
            time_s: Time of the picture, on a clock that does not run backwards; None: now.
            is_film: Whether the picture before it was shown until then, as in a video.
        """
        now_s = time.monotonic() if time_s is None else time_s
        return self._tracks.update(self.find(image_rgb).sightings, now_s, is_film=is_film)

    def reset(self) -> None:
        """Forgets the faces so far: another camera or video begins. Their numbers are not used again."""
        self._tracks.reset()

    def close(self) -> None:
        """Closes the face detector; calling it twice is safe."""
        self._mesh.close()

    def __enter__(self) -> "FaceAnalyser":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
