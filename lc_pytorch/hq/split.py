"""The split of HQ VoxCeleb: the people of training, validation and test, over vox1 and vox2 together.

    {"vox1": {"train": [folder names], "val": [...], "test": [...]}, "vox2": {...},
     "format": 1, "seed": 0, "val_ratio": 0.1, "test_ratio": 0.1}

Readers of the published format (SF2F) use "vox1" and "vox2" only. Names are compared normalised, so that
somebody who is in vox1 and in vox2, in any spelling or by an id that a table has, gets one part: the
published rule (row i % 10 of each table, 8 for test, 9 for validation) puts some into two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from facevox.errors import UserError
from facevox.files import read_json, write_json
from lc_pytorch.choices import SETS
from lc_pytorch.datasets.splits import PARTS, Part, normalise_identity, share_faults, split_identities
from lc_pytorch.hq.tree import Tree, same_people

FORMAT = 1
MAKER = "scripts/hq/create_hq_voxceleb_split.py"
FindingKind = Literal["in_two_parts", "twice", "no_mel_folder", "no_face_folder", "no_mels", "no_faces"]


@dataclass(frozen=True, kw_only=True)
class HQSplit:
    """Folder names of each part of each set, in the order of the file.

    Attributes:
        names: By set ("vox1", "vox2") and part ("train", "val", "test").
        seed, val_ratio, test_ratio: Of the draw; None where the file lacks them.
    """

    names: dict[str, dict[str, tuple[str, ...]]]
    seed: int | None = None
    val_ratio: float | None = None
    test_ratio: float | None = None

    def identities(self, part: Part, sets: Sequence[str] = SETS) -> set[str]:
        """Normalised names of a part of these sets."""
        return {normalise_identity(name) for set_name in sets for name in self._part(set_name, part)}

    def count(self, part: Part) -> int:
        """People of a part in all sets, each once."""
        return len(self.identities(part))

    def all_names(self) -> list[str]:
        """The names of all parts of all sets."""
        return [name for parts in self.names.values() for names in parts.values() for name in names]

    def _part(self, set_name: str, part: str) -> tuple[str, ...]:
        return self.names.get(set_name, {}).get(part, ())


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something wrong with a split: its kind, the person's name, and a line for the user."""

    kind: FindingKind
    identity: str
    text: str


def make_split(
    people: Mapping[str, Sequence[str]],
    genders: Mapping[str, str],
    *,
    persons: Mapping[str, str] | None = None,
    val_ratio: float = 0.1,
    test_ratio: float = 0.1,
    seed: int = 0,
) -> HQSplit:
    """Draws a split; the same people and the same seed give the same split.

    Every part gets its share of the women and men of each set, up to rounding.

    Args:
        people: Folder names by set.
        genders: "m" or "f" by name, in any spelling; people who are not in it are a separate group.
        persons: Result of `same_people`: who has several names; None: nobody.
        val_ratio, test_ratio: Shares of the people, 0 to below 1 together.
        seed: Of the draw.

    Raises:
        UserError: Shares out of range, or too few people.
    """
    faults = share_faults({"--val_ratio": val_ratio, "--test_ratio": test_ratio})
    if faults:
        raise UserError("; ".join(faults))

    def person_of(name: str) -> str:
        identity = normalise_identity(name)
        return (persons or {}).get(identity, identity)

    sets_of: dict[str, list[str]] = {}
    for set_name, names in people.items():
        for identity in {person_of(name) for name in names}:
            sets_of.setdefault(identity, []).append(set_name)
    num_parts = 1 + (val_ratio > 0) + (test_ratio > 0)
    if len(sets_of) < num_parts:
        raise UserError(
            f"{len(sets_of)} people with mels and faces: at least {num_parts} are needed, one for each "
            "part; give more people, or set --val_ratio or --test_ratio to 0"
        )
    # A stratum is a gender and the sets that a person is in: each set gets its shares too.
    gender_of = {normalise_identity(name): gender for name, gender in genders.items()}
    strata = {name: f"{gender_of.get(name, '')} {' '.join(sets)}" for name, sets in sets_of.items()}
    drawn = split_identities(sets_of, test_size=test_ratio, val_size=val_ratio, seed=seed, strata=strata)
    part_of = {name: part for part, names in drawn.parts.items() for name in names}
    return HQSplit(
        names={
            set_name: {
                part: tuple(sorted(name for name in names if part_of[person_of(name)] == part))
                for part in PARTS
            }
            for set_name, names in people.items()
        },
        seed=seed,
        val_ratio=val_ratio,
        test_ratio=test_ratio,
    )


def write_split(path: str | Path, split: HQSplit) -> None:
    """Writes split.json."""
    draw = {"seed": split.seed, "val_ratio": split.val_ratio, "test_ratio": split.test_ratio}
    parts = {
        name: {part: list(names) for part, names in value.items()} for name, value in split.names.items()
    }
    present = {name: value for name, value in draw.items() if value is not None}
    write_json(path, {**parts, "format": FORMAT, **present})


def load_split(path: str | Path) -> HQSplit:
    """Reads split.json, one of `write_split` or a published one.

    Raises:
        UserError: No such file (the message names the program that makes it), or another content.
    """
    file = Path(path)
    if not file.exists():
        raise UserError(
            f"--split_json_path {path}: no such file; make it with: python {MAKER} --vox_dir {file.parent} "
            f"--output_json {path}"
        )
    value = read_json(file)
    sets = [name for name in SETS if isinstance(value, dict) and name in value]
    if not sets:
        raise UserError(
            f'{path}: no split: {{"vox1": {{"train": [names], "val": …, "test": …}}, "vox2": …}} is expected'
        )
    if value.get("format", FORMAT) != FORMAT:
        raise UserError(f"{path}: format {value['format']!r}; this version reads format {FORMAT}")
    names: dict[str, dict[str, tuple[str, ...]]] = {}
    for set_name in sets:
        parts = value[set_name]
        if not isinstance(parts, dict):
            raise UserError(f"{path}: {set_name!r} must be an object with the lists {', '.join(PARTS)}")
        for part in PARTS:
            listed = parts.get(part, [])
            if not isinstance(listed, list) or not all(_is_folder_name(name) for name in listed):
                raise UserError(f"{path}: {set_name}.{part} must be a list of names of folders")
            names.setdefault(set_name, {})[part] = tuple(listed)
    # Published files lack these three, and what others write there decides nothing.
    seed, val_ratio, test_ratio = (
        value[key] if type(value.get(key)) in (int, float) else None
        for key in ("seed", "val_ratio", "test_ratio")
    )
    return HQSplit(names=names, seed=seed, val_ratio=val_ratio, test_ratio=test_ratio)


def _is_folder_name(name: object) -> bool:
    # A name with a slash would lead out of the tree.
    return isinstance(name, str) and bool(name) and name not in (".", "..") and not set("/\0") & set(name)


def audit_split(split: HQSplit, tree: Tree | None = None) -> list[Finding]:
    """The errors of a split, and of its data where there is a tree; empty where there are none.

    Args:
        split: Any split.
        tree: Its data; None: only the names are checked.
    """
    where: dict[str, dict[str, list[str]]] = {}  # identity → part → "vox1/Name"
    findings: list[Finding] = []
    persons = {} if tree is None else same_people(tree.root, split.all_names())
    for set_name, parts in split.names.items():
        for part, names in parts.items():
            for name, count in Counter(names).items():
                identity = normalise_identity(name)
                where.setdefault(persons.get(identity, identity), {}).setdefault(part, []).append(
                    f"{set_name}/{name}"
                )
                if count > 1:
                    text = f"{set_name}/{name}: {count} times in {part}"
                    findings.append(Finding(kind="twice", identity=identity, text=text))
                if tree is not None:
                    findings += _audit_files(tree, set_name, name)
    leaks = [
        Finding(
            kind="in_two_parts",
            identity=identity,
            text=f"{identity}: in " + " and in ".join(f"{part} ({', '.join(parts[part])})" for part in parts),
        )
        for identity, parts in sorted(where.items())
        if len(parts) > 1
    ]
    return leaks + findings


def _audit_files(tree: Tree, set_name: str, name: str) -> list[Finding]:
    person = tree.find(set_name, name)
    faults: list[tuple[FindingKind, str]] = []
    if person is None or not person.has_mel_folder:
        faults.append(("no_mel_folder", "no folder of mels"))
    elif not person.mels:
        faults.append(("no_mels", "no mels in the folder"))
    if person is None or not person.has_face_folder:
        faults.append(("no_face_folder", "no folder of faces"))
    elif not person.faces:
        faults.append(("no_faces", "no faces in the folder"))
    identity = normalise_identity(name)
    return [Finding(kind=kind, identity=identity, text=f"{set_name}/{name}: {text}") for kind, text in faults]
