"""Pictures decoded no larger than needed, upright; and the collection of a folder."""

import io
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion.data.aihub.collection import read_collection
from emotion.data.pictures import decode_reduced, reduction_for
from facevox.errors import UserError
from facevox.files import ImageError, decode_image
from facevox_demo.example.aihub import write_zip


def jpeg(width: int, height: int, orientation: int = 1, mode: str = "RGB") -> bytes:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    rgb = np.stack([x, y, np.full_like(x, 90)], axis=-1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(rgb).convert(mode).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_reduced_picture_is_the_upright_one_made_smaller(orientation, reduction):
    data = jpeg(331, 250, orientation)
    whole = decode_image(data, "x.jpg")
    seen = []

    def choose(width: int, height: int) -> int:
        seen.append((width, height))
        return reduction

    image, size = decode_reduced(data, "x.jpg", choose)
    assert size == (whole.shape[1], whole.shape[0]) == seen[0]
    assert image.shape[:2] == tuple(-(-side // reduction) for side in whole.shape[:2])
    smaller = np.asarray(Image.fromarray(whole).resize(image.shape[1::-1], Image.Resampling.BOX))
    assert np.abs(image.astype(int) - smaller).mean() < 2.5


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_come_out_as_rgb(mode):
    image, _ = decode_reduced(jpeg(320, 240, 6, mode), "x.jpg", lambda *_: 2)
    whole = decode_image(jpeg(320, 240, 6, mode), "x.jpg")
    assert image.shape == (160, 120, 3)
    assert np.abs(image.astype(int).mean(axis=(0, 1)) - whole.mean(axis=(0, 1))).max() < 3


def test_other_formats_are_decoded_whole():
    buffer = io.BytesIO()
    Image.fromarray((np.arange(60 * 80).reshape(60, 80) % 65536).astype(np.uint16)).save(buffer, "PNG")
    image, size = decode_reduced(buffer.getvalue(), "x.jpg", lambda *_: 8)
    assert (image.shape, size) == ((60, 80, 3), (80, 60))


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "0 bytes"), (b"text", "not a picture"), (jpeg(400, 300)[:2000], "broken picture")],
)
def test_broken_pictures_are_told(data, words):
    for reduction in (1, 4):
        with pytest.raises(ImageError, match=words):
            decode_reduced(data, "x.jpg", lambda *_, r=reduction: r)


def test_picture_of_too_many_pixels_is_refused_by_its_header():
    header = bytearray(jpeg(16, 16))
    at = header.index(b"\xff\xc0")
    header[at + 5 : at + 9] = b"\xff\xff\xff\xff"  # 65535 x 65535
    with pytest.raises(ImageError, match="at most 130000000 are read"):
        decode_reduced(bytes(header), "x.jpg", lambda *_: 8)


def test_reduction_never_takes_more_than_is_wanted():
    for face_px in range(10, 4000, 37):
        for longest in (300, 640, 1279, 1280, 2560, 5119, 5120):
            reduction = reduction_for(face_px, 224, longest, 640)
            allowed = [r for r in (1, 2, 4, 8) if r == 1 or (face_px / r >= 224 and longest / r >= 640)]
            assert reduction == max(allowed)


PERSON = "ab_남_20_기쁨_집_2021-{}.jpg"


def test_folders_and_archives_are_read_together(tmp_path):
    labels = [{"filename": PERSON.format(k), "faceExp_uploader": "기쁨"} for k in range(4)]
    folder = tmp_path / "1.Training" / "기쁨"
    folder.mkdir(parents=True)
    (folder / unicodedata.normalize("NFD", PERSON.format(0))).write_bytes(b"0")
    (folder / "labels.json").write_text(json.dumps(labels[:2], ensure_ascii=False), encoding="cp949")
    contents = {PERSON.format(1): b"1", "sub/" + PERSON.format(2): b"2", "notes.txt": b""}
    write_zip(tmp_path / "[원천]EMOIMG_기쁨_VALID.zip", iter(contents.items()), "cp949")
    data = json.dumps(labels[1:], ensure_ascii=False).encode("utf-8-sig")
    write_zip(tmp_path / "[라벨]EMOIMG_기쁨_VALID.zip", iter([("라벨.json", data)]), "cp949")
    found = read_collection(tmp_path, what="--raw")
    assert {p.filename: (p.part, p.offset >= 0) for p in found.pictures} == {
        PERSON.format(0): ("train", False),
        PERSON.format(1): ("validation", True),
        PERSON.format(2): ("validation", True),
    }
    assert sorted(found.annotations) == [PERSON.format(k) for k in range(4)]
    assert (found.num_repeated, found.problems) == (1, [])
    assert found.pictures[1].name.startswith("[원천]EMOIMG_기쁨_VALID.zip/")


def test_what_cannot_be_read_is_told_and_the_rest_kept(tmp_path):
    (tmp_path / "a.json").write_text("[{]", encoding="utf-8")
    (tmp_path / "b.json").write_text('[{"filename": "x.jpg"}, {}, {}]', encoding="utf-8")
    (tmp_path / "c.zip").write_bytes(b"PK")
    (tmp_path / "d.zip.part0").write_bytes(b"PK")
    write_zip(tmp_path / "e.zip", iter([("bad.json", b"?"), ("good.jpg", b"1")]), "utf-8")
    found = read_collection(tmp_path, what="--raw")
    reasons = dict(found.problems)
    assert "not JSON" in reasons["a.json"]
    assert reasons["b.json"] == "2 records cannot be used, the first: record 1 has no filename"
    assert "not a readable ZIP" in reasons["c.zip"]
    assert "cat d.zip.part* > d.zip" in reasons["d.zip.part0"]
    assert "not JSON" in reasons["e.zip/bad.json"]
    assert [p.filename for p in found.pictures] == ["good.jpg"]
    assert list(found.annotations) == ["x.jpg"]


def test_two_members_of_one_name_are_two_pictures(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        write_zip(tmp_path / "a.zip", iter([("x.jpg", b"1"), ("x.jpg", b"2")]), "utf-8")
    found = read_collection(tmp_path, what="--raw")
    assert len({p.name for p in found.pictures}) == 2


def test_folder_without_anything_is_told(tmp_path):
    with pytest.raises(UserError, match="DATA_DIR_RAW: nothing below"):
        read_collection(tmp_path, what="DATA_DIR_RAW")
    with pytest.raises(UserError, match="no such folder"):
        read_collection(Path("no such"), what="DATA_DIR_RAW")
