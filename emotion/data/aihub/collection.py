"""All pictures and annotations below a folder, whether they lie in folders, in AIHub's ZIPs, or in both."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from emotion.data.aihub.annotations import Annotation, read_annotations
from emotion.data.aihub.archives import Archive, ArchiveLimits
from emotion.data.aihub.names import normalise, part_of
from facevox.errors import UserError, one_line
from facevox.files import find_files, relative_name

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
# AIHub's downloader leaves large archives in pieces where joining them failed.
_PIECE = re.compile(r"\.zip\.part\d+$", re.IGNORECASE)
PATTERNS = (*(f"*{suffix}" for suffix in PICTURE_SUFFIXES), "*.json", "*.zip", "*.zip.part*")
# A list of annotations takes about a kilobyte a picture, an emotion has about 70,000.
MAX_JSON_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture, in a folder or in an archive.

    Attributes:
        name: Unique: its path relative to the folder, through the archive where it lies in one.
        container: The picture file, or its archive.
        offset: Of the archive's member, -1 for a file of its own.
        filename: In NFC, without folders: what annotations call it.
        part: "train", "validation", "test" or "": where AIHub put it.
    """

    name: str
    container: str
    offset: int
    filename: str
    part: str


@dataclass
class Collection:
    """What lies below a folder.

    Attributes:
        pictures: By container, and by place in it.
        annotations: By file name of the picture; of two of one picture the first counts.
        num_repeated: Annotations of pictures that had one already.
        problems: (name, reason) of archives, JSON files and records that cannot be used.
    """

    pictures: list[PictureFile] = field(default_factory=list)
    annotations: dict[str, Annotation] = field(default_factory=dict)
    num_repeated: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)


def read_collection(
    root: Path, *, what: str, exclude: Iterable[Path] = (), with_annotations: bool = True
) -> Collection:
    """Everything below `root`: folders, ZIPs, or a mixture.

    Args:
        root: Searched at any depth.
        what: The setting or option that names `root`, for messages.
        exclude: Folders that are left out.
        with_annotations: Whether JSON files are read, which takes long for large sets.

    Raises:
        UserError: No such folder, or nothing of this kind in it.
    """
    found = Collection()
    for path in find_files(root, PATTERNS, exclude, what=what):
        add_file(found, path, relative_name(path, root), with_annotations=with_annotations)
    return found


def add_file(found: Collection, path: Path, name: str, *, with_annotations: bool = True) -> None:
    """Adds a picture, a JSON file, or all of an archive; what is wrong with it becomes a problem.

    Args:
        found: Added to.
        path: The file.
        name: What to call it.
        with_annotations: As in `read_collection`.
    """
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        filename = normalise(path.name)
        found.pictures.append(PictureFile(name, str(path), -1, filename, part_of(name)))
        return
    try:
        if _PIECE.search(path.name):
            stem = _PIECE.sub(".zip", path.name)
            raise UserError(f"a piece of an archive; join the pieces: cat {stem}.part* > {stem}")
        if suffix == ".zip":
            _add_archive(found, path, name, with_annotations)
        elif with_annotations:
            size_bytes = path.stat().st_size
            if size_bytes > MAX_JSON_BYTES:
                raise UserError(f"{size_bytes} bytes of JSON; at most {MAX_JSON_BYTES} are read")
            _add_annotations(found, path.read_bytes(), name)
    except (UserError, OSError) as error:
        found.problems.append((name, one_line(error)))


def read_picture(container: str, offset: int, archive: Archive | None) -> bytes:
    """The bytes of a picture; `archive` is the open archive where it lies in one (`offset` >= 0)."""
    if archive is not None:
        return archive.read(offset)
    from facevox.files import read_image_bytes

    return read_image_bytes(container)


def _add_archive(found: Collection, path: Path, name: str, with_annotations: bool) -> None:
    seen: set[str] = set()
    with Archive(path, ArchiveLimits(max_member_bytes=MAX_JSON_BYTES)) as archive:
        for member in archive.members():
            own = f"{name}/{member.name}"
            if own in seen:  # a ZIP may hold two members of one name
                own = f"{own}@{member.offset}"
            seen.add(own)
            suffix = "." + member.name.rsplit(".", 1)[-1].lower()
            if suffix in PICTURE_SUFFIXES:
                filename = member.name.rsplit("/", 1)[-1]
                found.pictures.append(PictureFile(own, str(path), member.offset, filename, part_of(own)))
            elif suffix == ".json" and with_annotations:
                try:
                    _add_annotations(found, archive.read(member.offset), own)
                except UserError as error:
                    found.problems.append((own, one_line(error)))


def _add_annotations(found: Collection, data: bytes, name: str) -> None:
    bad: list[str] = []
    for record in read_annotations(data, name):
        if isinstance(record, str):
            bad.append(record)
        elif found.annotations.setdefault(record.filename, record) is not record:
            found.num_repeated += 1
    if bad:
        found.problems.append((name, f"{len(bad)} records cannot be used, the first: {bad[0]}"))
