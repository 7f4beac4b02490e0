"""One picture to its landmarks: reduced decoding within its tolerance, which of several faces."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from emotion.landmarks.reader import FACE_PX, TOLERANCE, PictureReader
from facevox_demo.example.people import make_person
from facevox_demo.example.pictures import render_portrait

SIZE = (4032, 3024)


def as_jpeg(image: np.ndarray, quality: int = 92, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


def scene(person: int, side: int, left: int, top: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """An example person `side` pixels wide in a grainy picture."""
    face = cv2.resize(render_portrait(make_person(3, person), "happy", size=512), (side, side))
    width, height = size
    room = cv2.copyMakeBorder(face, top, height - top - side, left, width - left - side, cv2.BORDER_REPLICATE)
    grain = np.random.default_rng(person).integers(-6, 7, (height, width, 1), dtype=np.int16)
    return np.clip(room.astype(np.int16) + grain, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def reader():
    with PictureReader() as opened:
        yield opened


@pytest.fixture(scope="module")
def whole_reader():
    with PictureReader(is_reduced=False) as opened:
        yield opened


def pixels(face) -> np.ndarray:
    return face.points[:, :2] * [face.width, face.height]


@pytest.mark.parametrize(("person", "side"), [(0, 2400), (1, 1700)])
def test_twelve_megapixels_at_a_quarter_are_within_the_stated_tolerance(reader, whole_reader, person, side):
    data = as_jpeg(scene(person, side, 700, 300))
    reduced, whole = reader.find(data, "x"), whole_reader.find(data, "x")
    assert (reduced.reduction, whole.reduction) == (4, 1)
    assert (reduced.width, reduced.height) == (whole.width, whole.height) == SIZE
    eyes = np.linalg.norm(pixels(whole)[468] - pixels(whole)[473])
    moved = np.linalg.norm(pixels(reduced) - pixels(whole), axis=1) / eyes
    assert np.median(moved) < TOLERANCE


def test_small_face_in_a_large_picture_is_looked_at_again_at_the_size_it_needs(reader):
    face = reader.find(as_jpeg(scene(0, 1300, 1500, 900)), "x")
    side_px = np.ptp(pixels(face), axis=0).max()
    assert side_px / 4 < FACE_PX  # a quarter would not do
    assert face.reduction == 2
    assert side_px / face.reduction >= FACE_PX


def test_turned_picture_is_read_upright(reader):
    image = scene(2, 600, 100, 20, (800, 640))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = as_jpeg(np.ascontiguousarray(np.rot90(image)), exif=exif)
    plain, upright = reader.find(as_jpeg(image), "x"), reader.find(turned, "x")
    assert (upright.width, upright.height) == (800, 640)
    eyes = np.linalg.norm(pixels(plain)[468] - pixels(plain)[473])
    assert np.median(np.linalg.norm(pixels(upright) - pixels(plain), axis=1)) / eyes < TOLERANCE


def test_of_two_faces_the_annotated_one_counts_and_else_the_largest(reader):
    small, large = scene(0, 260, 0, 100, (300, 480)), scene(1, 420, 20, 40, (460, 480))
    data = as_jpeg(np.hstack([small, large]))
    face = reader.find(data, "x")
    assert face.num_faces == 2
    assert pixels(face)[:, 0].mean() > 300
    for edges in ([(60, 150, 200, 350)], [(200, 350, 60, 150), (55, 140, 205, 355)]):  # swapped edges too
        marked = reader.find(data, "x", edges)
        assert pixels(marked)[:, 0].mean() < 300
    assert reader.find(data, "x", [(0, 0, 40, 40)]) is None  # somebody else is meant


@pytest.mark.parametrize("mode", ["L", "CMYK", "I;16", "P", "RGBA"])
def test_pictures_of_other_kinds_are_read(reader, mode):
    image = scene(0, 400, 50, 20, (512, 440))
    buffer = io.BytesIO()
    if mode == "I;16":
        Image.fromarray(image[..., 1].astype(np.uint16) * 257).save(buffer, "PNG")
    else:
        Image.fromarray(image).convert(mode).save(buffer, "JPEG" if mode in ("L", "CMYK") else "PNG")
    assert reader.find(buffer.getvalue(), "x") is not None
