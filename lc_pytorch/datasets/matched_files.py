"""Matched files: lists of faces, each with a voice, for a tree of identities."""

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from facevox.errors import UserError
from facevox.files import read_json, replacing, require_folder
from facevox.suffixes import PICTURE_SUFFIXES, SOUND_SUFFIXES, is_added, system_name

FACE_SUFFIXES = frozenset(PICTURE_SUFFIXES)
VOICE_SUFFIXES = frozenset(SOUND_SUFFIXES)
# Those that were searched for at first; others come after them, so that lists keep the pairs that they had.
FIRST_VOICE_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".m4a", ".ogg"})
# Errors that are the path's fault; a failing disk (EIO) must not pass for a missing voice.
_UNUSABLE = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}

_Result = TypeVar("_Result")


@dataclass
class MatchSummary:
    """Files of `write_matched_files`, and the identities and pairs that it left out."""

    files: list[Path] = field(default_factory=list)
    pairs_per_file: list[int] = field(default_factory=list)
    num_identities: int = 0
    without_folder: list[str] = field(default_factory=list)
    without_pairs: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # paths that a line cannot hold


def load_identities(path: str | Path) -> list[str]:
    """The identities of a metadata JSON: its top-level keys, in the order of the file.

    The values are not read: they differ between releases.

    Raises:
        UserError: Not a JSON object, or an empty one.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(
            f"{path}: a JSON object whose keys are the identities is expected, this is a {_kind(value)}"
        )
    if not value:
        raise UserError(f"{path}: holds no identities")
    return list(value)


def _kind(value: object) -> str:
    return {list: "list", str: "string", int: "number", float: "number"}.get(
        type(value), type(value).__name__
    )


def identity_pairs(
    faces: Sequence[tuple[str, Path]], voices: Sequence[tuple[str, Path]]
) -> list[tuple[Path, Path]]:
    """The pairs of one identity, best first; each face and each voice is used once.

    First the clips that have both, in order, one pair each (the clip's first frame and its voice), then the
    remaining faces and voices, in order.

    Args:
        faces: (clip, frame) in order.
        voices: (clip, file) in order.
    """
    first_voice: dict[str, Path] = {}
    for clip, path in voices:
        first_voice.setdefault(clip, path)
    pairs: list[tuple[Path, Path]] = []
    matched_clips = set()
    for clip, path in faces:
        if clip in first_voice and clip not in matched_clips:
            pairs.append((path, first_voice[clip]))
            matched_clips.add(clip)
    used_faces = {face for face, _ in pairs}
    used_voices = {voice for _, voice in pairs}
    remaining_faces = (path for _, path in faces if path not in used_faces)
    remaining_voices = (path for _, path in voices if path not in used_voices)
    return pairs + list(zip(remaining_faces, remaining_voices, strict=False))


def list_faces(identity_dir: Path) -> list[tuple[str, Path]]:
    """(clip, frame file) below `<identity>/faces/<clip>/`, in order of clip and frame."""
    return [
        (clip.name, frame)
        for clip in _sorted(identity_dir / "faces")
        if _if_usable(clip.is_dir, otherwise=False)
        for frame in sorted(_sorted(clip), key=is_added)
        if _is_media(frame, FACE_SUFFIXES)
    ]


def list_voices(identity_dir: Path) -> list[tuple[str, Path]]:
    """(clip, voice file) of `<identity>/voices/<clip>.wav`, in order of clip."""
    files = [path for path in _sorted(identity_dir / "voices") if _is_media(path, VOICE_SUFFIXES)]
    files.sort(key=lambda path: path.suffix.lower() not in FIRST_VOICE_SUFFIXES)
    return [(path.stem, path) for path in files]


def _sorted(folder: Path) -> list[Path]:
    nothing: list[Path] = []
    paths = _if_usable(lambda: sorted(folder.iterdir()), otherwise=nothing)
    return [path for path in paths if not system_name(path.name)]


def _is_media(path: Path, suffixes: frozenset[str]) -> bool:
    if path.suffix.lower() not in suffixes or path.name.startswith("."):
        return False
    return _if_usable(path.is_file, otherwise=False)


def _if_usable(read: Callable[[], _Result], *, otherwise: _Result) -> _Result:
    """Result of `read`, or `otherwise` where the path does not exist, cannot exist or may not be read."""
    try:
        return read()
    except ValueError:  # NUL or a lone surrogate in the name
        return otherwise
    except OSError as error:
        if error.errno not in _UNUSABLE:
            raise
        return otherwise


def write_matched_files(
    dataset_dir: str | Path, meta_file: str | Path, output_dir: str | Path, limit: int
) -> MatchSummary:
    """Writes `matched_files-0.txt` … `matched_files-<limit-1>.txt`: file i holds pair i of each identity.

    A line is `face<TAB>voice`, with paths as `dataset_dir` was given. Identities in the metadata that have
    fewer pairs are left out of the later files and counted, and so are those whose folder cannot exist
    (a name too long for the disk, say) or whose faces or voices may not be read.

    Raises:
        UserError: No such folder, no identities, or none of them has a pair.
        OSError: The disk fails.
    """
    root = require_folder(dataset_dir, "--dataset_path")
    identities = load_identities(meta_file)
    summary = MatchSummary(num_identities=len(identities))
    lines: list[list[str]] = [[] for _ in range(limit)]
    for identity in identities:
        folder = root / identity
        if not _is_below(folder, root) or not _if_usable(folder.is_dir, otherwise=False):
            summary.without_folder.append(identity)
            continue
        pairs = identity_pairs(list_faces(folder), list_voices(folder))
        if not pairs:
            summary.without_pairs.append(identity)
        usable = (line for pair in pairs if (line := _line(*pair, summary.refused)) is not None)
        for lines_of_file, line in zip(lines, usable, strict=False):
            lines_of_file.append(line)
    if not lines[0]:
        raise UserError(
            f"--dataset_path {root}: none of the {len(identities)} identities of {meta_file} has a face in "
            "<identity>/faces/<clip>/ and a voice in <identity>/voices/"
        )
    for number, lines_of_file in enumerate(lines):
        path = Path(output_dir) / f"matched_files-{number}.txt"
        with replacing(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.writelines(lines_of_file)
        summary.files.append(path)
        summary.pairs_per_file.append(len(lines_of_file))
    return summary


def _is_below(folder: Path, root: Path) -> bool:
    """True if `folder` is directly below `root`: names in a metadata file of any origin may be "../x"."""
    return folder.parent == root and folder.name not in ("", ".", "..")


def _line(face: Path, voice: Path, refused: list[str]) -> str | None:
    texts = (str(face), str(voice))
    if any(sign in text for text in texts for sign in "\t\n\r"):
        refused.append(" ".join(repr(text) for text in texts))
        return None
    return f"{texts[0]}\t{texts[1]}\n"


def iter_matched_file(path: str | Path) -> Iterator[tuple[int, Path, Path]]:
    """(line number, face, voice) of each line of a matched file; CRLF, BOM and empty lines are allowed.

    Raises:
        UserError: No such file, or a line that is not two paths with a tab between; names the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.rstrip("\r").split("\t")
        if fields == [""]:
            continue
        if len(fields) != 2 or not all(fields):
            raise UserError(f"{path}:{number}: face<TAB>voice is expected, not {len(fields)} columns")
        yield number, Path(fields[0]), Path(fields[1])
