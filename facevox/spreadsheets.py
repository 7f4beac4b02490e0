"""Tables that spreadsheet programs may open: no text in them begins as a formula does.

With `--spreadsheet_safe` an apostrophe is put before such texts (a file may be named `=HYPERLINK(…).mp4`),
and the table gets a column of that name. `TableReader` takes the apostrophes off again.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from facevox.errors import UserError

if TYPE_CHECKING:
    _Reader = csv.DictReader[str]
else:
    _Reader = csv.DictReader

COLUMN = "spreadsheet_safe"
HELP = "put an apostrophe before texts of the table that a spreadsheet program would compute"
# With the text's own apostrophes: it gets another one, which the reader takes off, and keeps these.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|inf|nan)")


def safe_cell(value: object) -> object:
    """The value, with an apostrophe before a text that would be computed; numbers stay."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return "'" + value
    return value


def safe_rows(rows: Iterable[Sequence[object]]) -> Iterator[list[object]]:
    """The rows of a safe table, the header first, with its column."""
    for number, row in enumerate(rows):
        yield [*map(safe_cell, row), 1 if number else COLUMN]


class TableReader(_Reader):
    """The rows of a table, as they are without `--spreadsheet_safe` too."""

    def __init__(self, lines: Iterable[str]) -> None:
        super().__init__(lines)
        self._name = getattr(lines, "name", "")

    def __next__(self) -> dict[str, str]:
        """The next row.

        Raises:
            UserError: It is none, as of a file of another kind.
            csv.Error: The same, of lines without a file.
        """
        try:
            row = super().__next__()
            if any("\0" in value for value in row.values() if isinstance(value, str)):
                raise csv.Error("a NUL character, which no name of a file has")
        except csv.Error as error:
            if not self._name:
                raise
            raise UserError(f"{self._name}: not a table after line {self.line_num}: {error}") from None
        if COLUMN in row:
            return {name: _exact(value) for name, value in row.items() if name != COLUMN}
        return row


def _exact(value: str) -> str:
    is_safe = isinstance(value, str) and value.startswith("'") and _FORMULA.match(value)  # None: a short row
    return value[1:] if is_safe else value
