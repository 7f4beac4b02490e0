"""Mel spectrograms as releases have them: .npy arrays and .pickle files, mels first or time first.

A release may hold bare arrays or dictionaries (`LogMel_Features` in those of SF2F), in float64 or float32,
as (mels, T) or (T, mels). Everything is returned as (mels, T) float32. `survey` samples a set, so that its
format can be reported once. Files are not trusted: pickles go through `lc_pytorch.hq.pickles`, .npy files
through a reader that compares the shape in the header with the size of the file first.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from facevox.errors import UserError, one_line
from lc_pytorch.hq.pickles import PickleError, load_plain, read_limited

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAMES_PER_S = 100  # a hop of 10 ms, as in all releases
KNOWN_NUM_MELS = (40, 64, 80, 128)
USUAL_KEY = "LogMel_Features"
SUFFIXES = (".npy", ".pickle", ".pkl")
MAX_FILE_BYTES = 64_000_000  # an hour of 40 mels in float32 has 58 MB
SURVEY_FILES = 256  # enough for mean and deviation up to about a hundredth of the deviation


@dataclass(frozen=True, kw_only=True)
class MelSurvey:
    """Facts about a sample of files.

    Attributes:
        num_mels: Bands of each spectrogram.
        mean, std: Over all values of the sample.
        median_frames: Half of the files are shorter.
        num_files: Files that were read.
        num_time_first: Number of them that hold (T, mels).
        keys: Number of dictionaries by the key of their spectrogram.
        failures: (file, reason) of those that could not be read.
    """

    num_mels: int
    mean: float
    std: float
    median_frames: int
    num_files: int
    num_time_first: int
    keys: dict[str, int]
    failures: tuple[tuple[Path, str], ...]

    def lines(self) -> list[str]:
        """Lines for the user, to be shown once."""
        shape = "(mels, T)"
        if self.num_time_first:
            shape = f"(T, mels) in {self.num_time_first}, (mels, T) in {self.num_files - self.num_time_first}"
        lines = [
            f"mels: {self.num_mels} bands, {shape} of {self.num_files} files sampled; "
            f"mean {self.mean:.3f}, deviation {self.std:.3f}, "
            f"median {self.median_frames / FRAMES_PER_S:.2f} s"
        ]
        others = {key: count for key, count in self.keys.items() if key != USUAL_KEY}
        if others:
            counts = ", ".join(f"{key!r} ({count} files)" for key, count in sorted(others.items()))
            lines.append(
                f"mels: dictionaries without {USUAL_KEY!r}; the only spectrogram in them is under {counts}"
            )
        if self.failures:
            path, reason = self.failures[0]
            lines.append(
                f"mels: {len(self.failures)} sampled files cannot be read; the first: {path}: {reason}"
            )
        return lines


def read_mel(path: str | Path, num_mels: int | None = None) -> NDArray[np.float32]:
    """The spectrogram in a file, (mels, T) float32.

    Args:
        path: .npy, .pickle or .pkl.
        num_mels: Bands, where they are known; otherwise one side must be one of `KNOWN_NUM_MELS`. A square
            spectrogram is read as (mels, T).

    Raises:
        UserError: Broken, refused, empty, not a spectrogram, another number of bands, not finite.
    """
    array, _ = load_array(path)
    return oriented(array, num_mels, path)


def oriented(array: NDArray[np.generic], num_mels: int | None, path: str | Path) -> NDArray[np.float32]:
    """`array` (mels, T) or (T, mels) as (mels, T) float32; errors as in `read_mel`."""
    # Whether the first side, or the second, can be the mels.
    is_first, is_second = (
        side == num_mels or (num_mels is None and side in KNOWN_NUM_MELS) for side in array.shape
    )
    if not (is_first or is_second):
        expected = (
            f"{num_mels} mels" if num_mels else f"{', '.join(map(str, KNOWN_NUM_MELS))} mels (or --num_mels)"
        )
        raise UserError(f"{path}: a spectrogram of {array.shape[0]} x {array.shape[1]}; expected {expected}")
    if is_first and is_second and array.shape[0] != array.shape[1]:
        raise UserError(
            f"{path}: {array.shape[0]} x {array.shape[1]}: either side could be the mels; give --num_mels"
        )
    with np.errstate(all="ignore"):  # a number beyond float32 becomes infinite, and is refused
        mel = np.ascontiguousarray(array if is_first else array.T, dtype=np.float32)
        # The sum of mels is finite where all of them are: quicker than to test each.
        is_finite = bool(np.isfinite(mel.sum()))
    if not is_finite:
        raise UserError(f"{path}: holds numbers that are not finite")
    return mel


def load_array(path: str | Path) -> tuple[NDArray[np.generic], str]:
    """The 2-D array of numbers in a file as it is stored, and its key ("" where it is not in a dictionary).

    Raises:
        UserError: Broken, refused, empty, or no such array, or several.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: a spectrogram ends in {', '.join(SUFFIXES)}")
    name = ""
    value: object
    if suffix == ".npy":
        value = _read_npy(read_limited(path, MAX_FILE_BYTES), path)
    else:
        value = load_plain(path, MAX_FILE_BYTES)
        if isinstance(value, dict):
            key = _find_key(value, path)
            value = value[key]
            name = key if isinstance(key, str) else repr(key)  # bytes and numbers are possible as well
    if not _is_spectrogram(value):
        content = f"array of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise UserError(f"{path}: holds {content}; a 2-D array of numbers is expected")
    if not value.size:
        raise UserError(f"{path}: an empty spectrogram ({value.shape[0]} x {value.shape[1]})")
    return value, name


def _is_spectrogram(value: object) -> TypeGuard[NDArray[np.generic]]:
    return isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype.kind in "fiu"


def _find_key(value: dict[object, object], path: str | Path) -> object:
    """The key of the spectrogram in a dictionary: the usual one, or that of the only 2-D array in it."""
    if USUAL_KEY in value:
        return USUAL_KEY
    keys = [key for key, entry in value.items() if _is_spectrogram(entry)]
    if len(keys) != 1:
        some_keys = ", ".join(ascii(key)[:40] for key in list(value)[:8])
        raise UserError(
            f"{path}: no {USUAL_KEY!r}, and {len(keys)} other spectrograms among its keys ({some_keys})"
        )
    return keys[0]


def _read_npy(data: bytes, path: str | Path) -> NDArray[np.generic]:
    """The array in a .npy file; its header is compared with the file before anything is allocated."""
    stream = io.BytesIO(data)
    # NumPy leaves its reader of headers untyped.
    read_magic: Callable[[io.BytesIO], tuple[int, int]] = np.lib.format.read_magic
    try:
        version = read_magic(stream)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise PickleError(f"{path}: version {version} of .npy; 1 to 3 are read")
        # Version 3 is version 2 in UTF-8; NumPy's reader of the latter reads the keys of both.
        read_header: Callable[[io.BytesIO], tuple[tuple[int, ...], bool, np.dtype[np.generic]]] = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, is_fortran, dtype = read_header(stream)  # of 10 000 characters at most
    except UserError:
        raise
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, TokenError) as error:
        raise UserError(f"{path}: broken .npy file: {one_line(error, 120)}") from None
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise UserError(f"{path}: an array of {dtype.name[:40]}; numbers are expected")
    start = stream.tell()
    size = math.prod(shape)
    if min(shape, default=0) < 0 or size * dtype.itemsize != len(data) - start:
        size_text = " x ".join(map(str, shape[:8]))
        raise UserError(
            f"{path}: its header announces {size_text} numbers ({size * dtype.itemsize} bytes), "
            f"{len(data) - start} bytes follow it"
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if is_fortran else "C")


def survey(files: Sequence[Path], num_mels: int | None = None, *, max_files: int = SURVEY_FILES) -> MelSurvey:
    """Facts about a sample spread evenly over `files`; the same files give the same result.

    The number of bands is, of the known ones, the side that most files have; without a known one, the side
    that all of them share.

    Raises:
        UserError: Nothing could be read, or the number of bands is ambiguous.
    """
    count = min(max_files, len(files))
    chosen = [files[k * len(files) // count] for k in range(count)]
    arrays: list[tuple[Path, NDArray[np.generic], str]] = []
    failures: list[tuple[Path, str]] = []
    for path in chosen:
        try:
            arrays.append((path, *load_array(path)))
        except (UserError, OSError) as error:
            failures.append((path, one_line(error)))
    if not arrays:
        raise UserError(failures[0][1] if failures else "no mel spectrograms to sample")
    bands = num_mels or _common_side([array.shape for _, array, _ in arrays], arrays[0][0])
    # In float64, over all values of the sample as one: long files weigh more.
    total = squares = 0.0
    lengths: list[int] = []
    num_values = num_time_first = 0
    keys: Counter[str] = Counter()
    for path, array, key in arrays:
        try:
            mel = oriented(array, bands, path).astype(np.float64)
        except UserError as error:
            failures.append((path, one_line(error)))
            continue
        num_time_first += array.shape[0] != bands
        keys[key] += bool(key)
        lengths.append(mel.shape[1])
        total += float(mel.sum())
        squares += float(np.square(mel).sum())
        num_values += mel.size
    if not lengths:
        raise UserError(failures[0][1])
    mean = total / num_values
    return MelSurvey(
        num_mels=bands,
        mean=mean,
        # Nothing but silence has a deviation of 0: 1 in its place avoids the division by 0.
        std=max(squares / num_values - mean**2, 0.0) ** 0.5 or 1.0,
        median_frames=int(np.median(lengths)),
        num_files=len(lengths),
        num_time_first=num_time_first,
        keys={key: number for key, number in keys.items() if key},
        failures=tuple(failures),
    )


def _common_side(shapes: Sequence[tuple[int, ...]], path: Path) -> int:
    # A set: in a square spectrogram a side counts once.
    counts = Counter(side for shape in shapes for side in set(shape))
    present = [side for side in KNOWN_NUM_MELS if counts[side]]
    if present:
        return max(present, key=lambda side: counts[side])
    shared = [side for side, count in counts.items() if count == len(shapes)]
    if len(shared) != 1 or len(shapes) < 2:
        raise UserError(
            f"{path}: {shapes[0][0]} x {shapes[0][1]}: the number of mels is ambiguous; give --num_mels"
        )
    return shared[0]


def crop(mel: NDArray[np.float32], num_frames: int, position: float) -> NDArray[np.float32]:
    """(mels, num_frames) of a spectrogram (mels, T); a shorter one is repeated from its beginning.

    Args:
        mel: The spectrogram.
        num_frames: Length of the crop.
        position: 0 to below 1: 0 is the first possible crop, 0.5 the middle one.
    """
    length = mel.shape[1]
    if length < num_frames:
        start = int(position * length)
        return mel[:, (start + np.arange(num_frames)) % length]
    start = int(position * (length - num_frames + 1))
    return mel[:, start : start + num_frames]
