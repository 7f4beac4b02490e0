"""HEIC, AVIF and other pictures of phones and scanners, through the one reader of pictures."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from heic_files import Rgb, heic, heic_sequence, require_hevc
from PIL import Image

from emotion.data.pictures import decode_reduced
from emotion.serving.pictures import decode_frame, decode_upload, read_header
from emotion.serving.refusals import Refusal
from facevox import files
from facevox.files import ImageError, decode_image
from facevox.media import MediaError, iter_frames, probe

HEIGHT, WIDTH = 192, 320


@pytest.fixture(scope="module")
def image() -> Rgb:
    """A picture that looks different in each of its eight orientations."""
    require_hevc()
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    squares = 200 * ((columns // 32 + rows // 32) % 2)
    picture = np.stack([columns * 255 // WIDTH, rows * 255 // HEIGHT, squares], axis=-1).astype(np.uint8)
    picture[:64, :64] = (255, 0, 0)
    return picture


def assert_like(decoded: Rgb, expected: Rgb, most: float = 3.0) -> None:
    assert decoded.dtype == np.uint8
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).mean() < most


HEIC_KINDS = {
    "one picture": ({}, lambda image: image),
    "tiles": ({"tile_px": 128, "has_thumbnail": True}, lambda image: image),
    "turned tiles": ({"tile_px": 128, "turns": 1}, lambda image: np.rot90(image)),
    "turned thrice": ({"turns": 3}, lambda image: np.rot90(image, 3)),
    "mirrored": ({"mirror": 1}, lambda image: image[:, ::-1]),
    "upside down mirror": ({"mirror": 0}, lambda image: image[::-1]),
    "turned and mirrored": ({"turns": 1, "mirror": 1}, lambda image: np.rot90(image)[:, ::-1]),
    "turned by irot, EXIF states it again": ({"turns": 3, "exif_orientation": 6}, lambda i: np.rot90(i, 3)),
    "EXIF alone, which does not count in HEIC": ({"exif_orientation": 6}, lambda image: image),
    "10 bit": ({"bits": 10, "tile_px": 64, "brand": b"heix"}, lambda image: image),
    "brand mif1": ({"brand": b"mif1", "tile_px": 128}, lambda image: image),
    "brand msf1": ({"brand": b"msf1"}, lambda image: image),
}


@pytest.mark.parametrize("name", HEIC_KINDS)
def test_heic_is_read_whole_and_upright(image: Rgb, name: str) -> None:
    options, shown = HEIC_KINDS[name]
    data = heic(image, **options)
    assert_like(decode_image(data, "x.heic"), shown(image))
    assert_like(decode_frame(data, 10**6), shown(image))
    uploaded, width, height = decode_upload(data, WIDTH * HEIGHT)
    assert_like(uploaded, shown(image))
    assert (height, width) == shown(image).shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_read_upright(image: Rgb, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation  # Pillow writes it as irot and imir
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "AVIF", quality=95, exif=exif)
    shown = {
        1: image,
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: image.transpose(1, 0, 2),
        6: np.rot90(image, -1),
        7: image[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(image),
    }[orientation]
    assert_like(decode_image(buffer.getvalue(), "x.avif"), shown)
    assert_like(decode_upload(buffer.getvalue(), WIDTH * HEIGHT)[0], shown)


def test_large_pictures_of_phones_are_made_smaller_as_a_jpeg_is(image: Rgb) -> None:
    data = heic(image, turns=1)
    smaller, size = decode_reduced(data, "x.heic", lambda width, height: 4 if height > width else 1)
    assert size == (HEIGHT, WIDTH)
    assert_like(smaller, np.rot90(image)[2::4, 2::4], most=30)
    buffer = io.BytesIO()
    Image.fromarray(image.repeat(10, axis=0).repeat(10, axis=1)).save(buffer, "AVIF", speed=10)
    uploaded, width, height = decode_upload(buffer.getvalue(), 100 * WIDTH * HEIGHT)
    assert (uploaded.shape, width, height) == ((960, 1600, 3), 3200, 1920)
    assert_like(uploaded, image.repeat(5, axis=0).repeat(5, axis=1), most=5)


def test_first_picture_of_several_is_read(image: Rgb) -> None:
    pictures = [Image.fromarray(np.ascontiguousarray(turned)) for turned in (image, image[::-1])]
    for kind in ("AVIF", "GIF", "TIFF", "WEBP", "PNG"):
        buffer = io.BytesIO()
        pictures[0].save(buffer, kind, save_all=True, append_images=pictures[1:])
        assert_like(decode_image(buffer.getvalue(), kind), image, most=8)
        assert read_header(buffer.getvalue())[:3] == (kind, WIDTH, HEIGHT)


@pytest.mark.parametrize("brand", [b"msf1", b"hevc", b"heic"])
def test_first_picture_of_a_heic_sequence_is_read(image: Rgb, brand: bytes) -> None:
    data = heic_sequence([image, np.ascontiguousarray(image[::-1])], brand)
    assert_like(decode_image(data, "x.heics"), image, most=6)
    assert_like(decode_upload(data, WIDTH * HEIGHT)[0], image, most=6)
    assert read_header(data)[:3] == ("HEIF", WIDTH, HEIGHT)
    for size in (100, len(data) // 2, len(data) - 200):
        with pytest.raises(ImageError):
            decode_image(data[:size], "x.heics")


def test_heic_whose_still_picture_is_broken_is_no_sequence(image: Rgb) -> None:
    with pytest.raises(ImageError, match="not a picture"):
        decode_image(heic(image, tile_px=128).replace(b"pitm", b"zzzz"), "x.heic")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "1", "P", "I;16"])
def test_tiff_of_each_mode_is_8_bit_rgb(image: Rgb, mode: str) -> None:
    if mode == "I;16":
        picture = Image.fromarray(image[..., 0].astype(np.uint16) * 257)
        expected = np.repeat(image[..., :1], 3, axis=2)
    else:
        picture = Image.fromarray(image).convert(mode)
        expected = np.asarray(picture.convert("RGB"))
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF")
    assert_like(decode_image(buffer.getvalue(), "x.tif"), expected, most=1)


def test_size_is_checked_before_a_heic_is_decoded(image: Rgb, monkeypatch: pytest.MonkeyPatch) -> None:
    data = heic(image, tile_px=128)
    with pytest.raises(Refusal, match="too_many_pixels"):
        decode_upload(data, WIDTH * HEIGHT - 1)
    with pytest.raises(Refusal, match="too_many_pixels"):
        decode_frame(data, WIDTH * HEIGHT - 1)
    monkeypatch.setattr(files, "MAX_REDECODED_PIXELS", WIDTH * HEIGHT - 1)
    with pytest.raises(ImageError, match="320 x 192 pixels; at most"):
        decode_image(data, "x.heic")
    with pytest.raises(ImageError, match="too many pixels"):
        decode_image(heic(image, stated_size=(20_000, 20_000)), "x.heic")


def test_heic_with_a_false_size_takes_no_more_than_it_states(image: Rgb) -> None:
    with pytest.raises(ImageError, match=r"broken picture: .*exceeds"):
        decode_image(heic(image, stated_size=(64, 64)), "x.heic")


def test_damaged_heic_is_an_error_in_one_line(image: Rgb) -> None:
    data = heic(image, tile_px=128)
    rng = np.random.default_rng(0)
    for size in (20, 200, 600, len(data) // 2, len(data) - 10):
        with pytest.raises(ImageError) as caught:
            decode_image(data[:size], "x.heic")
        assert len(str(caught.value).splitlines()) == 1
    for _ in range(60):
        broken = bytearray(data)
        for position in rng.integers(12, min(len(data), 1500), 8):
            broken[position] = rng.integers(256)
        with contextlib.suppress(ImageError):  # any other error fails
            decode_image(bytes(broken), "x.heic")


@pytest.mark.parametrize("kind", ["heic", "mif1", "msf1", "avif", "avis"])
def test_picture_is_no_video_of_one_tile(tmp_path: Path, image: Rgb, kind: str) -> None:
    path = tmp_path / "x.mp4"
    if kind in ("avif", "avis"):
        frames = [Image.fromarray(image)] * (2 if kind == "avis" else 1)
        frames[0].save(path, "AVIF", save_all=True, append_images=frames[1:])
    else:
        path.write_bytes(heic(image, tile_px=128, brand=kind.encode()))
    assert path.read_bytes()[4:12] == b"ftyp" + kind.encode()
    for read in (probe, lambda file: next(iter_frames(file))):
        with pytest.raises(MediaError, match=r"x\.mp4: an? (HEIC|AVIF) picture, not a video"):
            read(path)


def test_formats_of_other_programs_reach_no_decoder() -> None:
    for kind in ("ICO", "PPM", "TGA", "PCX", "EPS"):
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64)).save(buffer, kind)
        with pytest.raises(ImageError, match="not a picture"):
            decode_image(buffer.getvalue(), "x.png")
