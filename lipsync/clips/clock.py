"""The clock that lips and sound share, and the sign of an offset.

Frame k shows the moment k / 25 s of presentation time, whatever the rate of the file. Row j of the sound's
features is centred on j / 100 s. So four rows belong to a frame, and row 4k is centred on its moment.

Signs: a lag is counted in rows, an offset in milliseconds. Both are positive where the audio is early, that
is, where what is heard now will be seen later: frame k then belongs to row 4k - lag. (SyncNet's published
offsets count in frames of 40 ms with the same sign.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAME_HZ = 25.0  # all features of faces are sampled at this rate
ROW_HZ = 100.0  # of the sound's features
ROWS_PER_FRAME = round(ROW_HZ / FRAME_HZ)
LAG_MS = 1000.0 / ROW_HZ  # of a step between lags
# In sync: from 60 ms late to 60 ms early, the tighter end of EBU R37 (+40/-60) and a frame and a half.
IN_SYNC_MS = 60.0
MAX_OFFSET_MS = 1000.0  # of the search; a larger offset means that the files do not belong together


def search_lags(max_offset_ms: float = MAX_OFFSET_MS) -> NDArray[np.int64]:
    """All lags from -max_offset_ms to max_offset_ms."""
    most = round(max_offset_ms / LAG_MS)
    return np.arange(-most, most + 1, dtype=np.int64)


def rows_of_frames(
    start: int, num_frames: int, num_rows: int, lags: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Row of the sound that belongs to each frame at each lag: (rows, exists), both (num_frames, L).

    Rows outside the recording are clipped into it; `exists` is false there.
    """
    rows = ROWS_PER_FRAME * (start + np.arange(num_frames, dtype=np.int64))[:, None] - lags[None, :]
    exists = (rows >= 0) & (rows < num_rows)
    return np.clip(rows, 0, max(num_rows - 1, 0)), exists
