"""Archives that a collection cannot read: each told once, as what it is, and the others read."""

import os
import shlex
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from emotion.data.aihub.collection import read_collection
from emotion.landmarks.plan import plan_shards
from emotion.landmarks.predictions import plan_predictions
from facevox_demo.example.aihub import write_zip


def repack(path: Path, names: Sequence[str], *, method: int = 0, flags: int = 0) -> None:
    """Changes the packing and the flags that the headers of these members name."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        offsets = {info.filename: info.header_offset for info in archive.infolist()}
    for name in names:
        central = data.index(name.encode(), data.index(b"PK\1\2")) - 46
        for header in (offsets[name] + 6, central + 8):
            data[header] |= flags
            data[header + 2] = method
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("names", "change", "reason"),
    [
        (
            "abc",
            {"method": 9},
            "packed with Deflate64; only stored and deflated files are read; unpack it with: 7z x x.zip",
        ),
        (
            "b",
            {"method": 9},
            "of its 3 pictures and annotations 1 packed with Deflate64; only stored and deflated",
        ),
        ("abc", {"method": 93}, "packed with Zstandard"),
        ("abc", {"method": 77}, "packed with method 77"),
        ("abc", {"flags": 1}, "encrypted; unpack it with: 7z x x.zip"),
    ],
)
def test_packing_that_python_lacks_is_told_once_for_the_archive(tmp_path, names, change, reason):
    write_zip(tmp_path / "x.zip", iter((f"{name}.jpg", b"1") for name in "abc"), "utf-8")
    write_zip(tmp_path / "y.zip", iter([("d.jpg", b"1")]), "utf-8")
    repack(tmp_path / "x.zip", [f"{name}.jpg" for name in names], **change)
    collection = read_collection(tmp_path, what="--raw")
    assert [name for name, _ in collection.problems] == ["x.zip"]
    assert collection.problems[0][1].startswith(reason)
    assert [p.filename for p in collection.pictures] == [f"{k}.jpg" for k in "abcd" if k not in names]


def test_archives_without_pictures_are_told_as_what_they_are(tmp_path):
    for name, contents in {
        "empty.zip": [],
        "system.zip": [("__MACOSX/._a.jpg", b"")],
        "nested.zip": [("in/a.zip", b"PK"), ("in/b.ZIP", b"PK")],
        "both.zip": [("a.jpg", b"1"), ("b.7z", b"7z")],
        "others.zip": [("a.PSD", b""), ("b.jp2", b"")],
        "documents.zip": [("a.hwp", b"")],
        "labels.zip": [("a.json", b"[]")],
    }.items():
        write_zip(tmp_path / name, iter(contents), "utf-8")
    collection = read_collection(tmp_path, what="--raw", with_annotations=False)
    empty = "an empty archive: there is no file in it; fetch it again"
    assert dict(collection.problems) == {
        "both.zip": "archives in it are not read (1, such as b.7z); unpack it",
        "empty.zip": empty,
        "nested.zip": "archives in it are not read (2, such as in/a.zip); unpack it",
        "others.zip": "pictures in it are not read (2, such as a.PSD): convert them to .jpg or .png",
        "system.zip": empty,
    }
    assert [p.filename for p in collection.pictures] == ["a.jpg"]


def split_zip(folder: Path, name: str, ending: str = ".zip") -> None:
    """Three parts as `zip -s` makes them."""
    path = folder / f"{name}{ending}"
    write_zip(path, iter([("a.jpg", bytes(300))]), "utf-8")
    data = bytearray(path.read_bytes())
    struct.pack_into("<2H", data, data.rindex(b"PK\5\6") + 4, 2, 2)
    data = bytearray(b"PK\7\x08") + data
    for part, start in (("01", 0), ("02", 120)):
        path.with_suffix(f"{path.suffix[:2]}{part}").write_bytes(data[start : start + 120])
    path.write_bytes(data[240:])


def test_split_archives_are_told_once_each_with_the_command_that_joins_them(tmp_path):
    split_zip(tmp_path, "a")
    split_zip(tmp_path, "B", ".ZIP")
    split_zip(tmp_path, "lost")
    (tmp_path / "lost.zip").unlink()
    for number in range(1, 4):
        (tmp_path / f"seven.zip.{number:03}").write_bytes(b"PK\3\4" + os.urandom(50))
        (tmp_path / f"joined.zip.{number:03}").write_bytes(b"PK\3\4" + os.urandom(50))
    write_zip(tmp_path / "joined.zip", iter([("j.jpg", b"1")]), "utf-8")
    (tmp_path / "whole.z01").write_bytes(b"of before")
    write_zip(tmp_path / "whole.zip", iter([("w.jpg", b"1")]), "utf-8")
    collection = read_collection(tmp_path, what="--raw")
    reasons = dict(collection.problems)
    assert sorted(reasons) == ["B.Z01", "a.z01", "lost.z01", "seven.zip.001"]
    assert reasons["a.z01"].startswith(
        "a.zip: the last part of a split archive; join its parts (a.z01 … a.zip): "
    )
    assert "zip -s 0 a.zip --out joined.zip" in reasons["a.z01"]
    assert "zip -s 0 B.ZIP --out joined.zip" in reasons["B.Z01"]
    assert "its last part, lost.zip, is missing: fetch it" in reasons["lost.z01"]
    assert reasons["seven.zip.001"].endswith("join its parts: cat seven.zip.[0-9]* > seven.zip")
    assert [p.filename for p in collection.pictures] == ["j.jpg", "w.jpg"]


@pytest.mark.skipif(shutil.which("zip") is None, reason="the command zip is not installed")
def test_command_of_the_message_joins_what_zip_has_split(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(os.urandom(90_000))
    subprocess.run(["zip", "-q", "-s", "64k", "-0", "x y.zip", "a.jpg", "b.jpg"], cwd=tmp_path, check=True)
    for name in "ab":
        (tmp_path / f"{name}.jpg").unlink()
    ((name, reason),) = read_collection(tmp_path, what="--raw").problems
    assert name == "x y.z01"
    command = shlex.split(reason.split("): ")[1].split(", and remove")[0])
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    (tmp_path / "cat.zip").write_bytes(
        b"".join(path.read_bytes() for path in sorted(tmp_path.glob("x y.z*")))
    )
    for path in tmp_path.glob("x y.z*"):
        path.unlink()
    collection = read_collection(tmp_path, what="--raw")
    assert [p.name for p in collection.pictures] == ["joined.zip/a.jpg", "joined.zip/b.jpg"]
    assert [reason[:40] for _, reason in collection.problems] == ["cat.zip: all parts, joined with cat, of "]


def test_they_fail_in_a_batch_beside_others_one_item_each(tmp_path):
    split_zip(tmp_path, "split")
    for name, contents in {
        "empty.zip": [],
        "nested.zip": [("a.zip", b"")],
        "x.zip": [("a.jpg", b"")],
    }.items():
        write_zip(tmp_path / name, iter(contents), "utf-8")
    write_zip(tmp_path / "packed.zip", iter((f"{name}.jpg", b"1") for name in "abc"), "utf-8")
    repack(tmp_path / "packed.zip", ["a.jpg", "b.jpg", "c.jpg"], method=9)
    plan = plan_shards([tmp_path])
    names = ["empty.zip", "nested.zip", "packed.zip", "split.z01"]
    assert [item.name for item in plan.items if item.problem] == [f"{tmp_path.name}/{name}" for name in names]
    assert plan.num_pictures == 1
    items = {item.name.removeprefix(f"{tmp_path}/"): item for item in plan_predictions([tmp_path])}
    assert sorted(items) == [*names, "x.zip/a.jpg"]
    assert all(items[name].problem for name in names)
