"""One log file a day for all emotion programs, and the same lines on the console.

    2025-11-30 14:23:45 - emotion.main - INFO - 🔧 하이퍼파라미터 설정:

The file is `<LOG_DIR>/app_YYYY_MM_DD.log`; at midnight the next one begins. Several programs and processes
may write to it at once; form and writing of the lines are those of log.txt (`facevox.logs`). Frames and
pictures are never logged.
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

from facevox.logs import LineFileHandler, LineFormatter, replace_handlers

PACKAGE = "emotion"
CONSOLE_LINES = 1000  # kept for a console that takes nothing
CONSOLE_S = 1.0  # for them at the end of the program
HYPERPARAMETER_TITLE = "🔧 하이퍼파라미터 설정:"


class DailyFileHandler(LineFileHandler):
    """Appends each record to the `app_YYYY_MM_DD.log` of its day.

    Args:
        log_dir: Folder of the files; made if it is missing.

    Raises:
        OSError: The folder cannot be made or written.
    """

    def __init__(self, log_dir: Path) -> None:
        super().__init__(log_dir)
        self._log_dir = log_dir
        log_dir.mkdir(parents=True, exist_ok=True)
        self.open_at(time.time())  # an unwritable folder is reported now, not at the first line

    def _file_at(self, time_s: float) -> Path:
        return self._log_dir / time.strftime("app_%Y_%m_%d.log", time.localtime(time_s))


class ConsoleHandler(logging.Handler):
    """Writes to the present stderr, which is exchanged while native libraries are silenced."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(LineFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the record; a closed stderr is no reason to stop."""
        with contextlib.suppress(OSError, ValueError):
            print(self.format(record), file=sys.stderr, flush=True)


class UnawaitedConsoleHandler(logging.handlers.QueueHandler):
    """Writes to stderr in a separate thread, for servers: a paused terminal must not stop any client.

    Lines beyond CONSOLE_LINES that the terminal does not take are dropped; the file has them.
    """

    def __init__(self) -> None:
        self._lines: queue.Queue[logging.LogRecord | None] = queue.Queue(CONSOLE_LINES)
        super().__init__(self._lines)
        self._line_formatter = LineFormatter()
        self._thread = threading.Thread(target=self._write, name="console", daemon=True)
        self._thread.start()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queues the record, or drops it."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(record)

    def _write(self) -> None:
        while (record := self._lines.get()) is not None:
            line = self._line_formatter.format(record) + "\n"
            # Past Python's buffer: a thread that waits in there at the end would abort the process.
            with contextlib.suppress(
                OSError, ValueError, AttributeError
            ):  # AttributeError: there is no stderr
                os.write(sys.stderr.fileno(), line.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Writes the queued records, for CONSOLE_S at most."""
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
        is_console_awaited: False: a console that takes nothing loses lines, instead of delaying the program.

    Raises:
        OSError: The folder cannot be made or written.
    """
    console = ConsoleHandler() if is_console_awaited else UnawaitedConsoleHandler()
    replace_handlers(PACKAGE, [DailyFileHandler(log_dir), console], level)


def get_logger(program: str) -> logging.Logger:
    """The logger of a program: `get_logger("main")` writes as `emotion.main`.

    By this name, because `__name__` is `__main__` in a program that was started as a script.
    """
    return logging.getLogger(f"{PACKAGE}.{program}")


def log_hyperparameters(logger: logging.Logger, values: Mapping[str, object]) -> None:
    """Logs the block with which training begins: a title, then a line for each value.

    True and False become ✅ 활성화 and ❌ 비활성화.
    """
    logger.info(HYPERPARAMETER_TITLE)
    for name, value in values.items():
        if isinstance(value, bool):
            value = "✅ 활성화" if value else "❌ 비활성화"
        logger.info("   - %s: %s", name, value)
