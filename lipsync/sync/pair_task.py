"""Scores of many pairs of video and sound: the task of the batch, and its items."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import cv2

from facevox.addresses import Address, is_address, masked, read_address
from facevox.batch import FileItem, Outcome, Task
from facevox.errors import UserError
from facevox.files import VIDEO_PATTERNS, find_files, relative_name, write_json
from facevox.naming import plan_names
from facevox.spreadsheets import TableReader
from lipsync.clips.clip_task import changed_clip
from lipsync.clips.fetching import local_file
from lipsync.settings import Settings
from lipsync.sync.answers import Details, named_details, without_nan
from lipsync.sync.methods import AUTO, SHIPPED

COLUMNS = (
    "pair", "video", "audio", "score", "offset_ms", "offset_low_ms", "offset_high_ms", "best_guess_ms",
    "best_guess_odds", "confidence", "verdict", "text", "band", "method", "checkpoint", "duration_s",
    "num_faces", "speaking_face", "recorder_start_s", "recorder_drift_ppm", "drift_ppm", "jump_at_s",
    "warnings", "json_file",
)  # fmt: skip
MAX_CSV_BYTES = 100_000_000
D = TypeVar("D", bound=Mapping[str, object])  # the details of a pair
D_co = TypeVar("D_co", bound=Mapping[str, object], covariant=True)


class Scorer(Protocol[D_co]):
    """An object that scores pairs, as `lipsync.inference.LipSyncInference` does."""

    def analyse(self, video_path: str, audio_path: str | None) -> tuple[object, D_co]: ...


@dataclass(frozen=True, kw_only=True)
class PairItem(FileItem):
    """A video and its sound (a path; "": that of the video).

    Attributes:
        addresses: Where the two are to be fetched from; their paths are then only names for people.
    """

    audio: str
    addresses: tuple[Address | None, ...] = (None, None)


class PairTask(Task[PairItem], Generic[D]):
    """Scores a pair and writes its details as JSON.

    "Cannot tell" is a result, not a failure: the row has an empty score and the reason.

    Args:
        make_scorer: Picklable; called in the process that scores.
        make_row: Picklable; the columns of the table that come from the details.
        uses_torch: Whether to limit torch to one thread: the workers share the cores.
        spare_bytes: Memory that a pair may take (`lipsync.clips.clip_task.clip_bytes`).
    """

    def __init__(
        self,
        make_scorer: Callable[[], Scorer[D]],
        make_row: Callable[[D], dict[str, object]],
        *,
        uses_torch: bool,
        spare_bytes: int,
    ) -> None:
        self.spare_bytes = spare_bytes
        self._make_scorer = make_scorer
        self._make_row = make_row
        self._uses_torch = uses_torch
        self._scorer: Scorer[D] | None = None

    def check(self) -> None:
        """Refuses a file that is not a checkpoint before the workers start."""
        self._make_scorer()

    def open(self, output_dir: Path) -> None:
        """One thread a worker: the workers share the cores."""
        super().open(output_dir)
        cv2.setNumThreads(1)
        if self._uses_torch:
            import torch  # seconds, which workers without a checkpoint do not need

            torch.set_num_threads(1)
        self._scorer = self._make_scorer()

    def changes(self, item: PairItem) -> list[str]:
        """Kinds of pictures and sound that were read otherwise."""
        return [] if any(item.addresses) else changed_clip(item.path, item.audio)

    def process(self, item: PairItem) -> Outcome:
        """Scores one pair. Raises UserError where a file cannot be read."""
        if self._scorer is None:
            raise RuntimeError("open() comes first")
        video = item.addresses[0] or Path(item.path)
        audio = item.addresses[1] or (Path(item.audio) if item.audio else None)
        with ExitStack() as stack:
            files = [
                None if name is None else stack.enter_context(local_file(name)) for name in (video, audio)
            ]
            details = self._scorer.analyse(str(files[0]), None if files[1] is None else str(files[1]))[1]
        details = named_details(details, video, audio)
        target = item.output
        write_json(self.output_dir / target, without_nan(details))
        row = self._make_row(details) | {"pair": item.name, "json_file": target}
        empty = {name: "" for name, v in row.items() if v is None or (isinstance(v, float) and math.isnan(v))}
        return Outcome(rows=[row | empty], outputs=[target])


def sync_row(details: Details) -> dict[str, object]:
    """The columns of sync.csv that come from the details."""
    low_ms, high_ms = details["offset_interval_ms"]
    jump, recorder = details["jump"], details["recorder"]
    row: dict[str, object] = {name: value for name, value in details.items() if name in COLUMNS}
    return row | {
        "offset_low_ms": low_ms,
        "offset_high_ms": high_ms,
        "num_faces": len(details["faces"]),
        "recorder_start_s": recorder["start_s"] if recorder else None,
        "recorder_drift_ppm": recorder["drift_ppm"] if recorder else None,
        "jump_at_s": jump["time_s"] if jump else None,
        "warnings": "; ".join(details["warnings"]),
    }


def batch_settings(
    settings: Settings, method: str, checkpoint: Path | None, max_offset_ms: float
) -> dict[str, object]:
    """Settings that decide the results, for the manifest: of reading, the method, a hash of its model."""
    digest = ""
    if checkpoint is not None:
        try:
            digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        except OSError as error:
            raise UserError(f"--checkpoint {checkpoint}: {error.strerror or 'cannot be read'}") from None
    return {
        "data": asdict(settings.data),
        "audio": settings.audio.sizes(),
        "sound": asdict(settings.audio.choice),
        "max_offset_ms": max_offset_ms,
        "method": AUTO if method == SHIPPED else method,  # the same model
        "checkpoint_sha256": digest,
    }


def plan_pairs(table: Path) -> list[PairItem]:
    """An item for each row of a CSV with the columns video and (or not) audio, or each video below a folder.

    Relative paths are relative to the table's folder, or else to where the program was started. Names may be
    http(s) addresses of files.

    Raises:
        UserError: No such file, no such columns, no rows, too many fields, or a missing file; with the line.
            A folder without videos. An address of a live stream.
    """
    if table.is_dir():
        videos = find_files(table, VIDEO_PATTERNS, what="--batch")
        return _items([(relative_name(video, table), "") for video in videos], table)
    try:
        if table.stat().st_size > MAX_CSV_BYTES:
            raise UserError(f"{table}: more than {MAX_CSV_BYTES} bytes; that is no list of pairs")
        text = table.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"--batch {table}: {error.strerror or 'cannot be read'}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{table}: not UTF-8 text (byte {error.start}); a CSV file is expected") from None
    reader = TableReader(io.StringIO(text, newline=""))
    try:
        columns = reader.fieldnames or []
        if "video" not in columns:
            raise UserError(f"{table}:1: the columns video and audio are expected, not {', '.join(columns)}")
        pairs = []
        faults = []
        for row in reader:
            where = f"{table}:{reader.line_num}"
            if None in row:
                faults.append(f"{where}: more fields than columns")
                continue
            video, audio = (row.get("video") or "").strip("\r"), (row.get("audio") or "").strip("\r")
            if not video:
                faults.append(f"{where}: no video")
                continue
            faults += [f"{where}: {fault}" for name in (video, audio) if (fault := _address_fault(name))]
            pairs.append((video, audio))
    except csv.Error as error:
        raise UserError(f"{table}:{reader.line_num}: not CSV: {error}") from None
    if faults:
        raise UserError("; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else ""))
    if not pairs:
        raise UserError(f"{table}: no rows")
    return _items(list(dict.fromkeys(pairs)), table.parent)


def _items(pairs: list[tuple[str, str]], folder: Path) -> list[PairItem]:
    labels = [tuple(masked(name) if is_address(name) else name for name in pair) for pair in pairs]
    names = [
        video if not audio else json.dumps([video, audio], ensure_ascii=False) for video, audio in labels
    ]
    if double := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(
            f"{double[0]}: two addresses differ only in a password or a key; leave one of them out"
        )
    sources = [tuple(_source(name, folder) if name else None for name in pair) for pair in pairs]
    stems = [f"{number:06d}_{video.name}" for number, (video, _) in enumerate(sources) if video is not None]
    items = []
    for name, (video, audio), target in zip(names, sources, plan_names(stems, ".json"), strict=True):
        sound = "" if audio is None else str(audio)
        addresses = tuple(source if isinstance(source, Address) else None for source in (video, audio))
        further = (sound,) if sound else ()
        items.append(PairItem(name, str(video), target, further, audio=sound, addresses=addresses))
    return items


def _source(name: str, folder: Path) -> Path | Address:
    return Address(name) if is_address(name) else _resolve(name, folder)


def _address_fault(name: str) -> str:
    """A line about an address that is no file's; "" for others, and for names of files."""
    if not is_address(name):
        return ""
    try:
        address = read_address(name)
    except UserError as error:
        return str(error)
    return "" if address.is_web else f"{address}: a live address; realtime.py scores those"


def _resolve(name: str, folder: Path) -> Path:
    """Path next to the table if it exists, else `name` itself; a missing file fails when its turn comes."""
    neighbour = folder / name
    try:
        return neighbour if neighbour.exists() else Path(name)
    except OSError:  # a name that no disk can have
        return Path(name)
