"""Face-embedding models: DeepFace's by name, any ONNX file by path.

`find_model` checks in milliseconds that a model can be used and finds its key for caches; it imports neither
torch nor DeepFace. `FaceModel.load` (or `make_embedder`) then loads it in the process that needs it. So the
heavy packages are imported in functions here.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from facevox.errors import UserError
from lc_pytorch.faces.onnx_models import OnnxEmbedder, Picture, check_onnx, unit_rows
from lc_pytorch.faces.options import ONNX_PREPROCESSINGS
from lc_pytorch.faces.weights import WeightFile, require_weights, weights_dir

_DEEPFACE_HOSTS = (
    "https://github.com/serengil/deepface_models/releases/download/v1.0/",
    "https://huggingface.co/serengil/deepface/resolve/main/",
)


@dataclass(frozen=True)
class _DeepFaceModel:
    """Facts about one of DeepFace's models (0.0.103, PyTorch) that are needed before DeepFace is imported."""

    weight_file: str
    threshold: float  # cosine distance; deepface.config.threshold
    input_size: tuple[int, int]  # width, height
    urls: tuple[str, ...] = ()  # default: DeepFace's two hosts
    package: str = ""  # that it needs besides DeepFace

    @property
    def weights(self) -> WeightFile:
        return WeightFile(
            self.weight_file, self.urls or tuple(host + self.weight_file for host in _DEEPFACE_HOSTS)
        )


_SFACE_URL = (
    "https://github.com/opencv/opencv_zoo/raw/main/models/face_recognition_sface/"
    "face_recognition_sface_2021dec.onnx"
)
_DLIB_URL = "https://dlib.net/files/dlib_face_recognition_resnet_model_v1.dat.bz2"
_BUFFALO_URL = "https://drive.google.com/uc?export=download&confirm=pbef&id=1N0GL-8ehw_bz2eZQWz2b0A5XBdXdxZhg"
_DEEPFACE_MODELS = {
    "Facenet": _DeepFaceModel("facenet_weights.pth", 0.40, (160, 160)),
    "Facenet512": _DeepFaceModel("facenet512_weights.pth", 0.30, (160, 160)),
    "VGG-Face": _DeepFaceModel("vgg_face_weights.pth", 0.68, (224, 224)),
    "OpenFace": _DeepFaceModel("openface_weights.pth", 0.10, (96, 96)),
    "DeepFace": _DeepFaceModel("VGGFace2_DeepFace_weights_val-0.9034.pth", 0.23, (152, 152)),
    "DeepID": _DeepFaceModel("deepid_weights.pth", 0.015, (47, 55)),
    "ArcFace": _DeepFaceModel("arcface_weights.pth", 0.68, (112, 112)),
    "SFace": _DeepFaceModel("face_recognition_sface_2021dec.onnx", 0.593, (112, 112), (_SFACE_URL,)),
    "GhostFaceNet": _DeepFaceModel("ghostfacenet_v1.pth", 0.65, (112, 112)),
    "Dlib": _DeepFaceModel(
        "dlib_face_recognition_resnet_model_v1.dat", 0.07, (150, 150), (_DLIB_URL,), "dlib"
    ),
    "Buffalo_L": _DeepFaceModel(
        "buffalo_l/webface_r50.onnx", 0.55, (112, 112), (_BUFFALO_URL,), "insightface"
    ),
}
MODEL_NAMES = tuple(_DEEPFACE_MODELS)


class Embedder(Protocol):
    """A loaded model."""

    input_size: tuple[int, int]

    def embed(self, faces: Sequence[Picture]) -> NDArray[np.float32]:
        """(B, D) unit vectors of (H, W, 3) uint8 RGB faces (of any size, unless they have to be aligned).

        On a CPU a face gets the same vector to the last bit, whatever the other faces and however many the
        cores: each goes through the model alone, on one thread (a batch gains nothing there). Killed,
        sharded and whole runs then come to the same groups. On a GPU it may differ by about 1e-6.
        """


@dataclass(frozen=True, kw_only=True)
class FaceModel:
    """A model that can be loaded; small and picklable.

    Attributes:
        name: As the user gave it.
        key: Name of the model in caches; changes with the content of its file and with the preprocessing.
        file: Path of the weights.
        default_threshold: Cosine distance below which DeepFace calls two faces one person; None where
            it was never measured (ONNX files).
        input_size: Width and height in pixels.
        preprocessing: Of ONNX files; "" for DeepFace's models, which have their own.
        num_aligned_points: 5 where faces have to be aligned on five points first
            (`facevox.faces.align_five_points`), 0 where a face crop is the input as it is.
    """

    name: str
    key: str
    file: Path
    default_threshold: float | None
    input_size: tuple[int, int]
    preprocessing: str = ""
    num_aligned_points: int = 0

    def load(self, device: str = "auto") -> Embedder:
        """Loads the weights; torch and DeepFace or onnxruntime are imported here.

        Args:
            device: "auto" takes a GPU where there is one; "cpu"; "cuda".

        Raises:
            UserError: The file is broken or another model's, or there is no GPU.
        """
        if self.preprocessing:
            return OnnxEmbedder(self.file, self.preprocessing, device)
        return DeepFaceEmbedder(self.name, device)

    @property
    def description(self) -> str:
        """One line for people: the model and the path of its file."""
        details = f", five-point aligned, {self.preprocessing} preprocessing" if self.preprocessing else ""
        return f"{self.name} ({self.file}{details})"


def make_embedder(model_name: str | Path, *, preprocessing: str = "auto", device: str = "auto") -> Embedder:
    """The loaded model of a DeepFace name or an ONNX file; see `find_model` and `FaceModel.load`."""
    return find_model(model_name, preprocessing=preprocessing).load(device)


def find_model(model_name: str | Path, *, preprocessing: str = "auto") -> FaceModel:
    """The model of a name, checked but not loaded.

    Missing weights of DeepFace's models are downloaded where the network answers within seconds.

    Args:
        model_name: One of `MODEL_NAMES`, or the path of an .onnx file.
        preprocessing: Of an ONNX file: "insightface" ((x - 127.5) / 127.5), "imagenet" (its mean and
            deviation), "raw" (0 to 255), or "auto": what the file's metadata have under
            `facevox.preprocessing`, else "raw" where the graph itself begins with a subtraction and a
            multiplication (as InsightFace decides), else "insightface".

    Raises:
        UserError: No such name or file, not a face-embedding model, or weights or packages are missing.
    """
    if preprocessing not in ONNX_PREPROCESSINGS:
        valid = ", ".join(ONNX_PREPROCESSINGS)
        raise UserError(f"preprocessing {preprocessing!r}: one of {valid} is expected")
    text = str(model_name)
    if text.lower().endswith(".onnx"):
        return _find_onnx(text, preprocessing)
    model = _DEEPFACE_MODELS.get(text)
    if model is None:
        raise UserError(
            f"--model_name {text}: no such model; one of {', '.join(MODEL_NAMES)}, "
            "or the path of an .onnx file"
        )
    if model.package and importlib.util.find_spec(model.package) is None:
        raise UserError(
            f"--model_name {text}: needs the package {model.package}, which is not installed "
            f"(pip install {model.package}); or use another model, such as Facenet"
        )
    file = require_weights([model.weights], f"--model_name {text}")[0]
    return FaceModel(
        name=text,
        key=f"deepface-{text}-{_content_hash(file)}",
        file=file,
        default_threshold=model.threshold,
        input_size=model.input_size,
    )


def weight_file(model_name: str) -> WeightFile:
    """The weight file of one of `MODEL_NAMES`, for fetching it ahead of time."""
    return _DEEPFACE_MODELS[model_name].weights


class DeepFaceEmbedder:
    """One of DeepFace's models on its PyTorch engine (ONNX or dlib where there is no other).

    Pictures are prepared by DeepFace's own functions, so the vectors are those of
    `DeepFace.represent(..., detector_backend="skip")`, scaled to unit length.
    """

    def __init__(self, name: str, device: str = "auto") -> None:
        self._modeling, self._preprocessing = _import_deepface()
        try:
            self._client = self._modeling.build_model(task="facial_recognition", model_name=name)
        except Exception as error:  # of torch, ONNX or dlib, which share no base class
            file = weights_dir() / _DEEPFACE_MODELS[name].weight_file
            raise UserError(
                f"--model_name {name}: the weights cannot be loaded, {file} is broken or another model's "
                f"({type(error).__name__}); remove it and fetch it again (make weights)"
            ) from error
        self._move_to(device)
        self.input_size: tuple[int, int] = tuple(self._client.input_shape)

    def embed(self, faces: Sequence[Picture]) -> NDArray[np.float32]:
        """The vectors of `Embedder.embed`."""
        width, height = self.input_size
        prepared = []
        for face in faces:
            bgr = face[..., ::-1]
            resized = self._preprocessing.resize_image(img=bgr, target_size=(height, width))
            prepared.append(self._preprocessing.normalize_input(img=resized, normalization="base"))
        if str(getattr(self._client, "device", "cpu")) != "cpu":
            vectors = np.asarray(self._client.forward(np.concatenate(prepared)), np.float32)
        else:
            with _one_torch_thread():
                vectors = np.stack([np.asarray(self._client.forward(face), np.float32) for face in prepared])
        return unit_rows(vectors.reshape(len(faces), -1))

    def _move_to(self, device: str) -> None:
        if device == "auto" or not hasattr(self._client, "device"):
            return
        import torch

        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: no CUDA device is visible; use --device cpu")
        self._client.device = torch.device(device)
        self._client.model.to(self._client.device)


@contextlib.contextmanager
def _one_torch_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _find_onnx(text: str, preprocessing: str) -> FaceModel:
    file = Path(text)
    if not file.is_file():
        raise UserError(
            f"--model_name {text}: no such file; give the path of an ONNX face-embedding model "
            f"or one of {', '.join(MODEL_NAMES)}"
        )
    model = check_onnx(file, preprocessing)
    return FaceModel(
        name=text,
        key=f"onnx-{file.stem}-{_content_hash(file)}-{model.preprocessing}",
        file=file.absolute(),
        default_threshold=None,
        input_size=model.input_size,
        preprocessing=model.preprocessing,
        num_aligned_points=5,
    )


def _import_deepface() -> tuple[ModuleType, ModuleType]:
    """DeepFace's model builder and preprocessing, on PyTorch.

    Only these modules: `from deepface import DeepFace` would create a folder in the user's home.
    """
    os.environ["DEEPFACE_BACKEND_ENGINE"] = "pytorch"
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DEEPFACE_LOG_LEVEL", "40")
    from deepface.modules import modeling, preprocessing

    return modeling, preprocessing


def _content_hash(file: Path) -> str:
    """Start of the SHA-256 of a file, 16 hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
