"""Names of output files: one for each input, never the same twice, the same in every shard and every run."""

from collections.abc import Sequence
from pathlib import PurePosixPath

MAX_NAME_BYTES = 240  # file systems take 255; the rest is for what later steps put behind it


def plan_names(inputs: Sequence[str], suffix: str) -> list[str]:
    """For each relative input path the output path: the same sub-folder and stem with `suffix`.

    Where several inputs share a stem (`a/vid.mp4` and `a/vid.mov`), the first in order keeps it and the
    others carry their own suffix (`a/vid_mov.jpg`), numbered where even that is taken. Upper and lower
    case count as the same, because some file systems cannot tell them apart.

    The plan depends on all inputs: make it over the whole list, before it is split into shards.
    """
    plain = [str(PurePosixPath(name).with_suffix("")) for name in inputs]
    owner: dict[str, int] = {}
    for index, stem in enumerate(plain):
        owner.setdefault(stem.casefold(), index)
    taken = set(owner)
    planned = []
    for index, (name, stem) in enumerate(zip(inputs, plain, strict=True)):
        if owner[stem.casefold()] != index:
            base = f"{stem}_{PurePosixPath(name).suffix.lstrip('.').lower() or 'file'}"
            stem, number = base, 2
            while stem.casefold() in taken:
                stem, number = f"{base}_{number}", number + 1
            taken.add(stem.casefold())
        planned.append(stem + suffix)
    return planned
