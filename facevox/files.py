"""Whole-file writes, file search and pictures: the file access of all programs."""

import errno
import fcntl
import fnmatch
import io
import itertools
import json
import logging
import os
import secrets
import shutil
import stat
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from facevox.errors import UserError, one_line
from facevox.file_kinds import file_fault, special_kind
from facevox.picture_headers import cost_fault
from facevox.signs import report_progress
from facevox.suffixes import PICTURE_SUFFIXES, VIDEO_SUFFIXES, patterns, related, system_name

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

logger = logging.getLogger(__name__)
# Pillow warns of odd tags while it decodes: some files fill the terminal.
warnings.filterwarnings("ignore", module=r"PIL\.")
IMAGE_PATTERNS = patterns(PICTURE_SUFFIXES)
VIDEO_PATTERNS = patterns(VIDEO_SUFFIXES)
# Pillow's names. It tries no other decoder: some start programs (PostScript) or open other files.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "HEIF", "AVIF")
IMAGE_FORMATS_TEXT = "JPEG, PNG, WebP, HEIC, AVIF, BMP, TIFF or GIF"
# 390 MB as decoded 8-bit RGB, and a gigabyte while it is decoded.
MAX_IMAGE_PIXELS = 130_000_000
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS, _PLANES, _SEPARATE = 258, 284, 2  # tags of TIFF, and the value for planes
# Their decoders, and that of progressive JPEGs, hold the picture several times: 12 to 15 bytes a pixel.
MAX_REDECODED_PIXELS = 64_000_000
_REDECODED = ("WEBP", "HEIF", "AVIF")
_STRIP_PIXELS = 1 << 24
_ROWS_AT_A_TIME = 256  # of an array that is written
MAX_IMAGE_BYTES = 1_000_000_000  # MAX_IMAGE_PIXELS take 520 MB as uncompressed RGBA
_TYPESCRIPT = (".ts", ".mts")  # MPEG transport streams, too
_SCRATCH = (".facevox-", ".tmp")  # start and end of the name of a folder of `scratch_folder`
_NEW_S = 60.0  # a folder that is younger may not be locked yet
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}  # a link to nowhere or to itself
_counter = itertools.count()
_own_token = secrets.token_hex(6)
_run_token = ""


def _renew_own_token() -> None:
    global _own_token
    _own_token = secrets.token_hex(6)


# The process number alone does not distinguish two processes: each container has its own number 1.
os.register_at_fork(after_in_child=_renew_own_token)


class ImageError(UserError):
    """A picture that cannot be read."""


def set_run_token(token: str) -> None:
    """Names this process's temporary files, so that a later run can find those of a dead one.

    Without a token, or after "", their names have random digits that only this process uses.
    """
    global _run_token
    _run_token = token


def _temporary_beside(path: Path) -> Path:
    # Short whatever the target's name is: a name close to the file system's 255 bytes must still work.
    return path.with_name(f".{_run_token or _own_token}-{os.getpid()}-{next(_counter)}.tmp")


def remove_temporaries(folder: Path, token: str) -> int:
    """Removes half-written files and folders with this token below `folder`; returns their number."""
    count = 0
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            if name.startswith(f".{token}-") and name.endswith(".tmp"):
                path = Path(parent, name)
                if name in folders:
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
                count += 1
    return count


def temporary_folder(parent: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder in `parent` for half-written files, removed when its block ends."""
    return tempfile.TemporaryDirectory(prefix=f".{_run_token or _own_token}-", suffix=".tmp", dir=parent)


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """A private folder, removed when the block ends; if the process is killed, by the next call.

    Args:
        parent: The folder above it; None: that of the system for temporary files.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    with suppress(OSError):  # a folder that may be written and not listed
        for path in parent.iterdir():
            if path.name.startswith(_SCRATCH[0]) and path.name.endswith(_SCRATCH[1]):
                _remove_abandoned(path)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH[0], suffix=_SCRATCH[1], dir=parent) as folder:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # a file system that locks no folders: they are never removed there
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Path(folder)
        finally:
            os.close(descriptor)


def _remove_abandoned(folder: Path) -> None:
    """Removes a folder of `scratch_folder` that no process holds; the system ends a lock with its process."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            status = os.fstat(descriptor)
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > _NEW_S:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where another holds it
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


@contextmanager
def replacing(
    path: str | Path,
    mode: str = "wb",
    *,
    sync: bool = True,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> Iterator[IO[Any]]:
    """An open temporary file that replaces `path` in one step when the block succeeds.

    Readers see the old file or the new one as a whole, never a part; on an error the old file stays.
    Missing parent folders are created.

    Args:
        path: The final name.
        mode: "wb" or "w".
        sync: Flush the data to the disk before the rename, so that a power cut cannot leave an empty
            file under the final name. Batches of many small files that record each one in a manifest
            and check it when they resume switch it off: fsync costs more than the work itself there.
        encoding, errors, newline: Of a text file, as `open` has them.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_beside(target)
    try:
        with temporary.open(mode, encoding=encoding, errors=errors, newline=newline) as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(target)
        report_progress()
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, FileNotFoundError) and error.filename == str(temporary):
            raise UserError(f"{target}: its folder was removed while it was written") from None
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = str(target)  # a full disk does not say what it is full of
        raise


def write_bytes(path: str | Path, data: bytes, *, sync: bool = True) -> None:
    """Writes `data` as the whole of `path`."""
    with replacing(path, sync=sync) as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` as the whole of `path`, in UTF-8."""
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_arrays(
    path: str | Path,
    arrays: "Mapping[str, NDArray[Any] | np.generic | Sequence[NDArray[Any]]]",
    *,
    compression: int = zipfile.ZIP_STORED,
    sync: bool = True,
) -> None:
    """Writes arrays as an .npz without pickles; several for one name become one, joined at their first axis.

    Not by np.savez: on a full disk it leaves its archive open, which complains on stderr later.
    """
    with replacing(path, sync=sync) as file, zipfile.ZipFile(file, "w", compression) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                if isinstance(values, Sequence):
                    _save_joined(member, values)
                else:
                    np.save(member, values, allow_pickle=False)


def _save_joined(member: IO[bytes], parts: "Sequence[NDArray[Any]]") -> None:
    """Writes joined parts as np.save does, without joining them in memory."""
    header = np.lib.format.header_data_from_array_1_0(np.ascontiguousarray(parts[0]))
    header["shape"] = (sum(map(len, parts)), *parts[0].shape[1:])
    np.lib.format.write_array_header_1_0(member, header)
    for part in parts:
        for start in range(0, len(part), _ROWS_AT_A_TIME):
            member.write(np.ascontiguousarray(part[start : start + _ROWS_AT_A_TIME]).tobytes())


def write_json(path: str | Path, value: object) -> None:
    """Writes `value` as readable JSON; NaN and infinity are refused because JSON has neither.

    With file names that are not UTF-8 in it, everything beyond ASCII is written as escapes.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: str | Path) -> Any:
    """The value in a JSON file (UTF-8, with or without a byte-order mark).

    Raises:
        UserError: The file is missing or is not JSON, or holds a number of thousands of digits.
    """
    refuse_special(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; a JSON file is expected") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); a JSON file is expected") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {file_fault(path, 'JSON') or error}") from None


def require_folder(path: str | Path, what: str) -> Path:
    """`path` as a folder that exists and can be listed.

    Raises:
        UserError: It does not exist, is not a folder, or may not be read; `what` names the option.
    """
    folder = Path(path)
    if not folder.exists():
        raise UserError(f"{what}: no such folder: {folder}")
    if not folder.is_dir():
        raise UserError(f"{what}: not a folder: {folder}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise UserError(f"{what}: the folder may not be read: {folder}")
    return folder


def refuse_special(path: str | Path) -> None:
    """Checks that reading `path` comes to an end.

    Raises:
        UserError: It is a FIFO, a device or a socket.
    """
    if kind := special_kind(path):
        raise UserError(f"{path}: is {kind}; a file is expected")


def find_files(
    root: str | Path,
    patterns: Sequence[str],
    exclude: Iterable[str | Path] = (),
    *,
    what: str = "folder",
    option: str = "",
) -> list[Path]:
    """The files below `root` whose names match one of `patterns`, sorted by their relative path.

    Folders are searched at any depth, links to folders are followed once each (a loop of links ends),
    hidden files and folders are left out, and so is everything below a folder of `exclude`. Patterns
    ignore upper and lower case: cameras write .MP4. One with a slash is matched with the relative path.

    One line in the log counts the files of the same kind with another suffix, for which `option` is named,
    those of systems (`@eaDir`, `._*`), and text that is called `.ts` or `.mts`, as TypeScript is. Files and
    folders that cannot be read are skipped, with one line on stderr that counts them.

    Raises:
        UserError: No such folder, or nothing in it matches (the message counts the other files and those
            that could not be read).
    """
    top = require_folder(root, what)
    search = _Search(patterns)
    excluded = {os.path.realpath(folder) for folder in exclude}  # resolve() raises on a link to itself
    visited: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(top, followlinks=True, onerror=search.unreadable.append):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(
            name
            for name in folders
            if not search.is_of_system(name)
            and not name.startswith(".")
            and not (excluded and os.path.realpath(Path(parent, name)) in excluded)
        )
        for name in names:
            search.add(Path(parent, name), Path(parent, name).relative_to(top).as_posix())
    left_out = search.left_out_text(option)
    unreadable = _unreadable_text(search.unreadable)
    if not search.matches:
        others = f"{search.num_others} other files" if search.num_others else ""
        others = "; ".join(filter(None, (others, left_out, unreadable))) or "it is empty"
        raise UserError(f"{what}: nothing below {top} matches {' '.join(patterns)} ({others})")
    if left_out:
        logger.info(f"{what}: {left_out}")
    if unreadable:
        logger.warning(f"{what}: {unreadable}")
    search.matches.sort()
    return [path for _, path in search.matches]


class _Search:
    """The files of a search so far, and numbers of those that it leaves out."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [pattern.lower().removeprefix("**/") for pattern in patterns]
        self._related = related(self._patterns)
        self._others: Counter[str] = Counter()  # by suffix
        self._of_systems: Counter[str] = Counter()
        self._num_text = 0
        self.matches: list[tuple[str, Path]] = []
        self.num_others = 0
        self.unreadable: list[OSError] = []

    def is_of_system(self, name: str) -> bool:
        """True, and counted, if a file or folder of this name is of an operating system."""
        name = system_name(name)
        self._of_systems.update([name] if name else [])
        return bool(name)

    def add(self, path: Path, relative: str) -> None:
        """Takes or counts a file."""
        if self.is_of_system(path.name) or path.name.startswith("."):
            return
        if not _is_regular(path, self.unreadable):
            return
        suffix = path.suffix.lower()
        if not any(
            fnmatch.fnmatchcase((relative if "/" in pattern else path.name).lower(), pattern)
            for pattern in self._patterns
        ):
            self.num_others += 1
            self._others.update([suffix] if suffix in self._related else [])
        elif suffix in _TYPESCRIPT and _is_text(path):
            self._num_text += 1
        else:
            self.matches.append((relative, path))

    def left_out_text(self, option: str) -> str:
        """A line such as `left out: 3 .swf (--video_extensions takes them)`; "" where nothing was."""
        others = ", ".join(f"{count} {suffix}" for suffix, count in self._others.most_common())
        if others and option:
            others += f" ({option} takes them)"
        text = f"{self._num_text} {' or '.join(_TYPESCRIPT)} that are text" if self._num_text else ""
        systems = ", ".join(f"{count} {name}" for name, count in self._of_systems.most_common())
        parts = "; ".join(filter(None, (others, text, systems and f"{systems} of the system")))
        return f"left out: {parts}" if parts else ""


def _is_text(path: Path) -> bool:
    """True for a file that begins with text and not with a pointer to a file that was not fetched."""
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError:
        return False  # reported when it is opened
    is_pointer = head.startswith(b"version https://git-lfs")
    return bool(head) and not is_pointer and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)


def _is_regular(path: Path, unreadable: list[OSError]) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        if error.errno not in _NOT_THERE:
            unreadable.append(error)
        return False


def _unreadable_text(errors: Sequence[OSError]) -> str:
    if not errors:
        return ""
    what = "file or folder" if len(errors) == 1 else "files or folders"
    return f"{len(errors)} {what} could not be read; the first: {one_line(errors[0])}"


def relative_name(path: Path, root: Path) -> str:
    """`path` relative to `root`, with forward slashes: the key of an item in a manifest."""
    return path.relative_to(root).as_posix()


def read_image(path: str | Path) -> "NDArray[np.uint8]":
    """The picture in `path` as (H, W, 3) uint8 RGB, upright (by EXIF, in HEIC and AVIF by irot and imir).

    Grey, palette, CMYK, 10- and 16-bit and transparent pictures come out as 8-bit RGB. Of several pictures in
    a file (GIF, TIFF, sequences) it is the first, or the one that the file calls the main one.

    Raises:
        ImageError: No such file, empty, truncated, not a picture, more than MAX_IMAGE_BYTES bytes (checked
            before it is read) or MAX_IMAGE_PIXELS pixels (read from the header, before it is decoded).
    """
    return decode_image(read_image_bytes(path), str(path))


def read_image_bytes(path: str | Path) -> bytes:
    """The content of a picture file, undecoded.

    Raises:
        ImageError: No such file, or more than MAX_IMAGE_BYTES (checked before it is read).
    """
    refuse_special(path)
    try:
        size_bytes = Path(path).stat().st_size
        if size_bytes > MAX_IMAGE_BYTES:
            raise ImageError(f"{path}: {size_bytes} bytes; at most {MAX_IMAGE_BYTES} are read")
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None


def decode_image(data: bytes, name: str) -> "NDArray[np.uint8]":
    """The picture in `data` as (H, W, 3) uint8 RGB; see `read_image`. `name` is used in messages."""
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes)")
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with open_picture(data, name) as picture:
            check_pixels(picture, name)
            _check_values(picture, name)
            ImageOps.exif_transpose(picture, in_place=True)  # otherwise it makes a copy, also of upright ones
            return _rgb(picture)
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError:  # Pillow checks before we can, and does not report the size
        raise ImageError(f"{name}: too many pixels; at most {MAX_IMAGE_PIXELS} are read") from None
    except UnidentifiedImageError:
        kind = "a TIFF of a kind that is not read" if data[:4] in _TIFF_STARTS else "not a picture"
        raise ImageError(f"{name}: {kind}") from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error … on bad data
        raise ImageError(f"{name}: broken picture: {' '.join(str(error).split())}") from None


def open_picture(data: bytes, name: str = "picture") -> "Image.Image":
    """The picture in `data`, of which Pillow has read the header only; a format of IMAGE_FORMATS.

    Raises:
        ImageError: It would take too long to decode.
        Exception: What Pillow raises on bad data, of many kinds.
    """
    from PIL import Image

    if fault := cost_fault(data):
        raise ImageError(f"{name}: {fault}, which would take too long to decode")

    formats = [name for name in IMAGE_FORMATS if name != "HEIF"]
    if data[4:8] == b"ftyp":
        import pi_heif

        from facevox.media import sequences

        # One thread each: programs decode several pictures at a time. The limits of libheif stay on.
        pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
        sequences.register()
        formats += ["HEIF", sequences.NAME]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit decides
        return Image.open(io.BytesIO(data), formats=formats)


def check_pixels(picture: "Image.Image", name: str) -> None:
    """Refuses a picture that would take more than a gigabyte while it is decoded; raises ImageError."""
    is_held = picture.format in _REDECODED or picture.info.get("progressive")
    most = MAX_REDECODED_PIXELS if is_held else MAX_IMAGE_PIXELS
    if picture.width * picture.height > most:
        kind = f" of a {'progressive ' * (picture.format == 'JPEG')}{picture.format}" if is_held else ""
        raise ImageError(f"{name}: {picture.width} x {picture.height} pixels; at most {most} are read{kind}")


def _check_values(picture: "Image.Image", name: str) -> None:
    """Refuses what Pillow opens and reads wrongly; raises ImageError."""
    if picture.mode == "F":
        raise ImageError(
            f"{name}: floating-point values, whose range is not known; save it with 8 or 16 bits"
        )
    if picture.format == "TIFF":
        tags: Any = picture.tag_v2  # type: ignore[attr-defined]  # of TIFF pictures alone
        bits = tags.get(_BITS, (8,))
        if tags.get(_PLANES, 1) == _SEPARATE and len(bits) > 1 and max(bits) > 8:
            raise ImageError(f"{name}: a TIFF of {max(bits)} bits in separate planes; save it in one plane")


def _rgb(picture: "Image.Image") -> "NDArray[np.uint8]":
    """(H, W, 3) of a picture, converted in strips: its own pixels are the only other copy in memory."""
    image_rgb = np.empty((picture.height, picture.width, 3), np.uint8)
    rows = max(_STRIP_PIXELS // picture.width, 1)
    for top in range(0, picture.height, rows):
        bottom = min(top + rows, picture.height)
        is_whole = bottom - top == picture.height
        strip = picture if is_whole else picture.crop((0, top, picture.width, bottom))
        if strip.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips at 255
            grey = np.clip(np.asarray(strip, dtype=np.float64) / 257.0 + 0.5, 0, 255)
            image_rgb[top:bottom] = grey.astype(np.uint8)[..., None]
            continue
        if strip.mode == "La":  # grey with premultiplied transparency, which HEIC may have
            strip = strip.convert("LA")
        image_rgb[top:bottom] = np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))
    return image_rgb


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
