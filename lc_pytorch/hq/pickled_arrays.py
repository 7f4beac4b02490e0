"""What NumPy's pickles call, for `lc_pytorch.hq.pickles`: arrays, dtypes, scalars out of checked parts.

Source: the reduce values of NumPy's arrays, dtypes and scalars as NumPy 1.26 and 2 write them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np

from facevox.errors import UserError

MAX_DIMENSIONS = 32
SHOWN_NAME = 60  # characters of a name from the file in a message
# Only numbers and short texts: no objects (they would need a pickle inside), no records, no sub-arrays.
_DTYPE_PATTERN = re.compile(r"b1|[iu][1248]|f[248]|c(?:8|16)|[SU][1-9]\d{0,4}")
_TEXT_ENCODINGS = ("latin1", "latin-1", "iso-8859-1")


class PickleError(UserError):
    """A pickle that is broken, too large, or holds more than plain data."""


class Named:
    """A name on the stack of a pickle machine: what it stands for is never touched."""

    def __init__(self, name: str) -> None:
        self.name = name


class Dtype:
    """A dtype of numbers or short texts whose byte order comes later."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.value = _native_dtype(code)


class EmptyArray:
    """What `_reconstruct` gives: an array whose content comes later, by BUILD."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None


@lru_cache(maxsize=256)
def _native_dtype(code: str) -> np.dtype[Any]:
    return np.dtype(code)


@lru_cache(maxsize=256)
def _ordered_dtype(code: str, byte_order: str) -> np.dtype[Any]:
    return np.dtype(code).newbyteorder(byte_order)  # type: ignore[arg-type]


def shown(text: str) -> str:
    """A text of the file for a message: short, and printable."""
    return text if len(text) <= SHOWN_NAME and text.isprintable() else ascii(text[:SHOWN_NAME])


def _reconstruct(kind: Any, shape: Any, code: Any) -> EmptyArray:
    # NumPy always writes (ndarray, (0,), b"b"): shape and type come with BUILD.
    if not isinstance(kind, Named) or kind.name != "ndarray" or shape != (0,):
        raise PickleError("an array of a class other than numpy.ndarray")
    return EmptyArray()


def _make_dtype(code: Any, align: Any = False, copy: Any = True) -> Dtype:
    if type(code) is not str or not _DTYPE_PATTERN.fullmatch(code):
        text = shown(code) if type(code) is str else type(code).__name__
        raise PickleError(f"an array of {text!r}; numbers and short texts are read")
    return Dtype(code)


def set_byte_order(target: Dtype, state: Any) -> None:
    """Gives a dtype the state that BUILD brings."""
    # (version, byte order, sub-array, names, fields, item size, alignment, flags[, metadata])
    if type(state) is not tuple or not 8 <= len(state) <= 9 or state[1] not in ("<", ">", "|", "="):
        raise PickleError("a dtype's state that NumPy does not write")
    if any(value is not None for value in (*state[2:5], *state[8:])):
        raise PickleError("an array of records or sub-arrays, or a dtype with metadata")
    if state[5] not in (-1, target.value.itemsize):
        raise PickleError("a dtype whose item size is not that of its code")
    target.value = _ordered_dtype(target.code, state[1])


def filled_array(state: Any) -> np.ndarray:
    """The array of a state that BUILD brings."""
    # (version, shape, dtype, is in Fortran order, bytes)
    if type(state) is not tuple or len(state) != 5:
        raise PickleError("an array's state that NumPy does not write")
    _, shape, dtype, is_fortran, content = state
    return _view(content, dtype, shape, "F" if is_fortran else "C")


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if order not in ("C", "F"):
        raise PickleError("an array in an unknown order")
    return _view(content, dtype, shape, order)


def _view(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """The array over `content`, after its shape was held against the bytes that are there."""
    if not isinstance(dtype, Dtype):
        raise PickleError("an array without a dtype")
    if type(content) is str:  # Python 2
        content = content.encode("latin-1")
    if type(content) not in (bytes, bytearray):
        raise PickleError("an array of objects, or without bytes")
    is_shape = type(shape) is tuple and len(shape) <= MAX_DIMENSIONS
    if not is_shape or any(type(n) is not int or not 0 <= n < 2**31 for n in shape):
        raise PickleError("an array with a shape that is none")
    wanted = math.prod(shape) * dtype.value.itemsize
    if wanted != len(content):
        size = " x ".join(map(str, shape[:8])) or "one number"
        raise PickleError(f"an array of {size} ({wanted} bytes), {len(content)} bytes are there")
    array = np.frombuffer(content, dtype.value) if content else np.empty(0, dtype.value)
    array.flags.writeable = False
    return array.reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: Any, content: Any = None) -> Any:
    return _view(content, dtype, (), "C")[()]


def _encode(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding not in _TEXT_ENCODINGS:
        raise PickleError("a text in an encoding other than Latin-1")
    return text.encode("latin-1")


def _make_bytes(*arguments: Any) -> bytes:
    if arguments:  # bytes(10**10) would take that much
        raise PickleError("a call of bytes with arguments")
    return b""


def _make_complex(real: Any, imaginary: Any) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise PickleError("a complex number of what are no numbers")
    return complex(real, imaginary)


def _not_callable(*_: Any) -> NoReturn:
    raise PickleError("a call of numpy.ndarray")


# A wrong number of arguments is a TypeError, which the machine turns into a refusal.
CALLS: dict[str, Callable[..., Any]] = {
    "_reconstruct": _reconstruct,
    "dtype": _make_dtype,
    "scalar": _scalar,
    "_frombuffer": _from_buffer,
    "encode": _encode,
    "bytes": _make_bytes,
    "complex": _make_complex,
    "ndarray": _not_callable,
}
