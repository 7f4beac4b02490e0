"""The files of a grouping: what they are called, and how one grouping replaces another on the disk.

A grouping may be killed at any moment and started again, and may follow one with another threshold. So the
names of all files that are going to be written are put down first (`manifests/deduplicate_faces.plan.json`),
and what an earlier run put down but this one does not want is removed. Files that no run put down are never
touched.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from facevox.errors import UserError
from facevox.files import read_json, replacing, write_json
from facevox.manifest import FOLDER, load_manifest, manifest_file

PROGRAM = "deduplicate_faces"
MAX_NAME_BYTES = 255  # of a file name, on every file system in use
_MAX_STEM_BYTES = 100  # of each of the two stems of a member, where the whole would be longer


@dataclass(frozen=True)
class Placement:
    """A picture to be copied: from where, to where (absolute)."""

    source: Path
    target: Path


class NameBook:
    """Gives out file names below one folder, each once (upper and lower case count as the same)."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, wanted: str) -> str:
        """`wanted` (a relative path), with `_2`, `_3`, … behind the stem where it is taken."""
        path = PurePosixPath(wanted)
        name, number = wanted, 1
        while name.casefold() in self._taken:
            number += 1
            name = path.with_name(f"{path.stem}_{number}{path.suffix}").as_posix()
        self._taken.add(name.casefold())
        return name


def name_members(names: Sequence[str], representative_of: Sequence[int]) -> list[str]:
    """Where each face goes below the folder of the grouping, as a relative path.

    A representative `a/vid_123.jpg` keeps its path. A member lies beside its representative as
    `a/vid_123_dedupe_vid_456.jpg`; if it comes from another sub-folder `b` of the input and its plain name is
    another member's as well, as `a/vid_123_dedupe_b__vid_456.jpg`.

    Args:
        names: (N) relative paths of the faces, sorted.
        representative_of: (N) index of the representative of each face.
    """
    book = NameBook()
    where = [""] * len(names)
    for face, leader in enumerate(representative_of):
        if face == leader:
            where[face] = book.take(names[face])
    members = [face for face, leader in enumerate(representative_of) if face != leader]
    plain: dict[tuple[int, str], int] = {}
    for face in members:
        key = (representative_of[face], PurePosixPath(names[face]).name.casefold())
        plain[key] = plain.get(key, 0) + 1
    for face in members:
        best, path = PurePosixPath(names[representative_of[face]]), PurePosixPath(names[face])
        is_shared = plain[representative_of[face], path.name.casefold()] > 1
        stem = "__".join(path.with_suffix("").parts) if is_shared else path.stem
        name = f"{best.stem}_dedupe_{stem}{path.suffix}"
        if len(os.fsencode(name)) > MAX_NAME_BYTES - 8:  # room for a number behind it
            name = f"{_shortened(best.stem)}_dedupe_{_shortened(stem)}{path.suffix}"
        where[face] = book.take((best.parent / name).as_posix())
    return where


def replace_files(
    placements: Sequence[Placement],
    folders: tuple[Path, Path],
    *,
    overwrite: bool,
    on_copied: Callable[[], bool],
) -> bool:
    """Copies the pictures, after removing what an earlier grouping left in the two folders.

    Args:
        placements: All files of this grouping.
        folders: The grouping's folder (which keeps the manifest) and that of the representatives.
        overwrite: Also replace files that no earlier run put down.
        on_copied: Called after each file; True stops.

    Returns:
        Whether it got to the end.

    Raises:
        UserError: A file is in the way that no earlier run put down.
    """
    base = folders[0]
    earlier = _earlier_files(folders)
    wanted = {placement.target for placement in placements}
    if not overwrite:
        foreign = sorted(path for path in wanted - earlier if os.path.lexists(path))
        if foreign:
            raise UserError(
                f"{foreign[0]}: is there already and no earlier run wrote it ({len(foreign)} files like "
                "this); use empty output folders, or --overwrite to replace them"
            )
    write_json(_plan_file(base), sorted(os.path.relpath(path, base) for path in earlier | wanted))
    for path in sorted(earlier - wanted):
        path.unlink(missing_ok=True)
    _remove_empty_folders({path.parent for path in earlier - wanted}, folders)
    for placement in placements:
        _copy(placement)
        if on_copied():
            return False
    return True


def finish_plan(base: Path) -> None:
    """Forgets the plan, once the manifest holds what it said."""
    _plan_file(base).unlink(missing_ok=True)


def _plan_file(base: Path) -> Path:
    return base / FOLDER / f"{PROGRAM}.plan.json"


def _earlier_files(folders: tuple[Path, Path]) -> set[Path]:
    """What earlier runs put down in these folders, by the manifest and by the plan of an unfinished run."""
    base = folders[0]
    found: set[str] = set()
    path = manifest_file(base, PROGRAM)
    manifest = load_manifest(path) if path.exists() else None
    if manifest is not None:
        for record in manifest.records(manifest.offsets):
            found.update(name for name, _ in record["outputs"])
    if _plan_file(base).exists():
        found.update(read_json(_plan_file(base)))
    # Nothing outside of the two folders is removed, whatever a manifest says.
    absolute = {Path(os.path.normpath(base / name)) for name in found}
    return {path for path in absolute if any(path.is_relative_to(folder) for folder in folders)}


def _copy(placement: Placement) -> None:
    """Copies a file with its time, unless it is there already."""
    status = placement.source.stat()
    try:
        there = placement.target.stat()
    except FileNotFoundError:
        there = None
    if there and (there.st_size, there.st_mtime_ns) == (status.st_size, status.st_mtime_ns):
        return
    with placement.source.open("rb") as source, replacing(placement.target, sync=False) as target:
        shutil.copyfileobj(source, target)
    os.utime(placement.target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _remove_empty_folders(candidates: Iterable[Path], folders: tuple[Path, Path]) -> None:
    """Removes folders that the removal of files left empty, up to but without the two given ones."""
    for start in sorted(candidates, key=lambda path: -len(path.parts)):
        folder = start
        while folder not in folders and any(folder.is_relative_to(top) for top in folders):
            try:
                folder.rmdir()
            except OSError:  # not empty, or gone
                break
            folder = folder.parent


def _shortened(stem: str) -> str:
    """The stem, cut to 100 bytes with a hash of the whole where it is longer."""
    data = os.fsencode(stem)
    if len(data) <= _MAX_STEM_BYTES:
        return stem
    head = data[: _MAX_STEM_BYTES - 9].decode("utf-8", errors="ignore")
    return f"{head}~{hashlib.sha256(data).hexdigest()[:8]}"
