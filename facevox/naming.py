"""Names of output files: one for each input, never the same twice, the same in every shard and every run."""

import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath

from facevox.suffixes import is_added

MAX_NAME_BYTES = 240  # file systems take 255; the rest is for what later steps append


def is_inside(name: str) -> bool:
    """True if a relative path that a file names cannot lead out of the folder that it is joined to."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def plan_names(inputs: Sequence[str], suffix: str) -> list[str]:
    """The output path of each relative input path: the same sub-folder and stem with `suffix`.

    Where several inputs share a stem (`a/vid.mp4` and `a/vid.mov`), the first in order keeps it and the
    others include their own suffix (`a/vid_mov.jpg`), with a number where even that is in use. Upper and
    lower case count as the same, because some file systems do not distinguish them. A name (without its
    folder) of more than MAX_NAME_BYTES bytes is cut and ends in a hash of the whole name; suffixes of the
    same length cut alike, so that the face and the voice of one video keep one stem.

    The plan depends on all inputs: make it over the whole list, before it is split into shards. Files whose
    suffix was not searched for at first (`facevox.suffixes.ADDED`) take what the others leave.
    """
    used: set[str] = set()
    planned: dict[int, str] = {}
    for is_late in (False, True):
        numbered = [(index, name) for index, name in enumerate(inputs) if is_added(name) == is_late]
        planned |= _plan_round(numbered, suffix, used)
    return [planned[index] for index in range(len(inputs))]


def _plan_round(numbered: Sequence[tuple[int, str]], suffix: str, used: set[str]) -> dict[int, str]:
    """The output paths by number; their stems are added to `used`, which holds those of earlier rounds."""
    whole = {index: str(PurePosixPath(name).with_suffix("")) for index, name in numbered}
    plain = {index: _shortened(stem, suffix) for index, stem in whole.items()}
    owner: dict[str, int] = {}
    for index, stem in plain.items():
        if stem.casefold() not in used:
            owner.setdefault(stem.casefold(), index)
    used |= set(owner)
    planned = {}
    for index, name in numbered:
        stem = plain[index]
        if owner.get(stem.casefold()) != index:
            base = f"{whole[index]}_{PurePosixPath(name).suffix.lstrip('.').lower() or 'file'}"
            stem, number = _shortened(base, suffix), 2
            while stem.casefold() in used:
                stem, number = _shortened(f"{base}_{number}", suffix), number + 1
            used.add(stem.casefold())
        planned[index] = stem + suffix
    return planned


def _shortened(stem: str, suffix: str) -> str:
    """`stem`, a path without suffix, cut between two characters so that its last part fits the limit."""
    folder, slash, name = stem.rpartition("/")
    room = MAX_NAME_BYTES - len(_bytes(suffix))
    if len(_bytes(name)) <= room:
        return stem
    end = "-" + hashlib.sha256(_bytes(stem)).hexdigest()[:8]
    while len(_bytes(name)) > room - len(end):
        name = name[:-1]
    return folder + slash + name + end


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")
