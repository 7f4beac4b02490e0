"""Whole-file writes, file search and pictures: what every program does with a disk."""

import fnmatch
import io
import itertools
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from facevox.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE_PATTERNS = ("*.jpg", "*.jpeg", "*.png", "*.bmp", "*.webp")
VIDEO_PATTERNS = ("*.mp4", "*.mov", "*.mkv", "*.avi", "*.webm", "*.mpg", "*.mpeg", "*.m4v")
MAX_IMAGE_PIXELS = 200_000_000  # a 200-megapixel sensor; its decoded 8-bit RGB takes 600 MB
_counter = itertools.count()
_run_token = ""


class ImageError(UserError):
    """A picture that cannot be read."""


def set_run_token(token: str) -> None:
    """Names this process's temporary files, so that a later run can find those of a dead one."""
    global _run_token
    _run_token = token


def _temporary_beside(path: Path) -> Path:
    # Short whatever the target's name is: a name close to the file system's 255 bytes must still work.
    return path.with_name(f".{_run_token or 'facevox'}-{os.getpid()}-{next(_counter)}.tmp")


def remove_temporaries(folder: Path, token: str) -> int:
    """Removes what a dead run with this token left half written below `folder`; returns how many."""
    count = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.startswith(f".{token}-") and name.endswith(".tmp"):
                Path(parent, name).unlink(missing_ok=True)
                count += 1
    return count


@contextmanager
def replacing(path: str | Path, mode: str = "wb", *, sync: bool = True, **options: Any) -> Iterator[IO[Any]]:
    """An open temporary file that takes the place of `path` in one step when the block succeeds.

    Readers see the old file or the new one, whole, never half of one; on an error the old file stays.
    Missing parent folders are made. `options` go to `open` (encoding, newline).

    Args:
        path: The final name.
        mode: "wb" or "w".
        sync: Flush the data to the disk before the rename, so that a power cut cannot leave an empty
            file under the final name. Batches of many small files that record each one in a manifest
            and check it on resumption switch it off: fsync costs more than the work itself there.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_beside(target)
    try:
        with temporary.open(mode, **options) as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: str | Path, data: bytes, *, sync: bool = True) -> None:
    """Writes `data` as the whole of `path`."""
    with replacing(path, sync=sync) as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` as the whole of `path`, in UTF-8."""
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as readable JSON; NaN and infinity are refused because JSON has neither."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """The value in a JSON file (UTF-8, with or without a byte-order mark).

    Raises:
        UserError: The file is missing or is not JSON.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; a JSON file is wanted") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); a JSON file is wanted") from None
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from None


def require_folder(path: str | Path, what: str) -> Path:
    """`path` as a folder that exists and can be listed.

    Raises:
        UserError: It does not exist, is no folder, or may not be read; `what` names the option.
    """
    folder = Path(path)
    if not folder.exists():
        raise UserError(f"{what}: no such folder: {folder}")
    if not folder.is_dir():
        raise UserError(f"{what}: not a folder: {folder}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise UserError(f"{what}: the folder may not be read: {folder}")
    return folder


def find_files(
    root: str | Path, patterns: Sequence[str], exclude: Iterable[str | Path] = (), *, what: str = "folder"
) -> list[Path]:
    """The files below `root` whose names match one of `patterns`, sorted by their relative path.

    Folders are searched at any depth, links to folders are followed once each (a loop of links ends),
    hidden files and folders are left out, and so is everything below a folder of `exclude`. Patterns
    ignore upper and lower case: cameras write .MP4. One with a slash is held against the relative path.

    Raises:
        UserError: No such folder, or nothing in it matches (the message counts what was there).
    """
    top = require_folder(root, what)
    wanted = [pattern.lower() for pattern in patterns]
    left_out = {Path(folder).resolve() for folder in exclude}
    found: list[tuple[str, Path]] = []
    num_others = 0
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(top, followlinks=True):
        here = Path(parent).stat()
        if (here.st_dev, here.st_ino) in seen:
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not (left_out and Path(parent, name).resolve() in left_out)
        )
        for name in names:
            path = Path(parent, name)
            relative = path.relative_to(top).as_posix()
            if name.startswith(".") or not _is_regular(path):
                continue
            if any(
                fnmatch.fnmatchcase((relative if "/" in p else name).lower(), p.removeprefix("**/"))
                for p in wanted
            ):
                found.append((relative, path))
            else:
                num_others += 1
    if not found:
        others = f"{num_others} other files" if num_others else "it is empty"
        raise UserError(f"{what}: nothing below {top} matches {' '.join(patterns)} ({others})")
    found.sort()
    return [path for _, path in found]


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:  # a link to nowhere or to itself
        return False


def relative_name(path: Path, root: Path) -> str:
    """`path` relative to `root`, with forward slashes: the key of an item in a manifest."""
    return path.relative_to(root).as_posix()


def read_image(path: str | Path) -> "NDArray[np.uint8]":
    """The picture in `path` as (H, W, 3) uint8 RGB, upright (EXIF orientation applied).

    Grey, palette, CMYK, 16-bit and transparent pictures come out as 8-bit RGB.

    Raises:
        ImageError: No such file, empty, truncated, not a picture, or more than MAX_IMAGE_PIXELS pixels
            (read from the header, before anything is decoded).
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> "NDArray[np.uint8]":
    """The picture in `data` as (H, W, 3) uint8 RGB; see `read_image`. `name` is for the message."""
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes)")
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
            if width * height > MAX_IMAGE_PIXELS:
                raise ImageError(f"{name}: {width} x {height} pixels; at most {MAX_IMAGE_PIXELS} are read")
            if picture.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips at 255
                levels = np.asarray(picture, dtype=np.float64) / 257.0
                rgb = np.repeat(np.clip(levels + 0.5, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
                return np.ascontiguousarray(rgb)
            upright = ImageOps.exif_transpose(picture)
            return np.asarray(upright.convert("RGB"), dtype=np.uint8).copy()
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a picture") from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error … on bad data
        raise ImageError(f"{name}: broken picture: {error}") from None


def write_image(
    path: str | Path, image_rgb: "NDArray[np.uint8]", quality: int = 95, *, sync: bool = True
) -> None:
    """Writes an (H, W, 3) uint8 RGB picture as .jpg or .png, by the suffix of `path`."""
    write_bytes(path, encode_image(image_rgb, Path(path).suffix, quality), sync=sync)


def encode_image(image_rgb: "NDArray[np.uint8]", suffix: str = ".jpg", quality: int = 95) -> bytes:
    """An (H, W, 3) uint8 RGB picture as the bytes of a .jpg (quality 1 to 100) or .png file."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix.lower() in (".jpg", ".jpeg") else []
    done, data = cv2.imencode(suffix, np.ascontiguousarray(image_rgb[..., ::-1]), options)
    if not done:
        raise ValueError(f"the picture could not be encoded as {suffix}")
    return bytes(data)
