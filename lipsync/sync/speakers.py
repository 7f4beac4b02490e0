"""The faces in a picture that speak: at any moment at most one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lipsync.clips.features import FaceTrack


def find_speakers(tracks: Sequence[FaceTrack], evidence: Sequence[NDArray[np.float32] | None]) -> set[int]:
    """Indices in `tracks` of the faces that speak: at any moment at most one.

    The face with most evidence decides the offset; then faces are chosen by their evidence at that offset,
    as long as they share no moment with one that was chosen before.

    Args:
        tracks: The faces.
        evidence: Of each, (blocks, L); None: it gives no answer.
    """
    usable = {number: blocks for number, blocks in enumerate(evidence) if blocks is not None}
    if not usable:
        return set()
    gains = {number: best_gain(blocks) for number, blocks in usable.items()}
    first = max(usable, key=lambda number: gains[number])
    at = int(usable[first].sum(axis=0, dtype=np.float64).argmax())
    at_offset = {number: best_gain(blocks, at) for number, blocks in usable.items()}
    speaking: set[int] = set()
    for number in sorted(usable, key=lambda number: (number != first, -at_offset[number])):
        track = tracks[number]
        if all(
            track.start >= other.start + len(other) or other.start >= track.start + len(track)
            for other in (tracks[chosen] for chosen in speaking)
        ):
            speaking.add(number)
    return speaking


def best_gain(evidence: NDArray[np.float32], at: int | None = None) -> float:
    """Evidence for the best lag (or for lag number `at`) less that for the median one."""
    total = evidence.sum(axis=0, dtype=np.float64)
    return float((total.max() if at is None else total[at]) - np.median(total))
