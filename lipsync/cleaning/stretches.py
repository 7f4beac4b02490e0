"""Stretches of a video in which one face is seen, and clips cut out of them.

All bounds are frames of the clock of 25 a second, the first and one past the last.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lipsync.clips.clock import FRAME_HZ
from lipsync.clips.tracks import DETECT_EVERY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lipsync.clips.features import FaceTrack

SEVERAL_FACES, NO_FACE = "several_faces", "no_face"
# Left out at both ends. At other rates than 25 the frame next to a cut may be a picture of the other shot,
# and many cuts blend two pictures.
EDGE_FRAMES = 1
MIN_PAUSE_FRAMES = 5  # 0.2 s: longer than the closure of a plosive


@dataclass(frozen=True)
class Stretch:
    """Consecutive frames of a shot with the same faces.

    Attributes:
        start, end: The first frame and one past the last.
        track: Index of the face that is seen alone; None without one.
        reason: SEVERAL_FACES or NO_FACE; "" with a face alone.
    """

    start: int
    end: int
    track: int | None
    reason: str = ""


def find_stretches(
    tracks: Sequence[FaceTrack], first: int, num_frames: int, other_face_share: float
) -> list[Stretch]:
    """The stretches of the frames from `first` on, in order and without holes.

    A face is alone where every other one is narrower than a share of it. The detector searches the whole
    picture every DETECT_EVERY frames only, so a face counts from that many frames before its track begins.

    Args:
        tracks: The faces, all within these frames.
        first: Frame at which the shot starts.
        num_frames: Of the shot.
        other_face_share: Of the width of the widest face; narrower ones are background.
    """
    widest, main = np.zeros(num_frames, np.float32), np.full(num_frames, -1)
    # Of the faces with the time before they are detected: the widest, whose it is, and the second.
    top, second, owner = np.zeros_like(widest), np.zeros_like(widest), main.copy()
    for number, track in enumerate(tracks):
        start, end = track.start - first, track.start - first + len(track)
        seen, early = slice(start, end), max(start - DETECT_EVERY, 0)
        width_px = track.boxes_px[:, 2]
        main[seen] = np.where(width_px > widest[seen], number, main[seen])
        widest[seen] = np.maximum(width_px, widest[seen])
        around, longer_px = slice(early, end), np.pad(width_px, (start - early, 0), mode="edge")
        is_top = longer_px > top[around]
        second[around] = np.maximum(second[around], np.where(is_top, top[around], longer_px))
        owner[around] = np.where(is_top, number, owner[around])
        top[around] = np.maximum(longer_px, top[around])
    others_px = np.where(owner == main, second, top)
    labels = np.where(others_px > other_face_share * widest, -1, main)
    labels = np.where(widest == 0, -2, labels)
    bounds = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), num_frames]
    stretches = []
    for start, end in itertools.pairwise(bounds):
        label = int(labels[start])
        reason = {-1: SEVERAL_FACES, -2: NO_FACE}.get(label, "")
        stretches.append(Stretch(first + start, first + end, None if reason else label, reason))
    return stretches


def cut_clips(
    start: int, end: int, pauses: Sequence[tuple[int, int]], min_clip_s: float, max_clip_s: float
) -> list[tuple[int, int]]:
    """A stretch as clips of at most `max_clip_s`; one part only where it is short enough.

    Each cut is in the middle of the longest pause between the half and the whole of `max_clip_s`; without a
    pause there, the rest is cut into equal parts. No part is shorter than `min_clip_s` unless the stretch is.

    Args:
        start, end: Of the stretch.
        pauses: Of the speech, (first frame, one past the last) each.
        min_clip_s, max_clip_s: In seconds; the second at least twice the first.
    """
    most, least = round(max_clip_s * FRAME_HZ), round(min_clip_s * FRAME_HZ)
    clips = []
    while end - start > most:
        low, high = start + most // 2, min(start + most, end - least)
        middles = {(first + last) // 2: last - first for first, last in pauses}
        inside = [middle for middle in middles if low <= middle <= high]
        if inside:
            cut = max(inside, key=lambda middle: (middles[middle], middle))
        else:
            cut = start + (end - start) // -(-(end - start) // most)
        clips.append((start, cut))
        start = cut
    return [*clips, (start, end)]


def find_pauses(is_speech: NDArray[np.bool_], frame_s: float) -> list[tuple[int, int]]:
    """The pauses of at least MIN_PAUSE_FRAMES, in frames of 25 a second, in order.

    Args:
        is_speech: (n,) of stretches of `frame_s` from time 0 on.
        frame_s: Their length in seconds.
    """
    padded = np.concatenate([[True], is_speech, [True]])
    starts = np.flatnonzero(padded[:-1] & ~padded[1:])
    ends = np.flatnonzero(~padded[:-1] & padded[1:])
    pauses = np.stack([starts, ends], axis=1) * (frame_s * FRAME_HZ)
    whole = np.rint(pauses).astype(int).tolist()
    return [(first, last) for first, last in whole if last - first >= MIN_PAUSE_FRAMES]
