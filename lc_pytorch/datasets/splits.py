"""Splits of a set of people into parts for training, validation and test, disjoint by identity.

A split is drawn from (seed, name) by a hash, so it depends neither on the order of the files nor on versions
of a random generator. `split.json`:

    {"format": 1, "seed": 0, "test_size": 0.2, "val_size": 0.1,
     "train": ["anna", …], "val": […], "test": […], "hash": "<sha256 of the three lists>"}

Names are compared normalised (`normalise_identity`): lists of different authors write one person in
several ways, and a person in two parts is a leak.
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeVar

from facevox.errors import UserError
from facevox.files import read_json, write_json
from facevox.splits import drawn_order

FORMAT = 1  # of split.json
PARTS = ("train", "val", "test")
Part = Literal["train", "val", "test"]
_Number = TypeVar("_Number", int, float)
_MAX_NAMED = 3  # people named in a message; the rest is counted


@dataclass(frozen=True, kw_only=True)
class Split:
    """The people of each part, by normalised name, sorted.

    Attributes:
        train: People to learn from.
        val: People to choose the best model by; may be empty.
        test: People who are never used in training; may be empty.
        seed: Seed of the draw; None where it was not recorded.
        test_size: Share of identities asked for `test`; None where it was not recorded.
        val_size: Share of identities asked for `val`; likewise.
    """

    train: tuple[str, ...]
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    seed: int | None = None
    test_size: float | None = None
    val_size: float | None = None

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The three parts by name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def hash(self) -> str:
        """Sha256 of the three lists, in hexadecimal: the same people in the same parts, the same hash."""
        lists = {part: sorted(set(names)) for part, names in self.parts.items()}
        text = json.dumps(lists, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("ascii")).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A person who does not fit a split.

    Attributes:
        kind: "in_two_parts", "not_in_split" (of the data) or "not_in_data" (of the split).
        identity: Normalised name.
        text: Message for the user, one line.
    """

    kind: Literal["in_two_parts", "not_in_split", "not_in_data"]
    identity: str
    text: str


@lru_cache(maxsize=1 << 16)  # lists name each person a hundred times
def normalise_identity(name: str) -> str:
    """The name in the form for comparisons: lower case, one Unicode form, `_` for spaces and underscores.

    "Harry Connick_Jr. " and "harry_connick_jr." are one person; "Harry_Connick_Jr" is another name.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return "_".join(folded.replace("_", " ").split())


def split_identities(
    identities: Iterable[str],
    *,
    test_size: float,
    val_size: float,
    seed: int,
    strata: Mapping[str, str] | None = None,
) -> Split:
    """Draws a split of the people, each of them in one part.

    A part whose share is above 0 gets at least one person, and so does `train`.

    Args:
        identities: Names, in any order and spelling, with repetitions.
        test_size: Share of the identities for `test`, 0 to below 1; 0 leaves it empty.
        val_size: Share of the identities for `val`; the two together below 1.
        seed: Seed of the draw, at least 0.
        strata: Group of each name (its gender, say), in any spelling of the name: every part gets its share
            of every group, up to rounding. Names without an entry form a group as well.

    Raises:
        UserError: A share is out of range, or there are too few people; the message has the counts.
    """
    faults = share_faults({"--test_size": test_size, "--val_size": val_size})
    if seed < 0:
        faults.append(f"--seed {seed}: at least 0 is expected")
    if faults:
        raise UserError("; ".join(faults))
    names = sorted({normalise_identity(name) for name in identities})
    needed = [part for part, size in (("val", val_size), ("test", test_size)) if size > 0]
    if len(names) < len(needed) + 1:
        raise UserError(
            f"{len(names)} {'identity' if len(names) == 1 else 'identities'}: too few for "
            f"{' and '.join(['train', *needed])}, which take at least one each (--test_size {test_size:g}, "
            f"--val_size {val_size:g}); give more people, or set a share to 0"
        )
    group_of = {normalise_identity(name): group for name, group in (strata or {}).items()}
    groups: dict[str, list[str]] = {}
    for name in drawn_order(names, seed):
        groups.setdefault(group_of.get(name, ""), []).append(name)
    num_test, num_val = _part_sizes(len(names), test_size, val_size)
    # The groups are in the order of the hash, so the first of each are a random draw.
    test = _take(groups, num_test)
    val = _take(groups, num_val)
    train = [name for remaining in groups.values() for name in remaining]
    return Split(
        train=tuple(sorted(train)),
        val=tuple(sorted(val)),
        test=tuple(sorted(test)),
        seed=seed,
        test_size=test_size,
        val_size=val_size,
    )


def share_faults(shares: Mapping[str, float]) -> list[str]:
    """Faults of the shares of val and test, each under the option that asks for it."""
    faults = [
        f"{name} {share:g}: a share from 0 to below 1 is expected"
        for name, share in shares.items()
        if not 0 <= share < 1
    ]
    if not faults and sum(shares.values()) >= 1:
        asked = " and ".join(f"{name} {share:g}" for name, share in shares.items())
        faults.append(f"{asked}: together below 1 are expected; nobody would be left to train on")
    return faults


def _part_sizes(num: int, test_size: float, val_size: float) -> tuple[int, int]:
    """Number of people in test and val: at least 1 where the share is above 0, and 1 remains for train."""
    num_test, num_val = (max(round(size * num), 1) if size > 0 else 0 for size in (test_size, val_size))
    while num_test + num_val > num - 1:  # rounding of two large shares of few people
        if num_test >= num_val:
            num_test -= 1
        else:
            num_val -= 1
    return num_test, num_val


def _take(groups: dict[str, list[str]], count: int) -> list[str]:
    """Removes `count` names from the groups, from each its share (largest remainders), and returns them."""
    total = sum(map(len, groups.values()))
    if not count:
        return []
    quotas = {group: len(names) * count / total for group, names in groups.items()}
    shares = {group: math.floor(quota) for group, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda group: (shares[group] - quotas[group], group))
    for group in by_remainder[: count - sum(shares.values())]:
        shares[group] += 1
    removed = []
    for group, share in shares.items():
        removed += groups[group][:share]
        del groups[group][:share]
    return removed


def write_split(path: str | Path, split: Split) -> None:
    """Writes `split.json`."""
    value: dict[str, object] = {
        "format": FORMAT,
        "seed": split.seed,
        "test_size": split.test_size,
        "val_size": split.val_size,
        **{part: list(names) for part, names in split.parts.items()},
        "hash": split.hash,
    }
    write_json(path, value)


def load_split(path: str | Path) -> Split:
    """Split of a `split.json`. Names are normalised; a person in two parts is left to `audit_split`.

    `seed`, the sizes and `hash` may be missing from a file written by hand.

    Raises:
        UserError: No such file, not a split, another format, or its lists are not those that were hashed.
    """
    value = read_json(path)
    if not isinstance(value, dict) or not all(part in value for part in PARTS):
        raise UserError(f"{path}: no split: a JSON object with the lists train, val and test is expected")
    if value.get("format", FORMAT) != FORMAT:
        raise UserError(f"{path}: format {value['format']!r}; this version reads format {FORMAT}")
    lists: dict[str, tuple[str, ...]] = {}
    for part in PARTS:
        names = value[part]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{path}: {part!r} must be a list of names")
        lists[part] = tuple(sorted({normalise_identity(name) for name in names}))
    split = Split(
        **lists,
        seed=_number(path, value, "seed", int),
        test_size=_number(path, value, "test_size", float),
        val_size=_number(path, value, "val_size", float),
    )
    if value.get("hash") not in (None, split.hash):
        raise UserError(
            f"{path}: the lists were changed after the file was written (their hash differs); restore the "
            'file, or remove its "hash" entry if the change is meant'
        )
    return split


def _number(path: str | Path, value: Mapping[str, object], key: str, kind: type[_Number]) -> _Number | None:
    number = value.get(key)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, (int, kind)):
        raise UserError(f"{path}: {key!r} must be a number, not {number!r}")
    return kind(number)


def audit_split(split: Split, identities: Iterable[str]) -> list[Finding]:
    """Differences between a split and the people of some data; empty where all fits.

    Args:
        split: Any split, also one that was not drawn here.
        identities: Names in the data, in any order and spelling.
    """
    parts_of: dict[str, list[str]] = {}
    for part, names in split.parts.items():
        for name in sorted({normalise_identity(name) for name in names}):
            parts_of.setdefault(name, []).append(part)
    in_data = {normalise_identity(name) for name in identities}
    findings = [
        Finding(kind="in_two_parts", identity=name, text=f"{name!r} is in {' and in '.join(parts)}")
        for name, parts in sorted(parts_of.items())
        if len(parts) > 1
    ]
    findings += [
        Finding(kind="not_in_split", identity=name, text=f"{name!r} of the data is in no part of the split")
        for name in sorted(in_data - parts_of.keys())
    ]
    findings += [
        Finding(kind="not_in_data", identity=name, text=f"{name!r} of the split is not in the data")
        for name in sorted(parts_of.keys() - in_data)
    ]
    return findings


def check_split(
    split: Split,
    identities: Iterable[str],
    *,
    test_size: float | None = None,
    val_size: float | None = None,
    seed: int | None = None,
) -> list[str]:
    """Reasons why the split of an earlier run does not fit this one, a line each; empty if it fits.

    Options that are None, or that the split does not have, are not compared.
    """
    asked = {"--test_size": test_size, "--val_size": val_size, "--seed": seed}
    recorded = {"--test_size": split.test_size, "--val_size": split.val_size, "--seed": split.seed}
    reasons = [
        f"it was drawn with {name} {recorded[name]:g}, not {value:g}"
        for name, value in asked.items()
        if value is not None and recorded[name] is not None and value != recorded[name]
    ]
    findings = audit_split(split, identities)
    for kind, what in (
        ("in_two_parts", "are in two parts"),
        ("not_in_split", "of the data are in no part of it"),
        ("not_in_data", "of it are not in the data"),
    ):
        names = [finding.identity for finding in findings if finding.kind == kind]
        if names:
            people = "identity" if len(names) == 1 else "identities"
            reasons.append(f"{len(names)} {people} {what} ({_first_few(names)})")
    return reasons


def _first_few(names: Sequence[str]) -> str:
    text = ", ".join(repr(name) for name in names[:_MAX_NAMED])
    return text + (f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else "")


def select_items(split: Split, identities: Sequence[str], part: Part) -> list[int]:
    """Indices of the items whose identity is in `part`, in order.

    Args:
        split: Parts by person.
        identities: Identity of each item, in any spelling.
        part: "train", "val" or "test".
    """
    names = {normalise_identity(name) for name in split.parts[part]}
    return [index for index, name in enumerate(identities) if normalise_identity(name) in names]
