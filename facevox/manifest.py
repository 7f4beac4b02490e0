"""The one manifest format of all batch programs: an append-only record of the outcome of each item.

`<output_dir>/manifests/<program>.jsonl`, or `<program>.shard-0001-of-0004.jsonl` for a shard: UTF-8, one
JSON object a line.

- The first line is the header: `{"facevox_manifest": 1, "program", "settings", "table", "columns",
  "item_column", "overwrite"}`, for programs that read media also `"media_reader"`, and others that are new:
  `"implied"`, `"was_default"` (see `BatchConfig`).
- A line for each run that started: `{"run": {"started": true, "num_total", "inputs"}}`; `inputs` is a hash of
  the names of all items, whatever the shard. `"media_reader"` is the version of what was read from here on.
- A line for each finished item: `{"item", "status": "done"|"no_face"|"no_speech"|"left_out"|"failed",
  "reason", "outputs": [[path, bytes]], "rows": [{…}], "seconds", "fingerprint", "at": seconds since 1970}`.
  Of several lines of an item, also in several manifests of a folder, the newest counts.
- A line for each run that ended: `{"run": {"done", "skipped", "failed", "seconds", "stopped",
  "num_items", "complete"}}`, and `"no_face"` or `"no_speech"` with their numbers, where there are any.

Lines are appended as items finish, so a killed run loses at most the item it was working on; an incomplete
last line is cut off by the next run. Readers refuse an unknown format number.
"""

import contextlib
import csv
import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, NotRequired, TypedDict, cast

from facevox import spreadsheets
from facevox.errors import NoFaceError, NoSpeechError, UserError
from facevox.files import replacing
from facevox.naming import is_inside

logger = logging.getLogger(__name__)
FORMAT_VERSION = 1
LONG_VALUE = 60  # characters; longer settings are not shown
FOLDER = "manifests"
# How this process reads file names. In the locale C, with PYTHONUTF8=0, Python takes all letters but those of
# ASCII for bytes; manifests name files as they are in UTF-8.
_NAMES = "ascii" if sys.getfilesystemencoding() == "ascii" else "utf-8"
LEFT_OUT = "left_out"  # status of an item that was excluded: of another class, a copy
# Statuses of items that have no result and did not fail: nobody is in them, or they were excluded.
NOBODY = (NoFaceError.status, NoSpeechError.status, LEFT_OUT)
FINISHED = ("done", *NOBODY)  # statuses that the next run does not try again
_SHARD = re.compile(r"\.shard-(\d+)-of-(\d+)\.jsonl$")
# Keys that must agree between manifests that are continued or joined.
_IDENTITY = ("program", "settings", "table", "columns", "item_column")


class Header(TypedDict):
    """The first line of a manifest: the program and its settings."""

    facevox_manifest: int
    program: str
    settings: dict[str, object]
    table: str
    columns: list[str]
    item_column: str
    overwrite: bool
    implied: NotRequired[dict[str, object]]
    was_default: NotRequired[dict[str, object]]
    media_reader: NotRequired[int]


class Record(TypedDict):
    """A line about an item; see `facevox.workers.Outcome`. The keys of its rows are up to the program."""

    item: str
    status: str
    reason: str
    outputs: Sequence[tuple[str, int]]  # name and size; in JSON lists of two
    rows: Sequence[Mapping[str, Any]]
    seconds: float
    fingerprint: object
    at: NotRequired[float]


def manifest_file(output_dir: Path, program: str, shard_index: int = 0, num_shards: int = 1) -> Path:
    """Path of the manifest of a run."""
    shard = f".shard-{shard_index:04d}-of-{num_shards:04d}" if num_shards > 1 else ""
    return output_dir / FOLDER / f"{program}{shard}.jsonl"


def shard_of(path: Path) -> tuple[int, int]:
    """(shard index, number of shards) from a manifest's name; (0, 1) for a whole run."""
    match = _SHARD.search(path.name)
    return (int(match[1]), int(match[2])) if match else (0, 1)


def make_header(
    program: str,
    settings: Mapping[str, object],
    table: str,
    columns: Sequence[str],
    item_column: str,
    overwrite: bool = False,
    **further: object,
) -> Header:
    """The first line of a manifest, as reading it from JSON would give it (lists instead of tuples).

    `further` are those of the keys `implied`, `was_default` and `media_reader` that have a value.
    """
    header = {
        "facevox_manifest": FORMAT_VERSION,
        "program": program,
        "settings": settings,
        "table": table,
        "columns": list(columns),
        "item_column": item_column,
        "overwrite": overwrite,
        **{key: value for key, value in further.items() if value},
    }
    plain: Header = json.loads(json.dumps(header))
    return plain


@dataclass
class Manifest:
    """The content of one manifest file: the header, and the position of each item's last line.

    Only offsets are kept, so that a manifest of millions of rows needs little memory.
    """

    path: Path
    header: Header
    offsets: dict[str, int] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    media_readers: dict[str, int] = field(default_factory=dict)  # version by item; 1 where none is named
    inputs: str = ""  # hash of the names of all items, as the last run saw them
    is_complete: bool = False  # the last run came to its end
    end: int = 0  # bytes up to the last whole line

    def records(self, names: Iterable[str]) -> Iterator[Record]:
        """The records of `names`, in that order."""
        with self.path.open("rb") as file:
            for name in names:
                file.seek(self.offsets[name])
                yield _read(file.readline())

    def differences(self, header: Header) -> list[str]:
        """Differences of `header` from this manifest's, each as "name was …, is …"."""
        changes = []
        for key in _IDENTITY:
            mine, other = self.header.get(key), header.get(key)
            if mine == other:
                continue
            if isinstance(mine, dict) and isinstance(other, dict):
                implied = {**self.header.get("implied", {}), **header.get("implied", {})}
                mine, other = {**implied, **mine}, {**implied, **other}
                if "was_default" not in self.header:
                    # What was left to the program then is left to it now.
                    for name, value in header.get("was_default", {}).items():
                        if mine.get(name) == value and other.get(name) is None:
                            mine[name] = None
                names = [name for name in {**mine, **other} if mine.get(name) != other.get(name)]
                changes += [f"{name} was {mine.get(name)}, is {other.get(name)}" for name in names]
            else:
                changes.append(f"{key} was {mine}, is {other}")
        return changes


def parse_line(line: bytes) -> dict[str, Any] | None:
    """A line of a manifest; None for one that is cut off, or that no facevox has written so."""
    try:
        record = _read(line)
        if b"\\ud" in line.lower():  # half a character, which no table can hold
            json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and _has_right_types(record) else None


def _has_right_types(record: Mapping[str, Any]) -> bool:
    """True if the values that readers use are of their types."""
    if "item" in record:
        return _is_item(record)
    if "run" in record:
        run = record["run"]
        return (
            isinstance(run, dict)
            and isinstance(run.get("inputs", ""), str)
            and all(isinstance(run.get(name, 0), int) for name in ("num_total", "media_reader"))
        )
    return (
        all(isinstance(record.get(name), str) for name in ("program", "table", "item_column"))
        and isinstance(record.get("columns"), list)
        and all(isinstance(name, str) for name in record["columns"])
        and record["item_column"] in record["columns"]
        and isinstance(record.get("settings"), dict)
        and all(isinstance(record.get(name, {}), dict) for name in ("implied", "was_default"))
        and isinstance(record.get("media_reader", 1), int)
    )


def _is_item(record: Mapping[str, Any]) -> bool:
    """True if those of an item are; in plain loops, because a run that resumes reads every line."""
    get = record.get
    if not (
        type(record["item"]) is type(get("status")) is type(get("reason")) is str
        and type(get("outputs")) is type(get("rows")) is list
        and "fingerprint" in record
        and type(get("at", 0.0)) in (float, int)
    ):
        return False
    for output in record["outputs"]:
        if type(output) is not list or len(output) != 2:
            return False
        if type(output[0]) is not str or type(output[1]) is not int or "\0" in output[0]:
            return False
    return all(type(row) is dict for row in record["rows"])


def _header_fault(header: Header) -> str:
    """The fault of a header that no facevox has written; "" where it has none.

    The table is written where the header says, with its columns as the first line.
    """
    if not _is_table_name(header["table"]):
        return f"its table is {header['table']!r}, not the name of a CSV in this folder"
    return "" if all(name.isprintable() for name in header["columns"]) else "its columns are no names"


def _is_table_name(table: str) -> bool:
    is_plain = is_inside(table) and len(PurePosixPath(table).parts) == 1
    return is_plain and table.isprintable() and table.endswith(".csv")


def load_manifest(path: Path) -> Manifest | None:
    """The manifest in `path`; None where the file does not even have a header (a run killed at its start).

    Raises:
        UserError: It is not a manifest, or one of a later format.
    """
    manifest: Manifest | None = None
    media_reader = 1
    num_damaged = 0
    with path.open("rb") as file:
        start = 0
        for line in file:
            if not line.endswith(b"\n"):
                break  # cut off by a crash
            end = start + len(line)
            record = parse_line(line)
            if manifest is None:
                if record is None or "facevox_manifest" not in record:
                    raise UserError(
                        f"{path}: not a facevox manifest; move it away or use another output folder"
                    )
                if record["facevox_manifest"] != FORMAT_VERSION:
                    raise UserError(
                        f"{path}: manifest format {record['facevox_manifest']}, this facevox reads "
                        f"{FORMAT_VERSION}; use the facevox that wrote it, or another output folder"
                    )
                if fault := _header_fault(cast(Header, record)):
                    raise UserError(f"{path}: {fault}; move it away or use another output folder")
                manifest = Manifest(path, cast(Header, record))
                media_reader = record.get("media_reader", 1)
                columns = {*record["columns"], "status", "reason"}
            elif record is None or _has_other_columns(record, columns):
                num_damaged += 1
            elif "item" in record:
                manifest.offsets[record["item"]] = start
                manifest.times[record["item"]] = record.get("at", 0.0)
                manifest.media_readers[record["item"]] = media_reader
            elif "run" in record:
                manifest.is_complete = bool(record["run"].get("complete"))
                manifest.inputs = record["run"].get("inputs", manifest.inputs)
                if record["run"].get("started"):
                    media_reader = record["run"].get("media_reader", manifest.header.get("media_reader", 1))
            start = manifest.end = end
    if num_damaged:
        logger.warning(f"{path}: {num_damaged} damaged lines; their items count as not done")
    return manifest


def _has_other_columns(record: Mapping[str, Any], columns: Set[str]) -> bool:
    return any(not row.keys() <= columns for row in record.get("rows", ()))


def find_manifests(output_dir: Path, program: str) -> list[Path]:
    """The manifest files of a program in an output folder, whole run first, then shards in order."""
    folder = output_dir / FOLDER
    files = folder.glob(f"{program}*.jsonl") if folder.is_dir() else []
    exact = [p for p in files if p.name == f"{program}.jsonl" or p.name.startswith(f"{program}.shard-")]
    return sorted(exact, key=lambda path: (shard_of(path)[1], shard_of(path)[0]))


def find_programs(output_dir: Path) -> list[str]:
    """The programs that have manifests in an output folder."""
    files = (output_dir / FOLDER).glob("*.jsonl") if (output_dir / FOLDER).is_dir() else []
    return sorted({_SHARD.sub("", path.name).removesuffix(".jsonl") for path in files})


class ManifestWriter:
    """Appends records to a manifest; a context manager.

    Args:
        path: The file; its folder is made.
        header: The first line, written where the file is new or is started again.
        keep: Bytes of the file to keep (`Manifest.end`); 0 starts it again.
    """

    def __init__(self, path: Path, header: Header, keep: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        # Opened for appending: if a run that was taken for dead continues for a moment, both add lines and
        # neither overwrites the other's.
        self._file = path.open("ab")
        self._file.truncate(keep)
        self._identity = self._identity_of(os.fstat(self._file.fileno()))
        if not keep:
            self.append(header)

    def append(self, record: Mapping[str, object]) -> None:
        """Writes one line and hands it to the operating system, so that it survives a kill -9.

        Raises:
            UserError: The file is no longer at its path: what is written has no effect.
            OSError: The disk is full, with the path.
        """
        try:
            self._file.write(_line(record))
            self._file.flush()
        except OSError as error:
            error.filename = str(self._path)
            raise
        try:
            is_there = self._identity_of(self._path.stat()) == self._identity
        except OSError:
            is_there = False
        if not is_there:
            raise UserError(
                f"{self._path}: was removed, renamed or replaced while the run wrote into it; run the same "
                "command again, which does what is missing"
            )

    @staticmethod
    def _identity_of(status: os.stat_result) -> tuple[int, int]:
        return status.st_dev, status.st_ino

    def close(self) -> None:
        """Closes the file, its content on the disk."""
        if not self._file.closed:
            try:
                self._file.flush()
                os.fsync(self._file.fileno())
            finally:
                self._file.close()

    def __enter__(self) -> "ManifestWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        # A full disk ends the block with the path; closing would end it again, without.
        with contextlib.suppress(*([OSError] if kind else [])):
            self.close()


class ItemIndex:
    """The manifest with the newest record of each item, over a whole run's manifest and its shards'.

    Several can hold the same item: the number of shards was changed between runs, or shards were merged.
    """

    def __init__(self, manifests: Sequence[Manifest]) -> None:
        self._newest: dict[str, Manifest] = {}
        for manifest in manifests:
            for name, at in manifest.times.items():
                former = self._newest.get(name)
                if former is None or at >= former.times[name]:
                    self._newest[name] = manifest

    def __iter__(self) -> Iterator[str]:
        return iter(self._newest)

    def media_reader(self, name: str) -> int:
        """The version of the media reader that read an item of the index."""
        return self._newest[name].media_readers[name]

    def records(self, names: Iterable[str]) -> Iterator[Record]:
        """The newest record of each of `names` that has one, in that order."""
        files: dict[Path, IO[bytes]] = {}
        try:
            for name in names:
                manifest = self._newest.get(name)
                if manifest is None:
                    continue
                if manifest.path not in files:
                    files[manifest.path] = manifest.path.open("rb")
                file = files[manifest.path]
                file.seek(manifest.offsets[name])
                yield _read(file.readline())
        finally:
            for file in files.values():
                file.close()


def write_table(
    path: Path,
    header: Header,
    index: ItemIndex,
    is_listed: Callable[[str, str], bool] | None = None,
    *,
    spreadsheet_safe: bool = False,
) -> tuple[int, dict[str, int]]:
    """Writes the CSV of a program from its records, sorted by item; returns (rows, items by status).

    Items whose rows have their own statuses are counted by those. `is_listed(item, status)` leaves items out.
    Each row gets `status` and `reason`; an item without rows that is not done gets one that names it. Only
    one record at a time is in memory. `spreadsheet_safe`: see `facevox.spreadsheets`.
    """
    columns = [*header["columns"], "status", "reason", *([spreadsheets.COLUMN] if spreadsheet_safe else [])]
    counts: dict[str, int] = {}
    num_rows = 0
    with replacing(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        plain = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        # A carriage return in a file name ends a row for readers, but the plain writer does not quote it.
        quoting = csv.DictWriter(file, columns, restval="", lineterminator="\n", quoting=csv.QUOTE_ALL)
        plain.writeheader()
        for record in index.records(sorted(index)):
            if is_listed is not None and not is_listed(record["item"], record["status"]):
                continue
            rows = record["rows"]
            # An item of many (a shard of pictures) counts by its rows, which have their own statuses.
            for status in [row["status"] for row in rows if "status" in row] or [record["status"]]:
                counts[status] = counts.get(status, 0) + 1
            if not rows and record["status"] != "done":
                rows = [{}]
            for row in rows:
                full = {header["item_column"]: record["item"], **row}
                full.setdefault("status", record["status"])
                full.setdefault("reason", record["reason"])
                if spreadsheet_safe:
                    full = {name: spreadsheets.safe_cell(value) for name, value in full.items()}
                    full[spreadsheets.COLUMN] = 1
                has_return = any("\r" in value for value in full.values() if isinstance(value, str))
                (quoting if has_return else plain).writerow(full)
                num_rows += 1
    return num_rows, counts


def read_manifest(output_dir: Path, program: str) -> Iterator[Record]:
    """The newest record of each item of a program in an output folder, sorted by item.

    Raises:
        UserError: There is no manifest of that program there.
    """
    loaded = [load_manifest(path) for path in find_manifests(output_dir, program)]
    manifests = [manifest for manifest in loaded if manifest is not None]
    if not manifests:
        others = ", ".join(find_programs(output_dir))
        hint = f" (there is one of {others})" if others else ""
        raise UserError(f"{output_dir}: no manifest of {program}; run that first{hint}")
    index = ItemIndex(manifests)
    return index.records(sorted(index))


def read_settings(output_dir: Path, program: str) -> dict[str, object]:
    """The settings with which a program filled an output folder; none where it has no manifest of it."""
    for path in find_manifests(output_dir, program):
        with path.open("rb") as file, contextlib.suppress(ValueError, RecursionError):
            header = _read(file.readline())
            if isinstance(header, dict) and isinstance(header.get("settings"), dict):
                settings: dict[str, object] = header["settings"]
                return settings
    return {}


def write_manifest(path: Path, header: Header, records: Iterable[Record], inputs: str = "") -> None:
    """Writes a finished manifest as a whole; `inputs` as in `started_record`."""
    counts = {"done": 0, "failed": 0}  # and others as they come
    with replacing(path) as file:
        file.write(_line(header))
        file.write(_line({"run": {"started": True, "inputs": inputs}}))
        for record in records:
            file.write(_line(record))
            counts[record["status"]] = counts.get(record["status"], 0) + 1
        run = {"num_items": sum(counts.values()), **counts, "skipped": 0, "seconds": 0.0, "stopped": ""}
        file.write(_line({"run": {**run, "complete": True}}))


def started_record(names: Sequence[str], media_reader: int = 0) -> dict[str, object]:
    """The line with which a run starts: the number of all items, and a hash of their names.

    `media_reader` is the version of what it reads; 0: no media.
    """
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    run = {"started": True, "num_total": len(names), "inputs": digest.hexdigest()[:16]}
    return {"run": {**run, **({"media_reader": media_reader} if media_reader else {})}}


def status_text(counts: Mapping[str, int]) -> str:
    """Numbers of items by status as "95 done, 3 no_face, 2 failed"; done and failed are always listed."""
    empty = [f"{counts[status]} {status}" for status in NOBODY if counts.get(status)]
    return ", ".join([f"{counts.get('done', 0)} done", *empty, f"{counts.get('failed', 0)} failed"])


def is_too_much(num_failed: int, num_items: int, max_failed: float) -> bool:
    """True if more than the share `max_failed` of the items failed (0: any failure is too much)."""
    # Below a millionth of an item it is rounding: 0.29 x 100 is less than 29.
    return num_failed - max_failed * num_items > 1e-6


def empty_text(program: str, settings: Mapping[str, object], detector: str = "") -> str:
    """The message of a run in which no item gave a result, with the detector and the settings."""
    flat: dict[str, object] = {}
    for name, value in settings.items():
        flat |= (
            {f"{name}.{key}": inner for key, inner in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
    # Long values are hashes, which do not help.
    named = {
        name: value
        for name, value in flat.items()
        if value not in (None, "") and len(str(value)) < LONG_VALUE
    }
    words = [f"{name} {value}" for name, value in named.items()]
    words = ([f"detector {detector}"] if detector else []) + words
    return f"{program}: no item gave a result; made with {', '.join(words) or 'no settings'}"


def _line(record: Mapping[str, object]) -> bytes:
    if _NAMES != "utf-8":
        record = _recoded(record, "utf-8")
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _read(line: bytes) -> Any:
    """The value of a line, with file names as this process has them.

    Raises:
        ValueError: It is not JSON, or has half a character.
    """
    value = json.loads(line.decode())  # bytes would be searched for their encoding
    # Others are the same for every process; `\\udc` begins the byte of a name that was not read as UTF-8.
    return _recoded(value, _NAMES) if (b"\\udc" if _NAMES == "utf-8" else b"\\u") in line else value


def _recoded(value: object, encoding: str) -> Any:
    """The JSON value, in which bytes that Python could not read as letters are read by `encoding`."""
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(text.encode("utf-8", "surrogateescape").decode(encoding, "surrogateescape"))
