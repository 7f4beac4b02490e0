"""One log file a day for all emotion programs, and the same lines on the console.

    2025-11-30 14:23:45 - emotion.main - INFO - 🔧 하이퍼파라미터 설정:

The file is `<LOG_DIR>/app_YYYY_MM_DD.log`. Several programs and processes may write to it at once: every line
goes out in one write to a descriptor opened for appending, so lines never mix. At midnight the next file
begins. A text of several lines (a traceback, a hostile file name) gets the prefix on each line, so that
nothing can pass itself off as a line of its own. Frames and pictures are never logged.
"""

import contextlib
import logging
import logging.handlers
import os
import queue
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

PACKAGE = "emotion"
CONSOLE_LINES = 1000  # that wait for a console which nobody reads
CONSOLE_S = 1.0  # that the end of the program waits for it
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
HYPERPARAMETER_TITLE = "🔧 하이퍼파라미터 설정:"


class LineFormatter(logging.Formatter):
    """The documented line; each further line of a text with the same prefix."""

    def __init__(self) -> None:
        super().__init__(datefmt=TIME_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        """One line, or several of the same time, without an end of line."""
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        prefix = f"{self.formatTime(record, TIME_FORMAT)} - {record.name} - {record.levelname} - "
        return "\n".join(prefix + line for line in text.splitlines() or [""])


class DailyFileHandler(logging.Handler):
    """Appends to `app_YYYY_MM_DD.log` of the day on which a record was made.

    Args:
        log_dir: Folder of the files; made where it is missing.
    """

    def __init__(self, log_dir: Path) -> None:
        super().__init__()
        self.log_dir = log_dir
        self._day = ""
        self._descriptor = -1
        self._has_failed = False
        self.setFormatter(LineFormatter())
        log_dir.mkdir(parents=True, exist_ok=True)
        self._open(_day_of(time.time()))  # an unwritable folder is told now, not at the first line

    def _open(self, day: str) -> None:
        descriptor = os.open(
            self.log_dir / f"app_{day}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644
        )
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._day = descriptor, day

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the record; a disk that is full is told once on stderr and stops nothing."""
        try:
            line = self.format(record) + "\n"
            day = _day_of(record.created)
            if day != self._day:
                self._open(day)
            # One write: what several processes append at the same time stays whole.
            os.write(self._descriptor, line.encode("utf-8", "backslashreplace"))
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                print(
                    f"warning: {self.log_dir}: the log cannot be written: {error.strerror}", file=sys.stderr
                )

    def close(self) -> None:
        """Closes the file."""
        self.acquire()
        try:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor, self._day = -1, ""
        finally:
            self.release()
        super().close()


class ConsoleHandler(logging.Handler):
    """Writes to the stderr of the moment: it is exchanged while native libraries are silenced."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(LineFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the record; a closed stderr is no reason to stop."""
        with contextlib.suppress(OSError, ValueError):
            print(self.format(record), file=sys.stderr, flush=True)


class UnawaitedConsoleHandler(logging.handlers.QueueHandler):
    """Writes to stderr in a thread of its own, for servers: a terminal that was paused must stop no client.

    Lines beyond CONSOLE_LINES that nobody reads are dropped; the file has them.
    """

    def __init__(self) -> None:
        self._lines: queue.Queue[logging.LogRecord | None] = queue.Queue(CONSOLE_LINES)
        super().__init__(self._lines)
        self._line_formatter = LineFormatter()
        self._thread = threading.Thread(target=self._write, name="console", daemon=True)
        self._thread.start()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Hands the record on, or drops it."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(record)

    def _write(self) -> None:
        while (record := self._lines.get()) is not None:
            line = self._line_formatter.format(record) + "\n"
            # Past Python's own buffer: a thread that waited in there at the end would abort the process.
            with contextlib.suppress(OSError, ValueError, AttributeError):  # the last: there is no stderr
                os.write(sys.stderr.fileno(), line.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Writes what waits, for CONSOLE_S at most."""
        end_s = time.monotonic() + CONSOLE_S
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=CONSOLE_S)
        self._thread.join(max(end_s - time.monotonic(), 0))
        super().close()


def setup_logging(log_dir: Path, level: int = logging.INFO, *, is_console_awaited: bool = True) -> None:
    """Sends all of the package's loggers to the day's file and the console; a second call replaces the first.

    Args:
        log_dir: LOG_DIR.
        level: Records below it are dropped.
        is_console_awaited: False: a console that takes nothing more loses lines and holds nothing up.

    Raises:
        OSError: The folder cannot be made or written.
    """
    console = ConsoleHandler() if is_console_awaited else UnawaitedConsoleHandler()
    handlers = [DailyFileHandler(log_dir), console]
    logger = logging.getLogger(PACKAGE)
    for former in list(logger.handlers):
        logger.removeHandler(former)
        former.close()
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False  # TensorFlow and uvicorn put handlers of their own on the root


def get_logger(program: str) -> logging.Logger:
    """The logger of a program: `get_logger("main")` writes as `emotion.main`.

    By name, because `__name__` is `__main__` in a program that was started as a script.
    """
    return logging.getLogger(f"{PACKAGE}.{program}")


def log_hyperparameters(logger: logging.Logger, values: Mapping[str, object]) -> None:
    """The block with which training begins: a title, then a line for each value.

    Yes and no are written as ✅ 활성화 and ❌ 비활성화.
    """
    logger.info(HYPERPARAMETER_TITLE)
    for name, value in values.items():
        if isinstance(value, bool):
            value = "✅ 활성화" if value else "❌ 비활성화"
        logger.info("   - %s: %s", name, value)


def _day_of(time_s: float) -> str:
    return time.strftime("%Y_%m_%d", time.localtime(time_s))
