"""Sizes that the index of an mp4 or QuickTime file states, before FFmpeg makes room for them.

FFmpeg makes an entry for each sample (a picture, a block of sound) that the index counts, whether or not
there are bytes for it, and again for each time that an edit list shows it: a file of a kilobyte could take
gigabytes. Sources: ISO/IEC 14496-12 (8.6 to 8.8), and `libavformat/mov.c` for where FFmpeg looks for these
boxes.
"""

import zlib
from io import BytesIO
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

# 40 bytes of memory each; a day of 30 pictures a second with its sound has 7 million in some gigabytes.
FREE_SAMPLES = 4_000_000
SAMPLE_BYTES = 16  # of the file for each further sample
_FREE_BOXES = 100_000
_BOX_BYTES = 256
_MAX_DEPTH = 16
_MAX_PACKED_BYTES = 64 << 20
_HEAD_BYTES = 24  # of a box: flags, counts, the first entry, or a time scale
_MAX_ROWS = 8_000_000  # of a table
_CONTAINERS = frozenset(
    (b"moov", b"hoov", b"trak", b"mdia", b"minf", b"stbl", b"mvex", b"moof", b"traf", b"udta", b"edts",
     b"dinf", b"clip", b"tref", b"wave", b"sinf", b"schi", b"iprp")
)  # fmt: skip
_MOVIE_STARTS = (b"mvhd", b"cmov")


class _Costly(Exception):
    """The index asks for too much."""


def table_fault(file: BinaryIO, size: int) -> str:
    """The reason why the index of an mp4 would take too much memory; "" for others, and for other formats.

    Args:
        file: Read from its start; its position is changed.
        size: Its bytes.
    """
    tables = _Tables(size)
    try:
        tables.walk(file, 0, size, 0)
    except _Costly as error:
        return str(error)
    return ""


class _Track:
    """Facts about a track; tables that may be long are read when they are needed."""

    def __init__(self) -> None:
        self.num_samples = self.num_chunks = 0
        self.ticks_per_s = 1
        self.is_sound = self.is_by_tick = False
        self.tables: dict[bytes, tuple[BinaryIO, int, int]] = {}  # file, first byte, end

    def table(self, kind: bytes, width: int) -> NDArray[np.int64]:
        """(n, width) numbers of 32 bits of a table, at most as many rows as it states."""
        if kind not in self.tables:
            return np.zeros((0, width), np.int64)
        file, start, end = self.tables[kind]
        file.seek(start)
        head = file.read(8)
        count = min(int.from_bytes(head[4:], "big"), max(end - start - 8, 0) // (4 * width))
        content = file.read(4 * width * min(count, _MAX_ROWS))
        rows = np.frombuffer(content[: len(content) // (4 * width) * 4 * width], ">u4")
        return rows.reshape(-1, width).astype(np.int64)

    def num_entries(self, movie_ticks_per_s: int) -> int:
        """Entries that FFmpeg makes for it."""
        if self.is_sound and self.is_by_tick:  # read in blocks of 1024 samples, whatever their number is
            largest = int(self.table(b"stsc", 3)[:, 1].max(initial=0))
            return self.num_chunks * -(-largest // 1024)
        return max(self.num_samples, self._num_shown(movie_ticks_per_s))

    def _num_shown(self, movie_ticks_per_s: int) -> int:
        """The samples of all edits: each is read from the key frame before it on."""
        durations = self._edit_durations()
        if len(durations) < 2 or not self.num_samples:
            return 0
        times = self.table(b"stts", 2)
        total_s = float((times[:, 0] * times[:, 1]).sum()) / self.ticks_per_s
        shares = durations / movie_ticks_per_s / total_s if total_s > 0 else np.ones(len(durations))
        shares = np.where(durations > 0, np.minimum(shares, 1.0), 1.0)  # 0: up to the end
        keys = self.table(b"stss", 1)[:, 0]
        ends = np.concatenate([[1], keys, [self.num_samples + 1]]) if b"stss" in self.tables else [0, 1]
        lead = min(int(np.abs(np.diff(ends)).max()), self.num_samples)
        return int((shares * self.num_samples).sum()) + lead * len(durations)

    def _edit_durations(self) -> NDArray[np.float64]:
        if b"elst" not in self.tables:
            return np.zeros(0)
        file, start, _ = self.tables[b"elst"]
        file.seek(start)
        if file.read(1) == b"\1":  # 64 bits: high and low half of the duration, of the start; the rate
            rows = self.table(b"elst", 5)
            return (rows[:, 0] * 2.0**32 + rows[:, 1]).astype(np.float64)
        return self.table(b"elst", 3)[:, 0].astype(np.float64)


class _Tables:
    def __init__(self, size: int) -> None:
        self._most_samples = FREE_SAMPLES + size // SAMPLE_BYTES
        self._most_boxes = _FREE_BOXES + size // _BOX_BYTES
        self._num_boxes = self._num_samples = 0
        self._movie_ticks_per_s = 1
        self._track = _Track()

    def walk(self, file: BinaryIO, position: int, end: int, depth: int) -> None:
        """Counts the samples of the boxes from `position` to `end`."""
        while position + 8 <= end:
            file.seek(position)
            header = file.read(16)
            if len(header) < 8:
                return
            length, kind, start = int.from_bytes(header[:4], "big"), header[4:8], position + 8
            if length == 1:
                length, start = int.from_bytes(header[8:16], "big"), position + 16
            elif length == 0:
                length = end - position
            if length < 8:
                return
            self._num_boxes += 1
            if self._num_boxes > self._most_boxes:
                raise _Costly(f"an mp4 of more than {self._most_boxes} boxes")
            self._read(file, kind, start, min(position + length, end), depth)
            position += length

    def _read(self, file: BinaryIO, kind: bytes, start: int, end: int, depth: int) -> None:
        if kind == b"free" and _kind_at(file, start) in _MOVIE_STARTS:
            kind = b"moov"  # FFmpeg looks there, too, for an index that was crossed out
        if kind == b"trak":
            self._track = _Track()
        if kind in _CONTAINERS:
            if depth > _MAX_DEPTH:
                raise _Costly(f"an mp4 of boxes in more than {_MAX_DEPTH} others")
            self.walk(file, start, end, depth + 1)
        elif kind == b"cmov":
            self._read_packed(file, start, end, depth)
        elif kind in _TABLES:
            self._track.tables[kind] = file, start, end
        if kind in _READERS:
            file.seek(start)
            _READERS[kind](self, file.read(min(end - start, _HEAD_BYTES)))
        if kind == b"trak":
            self._add(self._track.num_entries(self._movie_ticks_per_s))

    def _read_packed(self, file: BinaryIO, start: int, end: int, depth: int) -> None:
        """An index that QuickTime has deflated."""
        file.seek(start)
        content = file.read(min(end - start, _MAX_PACKED_BYTES))
        data = content.find(b"cmvd") + 8
        unpacker = zlib.decompressobj()
        try:
            index = unpacker.decompress(content[data:], _MAX_PACKED_BYTES)
        except zlib.error:
            return
        if unpacker.unconsumed_tail:
            raise _Costly("an mp4 with a packed index of more than 64 MB")
        self.walk(BytesIO(index), 0, len(index), depth + 1)

    def _add(self, count: int) -> None:
        self._num_samples += count
        if self._num_samples > self._most_samples:
            raise _Costly(f"an mp4 whose index counts {self._num_samples} samples, more than can be in it")

    def _read_movie(self, content: bytes) -> None:
        self._movie_ticks_per_s = _ticks_per_s(content)

    def _read_media(self, content: bytes) -> None:
        self._track.ticks_per_s = _ticks_per_s(content)

    def _read_handler(self, content: bytes) -> None:
        if content[8:12] in (b"soun", b"vide"):  # QuickTime has a second box, of the data
            self._track.is_sound = content[8:12] == b"soun"

    def _read_sizes(self, content: bytes) -> None:
        self._track.num_samples = max(self._track.num_samples, int.from_bytes(content[8:12], "big"))

    def _read_times(self, content: bytes) -> None:
        self._track.is_by_tick = content[4:8] == b"\0\0\0\1" and content[12:16] == b"\0\0\0\1"

    def _read_chunks(self, content: bytes) -> None:
        self._track.num_chunks = max(self._track.num_chunks, int.from_bytes(content[4:8], "big"))

    def _read_run(self, content: bytes) -> None:
        self._add(int.from_bytes(content[4:8], "big"))


def _ticks_per_s(content: bytes) -> int:
    """The time scale of a box mvhd or mdhd."""
    start = 20 if content[:1] == b"\1" else 12
    return max(int.from_bytes(content[start : start + 4], "big"), 1)


def _kind_at(file: BinaryIO, position: int) -> bytes:
    """The kind of the box at `position`."""
    file.seek(position)
    return file.read(8)[4:]


_TABLES = frozenset((b"stts", b"stss", b"stsc", b"elst"))
_READERS = {
    b"mvhd": _Tables._read_movie,
    b"mdhd": _Tables._read_media,
    b"hdlr": _Tables._read_handler,
    b"stsz": _Tables._read_sizes,
    b"stz2": _Tables._read_sizes,
    b"stts": _Tables._read_times,
    b"stco": _Tables._read_chunks,
    b"co64": _Tables._read_chunks,
    b"trun": _Tables._read_run,
}
