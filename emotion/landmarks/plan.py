"""The plan of an extraction: the pictures of the archives, in the order of the disk, cut into shards."""

import fnmatch
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emotion.data.aihub.annotations import Annotation
from emotion.data.aihub.collection import ARCHIVE_PATTERNS, Collection, PictureFile, add_file
from emotion.data.aihub.labels import majority_label
from emotion.data.aihub.names import emotion_in_name, emotion_of, normalise, parse_picture_name
from emotion.landmarks.shards import SHARD_PICTURES
from facevox.batch import Item
from facevox.errors import UserError
from facevox.files import find_files

PATTERNS = (*ARCHIVE_PATTERNS, "*.json")


@dataclass(frozen=True)
class Picture:
    """A picture to be read; small and picklable.

    Attributes:
        member: Its path in the archive.
        offset: Of its header in the archive.
        label: English emotion, another word of --labels, or "" without a label.
        person: The person in it, or "".
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
        problem: The reason why it cannot be read, or "".
    """

    archive: str = ""
    pictures: Sequence[Picture] = ()
    problem: str = ""


@dataclass(frozen=True)
class Plan:
    """The items of a run.

    Attributes:
        items: Shards, in order.
        num_pictures: In all items.
        num_unlabelled: Pictures without a label.
        num_unnamed: Pictures of unknown people.
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
    archive's name that contains an emotion, Korean or English. The person comes from the file name (AIHub's).

    Args:
        zips: Archives and folders, which are searched for archives; those with annotations belong to them.
        labels: One for each of `zips`, or none.
        limit: Pictures in all, spread evenly over the archives; 0: all of them.
        shard_pictures: Of a shard.

    Raises:
        UserError: No such file or folder, nothing in it, labels that do not match, two archives of one name.
    """
    collection, label_of, names = _read_archives(zips, labels)
    by_archive: dict[str, list[PictureFile]] = {}
    for picture in collection.pictures:
        by_archive.setdefault(picture.container, []).append(picture)
    if not by_archive:
        problems = collection.problems
        first = f"; {problems[0][0]}: {problems[0][1]}" if problems else ""
        raise UserError(
            f"--zips: no pictures in {len(names)} {'archive' if len(names) == 1 else 'archives'}{first}"
        )
    quotas = spread([len(pictures) for pictures in by_archive.values()], limit)
    items = [ShardItem(name, "", problem=reason) for name, reason in collection.problems]
    num_pictures = num_unlabelled = num_unnamed = 0
    for (container, members), quota in zip(by_archive.items(), quotas, strict=True):
        archive = names[container]
        pictures = [_describe(member, archive, label_of[container], collection) for member in members[:quota]]
        num_pictures += len(pictures)
        num_unlabelled += sum(not picture.label for picture in pictures)
        num_unnamed += sum(not picture.person for picture in pictures)
        for first_picture in range(0, len(pictures), shard_pictures):
            shard = pictures[first_picture : first_picture + shard_pictures]
            # The hash: with other pictures, labels or boxes than before it is another file, which is made.
            output = f"shards/{_hash(archive)}-{first_picture:09d}-{_hash(repr(shard))}.npy"
            name = f"{archive}#{first_picture:09d}"
            items.append(ShardItem(name, container, output, archive=archive, pictures=shard))
    return Plan(items, num_pictures, num_unlabelled, num_unnamed)


def _read_archives(
    zips: Sequence[Path], labels: Sequence[str]
) -> tuple[Collection, dict[str, str], dict[str, str]]:
    """All pictures and annotations; resolved path -> label of --labels; resolved path -> name."""
    if labels and len(labels) != len(zips):
        raise UserError(f"--labels: {len(labels)} labels for {len(zips)} of --zips; give one for each")
    collection = Collection()
    label_of: dict[str, str] = {}
    names: dict[str, str] = {}
    owner: dict[str, Path] = {}
    for number, root in enumerate(zips):
        if root.is_dir():
            files = find_files(root, PATTERNS, what="--zips")
        elif root.is_file():
            files = [root]
        else:
            raise UserError(f"--zips: no such file or folder: {root}")
        for path in files:
            # Resolved: an archive that is reached twice is read once, and its folder has a name.
            resolved = path.resolve()
            if str(resolved) in names:
                continue
            name = normalise(f"{resolved.parent.name}/{resolved.name}")
            if name in owner:
                raise UserError(
                    f"--zips: {path} and {owner[name]} are both called {name} in the index; extract them "
                    "into separate folders, or rename one"
                )
            owner[name], names[str(resolved)] = path, name
            label_of[str(resolved)] = normalise(labels[number].strip()) if labels else ""
            if any(fnmatch.fnmatchcase(path.name.lower(), pattern) for pattern in PATTERNS):
                add_file(collection, resolved, name)
            else:
                collection.problems.append((name, "neither a ZIP archive nor a JSON file by its name"))
    return collection, label_of, names


def _describe(picture: PictureFile, archive: str, label: str, collection: Collection) -> Picture:
    annotation = collection.annotations.get(picture.filename)
    parsed = parse_picture_name(picture.filename)
    # Other names may have underscores too; AIHub's also have an emotion or a gender.
    is_aihub = parsed is not None and bool(parsed.emotion or parsed.gender or annotation)
    return Picture(
        member=picture.name[len(archive) + 1 :],
        offset=picture.offset,
        label=label or _label_of(picture, archive, annotation),
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
    """Numbers of pictures to read of each archive: `limit` in all, as evenly as the sizes allow.

    Args:
        counts: Pictures of each archive.
        limit: In all; 0: every picture.
    """
    if not limit:
        return list(counts)
    quotas, remaining = [0] * len(counts), limit
    # The smallest first: the others share the pictures that it does not have.
    for rank, index in enumerate(sorted(range(len(counts)), key=lambda index: counts[index])):
        quotas[index] = min(counts[index], remaining // (len(counts) - rank))
        remaining -= quotas[index]
    return quotas
