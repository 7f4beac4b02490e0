"""Silences the native libraries that our programs use."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO, cast

from facevox.streams import PlainStream


@contextlib.contextmanager
def native_silence() -> Iterator[None]:
    """Discards the output of native code on the process's stderr; Python's own stderr keeps working.

    MediaPipe, TensorFlow Lite and codecs write start-up notes that no setting turns off. Our own lines go
    to a copy of the stream. Has no effect where FACEVOX_NATIVE_LOG is set, for the search for a crash.
    """
    if os.environ.get("FACEVOX_NATIVE_LOG"):
        yield
        return
    try:
        original = os.dup(2)
    except OSError:  # started with stderr closed
        yield
        return
    python_stderr = sys.stderr
    uses_descriptor = python_stderr is not None and _descriptor(python_stderr) == 2
    sink = os.open(os.devnull, os.O_WRONLY)
    copy = plain = None
    if uses_descriptor:
        python_stderr.flush()
        copy = os.fdopen(os.dup(original), "w", buffering=1, errors="backslashreplace")
        sys.stderr = plain = cast(TextIO, PlainStream(copy, "\n\t\r"))
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)
        os.close(sink)
        if copy is not None and plain is not None:
            plain.flush()
            if sys.stderr is plain:  # a generator that is dropped may end here long after others started
                sys.stderr = python_stderr
            copy.close()


def _descriptor(stream: TextIO) -> int:
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):  # a notebook's or a test's stream has none
        return -1
