"""Progress of long work: a bar on a terminal, plain lines in a log."""

import logging
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from tqdm import tqdm as Bar

logger = logging.getLogger(__name__)
LINE_EVERY_S = 10.0  # in a log file; a night's run gives some thousand lines


def duration_text(seconds: float) -> str:
    """A readable duration: "42 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class _Stderr:
    """The current stderr, which is replaced while native libraries are silenced."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def fileno(self) -> int:
        return sys.stderr.fileno()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


class Progress:
    """Counts items and shows rate and remaining time; a context manager.

    Shown where this module's logger is enabled for INFO, as in programs, and not inside another one.

    Args:
        total: Number of items.
        label: Name of the work, at the start of the line.
        unit: Name of an item.
    """

    _outermost: "Progress | None" = None

    @classmethod
    def is_wanted(cls) -> bool:
        """True if a new one would be shown."""
        return cls._outermost is None and logger.isEnabledFor(logging.INFO)

    def __init__(self, total: int, label: str, unit: str = "item") -> None:
        self.count = 0
        self.total = total
        self._label = label
        self._unit = unit
        self._note = ""
        self._start_s = self._last_line_s = time.monotonic()
        self._bar: Bar[NoReturn] | None = None
        self._is_shown = self.is_wanted()
        if self._is_shown and sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=label, unit=unit, dynamic_ncols=True, file=_Stderr())

    def update(self, count: int = 1, note: str = "") -> None:
        """Adds finished items; `note` (failures, a loss) is shown after the count."""
        self.count += count
        self._note = note
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif self._is_shown and time.monotonic() - self._last_line_s >= LINE_EVERY_S:
            self._print_line()

    def _print_line(self) -> None:
        now_s = self._last_line_s = time.monotonic()
        rate_hz = self.count / max(now_s - self._start_s, 1e-9)
        remaining = duration_text((self.total - self.count) / rate_hz) if rate_hz > 0 else "?"
        share = 100 * self.count / max(self.total, 1)
        note = f", {self._note}" if self._note else ""
        line = f"{self._label}: {self.count}/{self.total} {self._unit}s ({share:.0f} %), {rate_hz:.1f}/s, "
        print(f"{line}{remaining} left{note}", file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        Progress._outermost = Progress._outermost or self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if Progress._outermost is self:
            Progress._outermost = None
        if self._bar is not None:
            self._bar.close()
