"""The files of a grouping: their names, and how one grouping replaces another on the disk.

A grouping may be killed at any moment and started again, and may follow one with another threshold. So the
names of all files to be written are recorded first (`manifests/deduplicate_faces.plan.json`), and the files
that an earlier run recorded but this one does not write are removed. Files that no run recorded are never
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
    """A picture to be copied: its path and the path of the copy (absolute)."""

    source: Path
    target: Path


class NameBook:
    """Hands out file names below one folder, each once (upper and lower case count as the same)."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, preferred: str) -> str:
        """`preferred` (a relative path), with `_2`, `_3`, … after the stem where that name is taken."""
        path = PurePosixPath(preferred)
        name, number = preferred, 1
        while name.casefold() in self._taken:
            number += 1
            name = path.with_name(f"{path.stem}_{number}{path.suffix}").as_posix()
        self._taken.add(name.casefold())
        return name


def name_members(names: Sequence[str], representative_of: Sequence[int]) -> list[str]:
    """Relative path of each face below the folder of the grouping.

    A representative `a/vid_123.jpg` keeps its path. A member is next to its representative as
    `a/vid_123_dedupe_vid_456.jpg`; if it comes from another sub-folder `b` of the input and its plain name is
    another member's as well, as `a/vid_123_dedupe_b__vid_456.jpg`.

    Args:
        names: (N) relative paths of the faces, sorted.
        representative_of: (N) index of the representative of each face.
    """
    book = NameBook()
    targets = [""] * len(names)
    for face, leader in enumerate(representative_of):
        if face == leader:
            targets[face] = book.take(names[face])
    members = [face for face, leader in enumerate(representative_of) if face != leader]
    # How many members of one group would get the same plain name.
    num_of_name: dict[tuple[int, str], int] = {}
    for face in members:
        key = (representative_of[face], PurePosixPath(names[face]).name.casefold())
        num_of_name[key] = num_of_name.get(key, 0) + 1
    for face in members:
        best, path = PurePosixPath(names[representative_of[face]]), PurePosixPath(names[face])
        is_shared = num_of_name[representative_of[face], path.name.casefold()] > 1
        stem = "__".join(path.with_suffix("").parts) if is_shared else path.stem
        name = f"{best.stem}_dedupe_{stem}{path.suffix}"
        if len(os.fsencode(name)) > MAX_NAME_BYTES - 8:  # room for a number after the stem
            name = f"{_shortened(best.stem)}_dedupe_{_shortened(stem)}{path.suffix}"
        targets[face] = book.take((best.parent / name).as_posix())
    return targets


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
        overwrite: Also replace files that no earlier run wrote.
        on_copied: Called after each file; True stops.

    Returns:
        True if all were copied, False if `on_copied` stopped it.

    Raises:
        UserError: A file is in the way that no earlier run wrote.
    """
    base = folders[0]
    earlier = _earlier_files(folders)
    targets = {placement.target for placement in placements}
    if not overwrite:
        foreign = sorted(path for path in targets - earlier if os.path.lexists(path))
        if foreign:
            raise UserError(
                f"{foreign[0]}: exists already and no earlier run wrote it ({len(foreign)} files like "
                "this); use empty output folders, or --overwrite to replace them"
            )
    write_json(_plan_file(base), sorted(os.path.relpath(path, base) for path in earlier | targets))
    for path in sorted(earlier - targets):
        path.unlink(missing_ok=True)
    _remove_empty_folders({path.parent for path in earlier - targets}, folders)
    for placement in placements:
        _copy(placement)
        if on_copied():
            return False
    return True


def finish_plan(base: Path) -> None:
    """Removes the plan, once the manifest has the names in it."""
    _plan_file(base).unlink(missing_ok=True)


def _plan_file(base: Path) -> Path:
    return base / FOLDER / f"{PROGRAM}.plan.json"


def _earlier_files(folders: tuple[Path, Path]) -> set[Path]:
    """Files of earlier runs in these folders, by the manifest and by the plan of an unfinished run."""
    base = folders[0]
    names: set[str] = set()
    path = manifest_file(base, PROGRAM)
    manifest = load_manifest(path) if path.exists() else None
    if manifest is not None:
        for record in manifest.records(manifest.offsets):
            names.update(name for name, _ in record["outputs"])
    if _plan_file(base).exists():
        planned = read_json(_plan_file(base))
        if not isinstance(planned, list) or not all(map(_is_file_name, planned)):
            raise UserError(f"{_plan_file(base)}: not a list of files; remove it")
        names.update(planned)
    # Nothing outside of the two folders is removed, and no folder, whatever a manifest says.
    absolute = {Path(os.path.normpath(base / name)) for name in names}
    inside = (path for path in absolute if any(path.is_relative_to(folder) for folder in folders))
    return {path for path in inside if path.is_symlink() or not path.is_dir()}


def _is_file_name(name: object) -> bool:
    try:
        return isinstance(name, str) and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:  # half a character
        return False


def _copy(placement: Placement) -> None:
    """Copies a file with its time, unless the copy exists already."""
    status = placement.source.stat()
    try:
        existing = placement.target.stat()
    except FileNotFoundError:
        existing = None
    if existing and (existing.st_size, existing.st_mtime_ns) == (status.st_size, status.st_mtime_ns):
        return
    with placement.source.open("rb") as source, replacing(placement.target, sync=False) as target:
        shutil.copyfileobj(source, target)
    os.utime(placement.target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _remove_empty_folders(candidates: Iterable[Path], folders: tuple[Path, Path]) -> None:
    """Removes folders that the removal of files left empty, up to the two of the grouping, which stay."""
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
