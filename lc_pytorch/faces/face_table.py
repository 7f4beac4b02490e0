"""What face extraction wrote about its faces (faces.csv): landmarks and confidence, by face file."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TypedDict

from lc_pytorch.faces.extractor import LANDMARK_COLUMNS


class KnownFace(TypedDict, total=False):
    """What is known of a face; each entry is there where its row has it.

    `points`: x and y of the five landmarks in its pixels, ten numbers; `is_guess`: they are those of an
    average face, put where the detector saw the face; `confidence`: of the detection, 0 to 1.
    """

    points: list[float]
    is_guess: bool
    confidence: float


def read_face_table(path: Path) -> dict[str, KnownFace]:
    """What is known of each face file (relative path); a missing table, or one of another kind, is empty."""
    if not path.is_file():
        return {}
    known: dict[str, KnownFace] = {}
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for row in csv.DictReader(file):
            name = row.get("face_file")
            if not name:
                continue
            facts: KnownFace = {}
            found = [_number(row.get(column)) for column in LANDMARK_COLUMNS]
            points = [value for value in found if value is not None]
            if len(points) == len(found):
                facts["points"] = points
                if row.get("landmark_source") == "average":
                    facts["is_guess"] = True
            confidence = _number(row.get("confidence"))
            if confidence is not None:
                facts["confidence"] = min(max(confidence, 0.0), 1.0)
            known[name] = facts
    return known


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
