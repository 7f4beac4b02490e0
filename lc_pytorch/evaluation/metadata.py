"""Gender and nationality of people, from the tables that data sets come with.

Source: VoxCeleb1's vox1_meta.csv (tabs; `VoxCeleb1 ID, VGGFace1 ID, Gender, Nationality, Set`), and the
extended table of VoxCeleb2 (commas; `Class_ID, Name, …, Gender_x, VoxCeleb2ID, VGGFace2ID, Gender_y, Set`).
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from facevox.errors import UserError
from lc_pytorch.datasets.splits import normalise_identity

# Headers are compared without case, spaces and signs. A person goes by any of the names in these columns.
IDENTITY_COLUMNS = (
    "identity", "id", "name", "person", "personid", "speaker", "speakerid", "subject", "classid",
    "voxceleb1id", "voxceleb2id", "voxcelebid", "vggface1id", "vggface2id", "vggfaceid",
)  # fmt: skip
GENDER_COLUMNS = ("gender", "genderx", "gendery", "sex")
NATIONALITY_COLUMNS = ("nationality", "nation", "country")
GENDERS = {"male": "m", "man": "m", "female": "f", "woman": "f"}
UNKNOWN = frozenset({"", "-", "?", "n/a", "na", "nan", "none", "null", "unknown"})
MAX_BYTES = 200_000_000
_ID = re.compile(r"[a-z]{0,3}\d+")  # id10001, n000002, 17


@dataclass(frozen=True)
class Metadata:
    """Gender and nationality of people, by a table.

    Attributes:
        file: The table.
        attributes: (gender, nationality) by normalised name; "" for unknown.
        num_rows: People in it.
        num_conflicts: Names that have two rows with different values; what differs counts as unknown.
        aliases: The normalised names and ids of each person who has several.
    """

    file: Path
    attributes: dict[str, tuple[str, str]]
    num_rows: int
    num_conflicts: int
    aliases: tuple[frozenset[str], ...]

    def unmatched(self, identities: Iterable[str]) -> list[str]:
        """The identities that are not in the table, sorted."""
        return sorted(set(identities) - self.attributes.keys())


def load_metadata(path: str | Path) -> Metadata:
    """Reads a table of people: tabs, semicolons or commas between columns; CRLF and a BOM are accepted.

    Raises:
        UserError: No such file, no text, or no column for the identity or for both gender and nationality.
    """
    file = Path(path)
    rows = _rows(file)
    try:
        _, first = next(rows)
    except StopIteration:
        raise UserError(f"--metadata {file}: the file is empty") from None
    header = [re.sub(r"[^0-9a-z]", "", name.casefold()) for name in first]
    columns = {
        fact: [index for index, name in enumerate(header) if name in names]
        for fact, names in (
            ("identity", IDENTITY_COLUMNS),
            ("gender", GENDER_COLUMNS),
            ("nationality", NATIONALITY_COLUMNS),
        )
    }
    if not columns["identity"] or not (columns["gender"] or columns["nationality"]):
        raise UserError(
            f"--metadata {file}: columns {', '.join(first[:10])}: one for the identity (identity, id, name, "
            "VoxCeleb1 ID …) and one for gender or nationality are expected"
        )
    attributes: dict[str, tuple[str, str]] = {}
    conflicts: set[str] = set()
    aliases: list[frozenset[str]] = []
    num_rows = 0
    for number, row in rows:
        if len(row) < len(header):
            raise UserError(f"--metadata {file}:{number}: {len(row)} columns, the header has {len(header)}")
        num_rows += 1
        facts = (
            _agreed(GENDERS.get(value, value) for value in _values(row, columns["gender"])),
            _agreed(_values(row, columns["nationality"])),
        )
        # A row may have several names of its person, and several rows may have one name.
        names = frozenset(normalise_identity(row[index]) for index in columns["identity"]) - {""}
        if len(names) > 1:
            aliases.append(names)
        for name in names:
            earlier = attributes.setdefault(name, facts)
            if earlier != facts:
                conflicts.add(name)
                gender, nationality = (a if a == b else "" for a, b in zip(earlier, facts, strict=True))
                attributes[name] = (gender, nationality)
    if not attributes:
        raise UserError(f"--metadata {file}: no person in it")
    return Metadata(file, attributes, num_rows, len(conflicts), tuple(aliases))


def is_id(name: str) -> bool:
    """True for what data sets number people by, such as id10001, and False for names."""
    return _ID.fullmatch(name.casefold()) is not None


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of each row that is not empty."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise UserError(f"--metadata {file}: more than {MAX_BYTES} bytes; this is no table of people")
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"--metadata: no such file: {file}") from None
    except IsADirectoryError:
        raise UserError(f"--metadata {file}: is a folder; a CSV file is expected") from None
    except UnicodeDecodeError as error:
        raise UserError(f"--metadata {file}: not UTF-8 text (byte {error.start})") from None
    # Tab or semicolon where the header has one: names of columns and people may hold commas.
    first = text.lstrip().split("\n", 1)[0]
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=next((sign for sign in "\t;" if sign in first), ",")
    )
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, [cell.strip() for cell in row]
    except csv.Error as error:
        raise UserError(f"--metadata {file}: not a table ({error})") from None


def _values(row: list[str], columns: list[int]) -> list[str]:
    values = (row[index].casefold() for index in columns)
    return ["" if value in UNKNOWN else value for value in values]


def _agreed(values: Iterable[str]) -> str:
    """The only value there is, or "" where there is none or several."""
    different = set(values) - {""}
    return different.pop() if len(different) == 1 else ""
