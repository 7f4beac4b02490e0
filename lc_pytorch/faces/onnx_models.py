"""ONNX face-embedding models: checked in a process with limits, then run by onnxruntime.

A model is a program: a file of a few hundred bytes can ask for any memory, and loop for ever.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from facevox.errors import UserError
from facevox.file_kinds import file_fault
from facevox.limits import SPARE_BYTES
from facevox.workers import Item, Outcome, WorkerPool

if TYPE_CHECKING:
    import onnxruntime

Picture = NDArray[np.uint8]

# Subtrahends and divisors of RGB values from 0 to 255.
_INSIGHTFACE = ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
_IMAGENET = (  # 255 × torchvision's mean and deviation
    (123.675, 116.28, 103.53),
    (58.395, 57.12, 57.375),
)
_NORMALISATION = {
    "insightface": _INSIGHTFACE,
    "imagenet": _IMAGENET,
    "raw": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
METADATA_KEY = "facevox.preprocessing"  # in an ONNX file's metadata: one of the names above
_GRAPH_HEAD = 8  # number of first nodes in which InsightFace expects a built-in normalisation

CHECK_S = 60.0  # for loading a model and embedding one face; ResNet-100 takes a second


@dataclass(frozen=True)
class OnnxModel:
    """Facts about an ONNX face-embedding model.

    Attributes:
        input_size: Width and height in pixels.
        preprocessing: A key of the normalisations: "insightface", "imagenet" or "raw".
    """

    input_size: tuple[int, int]
    preprocessing: str


class _CheckTask:
    """Loads a model and embeds a grey picture with it."""

    spare_bytes = SPARE_BYTES

    def __init__(self, preprocessing: str) -> None:
        self._preprocessing = preprocessing

    def open(self, output_dir: Path) -> None:
        """Imports onnxruntime before the memory is limited."""
        _silence_onnxruntime()
        import onnxruntime  # noqa: F401

    def process_chunk(self, items: Sequence[Item]) -> Iterator[Outcome]:
        """An outcome with the facts about the model of each item, or with its fault."""
        for item in items:
            try:
                yield Outcome(rows=[self._facts(Path(item.path))])
            except Exception as error:
                yield Outcome.without_result(error)

    def _facts(self, file: Path) -> dict[str, object]:
        session = _open_session(file, "cpu")
        width, height = _onnx_input_size(session, file)
        preprocessing = self._preprocessing
        if preprocessing == "auto":
            named = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "")
            if named and named not in _NORMALISATION:
                raise UserError(
                    f"{file}: its metadata ask for the preprocessing {named!r}, which is not known"
                )
            has_own = {"Sub", "Mul"} <= set(_first_operators(file, _GRAPH_HEAD))
            preprocessing = named or ("raw" if has_own else "insightface")
        OnnxEmbedder(file, preprocessing, "cpu").embed([np.full((height, width, 3), 127, np.uint8)])
        return {"width": width, "height": height, "preprocessing": preprocessing}

    def close(self) -> None:
        """Nothing is kept."""


def check_onnx(file: Path, preprocessing: str) -> OnnxModel:
    """Loads a model and runs it once, in a process with limited memory and time.

    Args:
        file: The .onnx file.
        preprocessing: One of `facevox`'s, or "auto"; see `lc_pytorch.faces.embedders.find_model`.

    Raises:
        UserError: It is no face-embedding model, or takes too much memory or time.
    """
    item = Item(str(file), str(file))
    with (
        tempfile.TemporaryDirectory(prefix="facevox-") as folder,
        WorkerPool(_CheckTask(preprocessing), Path(folder), 1, "", CHECK_S) as pool,
    ):
        ((_, outcome, _),) = pool.run([[item]], lambda: False)
    if outcome.status != "done":
        text = outcome.reason
        raise UserError(text if text.startswith(str(file)) else f"{file}: {text}")
    facts = outcome.rows[0]
    return OnnxModel((int(str(facts["width"])), int(str(facts["height"]))), str(facts["preprocessing"]))


class OnnxEmbedder:
    """An ONNX face-embedding model through onnxruntime; faces are five-point aligned to its input size."""

    def __init__(self, file: Path, preprocessing: str, device: str = "auto") -> None:
        self._session = _open_session(file, device)
        graph_input = self._session.get_inputs()[0]
        self._name = graph_input.name
        # Faces at a time; 0: all at once. Models exported with a fixed batch take no other number.
        is_on_gpu = self._session.get_providers()[0] != "CPUExecutionProvider"
        is_fixed = isinstance(graph_input.shape[0], int)
        self._batch = graph_input.shape[0] if is_fixed else 0 if is_on_gpu else 1
        self.input_size: tuple[int, int] = _onnx_input_size(self._session, file)
        mean, deviation = _NORMALISATION[preprocessing]
        self._mean = np.array(mean, np.float32)
        self._scale = 1.0 / np.array(deviation, np.float32)

    def embed(self, faces: Sequence[Picture]) -> NDArray[np.float32]:
        """The vectors of `Embedder.embed`; each face has exactly the model's input size."""
        pixels = (np.stack(faces).astype(np.float32) - self._mean) * self._scale
        blob = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        step = self._batch or len(blob)
        parts = []
        for start in range(0, len(blob), step):
            part = blob[start : start + step]
            short = step - len(part)
            if short:  # a fixed batch is filled up
                part = np.concatenate([part, np.zeros((short, *part.shape[1:]), np.float32)])
            parts.append(self._session.run(None, {self._name: part})[0][: step - short])
        vectors = np.concatenate(parts).astype(np.float32)
        return unit_rows(vectors.reshape(len(faces), -1))


def _silence_onnxruntime() -> None:
    """Before it is imported: otherwise it sends telemetry and keeps an identifier below the home folder."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def _open_session(file: Path, device: str) -> onnxruntime.InferenceSession:
    _silence_onnxruntime()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # see `Embedder.embed`; each core works on another face
    options.inter_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    if device != "cpu" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    elif device == "cuda":
        raise UserError(
            "--device cuda: this onnxruntime has no CUDA (install onnxruntime-gpu); use --device cpu"
        )
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        reason = (
            file_fault(file, "ONNX model") or f"not an ONNX model that can be loaded ({type(error).__name__})"
        )
        raise UserError(f"{file}: {reason}") from error


def _onnx_input_size(session: onnxruntime.InferenceSession, file: Path) -> tuple[int, int]:
    """(width, height); a UserError where this is not a face-embedding model."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape = inputs[0].shape
    fits = len(inputs) == 1 and len(outputs) == 1 and len(shape) == 4 and shape[1] == 3
    if not fits or inputs[0].type != "tensor(float)" or not _is_square(shape[2:]):
        described = f"input {list(shape)} of {len(inputs)}, output {list(outputs[0].shape)} of {len(outputs)}"
        raise UserError(
            f"{file}: not a face-embedding model: one input of 1 x 3 x 112 x 112 (float, batch fixed or "
            f"free) and one output are expected, it has {described}"
        )
    # A free height and width means any size; such models are trained on 112.
    side = shape[2] if isinstance(shape[2], int) else 112
    return side, side


def _is_square(sides: Sequence[object]) -> bool:
    return not isinstance(sides[0], int) or sides[0] == sides[1]


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row divided by its length; a row without a length (all zeros, NaN) becomes NaN."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    norms[~(norms > 0)] = np.nan
    unit: NDArray[np.float64] = vectors / norms
    return unit.astype(np.float32)


def _first_operators(file: Path, count: int) -> list[str]:
    """Operator types of the first nodes of an ONNX graph ("Conv", "Sub", …), without the package onnx.

    Source: the protocol buffers of onnx.proto: ModelProto.graph is field 7, GraphProto.node field 1,
    NodeProto.op_type field 4; each length-delimited (wire type 2).
    """
    with file.open("rb") as stream:
        data = memoryview(stream.read())
    operators: list[str] = []
    for field, graph in _proto_fields(data):
        if field != 7:
            continue
        for inner, node in _proto_fields(graph):
            if inner == 1:
                operators += [bytes(value).decode() for number, value in _proto_fields(node) if number == 4]
            if len(operators) >= count:
                return operators
    return operators


def _proto_fields(data: memoryview) -> list[tuple[int, memoryview]]:
    """(field number, content) of the length-delimited fields of a message; the others are skipped."""
    fields = []
    position = 0

    def varint() -> int:
        # Seven bits a byte, the lowest first; the eighth bit says that more follow.
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(data):
        tag = varint()
        kind = tag & 7  # wire type: 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes
        if kind == 0:
            varint()
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        elif kind == 2:
            length = varint()
            fields.append((tag >> 3, data[position : position + length]))
            position += length
        else:
            break
    return fields
