"""The silence of the native libraries below our programs."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def native_silence() -> Iterator[None]:
    """Drops what native code writes to the process's stderr; Python's own stderr keeps working.

    MediaPipe, TensorFlow Lite and codecs write start-up notes that no setting turns off. Our own lines go
    to a copy of the stream. A no-op where FACEVOX_NATIVE_LOG is set, for hunting a crash.
    """
    if os.environ.get("FACEVOX_NATIVE_LOG"):
        yield
        return
    try:
        kept = os.dup(2)
    except OSError:  # started with stderr closed
        yield
        return
    python_stderr = sys.stderr
    uses_descriptor = python_stderr is not None and _descriptor(python_stderr) == 2
    sink = os.open(os.devnull, os.O_WRONLY)
    copy = None
    if uses_descriptor:
        python_stderr.flush()
        sys.stderr = copy = os.fdopen(os.dup(kept), "w", buffering=1, errors="backslashreplace")
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)
        if copy is not None:
            if sys.stderr is copy:  # a generator that is dropped may end here long after others began
                sys.stderr = python_stderr
            copy.close()


def _descriptor(stream: object) -> int:
    try:
        return stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return -1
