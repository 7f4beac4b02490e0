"""The person in a face picture, by the table that face deduplication writes (`groups.csv`)."""

from __future__ import annotations

import csv
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from facevox.errors import UserError
from facevox.spreadsheets import TableReader

COLUMNS = ("file", "group")


@dataclass(frozen=True)
class _Row:
    identity: str  # "" where the row has no person
    reason: str


class IdentityTable:
    """The rows of a groups.csv by file."""

    def __init__(self, path: str | Path) -> None:
        """Reads the table.

        Raises:
            UserError: The file is missing or not such a table, or a picture is in two groups.
        """
        self.path = Path(path)
        self._rows: dict[str, _Row] = {}
        try:
            with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                reader = TableReader(file)
                missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
                if missing:
                    raise UserError(
                        f"--identity_csv {path}: no column {' and '.join(missing)} (there are: "
                        f"{', '.join(reader.fieldnames or ()) or 'none'}); a groups.csv is expected"
                    )
                for row in reader:
                    self._add(row, reader.line_num)
        except FileNotFoundError:
            raise UserError(f"--identity_csv {path}: no such file") from None
        except IsADirectoryError:
            raise UserError(f"--identity_csv {path}: is a folder; give the groups.csv in it") from None
        except csv.Error as error:
            raise UserError(f"--identity_csv {path}: not a table: {error}") from None
        if not self._rows:
            raise UserError(f"--identity_csv {path}: holds no rows")

    def _add(self, row: Mapping[str, str | None], line: int) -> None:
        file, status = row["file"] or "", row.get("status") or "done"
        # The group's number changes when faces are added; its representative seldom does.
        leader = PurePosixPath(row.get("representative") or "")
        person = str(leader.with_suffix("")) if leader.name else row["group"] or ""
        identity = person if status == "done" else ""
        reason = "" if identity else f"{status}: {row.get('reason') or 'no group'}"
        key = _composed(PurePosixPath(file).as_posix())
        earlier = self._rows.setdefault(key, _Row(identity, reason))
        if earlier.identity != identity:
            raise UserError(
                f"--identity_csv {self.path}:{line}: {file} is in two groups, of "
                f"{earlier.identity or 'nobody'} and of {identity or 'nobody'}"
            )

    def lookup_for(self, faces: Sequence[tuple[Path, str]]) -> Lookup:
        """The lookup of faces in the table, the same for all: or a face could be taken for another's.

        The table's files are absolute, or relative to one folder: to that of the folders above the faces by
        which most of them are found; of equals the image folder. Where none is found, files match by stem.

        Args:
            faces: (path, path below the image folder or as a list has it) of each.
        """
        num_by_name = sum(self._by_name(*face) is not None for face in faces)
        # By the depth of a folder: the number of faces whose path below that folder is in the table.
        counts = Counter(
            depth
            for path, _ in faces
            for depth, name in enumerate(_names_below_folders(path))
            if name in self._rows
        )
        if not num_by_name and not counts:
            return Lookup(self, self._by_stem)
        depth, most = min(counts.items(), key=lambda item: (-item[1], item[0]), default=(0, 0))
        if num_by_name >= most:
            return Lookup(self, self._by_name)
        return Lookup(self, lambda path, name: self._below(path, depth))

    def _by_name(self, path: Path, name: str) -> _Row | None:
        return self._rows.get(_composed(name))

    def _below(self, path: Path, depth: int) -> _Row | None:
        names = _names_below_folders(path)
        return self._rows.get(names[depth]) if depth < len(names) else None

    def _by_stem(self, path: Path, name: str) -> _Row | None:
        return self._rows_by_stem.get(_composed(path.stem))

    @cached_property
    def _rows_by_stem(self) -> dict[str, _Row]:
        """The rows whose stem no other file has."""
        counts = Counter(PurePosixPath(file).stem for file in self._rows)
        return {
            stem: row for file, row in self._rows.items() if counts[stem := PurePosixPath(file).stem] == 1
        }


def _names_below_folders(path: Path) -> list[str]:
    """The absolute path, and the path relative to each of its folders, from the root on."""
    whole = _composed(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links
    parts = PurePosixPath(whole).parts
    return [whole, *("/".join(parts[start:]) for start in range(1, len(parts)))]


class Lookup:
    """One way to look up faces in a table."""

    def __init__(self, table: IdentityTable, find: Callable[[Path, str], _Row | None]) -> None:
        self._table = table
        self._find = find

    def identity(self, path: Path, name: str) -> str | None:
        """The person's name; None where the table has none for this face."""
        row = self._find(path, name)
        return row.identity or None if row else None

    def missing_reason(self, path: Path, name: str) -> str:
        """Reason why `identity` is None."""
        row = self._find(path, name)
        reason = f"in {self._table.path} it is {row.reason}" if row else f"it is not in {self._table.path}"
        return f"no identity: {reason}"


def _composed(name: str) -> str:
    # One Unicode form: macOS decomposes what Linux and archives keep composed.
    return unicodedata.normalize("NFC", name)
