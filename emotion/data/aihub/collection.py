"""All pictures and annotations below a folder: in folders, in AIHub's ZIPs, or in both."""

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emotion.data.aihub.annotations import Annotation, read_annotations
from emotion.data.aihub.archives import (
    ENCRYPTED,
    Archive,
    ArchiveError,
    ArchiveLimits,
    Member,
    SplitArchiveError,
    join_command,
)
from emotion.data.aihub.names import normalise, part_of
from facevox.errors import UserError, one_line
from facevox.files import find_files, read_image_bytes, relative_name
from facevox.suffixes import PICTURE_SUFFIXES, patterns, related

# AIHub's own, which come before others of an archive: its first shards are the same whatever else is read.
_FIRST = (".jpg", ".jpeg", ".png", ".json")
# AIHub's downloader leaves large archives in pieces where joining them failed.
_PIECE = re.compile(r"\.zip\.part\d+$", re.IGNORECASE)
# Parts of a split archive, by 7-Zip and by zip -s (whose last part is the .zip).
_VOLUME = re.compile(r"\.(zip\.\d{3}|z\d\d)$", re.IGNORECASE)
ARCHIVE_PATTERNS = ("*.zip", "*.zip.part*", "*.zip.[0-9][0-9][0-9]", "*.z[0-9][0-9]")
PATTERNS = (*patterns(PICTURE_SUFFIXES), "*.json", *ARCHIVE_PATTERNS)
# In an archive, where nothing else would count them.
_OTHER_PICTURES = tuple(sorted(related(patterns(PICTURE_SUFFIXES)) - set(PICTURE_SUFFIXES)))
_OTHER_ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".egg", ".alz")
# A list of annotations takes about a kilobyte a picture, an emotion has about 70,000.
MAX_JSON_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture, in a folder or in an archive.

    Attributes:
        name: Unique: its path relative to the folder, through the archive if it is in one.
        container: The picture file, or its archive.
        offset: Of the archive's member, -1 for a picture that is a file itself.
        filename: In NFC, without folders: its name in annotations.
        part: "train", "validation", "test" or "": AIHub's own part.
    """

    name: str
    container: str
    offset: int
    filename: str
    part: str


@dataclass
class Collection:
    """Pictures and annotations below a folder.

    Attributes:
        pictures: In the order of the containers, and of their positions in them, JPEG and PNG first.
        annotations: By file name of the picture; the first of each picture.
        num_repeated: Annotations of pictures that had one already; they are ignored.
        problems: (name, reason) of archives, JSON files and records that cannot be used.
        split_archives: Paths without their endings of split archives that are among the problems.
    """

    pictures: list[PictureFile] = field(default_factory=list)
    annotations: dict[str, Annotation] = field(default_factory=dict)
    num_repeated: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    split_archives: set[str] = field(default_factory=set)


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
    collection = Collection()
    for path in find_files(root, PATTERNS, exclude, what=what):
        add_file(collection, path, relative_name(path, root), with_annotations=with_annotations)
    return collection


def add_file(collection: Collection, path: Path, name: str, *, with_annotations: bool = True) -> None:
    """Adds a picture, a JSON file, or all of an archive; a fault of it becomes a problem.

    Args:
        collection: The one that is added to.
        path: The file.
        name: Its name in the collection.
        with_annotations: As in `read_collection`.
    """
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        filename = normalise(path.name)
        collection.pictures.append(PictureFile(name, str(path), -1, filename, part_of(name)))
        return
    try:
        if _PIECE.search(path.name):
            stem = _PIECE.sub(".zip", path.name)
            raise UserError(f"a piece of an archive; join the pieces: cat {stem}.part* > {stem}")
        if _VOLUME.search(path.name):
            _check_volume(path)
        elif suffix == ".zip":
            _add_archive(collection, path, name, with_annotations)
        elif with_annotations:
            size_bytes = path.stat().st_size
            if size_bytes > MAX_JSON_BYTES:
                raise UserError(f"{size_bytes} bytes of JSON; at most {MAX_JSON_BYTES} are read")
            _add_annotations(collection, path.read_bytes(), name)
    except SplitArchiveError as error:  # one line for all its parts
        if str(path.with_suffix("")) not in collection.split_archives:
            collection.split_archives.add(str(path.with_suffix("")))
            collection.problems.append((name, one_line(error)))
    except (UserError, OSError) as error:
        collection.problems.append((name, one_line(error)))


def _check_volume(path: Path) -> None:
    """Does nothing where the whole archive is there as well.

    Raises:
        SplitArchiveError: It is not.
    """
    if path.suffix[1:].isdigit():
        whole = path.with_suffix("")
        if not whole.is_file():
            name = shlex.quote(whole.name)
            raise SplitArchiveError(f"a part of a split archive; join its parts: cat {name}.[0-9]* > {name}")
        return
    whole = path.with_suffix(".ZIP" if path.suffix.isupper() else ".zip")
    try:
        Archive(whole).close()
    except FileNotFoundError:
        raise SplitArchiveError(
            f"a part of a split archive; its last part, {whole.name}, is missing: fetch it, then "
            f"{join_command(whole)}"
        ) from None
    except SplitArchiveError:
        raise
    except ArchiveError:  # the .zip has a line of its own
        return


def read_picture(container: str, offset: int, archive: Archive | None) -> bytes:
    """The bytes of a picture; `archive` is its open archive if it is in one (`offset` >= 0)."""
    if archive is not None:
        return archive.read(offset)
    return read_image_bytes(container)


def _add_archive(collection: Collection, path: Path, name: str, with_annotations: bool) -> None:
    names: set[str] = set()
    with Archive(path, ArchiveLimits(max_member_bytes=MAX_JSON_BYTES)) as archive:
        members = archive.members()
        suffixes = (*PICTURE_SUFFIXES, *((".json",) if with_annotations else ()))
        usable = [member for member in members if _suffix(member) in suffixes]
        faults, refused = _faults(path.name, members, usable)
        if faults:
            collection.problems.append((name, "; ".join(faults)))
        for member in sorted(usable, key=lambda member: _suffix(member) not in _FIRST):
            if member.obstacle in refused:
                continue
            full_name = f"{name}/{member.name}"
            if full_name in names:  # a ZIP may hold two members of one name
                full_name = f"{full_name}@{member.offset}"
            names.add(full_name)
            if _suffix(member) in PICTURE_SUFFIXES:
                filename = member.name.rsplit("/", 1)[-1]
                picture = PictureFile(full_name, str(path), member.offset, filename, part_of(full_name))
                collection.pictures.append(picture)
                continue
            try:
                _add_annotations(collection, archive.read(member.offset), full_name)
            except UserError as error:
                collection.problems.append((full_name, one_line(error)))


def _faults(archive: str, members: Sequence[Member], usable: Sequence[Member]) -> tuple[list[str], set[str]]:
    """Lines about what cannot be read of an archive; and the obstacles that they report for all members."""
    if not members:
        return ["an empty archive: there is no file in it; fetch it again"], set()
    faults: list[str] = []
    refused: set[str] = set()
    for obstacle, count in Counter(member.obstacle for member in usable if member.obstacle).items():
        # A picture with a password among others has a line of its own.
        if count == len(usable) or obstacle != ENCRYPTED:
            refused.add(obstacle)
            which = "" if count == len(usable) else f"of its {len(usable)} pictures and annotations {count} "
            faults.append(f"{which}{obstacle}; unpack it with: 7z x {shlex.quote(archive)}")
    nested = [member.name for member in members if _suffix(member) in _OTHER_ARCHIVES]
    if nested:
        faults.append(f"archives in it are not read ({len(nested)}, such as {nested[0]}); unpack it")
    others = [member.name for member in members if _suffix(member) in _OTHER_PICTURES]
    if others and not usable:
        text = (
            f"pictures in it are not read ({len(others)}, such as {others[0]}): convert them to .jpg or .png"
        )
        faults.append(text)
    return faults, refused


def _suffix(member: Member) -> str:
    return "." + member.name.rsplit(".", 1)[-1].lower()


def _add_annotations(collection: Collection, data: bytes, name: str) -> None:
    faults: list[str] = []
    for record in read_annotations(data, name):
        if isinstance(record, str):
            faults.append(record)
        elif collection.annotations.setdefault(record.filename, record) is not record:
            collection.num_repeated += 1
    if faults:
        reason = f"{len(faults)} records cannot be used, the first: {faults[0]}"
        collection.problems.append((name, reason))
