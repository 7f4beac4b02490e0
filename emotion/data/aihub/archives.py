"""ZIP archives of tens of gigabytes, read in place and with limits; nothing is ever unpacked by its own path.

One `Archive` belongs to one process: open it after the process has started, because a handle that a fork
inherits shares its position with the parent's. Members come in their order in the file, so that reading
them all goes over the disk once. ZIP64, stored and deflated members; Korean names in UTF-8 and
cp949 (`names.member_name`).
"""

import os
import shlex
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from emotion.data.aihub.names import member_name
from facevox.archives import READ_METHODS
from facevox.errors import UserError, one_line
from facevox.file_kinds import file_fault
from facevox.suffixes import system_name

_END = struct.Struct("<4s4H2LH")  # end of central directory (APPNOTE.TXT 4.3.16)
_END64_LOCATOR = struct.Struct("<4sLQL")  # its ZIP64 locator (4.3.15)
_END64 = struct.Struct("<4sQ2H2L4Q")  # the ZIP64 record (4.3.14)
_ENCRYPTED = 0x1  # of the flag bits
ENCRYPTED = "encrypted"
_SPANNED = b"PK\7\x08"  # the first bytes of a split archive's first part
_NO_DISK = 0xFFFF  # the ZIP64 record has the number
# Packing methods by their numbers (4.4.5); Windows packs files of 2 GB and more with Deflate64. Of bzip2 and
# LZMA Python unpacks more than the stated size.
_METHODS = {6: "Implode", 9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "XZ", 98: "PPMd"}


class ArchiveError(UserError):
    """An archive or a member of one that cannot be read."""


class SplitArchiveError(ArchiveError):
    """A part of a split archive."""


@dataclass(frozen=True, kw_only=True)
class ArchiveLimits:
    """Limits to what an archive may ask of the machine.

    Attributes:
        max_members: More than AIHub's largest archive has by a factor of ten.
        max_directory_bytes: Of the list of members, which is read as a whole: about 200 for each.
        max_member_bytes: Of one member, unpacked.
        max_ratio: Unpacked against packed size. Pictures reach about 1, lists of annotations 30;
            deflate's limit is 1032.
        ratio_free_bytes: Members up to this size may have any ratio.
    """

    max_members: int = 1_000_000
    max_directory_bytes: int = 300_000_000
    max_member_bytes: int = 200_000_000
    max_ratio: float = 200.0
    ratio_free_bytes: int = 1_000_000


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: Its path in the archive.
        offset: Of its header; unique in the archive.
        size_bytes: Unpacked.
        obstacle: The reason why it cannot be read, such as `ENCRYPTED`; "" for most.
    """

    name: str
    offset: int
    size_bytes: int
    obstacle: str = ""


class Archive:
    """An open ZIP archive; use it as a context manager or call `close`.

    Args:
        path: The archive.
        limits: Checked before anything is read into memory.

    Raises:
        SplitArchiveError: A part of a split archive.
        ArchiveError: Not a ZIP, truncated, or beyond the limits.
        OSError: It cannot be opened.
    """

    def __init__(self, path: str | Path, limits: ArchiveLimits = ArchiveLimits()) -> None:
        self.path = Path(path)
        self.limits = limits
        self._check_end()
        try:
            self._zip = zipfile.ZipFile(self.path)
        except OSError:
            raise
        except Exception as error:  # a damaged list of members may raise anything
            raise ArchiveError(f"{self.path.name}: not a readable ZIP: {error}") from None
        self._infos = {info.header_offset: info for info in self._zip.infolist() if not info.is_dir()}
        if len(self._zip.infolist()) > limits.max_members:
            self.close()
            raise ArchiveError(
                f"{self.path.name}: {len(self._infos)} members; at most {limits.max_members} are read"
            )

    def members(self) -> list[Member]:
        """The files in it, by position in the archive, without system files (`__MACOSX`, `@eaDir`)."""
        members = []
        for offset in sorted(self._infos):
            info = self._infos[offset]
            name = member_name(info.orig_filename, info.flag_bits)
            parts = name.split("/")
            if parts[-1] and not parts[-1].startswith(".") and not any(map(system_name, parts)):
                members.append(Member(name, offset, info.file_size, _obstacle(info)))
        return members

    def read(self, offset: int) -> bytes:
        """The content of the member whose header is at byte `offset`, its checksum verified.

        Raises:
            ArchiveError: No such member, encrypted, packed by another method than deflate, damaged,
                or beyond the limits (checked before it is unpacked; at most its stated size is unpacked).
        """
        info = self._infos.get(offset)
        if info is None:
            raise ArchiveError(f"{self.path.name}: no member at byte {offset}; the archive was replaced")
        name = f"{self.path.name}/{member_name(info.orig_filename, info.flag_bits)}"
        if obstacle := _obstacle(info):
            raise ArchiveError(f"{name}: {obstacle}")
        limits = self.limits
        if info.file_size > limits.max_member_bytes:
            raise ArchiveError(f"{name}: {info.file_size} bytes; at most {limits.max_member_bytes} are read")
        ratio = info.file_size / max(info.compress_size, 1)
        if info.file_size > limits.ratio_free_bytes and ratio > limits.max_ratio:
            raise ArchiveError(f"{name}: unpacks to {ratio:.0f} times its size; at most {limits.max_ratio:g}")
        try:
            with self._zip.open(info) as file:
                data = file.read(info.file_size + 1)
        except Exception as error:  # zipfile and the unpackers raise anything on damaged data
            raise ArchiveError(f"{name}: damaged: {one_line(error)}") from None
        if len(data) != info.file_size:
            raise ArchiveError(f"{name}: damaged: {len(data)} of {info.file_size} bytes")
        return data

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()

    def __enter__(self) -> "Archive":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_end(self) -> None:
        """Reads the number of parts, and the directory's size before `zipfile` reads it into memory."""
        with self.path.open("rb") as file:
            is_spanned = file.read(len(_SPANNED)) == _SPANNED
            size = file.seek(0, os.SEEK_END)
            # Only a comment of up to 64 kB may follow the record.
            start = max(size - _END.size - 0xFFFF - _END64_LOCATOR.size, 0)
            file.seek(start)
            tail = file.read()
            end = tail.rfind(b"PK\5\6")
            if end < 0 or len(tail) - end < _END.size:
                if is_spanned:
                    raise self._split_error("the first part")
                fault = file_fault(self.path, "ZIP") or "it has no end, or is another file"
                raise ArchiveError(f"{self.path.name}: not a readable ZIP: {fault}")
            _, disk, _, _, count, directory_bytes, _, _ = _END.unpack_from(tail, end)
            # Beyond 4 GB or 65,535 members there is a second record, and a locator of it before this one.
            locator = end - _END64_LOCATOR.size
            if locator >= 0 and tail[locator:].startswith(b"PK\6\7"):
                _, _, end64, num_disks = _END64_LOCATOR.unpack_from(tail, locator)
                if disk == _NO_DISK:
                    disk = max(num_disks - 1, 0)
                file.seek(min(end64, size))
                record = file.read(_END64.size)
                if len(record) == _END64.size and record.startswith(b"PK\6\6"):
                    count, directory_bytes = _END64.unpack(record)[7:9]
        if disk not in (0, _NO_DISK):
            raise self._split_error("all parts, joined with cat," if is_spanned else "the last part")
        if count > self.limits.max_members or directory_bytes > self.limits.max_directory_bytes:
            raise ArchiveError(
                f"{self.path.name}: {count} members in a list of {directory_bytes} bytes; at most "
                f"{self.limits.max_members} in {self.limits.max_directory_bytes} are read"
            )

    def _split_error(self, part: str) -> SplitArchiveError:
        return SplitArchiveError(f"{self.path.name}: {part} of a split archive; {join_command(self.path)}")


def join_command(last_part: Path) -> str:
    """The advice to join the parts of `zip -s`, of which the last one is named .zip."""
    parts, name = shlex.quote(f"{last_part.stem}.z01"), shlex.quote(last_part.name)
    return f"join its parts ({parts} … {name}): zip -s 0 {name} --out joined.zip, and remove them"


def _obstacle(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & _ENCRYPTED:
        return ENCRYPTED
    method = info.compress_type
    if method in READ_METHODS:
        return ""
    return f"packed with {_METHODS.get(method, f'method {method}')}; only stored and deflated files are read"
