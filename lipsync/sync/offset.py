"""The offset between lips and sound: its sign, the lags that are compared, and the top of a curve of them.

Signs: a lag is counted in rows of the sound's features, an offset in milliseconds. Both are positive where
the audio is early, that is, where what is heard now will be seen later: frame k then belongs to row 4k - lag
(`rows_of_frames`). SyncNet's published offsets count in frames of 40 ms with the same sign.

Lags are whole rows of 10 ms, ascending and without holes. `lipsync.sync.posterior` makes probabilities of
them, `lipsync.sync.changes` finds offsets that change in time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from facevox.errors import UserError
from lipsync.clips.clock import ROW_HZ, ROWS_PER_FRAME

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAG_MS = 1000.0 / ROW_HZ  # of a step between lags
MAX_OFFSET_MS = 1000.0  # of the search, unless more is asked for
NARROWEST_MS, WIDEST_MS = 200.0, 10_000.0
LEAST_OVERLAP = 0.5  # of a clip, at the ends of a wider search
PEAK_STEPS = 2  # lags on either side of the peak that its parabola goes through


def search_lags(max_offset_ms: float = MAX_OFFSET_MS) -> NDArray[np.int64]:
    """All lags from -max_offset_ms to max_offset_ms."""
    most = round(max_offset_ms / LAG_MS)
    return np.arange(-most, most + 1, dtype=np.int64)


def reach_ms(max_offset_ms: float, duration_s: float) -> float:
    """The farthest offset to search for in a clip: beyond MAX_OFFSET_MS, half of it still has sound."""
    return min(max_offset_ms, max(MAX_OFFSET_MS, LEAST_OVERLAP * 1000 * duration_s))


def check_max_offset(max_offset_ms: float) -> None:
    """Raises UserError where a search is not NARROWEST_MS to WIDEST_MS wide to each side."""
    if not NARROWEST_MS <= max_offset_ms <= WIDEST_MS:  # nan too
        raise UserError(
            f"max_offset_ms {max_offset_ms:g}: a number from {NARROWEST_MS:g} to {WIDEST_MS:g} is expected; "
            "the sound of another recorder (--audio) is placed by the video's own, however far off it is"
        )


def rows_of_frames(
    start: int, num_frames: int, num_rows: int, lags: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Row of the sound that belongs to each frame at each lag: (rows, exists), both (num_frames, L).

    Rows outside the recording are clipped into it; `exists` is false there.
    """
    rows = ROWS_PER_FRAME * (start + np.arange(num_frames, dtype=np.int64))[:, None] - lags[None, :]
    exists = (rows >= 0) & (rows < num_rows)
    return np.clip(rows, 0, max(num_rows - 1, 0)), exists


def peak_lag(values: NDArray[np.float64], lags: NDArray[np.int64], at: int | None = None) -> float:
    """The lag of the largest of (L,) values, refined by the least-squares parabola around it.

    Args:
        values: Finite.
        lags: (L,).
        at: Index of the lag whose hill is meant; None: the largest. The top of its hill is refined.
    """
    best = int(values.argmax()) if at is None else at
    while at is not None:  # uphill: what chose the lag may have chosen a neighbour of the top
        around = [k for k in (best - 1, best, best + 1) if 0 <= k < len(values)]
        higher = max(around, key=lambda k: (values[k], k == best))
        if higher == best:
            break
        best = higher
    if not PEAK_STEPS <= best < len(lags) - PEAK_STEPS:
        return float(lags[best])
    steps = np.arange(-PEAK_STEPS, PEAK_STEPS + 1)
    around_top = values[best + steps]
    # Least squares on steps that are symmetric: slope and bend come apart.
    slope = float(around_top @ steps) / float(steps @ steps)
    squares = steps**2 - float(steps @ steps) / len(steps)
    bend = float(around_top @ squares) / float(squares @ squares)
    shift = -slope / (2 * bend) if bend < 0 else 0.0
    return float(lags[best]) + min(max(shift, -PEAK_STEPS), PEAK_STEPS)
