"""The fault of a file that cannot be read as what its name promises, by its first bytes and its length.

Such files come from downloads: a pointer in the place of the file, an error page, a copy that was cut off.
Their readers know only that they cannot read them ("header too large", "InvalidProtobuf").
"""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_AGAIN = "fetch it again"
_HEAD_BYTES = 512
_LONGEST_TEXT = 40  # of a text file, in messages
_LONGEST_HEADER_BYTES = 100_000_000  # safetensors' own limit
_ZIP = (".zip", ".pt", ".pth", ".ckpt", ".bin", ".npz", ".keras", ".task")
_HDF5 = (".h5", ".hdf5", ".keras")
_TEXT = (".json", ".xml", ".prototxt", ".pbtxt", ".txt", ".csv", ".yaml", ".yml", ".md")
# First bytes, in small letters, of files that are never what they are named.
_POINTERS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run git lfs pull"),
    (b"version https://hawser", "a Git LFS pointer, not the file itself: run git lfs pull"),
    (b"# xet version", f"a pointer to Hugging Face's Xet store, not the file itself: {_AGAIN}"),
    (b"<!doctype html", f"a web page: the download failed; {_AGAIN}"),
    (b"<html", f"a web page: the download failed; {_AGAIN}"),
    (b"<head", f"a web page: the download failed; {_AGAIN}"),
)
# The same of others, with the endings of the files that begin so rightly.
_KINDS: tuple[tuple[bytes, str, tuple[str, ...]], ...] = (
    (b"gif8", "a GIF", ()),
    (b"\x89png", "a PNG picture", ()),
    (b"\xff\xd8\xff", "a JPEG picture", ()),
    (b"bm", "a BMP picture", ()),
    (b"%pdf", "a PDF", ()),
    (b"pk\x03\x04", "a ZIP archive", _ZIP),
    (b"rar!", "a RAR archive", ()),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", ()),
    (b"alz\x01", "an ALZ archive", ()),
    (b"egga", "an EGG archive", ()),
    (b"\x1f\x8b", "a gzip archive", ()),
    (b"bzh", "a bzip2 archive", ()),
    (b"\xfd7zxz", "an xz archive", ()),
    (b"\x89hdf", "an HDF5 file", _HDF5),
    (b"<?xml", "an XML text", _TEXT),
)
# Pictures in boxes like those of mp4, which FFmpeg would read as a video of one tile.
_PICTURE_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "a HEIC picture"),
    **dict.fromkeys((b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"), "a HEIC picture"),
    **dict.fromkeys((b"avif", b"avis"), "an AVIF picture"),
    b"crx ": "a raw picture of a Canon",
}


_SPECIAL = {
    stat.S_IFIFO: "a FIFO (as <(...) is)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def special_kind(path: str | Path) -> str:
    """The kind of what is neither a file nor a folder, whose reader would wait for ever or never end.

    "" of files and folders, and where nothing is or can be seen.
    """
    try:
        return _SPECIAL.get(stat.S_IFMT(Path(path).stat().st_mode), "")
    except (OSError, ValueError):
        return ""


def file_fault(path: str | Path, expected: str) -> str:
    """A line about what a file is instead, and what to do; "" if its bytes do not say.

    Args:
        path: The file, which a reader has refused or should not get.
        expected: What it should be, after "no": "video or sound".
    """
    file = Path(path)
    if kind := special_kind(file):
        return f"{kind}, no {expected}"
    try:
        with file.open("rb") as opened:
            size_bytes = opened.seek(0, os.SEEK_END)
            opened.seek(0)
            head = opened.read(_HEAD_BYTES)
            suffix = file.suffix.lower()
            return _other_kind(head, suffix, expected) or _cut_off(opened, suffix, size_bytes)
    except OSError:
        return ""


def boxed_picture(head: bytes) -> str:
    """The kind of a HEIC or AVIF picture by the first 12 bytes of the file; "" of every other file."""
    return _PICTURE_BRANDS.get(head[8:12], "") if head[4:8] == b"ftyp" else ""


def _other_kind(head: bytes, suffix: str, expected: str) -> str:
    if not head:
        return f"empty (0 bytes): {_AGAIN}"
    if not head.strip(b"\0"):
        return f"zero bytes where it should begin: its download or copy was stopped; {_AGAIN}"
    small = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for start, description in _POINTERS:
        if small.startswith(start):
            return description
    for start, description, suffixes in _KINDS:
        if small.startswith(start) and suffix not in suffixes:
            return f"{description}, no {expected}"
    if picture := boxed_picture(head):
        return f"{picture}, no {expected}"
    if suffix not in _TEXT and (text := _beginning(head)):
        return f"a text ({text!r}), no {expected}"
    return ""


def _beginning(head: bytes) -> str:
    """The first words of a text; "" for binary files."""
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(head) < _HEAD_BYTES or error.start < len(head) - 3:
            return ""
        text = head[: error.start].decode("utf-8-sig")  # its last character was cut
    is_text = all(character.isprintable() or character in "\t\r\n" for character in text)
    words = " ".join(text.split()) if is_text else ""
    return words if len(words) <= _LONGEST_TEXT else words[: _LONGEST_TEXT - 1] + "…"


def _cut_off(file: BinaryIO, suffix: str, size_bytes: int) -> str:
    """A line if the file ends before its own format says that it does."""
    file.seek(0)
    if file.read(4) == b"PK\3\4":
        file.seek(max(size_bytes - 0x10000 - 22, 0))  # only a comment of up to 64 kB may follow the end
        tail = file.read()
        is_whole = 0 <= tail.rfind(b"PK\5\6") <= len(tail) - 22
        return "" if is_whole else f"cut off ({size_bytes} bytes, without the end of a ZIP): {_AGAIN}"
    file.seek(0)
    measure = _MEASURES.get(suffix)
    expected_bytes = measure(file, size_bytes) if measure else 0
    return (
        f"cut off ({size_bytes} of {expected_bytes} bytes): {_AGAIN}" if expected_bytes > size_bytes else ""
    )


def _safetensors_bytes(file: BinaryIO, size_bytes: int) -> int:
    """Length by the header: 8 bytes with its own length, and JSON with the position of each tensor."""
    start = 8 + int.from_bytes(file.read(8), "little")
    if start > size_bytes:
        return start if start < _LONGEST_HEADER_BYTES else 0
    try:
        header = json.loads(file.read(start - 8))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return int(start + max(ends, default=0))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return 0


def _hdf5_bytes(file: BinaryIO, size_bytes: int) -> int:
    """Length by the superblock's "end of file address" (HDF5 File Format Specification, II.A)."""
    head = file.read(64)
    if not head.startswith(b"\x89HDF\r\n\x1a\n"):
        return 0
    position = 40 if head[8:9] < b"\2" else 28  # by its version
    return int.from_bytes(head[position : position + 8], "little")


def _protobuf_bytes(file: BinaryIO, size_bytes: int) -> int:
    """End of the last field of a protobuf message; 0 where it is none."""
    position = 0
    while position < size_bytes:
        file.seek(position)
        chunk = file.read(20)  # a tag and a number, of up to 10 bytes each
        tag, used = _varint(chunk)
        value, length_bytes = _varint(chunk[used:])
        sizes = {0: length_bytes, 1: 8, 2: length_bytes + value, 5: 4}
        if not used or not tag >> 3 or tag & 7 not in sizes or (tag & 7 in (0, 2) and not length_bytes):
            return size_bytes + 1 if len(chunk) < 20 else 0
        position += used + sizes[tag & 7]
    return position


def _varint(data: bytes) -> tuple[int, int]:
    """(value, bytes used) of a protobuf number; (0, 0) if it does not end."""
    value = 0
    for index, byte in enumerate(data[:10]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, index + 1
    return 0, 0


_MEASURES: dict[str, Callable[[BinaryIO, int], int]] = {
    ".safetensors": _safetensors_bytes,
    ".h5": _hdf5_bytes,
    ".hdf5": _hdf5_bytes,
    ".onnx": _protobuf_bytes,
    ".caffemodel": _protobuf_bytes,
}
