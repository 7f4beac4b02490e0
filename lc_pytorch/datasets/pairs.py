"""Pairs of a face and a voice, and the person of each pair.

The identity of a pair comes, in this order, from: a groups.csv; a regular expression; the folder above
`faces/` or `voices/` in the path; the top sub-folder; the stem. The first two are options, which apply to all
pairs: one that they do not cover is refused. So is a pair whose face and voice are of different people.
Refused pairs are recorded with their reasons, and counted in `PairList.warnings`.

Names are compared normalised (`splits.normalise_identity`).
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from facevox.errors import UserError
from facevox.files import find_files, relative_name, require_folder
from lc_pytorch.datasets.identity_table import IdentityTable
from lc_pytorch.datasets.matched_files import (
    FACE_SUFFIXES,
    FIRST_VOICE_SUFFIXES,
    VOICE_SUFFIXES,
    iter_matched_file,
)
from lc_pytorch.datasets.splits import normalise_identity

# A video may serve as its own sound; a wav of the same stem takes precedence.
_VOICE_ORDER = (
    *(".wav", ".flac", *sorted(FIRST_VOICE_SUFFIXES - {".wav", ".flac"}), ".mp4"),
    *sorted(VOICE_SUFFIXES - FIRST_VOICE_SUFFIXES),
)
_SIDES = ("faces", "voices")  # folders below a person's folder
_NO_IDENTITY = "no identity: "
_MAX_NAMED = 3  # examples in a warning; the rest is counted


@dataclass(frozen=True)
class FilePair:
    """A face picture, a voice recording of the same person, and the person's normalised name."""

    face: Path
    voice: Path
    identity: str


@dataclass(frozen=True)
class RefusedPair:
    """A pair that is not used, and the reason."""

    face: Path
    voice: Path
    reason: str


@dataclass(kw_only=True)
class PairList:
    """The pairs of two folders or of lists.

    Attributes:
        pairs: Pairs to use, in order of the files.
        rule: Origin of the identities, in words for the user: "the top sub-folder (120 pairs)".
        spellings: First spelling of each person's name, by normalised name.
        refused: Pairs that cannot be used.
        faces_alone: Faces without a voice of their stem (folders only).
        voices_alone: Voices without a face of their stem (folders only).
        num_repeated: Lines that repeat an earlier one (lists only).
        warnings: Messages for the user, one line each.
    """

    pairs: list[FilePair] = field(default_factory=list)
    rule: str = ""
    spellings: dict[str, str] = field(default_factory=dict)
    refused: list[RefusedPair] = field(default_factory=list)
    faces_alone: list[Path] = field(default_factory=list)
    voices_alone: list[Path] = field(default_factory=list)
    num_repeated: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def identities(self) -> list[str]:
        """The normalised name of each pair's person."""
        return [pair.identity for pair in self.pairs]

    @property
    def num_identities(self) -> int:
        """Number of people."""
        return len(self.spellings)


class _Candidate(NamedTuple):
    face: Path
    voice: Path
    # Paths for the rules: relative to the folders, or as a list has them.
    face_name: str
    voice_name: str


def list_folder_pairs(
    image_folder: str | Path,
    audio_folder: str | Path,
    *,
    identity_csv: str | Path | None = None,
    identity_regex: str | None = None,
) -> PairList:
    """The pairs of two folders: a face and a voice of one path below their folder, apart from the suffix.

    Several faces of one stem (`a.jpg`, `a.png`) are all paired with its voice; of several voices of one stem
    the first of wav, flac, others is taken. `vid_1.jpg`, a further face of `vid.mp4`, is no partner of
    `vid.wav`.

    Args:
        image_folder: Faces, searched recursively.
        audio_folder: Voices, likewise; may be the same folder.
        identity_csv: A table as face deduplication writes it (`groups.csv`): columns `file` and `group`, and
            `representative`, whose path then names the person. Its files may be relative to the image folder
            or one above or below it, or absolute: the way that finds most faces applies to all.
            Where none is found, files match by stem. Faces that are not in it, or whose row has another
            status than `done`, are refused: it is not known who they are.
        identity_regex: Expression searched in the path below the folder; its one group is the name.

    Raises:
        UserError: No such folder, an empty one, no partners, an expression or table that cannot be used, or
            fewer than two identities.
    """
    faces_dir = require_folder(image_folder, "--image_folder")
    voices_dir = require_folder(audio_folder, "--audio_folder")
    face_patterns = [f"*{suffix}" for suffix in sorted(FACE_SUFFIXES)]
    faces = find_files(faces_dir, face_patterns, what="--image_folder")
    voices = find_files(voices_dir, [f"*{suffix}" for suffix in _VOICE_ORDER], what="--audio_folder")
    result = PairList()
    by_stem: dict[str, list[Path]] = {}
    for voice in voices:
        by_stem.setdefault(_stem_key(voice, voices_dir), []).append(voice)
    candidates = []
    used: set[str] = set()
    for face in faces:
        key = _stem_key(face, faces_dir)
        if key not in by_stem:
            result.faces_alone.append(face)
            continue
        used.add(key)
        voice = min(by_stem[key], key=lambda path: _VOICE_ORDER.index(path.suffix.lower()))
        names = (relative_name(face, faces_dir), relative_name(voice, voices_dir))
        candidates.append(_Candidate(face, voice, *names))
    result.voices_alone = [voice for key, same in by_stem.items() if key not in used for voice in same]
    if not candidates:
        raise UserError(
            f"--image_folder {faces_dir}, --audio_folder {voices_dir}: none of {len(faces)} faces has the "
            f"path and stem of one of {len(voices)} voices ({_example(faces, faces_dir)} and "
            f"{_example(voices, voices_dir)}, for example); a/x.jpg goes with a/x.wav"
        )
    for alone, what, partner in (
        (result.faces_alone, "face", "voice"),
        (result.voices_alone, "voice", "face"),
    ):
        if alone:
            result.warnings.append(
                f"{_counted(len(alone), what)} without a {partner} of the same path and stem: left out "
                f"({_first_few(map(str, alone))})"
            )
    shadowed = sum(len(by_stem[key]) - 1 for key in used)
    if shadowed:
        result.warnings.append(
            f"{_counted(shadowed, 'voice')} of a stem that another voice has too: left out"
        )
    _identify(result, candidates, identity_csv, identity_regex, has_folders=True)
    return result


def list_matched_pairs(
    files: Sequence[str | Path],
    *,
    identity_csv: str | Path | None = None,
    identity_regex: str | None = None,
) -> PairList:
    """The pairs of one or more matched files (`face<TAB>voice` lines).

    Relative paths start at the working folder. A line that repeats an earlier one is used once. The top
    sub-folder, for identities, is that below the folder which all faces (all voices) share.

    Args:
        files: The lists.
        identity_csv: See `list_folder_pairs`; its files are also found by the end of a path.
        identity_regex: Expression searched in the path as it is written.

    Raises:
        UserError: No such file, a line of another shape, no pair whose files exist, an expression or table
            that cannot be used, or fewer than two identities.
    """
    result = PairList()
    lines: dict[tuple[Path, Path], str] = {}
    for file in files:
        for number, face, voice in iter_matched_file(file):
            if (face, voice) in lines:
                result.num_repeated += 1
            lines.setdefault((face, voice), f"{file}:{number}")
    what = f"--matched_file {' '.join(map(str, files))}"
    if not lines:
        raise UserError(f"{what}: holds no pairs; lines of face<TAB>voice are expected")
    exists: dict[Path, bool] = {}
    for path in {path for pair in lines for path in pair}:
        exists[path] = _is_file(path)
    pairs = []
    for (face, voice), origin in lines.items():
        missing = [path for path in (face, voice) if not exists[path]]
        if missing:
            result.refused.append(RefusedPair(face, voice, f"no such file: {missing[0]} ({origin})"))
        else:
            pairs.append((face, voice))
    if not pairs:
        raise UserError(
            f"{what}: none of its {len(lines)} pairs exists; the first: {result.refused[0].reason}; "
            f"relative paths are looked up from the working folder {Path.cwd()}"
        )
    if result.num_repeated:
        result.warnings.append(f"{_counted(result.num_repeated, 'repeated line')}: taken once")
    candidates = [_Candidate(face, voice, face.as_posix(), voice.as_posix()) for face, voice in pairs]
    _identify(result, candidates, identity_csv, identity_regex, has_folders=False)
    return result


def identity_of_paths(face: Path, voice: Path) -> str | None:
    """The folder above `faces/` or `voices/` in the path of the face, or else of the voice; None: neither."""
    return _folder_above_side(face.as_posix()) or _folder_above_side(voice.as_posix())


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, a loop of links, NUL in the name
        return False


def _stem_key(path: Path, root: Path) -> str:
    # One Unicode form: macOS decomposes what Linux and archives keep composed.
    return unicodedata.normalize("NFC", str(PurePosixPath(relative_name(path, root)).with_suffix("")))


# A rule returns the person's name by the face and by the voice; None where it finds none.
_Names = tuple[str | None, str | None]
_Rule = Callable[[_Candidate], _Names]


def _identify(
    result: PairList,
    candidates: Sequence[_Candidate],
    identity_csv: str | Path | None,
    identity_regex: str | None,
    *,
    has_folders: bool,
) -> None:
    """Adds the candidates whose person is known to `result`, and the others to its refused pairs."""
    rules, missing = _rules(candidates, identity_csv, identity_regex, has_folders=has_folders)
    counts: Counter[str] = Counter()
    owner: dict[str, str] = {}  # person of each file: a face or voice belongs to one person only
    spellings: dict[str, set[str]] = {}  # all of each person
    for candidate in candidates:
        rule, by_side = _first_names(rules, candidate)
        names = [name for name in dict.fromkeys(by_side) if name]
        people = {normalise_identity(name) for name in names}
        files = (str(candidate.face), str(candidate.voice))
        owners = {owner[file] for file in files if file in owner}
        if not people or people == {""}:
            reason = missing(candidate)
        elif len(people) > 1:
            reason = f"face and voice are of two people by {rule}: {names[0]!r} and {names[1]!r}"
        elif owners - people:
            reason = f"a file of two people: it is also in a pair of {sorted(owners - people)[0]!r}"
        else:
            person = people.pop()
            result.pairs.append(FilePair(candidate.face, candidate.voice, person))
            result.spellings.setdefault(person, names[0])
            spellings.setdefault(person, set()).update(names)
            owner.update(dict.fromkeys(files, person))
            counts[rule] += 1
            continue
        result.refused.append(RefusedPair(candidate.face, candidate.voice, reason))
    result.rule = ", ".join(f"{rule} ({_counted(count, 'pair')})" for rule, count in counts.items())
    if len(counts) > 1:
        result.warnings.append(
            f"identities come from several rules: {result.rule}; --identity_regex makes it one"
        )
    merged = [sorted(written) for written in spellings.values() if len(written) > 1]
    if merged:
        result.warnings.append(
            f"{_counted(len(merged), 'name')} written in several ways, taken for one person each "
            f"({_first_few(' = '.join(map(repr, written)) for written in merged)})"
        )
    _warn_of_refused(result)
    _require_two(result)


def _rules(
    candidates: Sequence[_Candidate],
    identity_csv: str | Path | None,
    identity_regex: str | None,
    *,
    has_folders: bool,
) -> tuple[list[tuple[str, _Rule]], Callable[[_Candidate], str]]:
    """The rules in order, each with its name for the user; and the reason for a pair without any name."""
    if identity_csv is not None:
        table = IdentityTable(identity_csv)
        lookup = table.lookup_for([(candidate.face, candidate.face_name) for candidate in candidates])
        return [(f"--identity_csv {identity_csv}", lambda c: (lookup.identity(c.face, c.face_name), None))], (
            lambda c: lookup.missing_reason(c.face, c.face_name)
        )
    if identity_regex is not None:
        pattern, option = _compiled(identity_regex), f"--identity_regex {identity_regex}"
        return [(option, lambda c: (_capture(pattern, c.face_name), _capture(pattern, c.voice_name)))], (
            lambda c: f"{_NO_IDENTITY}{option} matches neither {c.face_name} nor {c.voice_name}"
        )
    face_root, voice_root = "", ""
    if not has_folders:
        face_root = _shared_folder(candidate.face_name for candidate in candidates)
        voice_root = _shared_folder(candidate.voice_name for candidate in candidates)
    return [
        (
            "the folder above faces/ or voices/",
            lambda c: (_folder_above_side(c.face_name), _folder_above_side(c.voice_name)),
        ),
        ("the top sub-folder", lambda c: (_top(c.face_name, face_root), _top(c.voice_name, voice_root))),
        # A line of a list pairs files of different stems on purpose: the face's counts.
        ("the stem", lambda c: (PurePosixPath(c.face_name).stem, None)),
    ], (lambda c: f"{_NO_IDENTITY}its names are empty")


def _first_names(rules: Sequence[tuple[str, _Rule]], candidate: _Candidate) -> tuple[str, _Names]:
    """The first rule that finds a name, and its names."""
    for description, rule in rules:
        names = rule(candidate)
        if any(names):
            return description, names
    return rules[-1][0], (None, None)


def _compiled(identity_regex: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(identity_regex)
    except re.error as error:
        raise UserError(f"--identity_regex {identity_regex}: not a regular expression: {error}") from None
    if pattern.groups != 1:
        raise UserError(
            f"--identity_regex {identity_regex}: holds {pattern.groups} groups; one is expected, around the "
            r"name, such as (id\d+)/ (further brackets as (?:…))"
        )
    return pattern


def _capture(pattern: re.Pattern[str], name: str) -> str | None:
    match = pattern.search(name)
    return match.group(1) if match else None


# Strings from here on: with path objects a list of a million lines takes a minute.
def _folder_above_side(name: str) -> str | None:
    """`id1` of `a/id1/faces/0001/f.jpg`: the folder above the last folder called faces or voices."""
    folders = name.split("/")[:-1]
    for index in range(len(folders) - 1, 0, -1):
        if folders[index].casefold() in _SIDES and folders[index - 1] not in ("", ".", ".."):
            return folders[index - 1]
    return None


def _top(name: str, root: str) -> str | None:
    """The first folder of `name` below `root`."""
    folders = name.removeprefix(root).lstrip("/").split("/")[:-1]
    return folders[0] if folders else None


def _shared_folder(names: Iterable[str]) -> str:
    """The folder that all paths have in common; "" where absolute and relative ones are mixed."""
    folders = {name.rpartition("/")[0] for name in names}
    try:
        return os.path.commonpath(folders)
    except ValueError:
        return ""


def _warn_of_refused(result: PairList) -> None:
    groups: dict[str, list[RefusedPair]] = {}
    for refused in result.refused:
        groups.setdefault(refused.reason.split(":")[0], []).append(refused)
    for same in groups.values():
        result.warnings.append(
            f"{_counted(len(same), 'pair')} left out, the first: {same[0].face}: {same[0].reason}"
        )


def _require_two(result: PairList) -> None:
    if len(result.spellings) >= 2:
        return
    if not result.pairs:
        first = result.refused[0]
        raise UserError(
            f"all {len(result.refused)} pairs are refused; the first: {first.face}: {first.reason}"
        )
    name = next(iter(result.spellings.values()))
    raise UserError(
        f"all {_counted(len(result.pairs), 'pair')} are of one identity, {name!r}, by {result.rule}; at "
        "least two are needed; say whose they are with --identity_csv or --identity_regex"
    )


def _example(paths: Sequence[Path], root: Path) -> str:
    return repr(relative_name(paths[0], root))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _first_few(names: Iterable[str]) -> str:
    listed = list(names)
    text = ", ".join(listed[:_MAX_NAMED])
    return " ".join((text + (", …" if len(listed) > _MAX_NAMED else "")).split())
