"""AIHub's annotations: a JSON list for each emotion, in whatever encoding it came.

    [{"filename": "ab12_남_20_기쁨_도심 환경_20210128-001-003.jpg", "gender": "남", "age": 20,
      "faceExp_uploader": "기쁨", "bg_uploader": "도심 환경",
      "annot_A": {"boxes": {"minX": 1.0, "minY": 2.0, "maxX": 3.0, "maxY": 4.0}, "faceExp": "기쁨"},
      "annot_B": …, "annot_C": …}, …]

Another form of the same lists has flat keys: `faceExp_A` and `faceBB_A`. Boxes are kept as they are written
(`boxes.clean_box` corrects them once the size of the picture is known).
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from emotion.data.aihub.names import GENDERS, emotion_of, normalise
from facevox.errors import UserError

ANNOTATORS = ("A", "B", "C")
ENCODINGS = ("utf-8-sig", "cp949")  # the first reads UTF-8 with and without a byte-order mark
Edges = tuple[float, float, float, float]  # left, top, right, bottom, as written


@dataclass(frozen=True, slots=True)
class Annotation:
    """The annotation of one picture.

    Attributes:
        filename: In NFC, without folders.
        gender: "male", "female" or "".
        age: In years, -1 where it is missing.
        uploader: The emotion that the uploader named, in English, or "".
        votes: Of the three annotators, in English; "" for one who did not answer.
        boxes: Of the annotators who drew one, as written; may be swapped, negative or empty.
    """

    filename: str
    gender: str
    age: int
    uploader: str
    votes: tuple[str, str, str]
    boxes: tuple[Edges, ...]


def decode_text(data: bytes, name: str) -> str:
    """The text of a JSON file in UTF-8 (with or without a byte-order mark) or cp949.

    Raises:
        UserError: It is in neither.
    """
    for encoding in ENCODINGS:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UserError(f"{name}: neither UTF-8 nor cp949 text")


def read_annotations(data: bytes, name: str) -> Iterator[Annotation | str]:
    """The annotations of one JSON file; instead of a record that cannot be used, a text with its fault.

    A file with the annotation of a single picture (an object instead of a list) is read too.

    Args:
        data: The file.
        name: For messages.

    Raises:
        UserError: It is not JSON, or holds no list of records.
    """
    try:
        value = json.loads(decode_text(data, name))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{name}: not JSON: {error}") from None
    records = [value] if isinstance(value, dict) and "filename" in value else value
    if not isinstance(records, list):
        raise UserError(f"{name}: a JSON list of annotations is expected, it holds a {type(value).__name__}")
    for number, record in enumerate(records):
        filename = record.get("filename") if isinstance(record, dict) else None
        if isinstance(filename, str) and filename.strip():
            yield _annotation(record, filename)
        else:
            yield f"record {number} has no filename"


def _annotation(record: Mapping[str, object], filename: str) -> Annotation:
    votes, boxes = [], []
    for letter in ANNOTATORS:
        annot = record.get(f"annot_{letter}")
        annot = annot if isinstance(annot, dict) else {}
        votes.append(emotion_of(annot.get("faceExp", record.get(f"faceExp_{letter}"))))
        edges = _edges(annot.get("boxes", annot.get("faceBB", record.get(f"faceBB_{letter}"))))
        if edges is not None:
            boxes.append(edges)
    gender, age = record.get("gender"), record.get("age")
    return Annotation(
        filename=normalise(filename.strip().replace("\\", "/").rsplit("/", 1)[-1]),
        gender=GENDERS.get(normalise(gender), "") if isinstance(gender, str) else "",
        age=_age(age),
        uploader=emotion_of(record.get("faceExp_uploader")),
        votes=(votes[0], votes[1], votes[2]),
        boxes=tuple(boxes),
    )


def _age(value: object) -> int:
    number = _number(value)
    return int(number) if 0 <= number <= 150 else -1


def _edges(value: object) -> Edges | None:
    """Left, top, right, bottom of a box: named edges, a list of four, or a list with one such box."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = [value.get(name) for name in ("minX", "minY", "maxX", "maxY")]
    if not isinstance(value, list) or len(value) != 4:
        return None
    left, top, right, bottom = (_number(edge) for edge in value)
    return None if any(map(math.isnan, (left, top, right, bottom))) else (left, top, right, bottom)


def _number(value: object) -> float:
    """A JSON number, or a number in quotes; nan for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan
