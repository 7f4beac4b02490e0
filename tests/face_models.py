"""Small ONNX embedding models and synthetic face pictures for tests (no real weights, no face detector)."""

import csv
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from facevox.faces import ARCFACE_POINTS_112
from facevox.files import write_image
from lc_pytorch.faces.extractor import COLUMNS, LANDMARK_COLUMNS


def make_onnx(
    path: Path, *, batch=1, side=112, channels=3, num_values=8, own_normalisation=False, metadata=None
) -> Path:
    """A network that averages patches of 28 × 28 pixels and projects them at random, with a fixed seed."""
    nodes, weights = [], []
    last = "face"
    if own_normalisation:
        for op, value in (("Sub", 127.5), ("Mul", 1 / 127.5)):
            weights.append(numpy_helper.from_array(np.float32(value), f"{op}_value"))
            nodes.append(helper.make_node(op, [last, f"{op}_value"], [f"{op}_out"]))
            last = f"{op}_out"
    nodes += [
        helper.make_node("AveragePool", [last], ["pooled"], kernel_shape=[28, 28], strides=[28, 28]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["vector"]),
    ]
    size = channels * (side // 28) ** 2
    projection = np.random.default_rng(0).standard_normal((size, num_values)).astype(np.float32)
    weights.append(numpy_helper.from_array(projection, "weight"))
    graph = helper.make_graph(
        nodes,
        "faces",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, [batch, channels, side, side])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [batch, num_values])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def make_picture(person: int, number: int) -> np.ndarray:
    """(112, 112, 3) uint8: large coloured squares that are the person's, fine noise that is the picture's."""
    squares = np.random.default_rng(1000 + person).integers(40, 216, (4, 4, 3))
    noise = np.random.default_rng(7919 * person + number).normal(0, 4 + 3 * number, (112, 112, 3))
    return np.clip(np.kron(squares, np.ones((28, 28, 1))) + noise, 0, 255).astype(np.uint8)


def write_faces(folder: Path, people: dict[str, int], *, with_table: bool = True) -> Path:
    """Face pictures `name: person`, and a faces.csv with their landmarks (the alignment template itself)."""
    for number, (name, person) in enumerate(people.items()):
        write_image(folder / name, make_picture(person, number % 7))
    if with_table:
        points = dict(zip(LANDMARK_COLUMNS, ARCFACE_POINTS_112.ravel().tolist(), strict=True))
        with (folder / "faces.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, [*COLUMNS, "status", "reason"], restval="", lineterminator="\n")
            table.writeheader()
            for name in people:
                facts = {"video": name, "face_file": name, "landmark_source": "detector", "confidence": 0.9}
                table.writerow({**facts, **points, "status": "done"})
    return folder


def read_groups(dedupe_dir: Path) -> dict[str, dict[str, str]]:
    """The rows of groups.csv by file."""
    with (dedupe_dir / "groups.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def pictures_below(folder: Path) -> dict[str, bytes]:
    """The pictures in an output folder: relative path and content."""
    files = (path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
