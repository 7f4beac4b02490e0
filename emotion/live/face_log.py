"""The faces of a picture, video or camera as rows of a table, and the files of an annotated video."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from emotion.live.face_tracks import Face, FrameAnswer, face_json
from facevox.files import write_json, write_text
from facevox.spreadsheets import safe_cell, safe_rows

FACE_COLUMNS = ("face", "label", "left", "top", "width", "height")


def face_columns(class_names: Sequence[str]) -> tuple[str, ...]:
    """The columns of a face: box, then the probabilities of its picture, then the smoothed ones."""
    return (*FACE_COLUMNS, *class_names, *(f"{name}_smoothed" for name in class_names))


def face_row(face: Face, class_names: Sequence[str]) -> dict[str, object]:
    """A face as a row of `face_columns`; pixels and shares."""
    left, top, width, height = (round(float(edge), 1) for edge in face.box)
    probabilities = {
        name: round(float(p), 4) for name, p in zip(class_names, face.probabilities, strict=True)
    }
    smoothed = {
        f"{name}_smoothed": round(float(p), 4) for name, p in zip(class_names, face.smoothed, strict=True)
    }
    box = {"left": left, "top": top, "width": width, "height": height}
    return {"face": face.track_id, "label": class_names[face.best], **box, **probabilities, **smoothed}


class AnnotatedVideo(TypedDict):
    """The files of an annotated video (paths), and their contents; `faces` counts tracks."""

    video: str
    table: str
    about: str
    frames: int
    faces: int
    seconds: float
    has_sound: bool


class FaceLog:
    """The faces of a video or camera, frame by frame, as a table and as JSON.

    Args:
        class_names: Of the classifier.
        spreadsheet_safe: See `facevox.spreadsheets`.
    """

    def __init__(self, class_names: Sequence[str], *, spreadsheet_safe: bool = False) -> None:
        self._names = class_names
        self.frames: list[FrameAnswer] = []
        self._columns = ("frame", "time_s", *face_columns(class_names))
        self._is_safe = spreadsheet_safe
        self._text = io.StringIO()
        self._writer = csv.writer(self._text)
        self._writer.writerows(safe_rows([self._columns]) if spreadsheet_safe else [self._columns])

    @property
    def num_tracks(self) -> int:
        """Number of faces, each counted once as long as it stayed."""
        return len({face["id"] for frame in self.frames for face in frame["faces"]})

    def add(self, index: int, time_s: float, faces: Sequence[Face]) -> None:
        """Adds the faces of a frame; a frame without any gets a row without a face."""
        time_s = round(time_s, 6) + 0.0  # never -0.0
        first: dict[str, object] = {"frame": index, "time_s": time_s}
        rows = [first | face_row(face, self._names) for face in faces] or [first]
        cells = [[row.get(name, "") for name in self._columns] for row in rows]
        self._writer.writerows([[*map(safe_cell, row), 1] for row in cells] if self._is_safe else cells)
        self.frames.append({"time_s": time_s, "faces": [face_json(face, self._names) for face in faces]})

    def write(
        self,
        video: Path,
        width: int,
        height: int,
        rate_hz: float,
        duration_s: float,
        seconds: float,
        *,
        has_sound: bool,
    ) -> AnnotatedVideo:
        """Writes `<video>.csv` and `<video>.json` next to the video, each whole.

        Args:
            video: The annotated video.
            width, height: Of its frames, pixels.
            rate_hz: Of its frames, on average.
            duration_s: From 0 to the end of its last frame.
            seconds: Time that it took.
            has_sound: Whether it has the sound.

        Returns:
            All three files.
        """
        table, about = video.with_suffix(".csv"), video.with_suffix(".json")
        write_text(table, self._text.getvalue())
        value = {
            "kind": "video",
            "width": width,
            "height": height,
            "fps": round(rate_hz, 3),
            "duration_s": round(duration_s, 3),
            "classes": list(self._names),
            "frames": self.frames,
        }
        write_json(about, value)
        return {
            "video": str(video),
            "table": str(table),
            "about": str(about),
            "frames": len(self.frames),
            "faces": self.num_tracks,
            "seconds": round(seconds, 2),
            "has_sound": has_sound,
        }
