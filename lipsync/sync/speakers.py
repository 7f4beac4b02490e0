"""The faces in a picture that speak: at any moment at most one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lipsync.sync.offset import lag_curve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lipsync.clips.features import FaceTrack


def find_speakers(
    tracks: Sequence[FaceTrack],
    similarities: Sequence[NDArray[np.float32] | None],
    lags: NDArray[np.int64],
) -> set[int]:
    """Indices in `tracks` of the faces that speak: at any moment at most one.

    The face with most evidence decides the offset; then faces are chosen by their evidence at that offset,
    as long as they share no moment with one that was chosen before.
    """
    usable = {number: matrix for number, matrix in enumerate(similarities) if matrix is not None}
    if not usable:
        return set()
    evidence = {number: find_evidence(matrix, lags, None) for number, matrix in usable.items()}
    first = max(usable, key=lambda number: evidence[number])
    curve = lag_curve(usable[first], lags)
    at = None if curve.is_empty else int(np.nanargmax(curve.values))
    at_offset = {number: find_evidence(matrix, lags, at) for number, matrix in usable.items()}
    speaking: set[int] = set()
    for number in sorted(usable, key=lambda number: (number != first, -at_offset[number])):
        track = tracks[number]
        if all(
            track.start >= other.start + len(other) or other.start >= track.start + len(track)
            for other in (tracks[chosen] for chosen in speaking)
        ):
            speaking.add(number)
    return speaking


def find_evidence(matrix: NDArray[np.float32], lags: NDArray[np.int64], at: int | None) -> float:
    """Sum over the frames at the best lag (or at lag number `at`) less that at the median lag."""
    curve = lag_curve(matrix, lags)
    if curve.is_empty:
        return 0.0
    count = float(curve.num_frames.max())
    value = np.nanmax(curve.values) if at is None else np.nan_to_num(curve.values[at], nan=curve.middle)
    return float(value) * count - curve.middle * count
