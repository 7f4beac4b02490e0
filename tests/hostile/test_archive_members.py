"""Archives of which some members are damaged: the others are read."""

import json
import random
import zipfile
from pathlib import Path

import pytest

from emotion.data.aihub.archives import Archive, ArchiveError
from emotion.data.aihub.collection import read_collection, read_picture

METHODS = {
    "stored": zipfile.ZIP_STORED,
    "deflated": zipfile.ZIP_DEFLATED,
}


def damage(path: Path, name: str, start: int, num_bytes: int) -> None:
    """Overwrites bytes of a member's packed data."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name)
    data = bytearray(path.read_bytes())
    start += info.header_offset + 30 + len(name)
    data[start : start + num_bytes] = b"\xff" * num_bytes
    path.write_bytes(data)


@pytest.mark.parametrize("start", [0, 4, 9, 20, 40])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_damaged_member_has_its_line_and_the_others_are_read(
    tmp_path: Path, method: int, start: int
) -> None:
    content = random.Random(0).randbytes(2000)
    annotation = json.dumps([{"filename": content.hex()}]).encode()
    file = tmp_path / "faces.zip"
    with zipfile.ZipFile(file, "w", method) as archive:
        for name in ("a.jpg", "bad.jpg", "c.jpg"):
            archive.writestr(name, content)
        archive.writestr("bad.json", annotation)
    damage(file, "bad.jpg", start, 30)
    damage(file, "bad.json", start, 30)
    collection = read_collection(tmp_path, what="--zips")
    assert [picture.name for picture in collection.pictures] == [
        f"faces.zip/{name}.jpg" for name in ("a", "bad", "c")
    ]
    assert [name for name, _ in collection.problems] == ["faces.zip/bad.json"]
    with Archive(file) as archive:
        for picture in collection.pictures:
            if "bad" in picture.name:
                with pytest.raises(ArchiveError, match=r"^faces\.zip/bad\.jpg: "):
                    read_picture(picture.container, picture.offset, archive)
            else:
                assert read_picture(picture.container, picture.offset, archive) == content
