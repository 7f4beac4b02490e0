"""Landmarks and confidence of each face file, as face extraction wrote them into faces.csv."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypedDict

from facevox.spreadsheets import TableReader
from lc_pytorch.faces.extractor import LANDMARK_COLUMNS


class ExtractedFace(TypedDict, total=False):
    """Facts about a face from its row; an entry that the row lacks is absent.

    `points`: x and y of the five landmarks in its pixels, ten numbers; `is_guess`: they are those of an
    average face, placed where the detector saw the face; `confidence`: of the detection, 0 to 1.
    """

    points: list[float]
    is_guess: bool
    confidence: float


def read_face_table(path: Path) -> dict[str, ExtractedFace]:
    """Facts about each face file (relative path); none where the table is missing or of another kind."""
    if not path.is_file():
        return {}
    faces: dict[str, ExtractedFace] = {}
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for row in TableReader(file):
            name = row.get("face_file")
            if not name:
                continue
            facts: ExtractedFace = {}
            values = [_number(row.get(column)) for column in LANDMARK_COLUMNS]
            points = [value for value in values if value is not None]
            if len(points) == len(values):
                facts["points"] = points
                if row.get("landmark_source") == "average":
                    facts["is_guess"] = True
            confidence = _number(row.get("confidence"))
            if confidence is not None:
                facts["confidence"] = min(max(confidence, 0.0), 1.0)
            faces[name] = facts
    return faces


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
