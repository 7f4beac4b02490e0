"""Logging: the console output of programs, and the log.txt of a folder of results.

Libraries write to `logging.getLogger(__name__)` and set nothing up, so that the importing program decides:
`logging.getLogger("lc_pytorch").setLevel(logging.INFO)`. In programs `cli.run` shows messages on stdout and
warnings on stderr. Details (DEBUG: each epoch) go to log.txt only:

    2025-11-30 14:23:45 - facevox.training.trainer - DEBUG - epoch 3 of 20: step 300, train_loss 1.24
"""

import contextlib
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from facevox.errors import UserError, one_line, printable

PACKAGES = ("facevox", "facevox_demo", "lc_pytorch", "lipsync", "emotion")
LOG_FILE = "log.txt"
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"


class LineFormatter(logging.Formatter):
    """Formats time, logger, level and text, in one line; each line of a traceback gets the same prefix.

    So neither a traceback nor a hostile file name can imitate another log line.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line, or several of the same time, without a final line break."""
        lines = [record.getMessage()]
        if record.exc_info:
            lines += self.formatException(record.exc_info).splitlines()
        prefix = f"{self.formatTime(record, TIME_FORMAT)} - {record.name} - {record.levelname} - "
        return "\n".join(prefix + printable(line) for line in lines)


class LineFileHandler(logging.Handler):
    """Appends each record to a file at once; a full disk is reported once on stderr and stops nothing.

    Args:
        file: The file; its folder exists.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.setFormatter(LineFormatter())
        self._file = file
        self._descriptor = -1
        self._has_failed = False
        self._process = os.getpid()

    def _file_at(self, time_s: float) -> Path:
        """The file for a time; a subclass may start new ones."""
        return self._file

    def open_at(self, time_s: float) -> None:
        """Opens the file for a time, if it is not open yet.

        Raises:
            OSError: It cannot be written.
        """
        file = self._file_at(time_s)
        if self._descriptor >= 0 and file == self._file:
            return
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._file = descriptor, file

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the record; does nothing in a forked process, which inherits the handler."""
        if os.getpid() != self._process:
            return
        try:
            self.open_at(record.created)
            line = self.format(record) + "\n"
            # One write call: lines that several processes append at the same time stay whole.
            os.write(self._descriptor, line.encode("utf-8", "backslashreplace"))
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                text = f"warning: {self._file}: the log cannot be written: {error.strerror}"
                print(text, file=sys.stderr)

    def close(self) -> None:
        """Closes the file."""
        self.acquire()
        try:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = -1
        finally:
            self.release()
        super().close()


class ConsoleHandler(logging.Handler):
    """Shows the bare text on the current stdout and stderr, which `native_silence` may have replaced."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the record; in programs `facevox.streams` drops what a broken stream does not take."""
        if record.levelno < logging.WARNING:
            print(printable(record.getMessage()))
            return
        with contextlib.suppress(OSError, ValueError):  # a closed stderr is no reason to stop
            print(
                f"{record.levelname.lower()}: {printable(record.getMessage())}", file=sys.stderr, flush=True
            )


def show_on_console() -> None:
    """Shows the log messages of all packages on the console; also useful in notebooks."""
    for name in PACKAGES:
        replace_handlers(name, [ConsoleHandler()], logging.DEBUG)


def replace_handlers(name: str, handlers: list[logging.Handler], level: int) -> None:
    """Gives a logger these handlers, and closes its former ones.

    Nothing is passed to the root logger, where TensorFlow, absl and uvicorn add their own handlers.
    """
    logger = logging.getLogger(name)
    for former in list(logger.handlers):
        logger.removeHandler(former)
        former.close()
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False


@contextlib.contextmanager
def on_console() -> Iterator[None]:
    """Shows the log messages of all packages on the console while the block lasts."""
    former = []
    for logger in map(logging.getLogger, PACKAGES):
        former.append((logger, list(logger.handlers), logger.level, logger.propagate))
        logger.handlers.clear()
    show_on_console()
    try:
        yield
    finally:
        for logger, handlers, level, propagate in former:
            replace_handlers(logger.name, handlers, level)
            logger.propagate = propagate


@contextlib.contextmanager
def log_file(file: Path) -> Iterator[None]:
    """Appends the log messages of all packages to `file` while the block lasts, with its command and error.

    Only the process that enters it writes. A file that cannot be written is reported once.

    Args:
        file: The log; its folder exists.
    """
    handler = LineFileHandler(file)

    def write(level: int, text: str, error: BaseException | None = None) -> None:
        trace = (type(error), error, error.__traceback__) if error else None
        handler.handle(logging.LogRecord(__name__, level, __file__, 0, text, None, trace))

    write(logging.INFO, f"started on {os.uname().nodename}, process {os.getpid()}: {shlex.join(sys.argv)}")
    for name in PACKAGES:
        logging.getLogger(name).addHandler(handler)
    try:
        yield
    except BaseException as error:
        has_trace = isinstance(error, Exception) and not isinstance(error, (UserError, OSError))
        write(logging.ERROR, f"ended: {one_line(error, limit=2000)}", error if has_trace else None)
        raise
    finally:
        for name in PACKAGES:
            logging.getLogger(name).removeHandler(handler)
        handler.close()
