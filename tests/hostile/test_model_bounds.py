"""Models of a few bytes that ask for gigabytes or for ever: refused in a moment, in one line."""

import contextlib
import json
import pickle
import resource
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from small_training import write_encoders
from tiny_trained_model import write_model

from facevox.errors import UserError
from facevox.training.checkpoint import load_checkpoint, save_checkpoint
from lc_pytorch.evaluation.readers import make_readers
from lc_pytorch.faces import onnx_models
from lc_pytorch.faces.embedders import find_model
from lc_pytorch.models.encoders import load_face_encoder, load_voice_encoder
from lc_pytorch.models.store import load_model


class Bytes:
    def __init__(self, size: int) -> None:
        self.size = size

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return bytearray, (self.size,)


@pytest.mark.parametrize("is_zip", [True, False])
def test_checkpoint_of_a_byte_array(tmp_path: Path, is_zip: bool) -> None:
    file = tmp_path / "model.pth"
    torch.save({"a": Bytes(1000)}, file, _use_new_zipfile_serialization=is_zip)
    content = file.read_bytes()
    assert torch.load(file, weights_only=True) == {"a": bytearray(1000)}  # torch allows it
    # The number 1000 in the pickle, and in its place 6 billion.
    small, large = (pickle.dumps(n, 2)[2:-1] for n in (1000, 6_000_000_000))
    assert small in content
    if not is_zip:
        file.write_bytes(content.replace(small, large))
    with pytest.raises(UserError, match=r"model\.pth: it has a byte array"):
        load_checkpoint(file)


def test_checkpoint_whose_records_share_their_bytes(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    save_checkpoint(file, {"a": torch.zeros(1_000_000)})
    with zipfile.ZipFile(file) as archive:
        name = next(info.filename for info in archive.infolist() if info.file_size > 1_000_000)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("b", b"")
        info = archive.getinfo(name)
        archive.filelist.extend([info] * 50)  # the directory names one record fifty times more
    with pytest.raises(UserError, match="no checkpoint of facevox, or a damaged one"):
        load_checkpoint(file)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders")
    write_encoders(folder)
    return folder


SIZES: dict[str, dict[str, Any]] = {
    "width": {"hidden_size": 60_000},
    "layers": {"num_hidden_layers": 10_000_000},
    "inner width": {"intermediate_size": 9_000_000},
    "number": {"hidden_size": 10**12},
    "float": {"intermediate_size": 1e300},
    "list": {"conv_dim": [16] * 5000, "conv_kernel": [2] * 5000, "conv_stride": [1] * 5000},
}


@pytest.mark.parametrize("name", ["vit", "wav2vec2"])
@pytest.mark.parametrize("size", SIZES)
def test_sizes_of_an_encoder(encoders: Path, name: str, size: str) -> None:
    file = encoders / name / "config.json"
    whole = file.read_text(encoding="utf-8")
    load = load_face_encoder if name == "vit" else load_voice_encoder
    file.write_text(json.dumps(json.loads(whole) | SIZES[size]), encoding="utf-8")
    start_s = time.process_time()
    try:
        for is_pretrained in (True, False):
            with pytest.raises(UserError, match=r"^--(face|voice)_model"):
                load(encoders / name, is_pretrained=is_pretrained)
    finally:
        file.write_text(whole, encoding="utf-8")
    assert time.process_time() - start_s < 10


def test_keys_that_choose_code_are_dropped_and_logged_once(
    encoders: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = encoders / "vit" / "config.json"
    whole = file.read_text(encoding="utf-8")
    hostile = {
        "_attn_implementation": "kernels-community/flash-attn",
        "attn_implementation": "kernels-community/flash-attn",
        "quantization_config": {"quant_method": "bitsandbytes"},
        "auto_map": {"AutoConfig": "code.Config"},
        "unknown": 3,
    }
    file.write_text(json.dumps(json.loads(whole) | hostile), encoding="utf-8")
    try:
        encoder = load_face_encoder(encoders / "vit")
        load_face_encoder(encoders / "vit")
    finally:
        file.write_text(whole, encoding="utf-8")
    assert encoder.config._attn_implementation in ("sdpa", "eager")
    assert not hasattr(encoder.config, "quantization_config")
    lines = [line for line in caplog.messages if "ignored" in line]
    assert len(lines) == 1
    assert "auto_map" in lines[0]
    assert "unknown" not in lines[0]


def test_sizes_of_a_trained_model(tmp_path: Path) -> None:
    write_model(tmp_path, [f"p{number}" for number in range(6)], 2)
    file = tmp_path / "config.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start_s = time.process_time()
    num_tried = num_read = 0
    for part in whole["model"].values():
        for name, value in list(part.items()) if isinstance(part, dict) else []:
            if isinstance(value, int) and not isinstance(value, bool):
                for size in (900_000, 10**12):
                    part[name] = size
                    file.write_text(json.dumps(whole), encoding="utf-8")
                    num_tried += 1
                    with contextlib.suppress(UserError):
                        load_model(tmp_path)
                        num_read += 1
                part[name] = value
    assert num_tried - num_read > num_tried / 2  # some numbers are no sizes
    assert time.process_time() - start_s < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kB


@pytest.mark.parametrize(
    "values",
    [
        {"target_sr": float("inf")},
        {"target_sr": 700_000, "audio_duration_sec": 600},
        {"target_sr": 10**9},
        {"audio_duration_sec": 1e300},
        {"image_size": float("inf")},
        {"image_size": 30_000},
    ],
)
def test_inputs_of_a_trained_model(tmp_path: Path, values: dict[str, object]) -> None:
    write_model(tmp_path, [f"p{number}" for number in range(6)], 2)
    file = tmp_path / "config.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    make_readers(load_model(tmp_path))
    whole["data"] |= values
    file.write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.json"):
        make_readers(load_model(tmp_path))


def write_onnx(file: Path, nodes: list[onnx.NodeProto]) -> Path:
    """A model of (1, 3, 112, 112) → (1, 8), with nodes that hang on its output."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 112, 112])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
        helper.make_tensor("side", TensorProto.INT64, [2], [60_000, 60_000]),
        helper.make_tensor("eight", TensorProto.INT64, [2], [1, 8]),
        helper.make_tensor("trips", TensorProto.INT64, [], [2**62]),
        helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
    ]
    mean = helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0)
    graph = helper.make_graph([mean, *nodes], "g", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, file)
    return file


def memory_nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("ConstantOfShape", ["side"], ["square"]),
        helper.make_node("ReduceSum", ["square"], ["sum"], keepdims=0),
        helper.make_node("Add", ["mean", "sum"], ["one"]),
        helper.make_node("Expand", ["one", "eight"], ["y"]),
    ]


def loop_nodes() -> list[onnx.NodeProto]:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["v", "v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [1]),
        ],
    )
    return [
        helper.make_node("Loop", ["trips", "yes", "mean"], ["one"], body=body),
        helper.make_node("Expand", ["one", "eight"], ["y"]),
    ]


@pytest.mark.parametrize("nodes", [memory_nodes, loop_nodes])
def test_onnx_model_that_takes_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: Callable[[], list[onnx.NodeProto]]
) -> None:
    file = write_onnx(tmp_path / "face.onnx", nodes())
    assert file.stat().st_size < 2000
    monkeypatch.setattr(onnx_models, "CHECK_S", 5.0)
    start_s = time.monotonic()
    with pytest.raises(UserError, match=r"face\.onnx: "):
        find_model(file)
    assert time.monotonic() - start_s < 60


def test_weights_of_keras_that_state_any_size(tmp_path: Path) -> None:
    """An array without bytes, and one that is packed a thousand times."""
    h5py = pytest.importorskip("h5py")
    from emotion.classifier.pretrained import _check_arrays

    file = tmp_path / "weights.h5"
    for options in ({}, {"compression": "gzip", "data": np.zeros((1000, 10_000), np.float32)}):
        with h5py.File(file, "w") as opened:
            opened.create_dataset("a/kernel", **(options or {"shape": (60_000, 60_000), "dtype": "f4"}))
        with pytest.raises(ValueError, match="more than can be in it"):
            _check_arrays(file)
    with h5py.File(file, "w") as opened:
        opened.create_dataset("a/kernel", data=np.zeros((100, 100), np.float32))
    _check_arrays(file)
