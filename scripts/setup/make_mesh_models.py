"""Make the model files of facevox/mesh/models out of the wheel of mediapipe 0.10.21.

    python scripts/setup/make_mesh_models.py mediapipe-0.10.21-….whl
    python scripts/setup/make_mesh_models.py /folder/of/the/unpacked/wheel --models_dir /tmp/models

The files are in the repository already; this is how they were made, to the byte. FaceMesh's network has three
operations of MediaPipe's own, which no other runtime knows, so it is cut around them into four networks:

| file                | takes                               | returns                                     |
|---------------------|-------------------------------------|---------------------------------------------|
| face_mesh_base      | 192 x 192 picture                   | 468 points, flag, 48 x 48 x 32 features     |
| face_mesh_lips      | 16 x 16 x 32 features of the lips   | 80 points                                   |
| face_mesh_left_eye  | the same of the eye                 | 71 points, 5 points of the iris             |
| face_mesh_right_eye | the same of the eye                 | 71 points, 5 points of the iris             |

`face_mesh_heads.json` has the settings of those operations: which points the three heads refine, and by
which two of them their crop is turned. The two face detectors are copied as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from facevox import cli
from facevox.errors import UserError
from facevox.files import write_bytes, write_text
from facevox.mesh.litert import MODELS_DIR

FACE_MESH = "mediapipe/modules/face_landmark/face_landmark_with_attention.tflite"
DETECTORS = {
    "mediapipe/modules/face_detection/face_detection_short_range.tflite": (
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8"
    ),
    "mediapipe/modules/face_detection/face_detection_full_range_sparse.tflite": (
        "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1"
    ),
}
SHA256 = {FACE_MESH: "e06a804e0144f9929eda782122916b35d60c697c3c9344013ca2bbe76a6ce2b4", **DETECTORS}
# Numbers of tensors in that very file. Head: the output of Landmarks2TransformMatrix, which holds its
# settings; the crop of the features that TransformTensorBilinear makes of it; what the head returns.
BASE = {0: "picture", 186: "points", 710: "flag", 35: "features"}
HEADS = {
    "lips": (196, {199: "crop", 684: "points"}),
    "left_eye": (197, {200: "crop", 687: "points", 690: "iris"}),
    "right_eye": (198, {201: "crop", 693: "points", 696: "iris"}),
}
IRISES = {"left_eye": 468, "right_eye": 473}  # number of the iris's first point


def get_args_parser() -> argparse.ArgumentParser:
    """The parser."""
    parser = cli.make_parser(__doc__, "python scripts/setup/make_mesh_models.py mediapipe-0.10.21-….whl")
    parser.add_argument("mediapipe", type=Path, help="wheel of mediapipe 0.10.21, or its unpacked folder")
    parser.add_argument(
        "--models_dir",
        type=Path,
        default=MODELS_DIR,
        help="folder of the files (default: those of the package)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the files."""
    args = get_args_parser().parse_args(argv)
    for name, content in make_models(args.mediapipe).items():
        if isinstance(content, str):
            write_text(args.models_dir / name, content)
        else:
            write_bytes(args.models_dir / name, content)
        print(f"{args.models_dir / name}")
    return 0


def make_models(mediapipe: Path) -> dict[str, bytes | str]:
    """The files by name.

    Raises:
        UserError: A file is missing or is another one.
    """
    originals = {name: _read(mediapipe, name) for name in SHA256}
    for name, content in originals.items():
        if hashlib.sha256(content).hexdigest() != SHA256[name]:
            raise UserError(f"{mediapipe}: {name} is not that of mediapipe 0.10.21")
    mesh = originals[FACE_MESH]
    files: dict[str, bytes | str] = {Path(name).name: originals[name] for name in DETECTORS}
    files["face_mesh_base.tflite"] = cut(mesh, BASE)
    for head, (_, tensors) in HEADS.items():
        files[f"face_mesh_{head}.tflite"] = cut(mesh, tensors)
    files["face_mesh_heads.json"] = json.dumps(_head_settings(mesh), indent=1) + "\n"
    return files


def _read(mediapipe: Path, name: str) -> bytes:
    try:
        if mediapipe.is_file():
            with zipfile.ZipFile(mediapipe) as wheel:
                return wheel.read(name)
        return (mediapipe / name).read_bytes()
    except (
        OSError,
        KeyError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ):  # RuntimeError: encrypted, unknown
        raise UserError(f"{mediapipe}: {name} is not in it; the wheel of mediapipe 0.10.21 has it") from None


def _load(model: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(bytearray(model), 0)


def _head_settings(model: bytes) -> dict[str, dict[str, Any]]:
    loaded = _load(model)
    settings = {}
    for head, (matrix, _) in HEADS.items():
        (operator,) = [o for o in loaded.subgraphs[0].operators if matrix in o.outputs]
        options = flexbuffers.Loads(bytes(operator.customOptions))
        settings[head] = {
            "turned_by": [int(options["left_rotation_idx"]), int(options["right_rotation_idx"])],
            "scale": float(options["scale_x"]),
            "points": [int(value) for value in np.ravel(options["subset_idxs"])],
        }
        if head in IRISES:
            settings[head]["iris"] = IRISES[head]
    return settings


def cut(model: bytes, tensors: dict[int, str]) -> bytes:
    """The part of a network from one tensor to others, with these names.

    Args:
        model: A `.tflite` file.
        tensors: Number and new name of the input, then of the outputs.
    """
    loaded = _load(model)
    graph = loaded.subgraphs[0]
    first, *last = tensors
    needed, kept = set(last), []
    for operator in reversed(graph.operators):
        outputs = {int(tensor) for tensor in operator.outputs}
        if outputs & needed and first not in outputs:
            kept.append(operator)
            needed |= {int(tensor) for tensor in operator.inputs if tensor >= 0}
    graph.operators = kept[::-1]
    used = sorted({first, *last} | {int(t) for o in kept for t in [*o.inputs, *o.outputs] if t >= 0})
    new_number = {tensor: number for number, tensor in enumerate(used)} | {-1: -1}
    for operator in graph.operators:
        operator.inputs = np.array([new_number[int(tensor)] for tensor in operator.inputs], np.int32)
        operator.outputs = np.array([new_number[int(tensor)] for tensor in operator.outputs], np.int32)
    for tensor, name in tensors.items():
        graph.tensors[tensor].name = name.encode()
    graph.tensors = [graph.tensors[tensor] for tensor in used]
    graph.inputs = np.array([new_number[first]], np.int32)
    graph.outputs = np.array([new_number[tensor] for tensor in last], np.int32)
    # Buffer 0 is the empty one, by the format.
    buffers = sorted({tensor.buffer for tensor in graph.tensors} | {0})
    loaded.buffers = [loaded.buffers[number] for number in buffers]
    for tensor in graph.tensors:
        tensor.buffer = buffers.index(tensor.buffer)
    codes = sorted({operator.opcodeIndex for operator in graph.operators})
    loaded.operatorCodes = [loaded.operatorCodes[number] for number in codes]
    for operator in graph.operators:
        operator.opcodeIndex = codes.index(operator.opcodeIndex)
    loaded.signatureDefs = loaded.metadata = None
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(loaded.Pack(builder), b"TFL3")
    return bytes(builder.Output())


if __name__ == "__main__":
    sys.exit(cli.run(main))
