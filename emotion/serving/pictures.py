"""Decoding of pictures from strangers: format and size are read from the header first."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion.data.pictures import REDUCED_FORMATS, decode_reduced
from emotion.serving.refusals import Refusal
from facevox.errors import UserError
from facevox.files import open_picture

ORIENTATION = 0x0112  # EXIF tag; 1: upright
# Pillow's names of the chunks in front of a PNG's pixels that may have its orientation.
PNG_ORIENTATIONS = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
LEAST_SIDE_PX = 16
LARGEST_RATIO = 16  # MediaPipe scales to a square: nothing is left of a narrower picture
# Large photographs keep this length at least: a face of a tenth of it fills the network's input.
UPLOAD_LONGEST_PX = 1600
# A JPEG is decoded smaller, HEIC and AVIF, which phones write as large, made so before they are converted:
# up to 13 bytes of memory a pixel. Others take up to 25.
WHOLE_SHARE = 8


class Header(NamedTuple):
    """The format and the size in a picture's header, before its EXIF orientation."""

    format: str
    width: int
    height: int
    is_plain: bool  # RGB and stored upright


def read_header(data: bytes) -> Header:
    """The format and size of a picture; nothing is decoded.

    Raises:
        Refusal: not_an_image, too_many_pixels (more than Pillow would read from any source).
    """
    try:
        with open_picture(data) as picture:
            # Pillow calls a JPEG with a preview after it "MPO"; phones write such.
            name = "JPEG" if picture.format == "MPO" else str(picture.format)
            return Header(name, *picture.size, picture.mode == "RGB" and _is_upright(picture))
    except Image.DecompressionBombError:
        raise Refusal("too_many_pixels") from None
    except Exception:  # Pillow raises OSError, SyntaxError, ValueError, struct.error … on bad data
        raise Refusal("not_an_image") from None


def _is_upright(picture: Image.Image) -> bool:
    """True if the header states no other orientation; False for a PNG that states any."""
    if picture.format == "PNG":  # its getexif() would decode all of it, because EXIF may follow the pixels
        return not any(name in picture.info for name in PNG_ORIENTATIONS)
    return bool(picture.getexif().get(ORIENTATION, 1) == 1)


def decode_frame(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """A frame as (H, W, 3) uint8 RGB, upright.

    Raises:
        Refusal: not_an_image, too_many_pixels, odd_shape.
    """
    header = read_header(data)
    _check_shape(header, max_pixels)
    return _decode_plain(data) if header.is_plain else _decode(data, 1)[0]


def decode_upload(data: bytes, max_pixels: int) -> tuple[NDArray[np.uint8], int, int]:
    """A photograph as (h, w, 3) uint8 RGB, upright, perhaps smaller, and its upright width and height.

    Args:
        data: The file.
        max_pixels: Of a JPEG, HEIC or AVIF; other formats may have an eighth of it.

    Raises:
        Refusal: not_an_image, too_many_pixels, odd_shape.
    """
    header = read_header(data)
    is_reduced = header.format in REDUCED_FORMATS
    _check_shape(header, max_pixels if is_reduced else max_pixels // WHOLE_SHARE)
    reduction = 1
    while max(header.width, header.height) >= 2 * reduction * UPLOAD_LONGEST_PX and reduction < 8:
        reduction *= 2
    if header.is_plain and (reduction == 1 or not is_reduced):
        return _decode_plain(data), header.width, header.height
    image, (width, height) = _decode(data, reduction)
    return image, width, height


def _check_shape(header: Header, max_pixels: int) -> None:
    if header.width * header.height > max_pixels:
        raise Refusal("too_many_pixels")
    shorter, longer = sorted((header.width, header.height))
    if shorter < LEAST_SIDE_PX or longer > LARGEST_RATIO * shorter:
        raise Refusal("odd_shape")


def _decode_plain(data: bytes) -> NDArray[np.uint8]:
    """An upright RGB picture, which pages send: without the copies that other modes need."""
    try:
        with open_picture(data) as picture:
            return np.asarray(picture)
    except Exception:  # as above
        raise Refusal("not_an_image") from None


def _decode(data: bytes, reduction: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    try:
        return decode_reduced(data, "picture", lambda width, height: reduction)
    except UserError:
        raise Refusal("not_an_image") from None
