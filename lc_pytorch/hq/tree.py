"""The people in an HQ VoxCeleb tree, and their files.

    <root>/vox1|vox2/mel_spectrograms/<identity>/*.npy|*.pickle     also spelt mel_spectograms
    <root>/vox1|vox2/masked_faces/<identity>/*.jpg|*.png
    <root>/vox1|vox2/mel_npy/<identity>/<mel file>.npy              by convert_mels.py; read instead of it
    <root>/vox1/vox1_meta.csv, <root>/vox2/full_vox2_meta.csv       gender and nationality

A set has a million files: memory holds the name of each, and its folder once per person.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import overload

from facevox.errors import UserError
from facevox.files import require_folder
from facevox.suffixes import PICTURE_SUFFIXES, system_name
from lc_pytorch.choices import SETS
from lc_pytorch.datasets.splits import normalise_identity
from lc_pytorch.evaluation.metadata import is_id, load_metadata
from lc_pytorch.hq.mels import SUFFIXES

MEL_FOLDERS = ("mel_spectrograms", "mel_spectograms")  # as documented, and as a release spells it
FACE_FOLDER = "masked_faces"
CONVERTED_FOLDER = "mel_npy"
META_FILES = {"vox1": "vox1_meta.csv", "vox2": "full_vox2_meta.csv"}


class Files(Sequence[Path]):
    """Paths of the files of a person, of which only folders and names are kept."""

    def __init__(self, *folders: tuple[str, tuple[str, ...]]) -> None:
        self._folders = tuple(folder for folder in folders if folder[1])
        self._ends = tuple(accumulate(len(names) for _, names in self._folders))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...
    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"file {index} of {len(self)}")
        number = index % len(self)
        folder_index = bisect_right(self._ends, number)
        folder, names = self._folders[folder_index]
        return Path(folder, names[number - (self._ends[folder_index - 1] if folder_index else 0)])

    def __add__(self, other: Files) -> Files:
        return Files(*self._folders, *other._folders)


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody in vox1 or vox2.

    Attributes:
        name: Of the folder.
        mels: Spectrograms, the converted ones where there are any; may be empty.
        faces: Pictures; may be empty.
        has_mel_folder, has_face_folder: Whether the folders exist, even if empty.
    """

    name: str
    mels: Files
    faces: Files
    has_mel_folder: bool = True
    has_face_folder: bool = True

    @property
    def identity(self) -> str:
        """The name as it is compared."""
        return normalise_identity(self.name)

    @property
    def is_complete(self) -> bool:
        """True if there are files of both kinds to train on."""
        return bool(self.mels) and bool(self.faces)


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The people below a root.

    Attributes:
        root: The folder with vox1 and vox2.
        people: Those of each existing set, by folder name, sorted.
        notes: Lines for the user on what was read, and what is missing.
    """

    root: Path
    people: dict[str, dict[str, Person]]
    notes: tuple[str, ...]

    def find(self, set_name: str, name: str) -> Person | None:
        """The person of a folder by its name, or else by another spelling of it."""
        people = self.people.get(set_name, {})
        if name in people:
            return people[name]
        return self._by_identity.get((set_name, normalise_identity(name)))

    @cached_property
    def _by_identity(self) -> dict[tuple[str, str], Person]:
        return {
            (set_name, person.identity): person
            for set_name, people in self.people.items()
            for person in people.values()
        }


def scan_tree(
    root: str | Path,
    sets: Sequence[str] = SETS,
    *,
    converted_dir: str | Path | None = None,
    has_converted: bool = True,
) -> Tree:
    """Lists the folders of `sets` below `root`.

    Args:
        root: Folder with vox1 and vox2 (or one of them).
        sets: The sets to list; the notes report one that does not exist.
        converted_dir: Output folder of convert_mels.py where it is not `root`.
        has_converted: Whether to look for converted spectrograms.

    Raises:
        UserError: No such folder, or none of the sets is in it.
    """
    top = require_folder(root, "HQ VoxCeleb")
    notes: list[str] = []
    people: dict[str, dict[str, Person]] = {}
    for set_name in sets:
        if not (top / set_name).is_dir():
            notes.append(f"{set_name}: there is no folder {top / set_name}")
            continue
        converted = Path(converted_dir or top, set_name, CONVERTED_FOLDER) if has_converted else None
        people[set_name] = _scan_set(top / set_name, converted, notes)
    if not people:
        raise UserError(
            f"{top}: none of {', '.join(sets)} is in it; a tree vox1|vox2/mel_spectrograms/<identity>/* and "
            "vox1|vox2/masked_faces/<identity>/* is expected"
        )
    return Tree(root=top, people=people, notes=tuple(notes))


def _scan_set(folder: Path, converted: Path | None, notes: list[str]) -> dict[str, Person]:
    spellings = [name for name in MEL_FOLDERS if (folder / name).is_dir()]
    if MEL_FOLDERS[1] in spellings:
        notes.append(
            f"{folder.name}: the folder of the mels is spelt {MEL_FOLDERS[1]}; it is read as {MEL_FOLDERS[0]}"
        )
    # Where a person is below both spellings, the documented one comes last and wins.
    mel_dirs = {
        name: folder / spelling for spelling in reversed(spellings) for name in _folders(folder / spelling)
    }
    converted_dirs = {name: converted / name for name in _folders(converted)} if converted else {}
    face_dirs = {name: folder / FACE_FOLDER / name for name in _folders(folder / FACE_FOLDER)}
    if not spellings and not converted_dirs:
        notes.append(f"{folder.name}: there is no folder {folder / MEL_FOLDERS[0]}")
    if not face_dirs:
        notes.append(f"{folder.name}: nobody is in {folder / FACE_FOLDER}")
    people = {}
    num_converted = num_mels = 0
    for name in sorted({*mel_dirs, *converted_dirs, *face_dirs}):
        originals = _names(mel_dirs[name] / name, SUFFIXES) if name in mel_dirs else ()
        ready = _names(converted_dirs[name], (".npy",)) if name in converted_dirs else ()
        # A converted file is named after its original, suffix included, which it replaces.
        replaced = {file.removesuffix(".npy") for file in ready}
        rest = tuple(file for file in originals if file not in replaced)
        num_converted, num_mels = num_converted + len(ready), num_mels + len(ready) + len(rest)
        people[name] = Person(
            name=name,
            mels=Files(
                (str(converted_dirs.get(name, folder)), ready), (str(mel_dirs.get(name, folder) / name), rest)
            ),
            faces=Files((str(face_dirs.get(name, "")), _names(face_dirs[name], PICTURE_SUFFIXES)))
            if name in face_dirs
            else Files(),
            has_mel_folder=name in mel_dirs or name in converted_dirs,
            has_face_folder=name in face_dirs,
        )
    if num_converted:
        notes.append(f"{folder.name}: {num_converted} of {num_mels} mels are read from {converted}")
    return people


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and not system_name(entry.name) and entry.is_dir()
        ]


def _names(folder: Path, suffixes: tuple[str, ...]) -> tuple[str, ...]:
    with os.scandir(folder) as entries:
        return tuple(
            sorted(
                entry.name
                for entry in entries
                if entry.name.lower().endswith(suffixes) and not entry.name.startswith(".")
            )
        )


def iter_mels(tree: Tree) -> Iterator[tuple[str, Person, Path]]:
    """(set, person, file) of every spectrogram, in order."""
    for set_name, people in tree.people.items():
        for person in people.values():
            for path in person.mels:
                yield set_name, person, path


def load_genders(tree: Tree) -> tuple[dict[str, str], list[str]]:
    """("m" or "f" by normalised name, notes) from the tables in the tree.

    Raises:
        UserError: A table that cannot be read.
    """
    genders: dict[str, str] = {}
    notes: list[str] = []
    for set_name, people in tree.people.items():
        file = tree.root / set_name / META_FILES[set_name]
        if not file.is_file():
            notes.append(f"{set_name}: no {file}: its people are not balanced by gender")
            continue
        attributes = load_metadata(file).attributes
        for name, (gender, _) in attributes.items():
            genders[name] = gender or genders.get(name, "")
        if people and not any(person.identity in attributes for person in people.values()):
            listed = "ids only" if all(map(is_id, attributes)) else "other names"
            notes.append(
                f"{set_name}: {file.name} has {listed} (such as {min(attributes)}), and none of the "
                f"{len(people)} folders (such as {next(iter(people))}): their genders are unknown; take the "
                "table that has the names of the folders"
            )
    return genders, notes


def same_people(root: str | Path, names: Iterable[str]) -> dict[str, str]:
    """Those of `names` that are one person's by the tables in a tree -> one name for all of this person's.

    VoxCeleb1 names its folders by ids, or by the names that VoxCeleb2's have.

    Args:
        root: Of the tree.
        names: In any spelling; the keys and values of the result are normalised.

    Raises:
        UserError: A table that cannot be read.
    """
    aliases: dict[str, set[str]] = {}
    for set_name, file_name in META_FILES.items():
        file = Path(root, set_name, file_name)
        for row in load_metadata(file).aliases if file.is_file() else ():
            # Mere numbers may be those of the rows, which tables have in common without a meaning.
            merged = {name for name in row if not name.isdigit()}
            merged = merged.union(*(aliases.get(name, ()) for name in merged))
            aliases |= dict.fromkeys(merged, merged)
    present = {normalise_identity(name) for name in names}
    groups = {name: aliases.get(name, set()) & present for name in present}
    return {
        name: min(group, key=lambda name: (is_id(name), name))
        for name, group in groups.items()
        if len(group) > 1
    }
