"""Pickles of plain data (containers, texts, numbers, NumPy arrays) read without running anything in them.

A pickle is a program. `load_plain` is a separate interpreter for the part of the language that writers of
plain data use, protocols 0 to 5, from Python 2 and 3, NumPy 1 and 2. Names in a pickle are looked up in a
table of a dozen and never imported; names that are not in the table are refused. Memory is bounded before it
is allocated: by the size of the file, by the number of instructions, and for arrays by the bytes present.

Source: the list of instructions in the standard library's `pickletools`; the reduce values of NumPy's arrays,
dtypes and scalars as NumPy 1.26 and 2 write them.
"""

from __future__ import annotations

import codecs
import math
import pickletools
import re
import stat
import struct
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from facevox.errors import UserError, one_line

MAX_BYTES = 64_000_000  # a mel spectrogram of an hour (360 000 x 40 in float32) has 58 MB
# The most expensive instruction for its size makes a dictionary of 64 bytes from one byte: together 32 MB.
MAX_INSTRUCTIONS = 500_000
MAX_DEPTH = 50  # of containers in containers
MAX_VALUES = 500_000  # counted as often as they are reached: shared containers multiply ("billion laughs")
MAX_INTEGER_BYTES = MAX_DIGITS = 1024
MAX_KEY = 2**31  # larger integers can be chosen so that all of them collide in a dictionary
HIGHEST_PROTOCOL = 5
MAX_DIMENSIONS = 32
SHOWN_NAME = 60  # characters of a name from the file in a message
# Only numbers and short texts: no objects (they would need a pickle inside), no records, no sub-arrays.
_DTYPE_PATTERN = re.compile(r"b1|[iu][1248]|f[248]|c(?:8|16)|[SU][1-9]\d{0,4}")
_TEXT_ENCODINGS = ("latin1", "latin-1", "iso-8859-1")


class PickleError(UserError):
    """A pickle that is broken, too large, or holds more than plain data."""


class Named:
    """A name on the stack of a pickle machine: the object of that name is never touched."""

    def __init__(self, name: str) -> None:
        self.name = name


class Dtype:
    """A dtype of numbers or short texts, whose byte order comes later, by BUILD."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.value = _native_dtype(code)


class EmptyArray:
    """Result of `_reconstruct`: an array whose content comes later, by BUILD."""

    def __init__(self) -> None:
        self.value: NDArray[np.generic] | None = None


# Cached: a pickle can ask for the same dtype half a million times.
@lru_cache(maxsize=256)
def _native_dtype(code: str) -> np.dtype[np.generic]:
    return np.dtype(code)


@lru_cache(maxsize=256)
def _ordered_dtype(code: str, byte_order: Literal["<", ">", "|", "="]) -> np.dtype[np.generic]:
    return np.dtype(code).newbyteorder(byte_order)


def shown(text: str) -> str:
    """A text of the file for a message: short, and printable."""
    return text if len(text) <= SHOWN_NAME and text.isprintable() else ascii(text[:SHOWN_NAME])


# Constructors in place of NumPy's own. Their arguments come from the file: they may be anything.


def _reconstruct(kind: object, shape: object, code: object) -> EmptyArray:
    # NumPy always writes (ndarray, (0,), b"b"): shape and type come with BUILD.
    if not isinstance(kind, Named) or kind.name != "ndarray" or shape != (0,):
        raise PickleError("an array of a class other than numpy.ndarray")
    return EmptyArray()


def _make_dtype(code: object, align: object = False, copy: object = True) -> Dtype:
    if type(code) is not str or not _DTYPE_PATTERN.fullmatch(code):
        text = shown(code) if type(code) is str else type(code).__name__
        raise PickleError(f"an array of {text!r}; numbers and short texts are read")
    return Dtype(code)


def set_byte_order(target: Dtype, state: object) -> None:
    """Sets the byte order of a dtype to that of the state of a BUILD.

    Raises:
        PickleError: Not the state of a plain dtype.
    """
    # (version, byte order, sub-array, names, fields, item size, alignment, flags[, metadata])
    if type(state) is not tuple or not 8 <= len(state) <= 9 or state[1] not in ("<", ">", "|", "="):
        raise PickleError("a dtype's state that NumPy does not write")
    if any(value is not None for value in (*state[2:5], *state[8:])):
        raise PickleError("an array of records or sub-arrays, or a dtype with metadata")
    if state[5] not in (-1, target.value.itemsize):
        raise PickleError("a dtype whose item size is not that of its code")
    target.value = _ordered_dtype(target.code, state[1])


def filled_array(state: object) -> NDArray[np.generic]:
    """The array of the state of a BUILD.

    Raises:
        PickleError: Not the state of an array, or one that does not fit its bytes.
    """
    # (version, shape, dtype, is in Fortran order, bytes)
    if type(state) is not tuple or len(state) != 5:
        raise PickleError("an array's state that NumPy does not write")
    _, shape, dtype, is_fortran, content = state
    return _view(content, dtype, shape, "F" if is_fortran else "C")


def _from_buffer(content: object, dtype: object, shape: object, order: object) -> NDArray[np.generic]:
    if order not in ("C", "F"):
        raise PickleError("an array in an unknown order")
    return _view(content, dtype, shape, "F" if order == "F" else "C")


def _view(content: object, dtype: object, shape: object, order: Literal["C", "F"]) -> NDArray[np.generic]:
    """The array over `content`, after its shape was compared with the number of bytes."""
    if not isinstance(dtype, Dtype):
        raise PickleError("an array without a dtype")
    if type(content) is str:  # Python 2
        content = content.encode("latin-1")
    if type(content) is not bytes and type(content) is not bytearray:
        raise PickleError("an array of objects, or without bytes")
    if type(shape) is not tuple or len(shape) > MAX_DIMENSIONS:
        raise PickleError("an array with too many dimensions, or none")
    if any(type(side) is not int or not 0 <= side < 2**31 for side in shape):
        raise PickleError("an array with an impossible shape")
    # Python's integers do not overflow, as NumPy's would.
    num_bytes = math.prod(shape) * dtype.value.itemsize
    if num_bytes != len(content):
        size = " x ".join(map(str, shape[:8])) or "one number"
        raise PickleError(f"an array of {size} ({num_bytes} bytes) with {len(content)} bytes")
    array = np.frombuffer(content, dtype.value) if content else np.empty(0, dtype.value)
    array.flags.writeable = False
    return array.reshape(shape, order=order)


def _scalar(dtype: object, content: object = None) -> object:
    return _view(content, dtype, (), "C")[()]


def _encode(text: object, encoding: object) -> bytes:
    if type(text) is not str or encoding not in _TEXT_ENCODINGS:
        raise PickleError("a text in an encoding other than Latin-1")
    return text.encode("latin-1")


def _make_bytes(*arguments: object) -> bytes:
    if arguments:  # bytes(10**10) would allocate 10 GB
        raise PickleError("a call of bytes with arguments")
    return b""


def _make_complex(real: object, imaginary: object) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise PickleError("a complex number of parts that are no numbers")
    return complex(real, imaginary)


def _not_callable(*_: object) -> NoReturn:
    raise PickleError("a call of numpy.ndarray")


# A wrong number of arguments is a TypeError, which the machine turns into a refusal.
CALLS: dict[str, Callable[..., object]] = {
    "_reconstruct": _reconstruct,
    "dtype": _make_dtype,
    "scalar": _scalar,
    "_frombuffer": _from_buffer,
    "encode": _encode,
    "bytes": _make_bytes,
    "complex": _make_complex,
    "ndarray": _not_callable,
}


_NUMPY_CORES = ("numpy.core", "numpy._core")  # before and since NumPy 2
_BUILTINS = ("builtins", "__builtin__")
_NAMES: dict[tuple[str, str], Named] = {
    path: Named(path[1])
    for path in (
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
        *((f"{core}.multiarray", name) for core in _NUMPY_CORES for name in ("_reconstruct", "scalar")),
        *((f"{core}.numeric", "_frombuffer") for core in _NUMPY_CORES),
        *((module, name) for module in _BUILTINS for name in ("bytes", "complex")),
    )
}
_LEAVES = (str, bytes, bytearray, bool, int, float, complex, type(None))


def load_plain(source: str | Path | bytes, max_bytes: int = MAX_BYTES, *, name: str = "pickle") -> object:
    """The value in a pickle of plain data.

    Plain are dict, list, tuple, str, bytes, bytearray, bool, int, float, complex, None, and NumPy arrays and
    scalars of numbers, truth values and short texts. Arrays are read-only views of the pickle's bytes. 8-bit
    strings of Python 2 become str, decoded as Latin-1. Bytes after the end of the pickle are ignored.

    Args:
        source: A file, or the pickle itself.
        max_bytes: Larger pickles are refused before they are read.
        name: For messages, where `source` is not a file.

    Raises:
        PickleError: Not such a pickle, or too large; nothing was executed.
    """
    if isinstance(source, bytes):
        data = source
        if len(data) > max_bytes:
            raise PickleError(f"{name}: {len(data)} bytes; at most {max_bytes} are read")
    else:
        name = str(source)
        data = read_limited(source, max_bytes)
    machine = _Machine(data)
    try:
        value = machine.run()
        _check_result(value)
    except PickleError as error:
        raise PickleError(f"{name}: refused: {error} (byte {machine.position})") from None
    except (LookupError, ValueError, TypeError, OverflowError, struct.error) as error:
        reason = one_line(error, 120)
        raise PickleError(f"{name}: broken pickle: {reason} (byte {machine.position})") from None
    return value


def read_limited(path: str | Path, max_bytes: int) -> bytes:
    """The content of a regular file of at most `max_bytes`; its size is checked first.

    Raises:
        PickleError: No such file, not a regular one (a pipe would wait for ever), empty, or too large.
    """
    file = Path(path)
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PickleError(f"{path}: not a regular file")
        if status.st_size > max_bytes:
            raise PickleError(f"{path}: {status.st_size} bytes; at most {max_bytes} are read")
        if not status.st_size:
            raise PickleError(f"{path}: the file is empty (0 bytes)")
        with file.open("rb") as opened:
            return opened.read(max_bytes)
    except OSError as error:
        raise PickleError(f"{path}: {error.strerror or one_line(error)}") from None


def _check_result(value: object) -> None:
    """Refuses a value that is too deep, circular or too large, or not data (a bare name, an empty array).

    With a queue, not by recursion: the depth comes from the file.

    Raises:
        PickleError: The value is refused.
    """
    waiting: list[tuple[object, int]] = [(value, 0)]
    count = 0
    while waiting:
        item, depth = waiting.pop()
        count += 1
        if isinstance(item, dict):
            children: Iterable[object] = item.values()
        elif isinstance(item, (list, tuple)):
            children = item
        elif isinstance(item, (np.ndarray, np.generic, *_LEAVES)):
            continue
        elif isinstance(item, Named):
            raise PickleError(f"it holds {item.name} itself, which is not data")
        else:
            raise PickleError("it holds an array or a dtype without content")
        if depth >= MAX_DEPTH:
            raise PickleError(f"containers in containers, more than {MAX_DEPTH} deep")
        count += len(item)
        if count > MAX_VALUES:
            raise PickleError(f"more than {MAX_VALUES} values, counted as often as they are referred to")
        # Leaves stay out of the queue: they are most of the values.
        waiting.extend((child, depth + 1) for child in children if not isinstance(child, _LEAVES))


class _Machine:
    """The pickle machine: a stack, the positions of marks on it, and a memo."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        # Calls copy texts and bytes: one long text in the memo could be copied a million times.
        self.budget_bytes = 4 * len(data) + 1000

    def run(self) -> object:
        """Interprets the pickle up to its STOP; returns the value on top."""
        data, end = self.data, len(self.data)
        handlers = _HANDLERS
        for _ in range(MAX_INSTRUCTIONS):
            if self.position >= end:
                raise PickleError("it ends too early")
            code = data[self.position]
            self.position += 1
            if code == _STOP:
                return self.stack.pop()
            handler = handlers.get(code)
            if handler is None:
                _refuse_code(code)
            handler(self)
        raise PickleError(f"more than {MAX_INSTRUCTIONS} instructions")

    # Reading the arguments of an instruction.

    def take(self, count: int) -> bytes:
        """The next `count` bytes; a length beyond the end allocates nothing."""
        start = self.position
        if count > len(self.data) - start:
            raise PickleError(f"{count} bytes are announced, {len(self.data) - start} follow")
        self.position = start + count
        return self.data[start : start + count]

    def number(self, size: int) -> int:
        """An unsigned little-endian number of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def line(self) -> bytes:
        """The text up to the next line feed."""
        stop = self.data.find(b"\n", self.position)
        if stop < 0:
            raise PickleError("a line without an end")
        text = self.data[self.position : stop]
        self.position = stop + 1
        return text

    def number_line(self) -> bytes:
        """The digits up to the next line feed."""
        text = self.line()
        if len(text) > MAX_DIGITS:
            raise PickleError(f"a number of {len(text)} digits")
        return text

    def spend(self, values: tuple[object, ...]) -> None:
        """Counts the texts and bytes that a call may copy."""
        self.budget_bytes -= sum(len(value) for value in values if isinstance(value, (str, bytes, bytearray)))
        if self.budget_bytes < 0:
            raise PickleError("its calls copy more than four times its size")

    def since_mark(self) -> list[object]:
        """Removes the values above the last mark from the stack and returns them."""
        if not self.marks:
            raise PickleError("a mark is missing")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    # Instructions.

    def push(self, value: object) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def pop(self) -> None:
        # POP removes a mark where one is on top.
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def protocol(self) -> None:
        version = self.number(1)
        if version > HIGHEST_PROTOCOL:
            raise PickleError(f"protocol {version}; 0 to {HIGHEST_PROTOCOL} are read")

    def frame(self) -> None:
        length = self.number(8)
        if length > len(self.data) - self.position:
            raise PickleError(f"a frame of {length} bytes, {len(self.data) - self.position} follow")

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        value = self.memo[index]
        # Put before its BUILD: the memo has the placeholder of an array that is complete by now.
        if isinstance(value, EmptyArray) and value.value is not None:
            value = value.value
        self.stack.append(value)

    def integer_text(self, *, is_long: bool) -> None:
        text = self.number_line()
        if text in (b"00", b"01") and not is_long:  # how protocol 0 writes False and True
            self.push(text == b"01")
            return
        self.push(int(text.removesuffix(b"L")))

    def integer_bytes(self, size_bytes: int) -> None:
        size = self.number(size_bytes)
        if size > MAX_INTEGER_BYTES:
            raise PickleError(f"an integer of {size} bytes")
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def string_text(self) -> None:
        text = self.line().strip()
        if len(text) < 2 or text[:1] not in (b"'", b'"') or text[-1:] != text[:1]:
            raise PickleError("a string without quotation marks")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an escape that Python does not know: no pickler wrote it
            try:
                content, _ = codecs.escape_decode(text[1:-1])
            except DeprecationWarning:
                raise PickleError("a string with an unknown escape") from None
        self.push(content.decode("latin-1"))

    def text(self, size_bytes: int) -> None:
        self.push(str(self.take(self.number(size_bytes)), "utf-8", "surrogatepass"))

    def dictionary(self) -> None:
        values = self.since_mark()
        target: dict[object, object] = {}
        self.push(target)
        _set_items(target, values)

    def set_items(self, values: list[object]) -> None:
        target = self.stack[-1]
        if type(target) is not dict:
            raise PickleError("items for something other than a dictionary")
        _set_items(target, values)

    def set_item(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self.set_items([key, value])

    def append(self, values: list[object]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise PickleError("elements for something other than a list")
        target.extend(values)

    def append_one(self) -> None:
        value = self.stack.pop()
        self.append([value])

    def tuple_of(self, count: int) -> None:
        if count > len(self.stack):
            raise PickleError("the stack is empty")
        values = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.push(values)

    def name_in_lines(self) -> None:
        module, name = self.line(), self.line()
        self.push(_look_up(module.decode("utf-8"), name.decode("utf-8")))

    def name_on_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise PickleError("a name that is not a text")
        self.push(_look_up(module, name))

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Named) or type(arguments) is not tuple:
            raise PickleError("a call of something other than NumPy's constructors")
        self.spend(arguments)
        self.push(CALLS[function.name](*arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(state) is not tuple:
            raise PickleError("a state that NumPy does not write")
        self.spend(state)
        if isinstance(target, Dtype):
            set_byte_order(target, state)
        elif isinstance(target, EmptyArray) and target.value is None:
            target.value = self.stack[-1] = filled_array(state)
        else:
            raise PickleError(f"a state for {type(target).__name__.strip('_')}")


def _refuse_code(code: int) -> NoReturn:
    names = {ord(op.code): op.name for op in pickletools.opcodes}
    raise PickleError(f"instruction {names[code]}" if code in names else f"no instruction: byte {code:#04x}")


def _look_up(module: str, name: str) -> Named:
    named = _NAMES.get((module, name))
    if named is None:
        raise PickleError(f"it names {shown(module)}.{shown(name)}, which is not plain data")
    return named


def _set_items(target: dict[object, object], values: list[object]) -> None:
    if len(values) % 2:
        raise PickleError("a key without a value")
    for key, value in zip(values[::2], values[1::2], strict=True):
        is_small = isinstance(key, int) and -MAX_KEY < key < MAX_KEY
        if not (type(key) in (str, bytes, type(None)) or is_small):
            raise PickleError(f"a {type(key).__name__.strip('_')} as key of a dictionary")
        target[key] = value


_STOP = ord(".")
_HANDLERS: dict[int, Callable[[_Machine], None]] = {
    code[0]: handler
    for code, handler in {
        b"\x80": _Machine.protocol,
        b"\x95": _Machine.frame,
        # Memo.
        b"p": lambda m: m.put(int(m.number_line())),
        b"q": lambda m: m.put(m.number(1)),
        b"r": lambda m: m.put(m.number(4)),
        b"\x94": lambda m: m.put(len(m.memo)),
        b"g": lambda m: m.get(int(m.number_line())),
        b"h": lambda m: m.get(m.number(1)),
        b"j": lambda m: m.get(m.number(4)),
        # Stack.
        b"(": _Machine.mark,
        b"0": _Machine.pop,
        b"1": lambda m: m.since_mark().clear(),
        b"2": lambda m: m.push(m.stack[-1]),
        # Numbers and constants.
        b"N": lambda m: m.push(None),
        b"\x88": lambda m: m.push(True),
        b"\x89": lambda m: m.push(False),
        b"I": lambda m: m.integer_text(is_long=False),
        b"L": lambda m: m.integer_text(is_long=True),
        b"J": lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True)),
        b"K": lambda m: m.push(m.number(1)),
        b"M": lambda m: m.push(m.number(2)),
        b"\x8a": lambda m: m.integer_bytes(1),
        b"\x8b": lambda m: m.integer_bytes(4),
        b"F": lambda m: m.push(float(m.number_line())),
        b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
        # Texts and bytes.
        b"S": _Machine.string_text,
        b"T": lambda m: m.push(m.take(m.number(4)).decode("latin-1")),
        b"U": lambda m: m.push(m.take(m.number(1)).decode("latin-1")),
        b"V": lambda m: m.push(m.line().decode("raw-unicode-escape")),
        b"X": lambda m: m.text(4),
        b"\x8c": lambda m: m.text(1),
        b"\x8d": lambda m: m.text(8),
        b"B": lambda m: m.push(m.take(m.number(4))),
        b"C": lambda m: m.push(m.take(m.number(1))),
        b"\x8e": lambda m: m.push(m.take(m.number(8))),
        b"\x96": lambda m: m.push(bytearray(m.take(m.number(8)))),
        # Containers.
        b"]": lambda m: m.push([]),
        b"}": lambda m: m.push({}),
        b")": lambda m: m.push(()),
        b"l": lambda m: m.push(m.since_mark()),
        b"t": lambda m: m.push(tuple(m.since_mark())),
        b"d": _Machine.dictionary,
        b"\x85": lambda m: m.tuple_of(1),
        b"\x86": lambda m: m.tuple_of(2),
        b"\x87": lambda m: m.tuple_of(3),
        b"a": _Machine.append_one,
        b"e": lambda m: m.append(m.since_mark()),
        b"s": _Machine.set_item,
        b"u": lambda m: m.set_items(m.since_mark()),
        # Names and what is made by them.
        b"c": _Machine.name_in_lines,
        b"\x93": _Machine.name_on_stack,
        b"R": _Machine.reduce,
        b"b": _Machine.build,
    }.items()
}
