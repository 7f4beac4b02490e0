"""What is to be read: the pictures of the archives, in the order of the disk, cut into shards."""

import fnmatch
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emotion.data.aihub.annotations import Annotation
from emotion.data.aihub.collection import Collection, PictureFile, add_file
from emotion.data.aihub.labels import majority_label
from emotion.data.aihub.names import emotion_in_name, emotion_of, normalise, parse_picture_name
from emotion.landmarks.shards import SHARD_PICTURES
from facevox.batch import Item
from facevox.errors import UserError
from facevox.files import find_files

ARCHIVE_PATTERNS = ("*.zip", "*.zip.part*", "*.json")
# 1.5 MB of landmarks, and 5 to 15 s of work on a core: what a killed run does again at most.


@dataclass(frozen=True)
class Picture:
    """A picture to be read; small and picklable.

    Attributes:
        member: Its path in the archive.
        offset: Of its header in the archive.
        label: English emotion, another word given as label, or "" where nothing tells one.
        person: Who is in it, or "".
        edges: The annotators' boxes.
    """

    member: str
    offset: int
    label: str
    person: str
    edges: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class ShardItem(Item):
    """A shard, with its `output`; or an archive or a list of annotations that cannot be read.

    Attributes:
        archive: Its name in the index.
        pictures: Of the shard.
        problem: Why it cannot be read, or "".
    """

    archive: str = ""
    pictures: Sequence[Picture] = ()
    problem: str = ""


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        items: In order.
        num_pictures: In all items.
        num_unlabelled: Of them, those without a label.
        num_unnamed: Of them, those whose person nothing tells.
    """

    items: list[ShardItem]
    num_pictures: int
    num_unlabelled: int
    num_unnamed: int


def plan_shards(
    zips: Sequence[Path],
    labels: Sequence[str] = (),
    limit: int = 0,
    shard_pictures: int = SHARD_PICTURES,
) -> Plan:
    """The shards of archives, and of folders of archives.

    A label comes from `labels`; else from the annotations in the JSON files among the archives and folders
    (majority of the annotators); else from the picture's file name; else from a folder in the archive or the
    archive's name that bears an emotion, Korean or English. The person comes from the file name (AIHub's).

    Args:
        zips: Archives and folders, which are searched for archives; those with annotations belong to them.
        labels: One for each of `zips`, or none.
        limit: Pictures in all, spread evenly over the archives; 0: all of them.
        shard_pictures: Of a shard.

    Raises:
        UserError: No such file or folder, nothing in it, labels that do not match, two archives of one name.
    """
    found, given, paths = _read_archives(zips, labels)
    by_archive: dict[str, list[PictureFile]] = {}
    for picture in found.pictures:
        by_archive.setdefault(picture.container, []).append(picture)
    if not by_archive:
        first = f"; {found.problems[0][0]}: {found.problems[0][1]}" if found.problems else ""
        raise UserError(f"--zips: no pictures in {len(paths)} archives{first}")
    quotas = spread([len(pictures) for pictures in by_archive.values()], limit)
    items = [ShardItem(name, "", problem=reason) for name, reason in found.problems]
    num_pictures = num_unlabelled = num_unnamed = 0
    for (container, members), quota in zip(by_archive.items(), quotas, strict=True):
        archive = paths[container]
        pictures = [_describe(member, archive, given[container], found) for member in members[:quota]]
        num_pictures += len(pictures)
        num_unlabelled += sum(not picture.label for picture in pictures)
        num_unnamed += sum(not picture.person for picture in pictures)
        for first_picture in range(0, len(pictures), shard_pictures):
            shard = pictures[first_picture : first_picture + shard_pictures]
            # With other pictures, labels or boxes than before it is another file, and so made anew.
            output = f"shards/{_hash(archive)}-{first_picture:09d}-{_hash(repr(shard))}.npy"
            name = f"{archive}#{first_picture:09d}"
            items.append(ShardItem(name, container, output, archive=archive, pictures=shard))
    return Plan(items, num_pictures, num_unlabelled, num_unnamed)


def _read_archives(
    zips: Sequence[Path], labels: Sequence[str]
) -> tuple[Collection, dict[str, str], dict[str, str]]:
    """All that is in them; the label given for each archive; the name of each archive."""
    if labels and len(labels) != len(zips):
        raise UserError(f"--labels: {len(labels)} labels for {len(zips)} of --zips; give one for each")
    found = Collection()
    given: dict[str, str] = {}
    paths: dict[str, str] = {}
    owner: dict[str, Path] = {}
    for number, root in enumerate(zips):
        if root.is_dir():
            files = find_files(root, ARCHIVE_PATTERNS, what="--zips")
        elif root.is_file():
            files = [root]
        else:
            raise UserError(f"--zips: no such file or folder: {root}")
        for path in files:
            # Resolved: the same archive reached twice is read once, and a name has its folder.
            whole = path.resolve()
            if str(whole) in paths:
                continue
            name = normalise(f"{whole.parent.name}/{whole.name}")
            if name in owner:
                raise UserError(
                    f"--zips: {path} and {owner[name]} are both called {name} in the index; extract them "
                    "into folders of their own, or rename one"
                )
            owner[name], paths[str(whole)] = path, name
            given[str(whole)] = normalise(labels[number].strip()) if labels else ""
            if any(fnmatch.fnmatchcase(path.name.lower(), pattern) for pattern in ARCHIVE_PATTERNS):
                add_file(found, whole, name)
            else:
                found.problems.append((name, "neither a ZIP archive nor a JSON file by its name"))
    return found, given, paths


def _describe(picture: PictureFile, archive: str, given: str, found: Collection) -> Picture:
    annotation = found.annotations.get(picture.filename)
    parsed = parse_picture_name(picture.filename)
    # Other names may have underscores too; AIHub's also tell an emotion or a gender.
    is_aihub = parsed is not None and bool(parsed.emotion or parsed.gender or annotation)
    return Picture(
        member=picture.name[len(archive) + 1 :],
        offset=picture.offset,
        label=given or _label_of(picture, archive, annotation),
        person=parsed.person if parsed is not None and is_aihub else "",
        edges=annotation.boxes if annotation is not None else (),
    )


def _label_of(picture: PictureFile, archive: str, annotation: Annotation | None) -> str:
    if annotation is not None:
        label = majority_label(annotation.votes, annotation.uploader)
        if label:
            return label
    parsed = parse_picture_name(picture.filename)
    if parsed is not None and parsed.emotion:
        return parsed.emotion
    folders = picture.name[len(archive) + 1 :].split("/")[:-1]
    in_folders = [emotion for folder in reversed(folders) if (emotion := emotion_of(folder))]
    stem = archive.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return (
        in_folders or [emotion_in_name(archive) or emotion_of(stem) or emotion_of(archive.split("/")[0])]
    )[0]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def spread(counts: Sequence[int], limit: int) -> list[int]:
    """How many of each archive are read so that it is `limit` in all, as evenly as their sizes allow.

    Args:
        counts: Pictures of each archive.
        limit: In all; 0: every picture.
    """
    if not limit:
        return list(counts)
    quotas, left = [0] * len(counts), limit
    # The smallest first: what it cannot give is shared by the others.
    for place, index in enumerate(sorted(range(len(counts)), key=lambda index: counts[index])):
        quotas[index] = min(counts[index], left // (len(counts) - place))
        left -= quotas[index]
    return quotas
