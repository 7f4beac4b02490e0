"""Sizes that the index of an mp4 or QuickTime file states, before FFmpeg makes room for them.

FFmpeg makes an entry for each sample (a picture, a block of sound) that the index counts, whether or not
there are bytes for it, and again for each time that an edit list shows it: a file of a kilobyte could take
gigabytes. Sources: ISO/IEC 14496-12 (8.6 to 8.8), and `libavformat/mov.c` for where FFmpeg looks for these
boxes.
"""

import zlib
from io import BytesIO
from typing import BinaryIO

# 40 bytes of memory each; a day of 30 pictures a second with its sound has 7 million in some gigabytes.
FREE_SAMPLES = 4_000_000
SAMPLE_BYTES = 16  # of the file for each further sample
_FREE_BOXES = 100_000
_BOX_BYTES = 256
_MAX_DEPTH = 16
_MAX_PACKED_BYTES = 64 << 20
_TABLE_BYTES = 16  # of a table: its flags, its count and the first entry
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


class _Tables:
    def __init__(self, size: int) -> None:
        self._most_samples = FREE_SAMPLES + size // SAMPLE_BYTES
        self._most_boxes = _FREE_BOXES + size // _BOX_BYTES
        self._num_boxes = self._num_samples = 0
        # Of the present track.
        self._track_samples = self._num_edits = 0
        self._is_sound = self._is_by_tick = False

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
            self._track_samples, self._num_edits, self._is_sound, self._is_by_tick = 0, 0, False, False
        if kind in _CONTAINERS:
            if depth > _MAX_DEPTH:
                raise _Costly(f"an mp4 of boxes in more than {_MAX_DEPTH} others")
            self.walk(file, start, end, depth + 1)
        elif kind == b"cmov":
            self._read_packed(file, start, end, depth)
        elif kind in _READERS:
            file.seek(start)
            _READERS[kind](self, file.read(min(end - start, _TABLE_BYTES)))
        if kind == b"trak":
            # Sound of one tick a sample is read in blocks of 1024 samples.
            entries = self._track_samples // (1024 if self._is_sound and self._is_by_tick else 1)
            self._add(entries * max(self._num_edits, 1))

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

    def _read_handler(self, content: bytes) -> None:
        self._is_sound = content[8:12] == b"soun"

    def _read_sizes(self, content: bytes) -> None:
        self._track_samples = max(self._track_samples, int.from_bytes(content[8:12], "big"))

    def _read_times(self, content: bytes) -> None:
        self._is_by_tick = content[4:8] == b"\0\0\0\1" and content[12:16] == b"\0\0\0\1"

    def _read_edits(self, content: bytes) -> None:
        self._num_edits = max(self._num_edits, int.from_bytes(content[4:8], "big"))

    def _read_run(self, content: bytes) -> None:
        self._add(int.from_bytes(content[4:8], "big"))


def _kind_at(file: BinaryIO, position: int) -> bytes:
    """The kind of the box at `position`."""
    file.seek(position)
    return file.read(8)[4:]


_READERS = {
    b"hdlr": _Tables._read_handler,
    b"stsz": _Tables._read_sizes,
    b"stz2": _Tables._read_sizes,
    b"stts": _Tables._read_times,
    b"elst": _Tables._read_edits,
    b"trun": _Tables._read_run,
}
