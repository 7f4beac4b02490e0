"""For the lip-sync tests: whole frames of example people, made once a session, and a full disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facevox.media import iter_frames


@pytest.fixture(scope="session")
def clip_frames(example_videos: Path) -> dict[str, list[np.ndarray]]:
    """The 25 frames (256, 256, 3) of the first clip of four example people."""
    names = [f"id{number:04d}/0001.mp4" for number in range(1, 5)]
    return {name: [frame.image for frame in iter_frames(example_videos / name)] for name in names}


@pytest.fixture(scope="session")
def openings(example_data_dir: Path) -> dict[str, list[float]]:
    """Requested opening of the mouth in each frame (0 to 1), by the clip's name."""
    people = json.loads((example_data_dir / "metadata.json").read_text(encoding="utf-8"))["people"]
    return {
        f"{person['name']}/{clip['clip']}.mp4": clip["opening"]
        for person in people
        for clip in person["clips"]
    }


@pytest.fixture(scope="session")
def hidden_face(clip_frames: dict[str, list[np.ndarray]]):
    """A function: a clip in a larger room, the face covered in the frames first to before last."""
    # Light and dark as in a room: what covers the face must not change the picture as much as a cut does.
    room = np.zeros((400, 560, 3), np.uint8)
    cv2.rectangle(room, (0, 0), (560, 90), (235, 240, 245), -1)
    cv2.rectangle(room, (420, 90), (560, 400), (200, 160, 90), -1)
    cv2.rectangle(room, (30, 130), (130, 400), (90, 120, 160), -1)

    def covered(first: int, last: int) -> list[np.ndarray]:
        frames = []
        for number, frame in enumerate(next(iter(clip_frames.values()))):
            whole = room.copy()
            whole[100:356, 150:406] = frame
            if first <= number < last:
                whole[175:320, 230:335] = (150, 120, 100)
            frames.append(whole)
        return frames

    return covered


@pytest.fixture
def fill_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """A function: writing below a folder fails with a full disk from now on, with the kernel's error."""
    plain = Path.open

    def fill(folder: Path) -> None:
        def opened(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if folder in self.parents and set(mode) & set("wax"):
                plain(self, mode, *arguments, **options).close()  # the name still fits
                return plain(Path("/dev/full"), mode.replace("x", "w"), *arguments, **options)
            return plain(self, mode, *arguments, **options)

        monkeypatch.setattr(Path, "open", opened)

    return fill
