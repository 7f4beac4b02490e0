"""Standard streams that are closed or broken: results are files, and no run ends for lack of a reader.

A stream that was closed when the program started is the null device, before the program opens any file: the
system gives the lowest free number to a file, and what is written to number 1 or 2 would be written into it.
A stream that breaks (`| head -1`, a full disk) becomes the null device, and the work continues.
"""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from facevox.errors import printable


def open_closed() -> None:
    """Opens the null device on those of the descriptors 0, 1 and 2 that are closed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # at the lowest free number: this one
            stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


class PlainStream:
    """A stream that shows control characters as escapes, and drops what cannot be written.

    Args:
        stream: The stream.
        keep: Control characters that stay.
    """

    def __init__(self, stream: TextIO, keep: str) -> None:
        self._stream, self._keep = stream, keep

    def write(self, text: str) -> int:
        """Writes the text, with escapes for its control characters."""
        with self._until_broken():
            self._stream.write(printable(text, self._keep))
        return len(text)

    def flush(self) -> None:
        """Writes what is waiting."""
        with self._until_broken():
            self._stream.flush()

    @contextlib.contextmanager
    def _until_broken(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with contextlib.suppress(OSError, ValueError):
                number = self._stream.fileno()
                sink = os.open(os.devnull, os.O_WRONLY)
                os.dup2(sink, number, inheritable=number <= 2)
                os.close(sink)
                self._stream.flush()
            is_reader_gone = error.errno == errno.EPIPE
            if sys.stdout is self and not is_reader_gone:
                line = f"warning: stdout: {error.strerror}; what follows is not shown, the work continues\n"
                sys.stderr.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def plain_streams() -> Iterator[None]:
    """Makes stdout and stderr plain while the block lasts."""
    stdout = PlainStream(sys.stdout or io.StringIO(), "\n\t")  # None: a program without a console
    stderr = PlainStream(sys.stderr or io.StringIO(), "\n\t\r")  # \r: of a bar
    with contextlib.redirect_stdout(cast(TextIO, stdout)), contextlib.redirect_stderr(cast(TextIO, stderr)):
        try:
            yield
        finally:
            stdout.flush()
            stderr.flush()
