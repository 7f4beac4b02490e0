"""The bad videos that every program must survive, each with its fault."""

import struct
from pathlib import Path

import numpy as np

from facevox.media import write_video, write_wav

AWKWARD_NAMES = ('a "quoted" name.mp4', "it's.mp4", "한국어.mp4", "줄\n바꿈.mp4", "-dash.mp4", "a b.mp4")


def rotate_header(path: Path, degrees: int) -> None:
    """Writes a rotation into the track header, as phones do."""
    matrices = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
    rewrite_matrix(path, matrices[degrees])


def rewrite_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Writes a display matrix (a, b, c, d) into the track header (ISO 14496-12, 8.3.2)."""
    a, b, c, d = (value * 65536 for value in matrix)
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40  # version 0: the matrix is 40 bytes after the version
    struct.pack_into(">9i", data, start, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))


def write_broken_videos(folder: Path, good_video: Path) -> dict[str, str]:
    """Files named .mp4 that are no readable video; returns a pattern of the reason for each name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.mp4").write_text("this is no video", encoding="utf-8")
    (folder / "empty.mp4").write_bytes(b"")
    whole = good_video.read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    return {
        "text.mp4": "not a readable media file",
        "empty.mp4": "0 bytes",
        "truncated.mp4": "not a readable media file",
        "noise.mp4": "not a readable media file",
    }


def write_sound_only(path: Path, rate_hz: int = 16000) -> None:
    """A file named .mp4 that holds a sound and no pictures."""
    write_wav(path, np.zeros(rate_hz, np.float32), rate_hz)


def write_silent_video(path: Path, num_frames: int = 5, shape: tuple[int, int] = (64, 96)) -> None:
    """A grey video without a sound track and without a face."""
    write_video(path, [np.full((*shape, 3), 127, np.uint8)] * num_frames, 25, preset="ultrafast")
