"""Pointers, pages and cut files in the place of the file: each with its own line; whole files with none."""

import io
import zipfile
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.numpy import save

from facevox.file_kinds import file_fault

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 94\n"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".onnx", ".h5", ".json", ".xml", ".task"])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (POINTER, "a Git LFS pointer, not the file itself: run git lfs pull"),
        (b"# xet version 0\nfilesize = 1\n", "a pointer to Hugging Face's Xet store"),
        (b"\xef\xbb\xbf\n <!DOCTYPE HTML><html>", "a web page: the download failed; fetch it again"),
        (b"<html>403 Forbidden</html>", "a web page"),
        (b"", r"empty \(0 bytes\): fetch it again"),
        (bytes(9000), "zero bytes where it should begin"),
        (b"\x1f\x8b\x08" + bytes(range(40)), "a gzip archive, no weights"),
        (b"Rar!\x1a\x07\x01" + bytes(range(40)), "a RAR archive, no weights"),
    ],
)
def test_what_is_never_the_file_itself_is_named(
    tmp_path: Path, suffix: str, content: bytes, text: str
) -> None:
    (tmp_path / f"x{suffix}").write_bytes(content)
    fault = file_fault(tmp_path / f"x{suffix}", "weights")
    assert fault.startswith(text.replace("\\", ""))
    assert "\n" not in fault


def test_a_text_is_quoted_where_no_text_is_expected(tmp_path: Path) -> None:
    for suffix, text in ((".onnx", "a text ('Entry not found'), no weights"), (".json", ""), (".xml", "")):
        (tmp_path / f"x{suffix}").write_text("Entry\nnot found")
        assert file_fault(tmp_path / f"x{suffix}", "weights") == text
    (tmp_path / "x.pth").write_text("한국어 " * 400)
    assert file_fault(tmp_path / "x.pth", "weights").startswith("a text ('한국어 한국어")
    assert len(file_fault(tmp_path / "x.pth", "weights")) < 70


def _onnx() -> bytes:
    weight = helper.make_tensor("w", TensorProto.FLOAT, (400,), np.arange(400, dtype=np.float32))
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [], [weight])
    content: bytes = helper.make_model(graph, producer_name="x").SerializeToString()
    return content


def _hdf5(version: str) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w", libver=version) as file:
        file["w"] = np.arange(1000.0)
    return stream.getvalue()


def _pth() -> bytes:
    stream = io.BytesIO()
    torch.save({"w": torch.ones(1000)}, stream)
    return stream.getvalue()


WHOLE = {
    "x.safetensors": lambda: save({"a": np.ones(1000), "b": np.ones(3)}, {"format": "pt"}),
    "x.onnx": _onnx,
    "x.h5": lambda: _hdf5("earliest"),
    "new.h5": lambda: _hdf5("latest"),
    "x.pth": _pth,
    "pytorch_model.bin": _pth,
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_have_no_fault_and_cut_ones_say_so(tmp_path: Path, name: str) -> None:
    content = WHOLE[name]()
    (tmp_path / name).write_bytes(content)
    assert file_fault(tmp_path / name, "weights") == ""
    for length in (len(content) - 1, len(content) // 2, 700):
        (tmp_path / name).write_bytes(content[:length])
        assert file_fault(tmp_path / name, "weights").startswith(f"cut off ({length} "), length


def test_a_file_in_the_place_of_another_kind_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.onnx", "w") as archive:
        archive.writestr("x", "y")
    assert file_fault(tmp_path / "x.onnx", "weights") == "a ZIP archive, no weights"
    (tmp_path / "x.safetensors").write_bytes(_hdf5("latest"))
    assert file_fault(tmp_path / "x.safetensors", "weights") == "an HDF5 file, no weights"


def test_nothing_is_said_of_unknown_bytes_and_of_files_that_cannot_be_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
    for suffix in (".safetensors", ".onnx", ".h5", ".pth", ".dat", ".caffemodel"):
        (tmp_path / f"x{suffix}").write_bytes(b"\xfe" + noise)
        assert file_fault(tmp_path / f"x{suffix}", "weights") == "", suffix
    assert file_fault(tmp_path / "none.pth", "weights") == ""
    assert file_fault(tmp_path, "weights") == ""
    assert onnx.load_from_string(_onnx()).producer_name == "x"
