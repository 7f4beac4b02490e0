"""Pictures upright, and decoded no larger than needed: a twelve-megapixel JPEG at a quarter.

A JPEG can be decoded to a half, a quarter or an eighth at a fraction of the cost, because its blocks of
8 x 8 pixels are then unpacked smaller.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from facevox.errors import one_line
from facevox.files import ImageError, check_pixels, decode_image, open_picture

REDUCTIONS = (8, 4, 2)  # by which a picture can be read smaller
# Of phones. HEIC and AVIF are decoded whole, but made smaller before they are converted.
REDUCED_FORMATS = ("JPEG", "HEIF", "AVIF")
_ORIENTATION = 0x0112  # EXIF tag; values 5 to 8 turn the picture by a quarter
Size = tuple[int, int]  # width, height


def decode_reduced(
    data: bytes, name: str, choose: Callable[[int, int], int]
) -> tuple[NDArray[np.uint8], Size]:
    """A picture, upright and perhaps smaller, and the upright size of the whole.

    Args:
        data: The file.
        name: For messages.
        choose: Upright width and height -> the factor by which a JPEG, HEIC or AVIF may be made smaller: 1,
            2, 4 or 8. Not called for other formats, which stay whole.

    Returns:
        (h, w, 3) uint8 RGB with w about width / reduction (rounded up), and (width, height).

    Raises:
        ImageError: Empty, broken, truncated, no picture, or more pixels than `facevox.files` reads.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes)")
    try:
        with open_picture(data) as picture:
            check_pixels(picture, name)
            width, height = picture.size
            is_turned = picture.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
            size = (height, width) if is_turned else (width, height)
            reduction = choose(*size) if picture.format in REDUCED_FORMATS else 1
            if reduction > 1:
                smaller: Image.Image = picture
                if picture.format == "JPEG":
                    # Rounded down: Pillow takes the largest reduction that gives no less than this size.
                    picture.draft("RGB", (max(width // reduction, 1), max(height // reduction, 1)))
                else:
                    smaller = picture.reduce(reduction)
                upright = ImageOps.exif_transpose(smaller).convert("RGB")
                return np.asarray(upright, dtype=np.uint8).copy(), size
    except MemoryError:
        raise
    except (ImageError, Image.DecompressionBombError, UnidentifiedImageError):
        pass  # decode_image reports these
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error … on bad data
        raise ImageError(f"{name}: broken picture: {one_line(error)}") from None
    image = decode_image(data, name)
    return image, (image.shape[1], image.shape[0])


def reduction_for(face_px: float, target_px: float, longest_px: int, least_longest_px: int) -> int:
    """The factor by which a picture may be decoded smaller: 1, 2, 4 or 8.

    Args:
        face_px: Side of the piece that will be cut out, in the whole picture.
        target_px: Side that the piece needs: it is never decoded smaller.
        longest_px: Longer side of the whole picture.
        least_longest_px: Longer side that the decoded picture needs for the face to be found.
    """
    for reduction in REDUCTIONS:
        if face_px >= target_px * reduction and longest_px >= least_longest_px * reduction:
            return reduction
    return 1
