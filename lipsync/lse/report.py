"""The report on LSE-C, LSE-D and offset of a clip: plain values, lines for a terminal, a row of a table."""

from __future__ import annotations

import math
from typing import TypedDict

from lipsync.clips.clock import FRAME_HZ

# lse.csv: the values of the clip are those of its face with the highest LSE-C.
COLUMNS = (
    "pair", "video", "audio", "lse_c", "lse_d", "offset_frames", "offset_ms", "num_windows", "face",
    "num_faces", "reason", "duration_s", "warnings", "json_file",
)  # fmt: skip


class LseValues(TypedDict):
    """The scores of a clip or a face; nan where there are too few windows."""

    lse_c: float  # confidence, higher is better
    lse_d: float  # distance, lower is better
    offset_frames: float  # of 40 ms; positive: audio early
    offset_ms: float
    num_windows: int


class LseFace(LseValues):
    """The scores of a face, and which face it is."""

    face: int
    start_s: float
    end_s: float
    box_px: list[int]


class LseClip(LseValues):
    """The scores of a clip: those of its face with the highest LSE-C."""

    face: int | None


class LseDetails(LseClip):
    """All about a clip."""

    reason: str  # why there are no scores, or ""
    faces: list[LseFace]
    syncnet: str
    syncnet_sha256: str
    video: str
    audio: str
    duration_s: float
    fps: float
    num_frames: int
    warnings: list[str]


def no_values() -> LseValues:
    """The values of a clip without scores."""
    return {
        "lse_c": math.nan,
        "lse_d": math.nan,
        "offset_frames": math.nan,
        "offset_ms": math.nan,
        "num_windows": 0,
    }


def summary_lines(details: LseDetails) -> list[str]:
    """The report for a terminal."""
    if details["face"] is None:
        lines = [f"LSE-C and LSE-D: unknown: {details['reason']}"]
    else:
        frames, num_faces = round(details["offset_frames"]), len(details["faces"])
        lines = [
            f"LSE-C: {details['lse_c']:.3f} (confidence: higher is better)",
            f"LSE-D: {details['lse_d']:.3f} (distance: lower is better)",
            f"offset: {frames:+d} frames = {round(details['offset_ms']):+d} ms (positive: audio early), in "
            f"whole frames of {round(1000 / FRAME_HZ)} ms",
            f"windows: {details['num_windows']}",
        ]
        if num_faces > 1:
            lines.append(f"faces: {num_faces}; these are of face {details['face']}, whose LSE-C is highest")
    lines.append(f"weights: {details['syncnet']}, sha256 {details['syncnet_sha256'][:12]}")
    return lines + [f"warning: {text}" for text in details["warnings"]]


def table_row(details: LseDetails) -> dict[str, object]:
    """The columns of lse.csv that come from the details."""
    row: dict[str, object] = {name: value for name, value in details.items() if name in COLUMNS}
    return row | {"num_faces": len(details["faces"]), "warnings": "; ".join(details["warnings"])}
