"""Evidence and similarities whose answer is known."""

import numpy as np
from numpy.typing import NDArray

from lipsync.sync.offset import search_lags
from lipsync.sync.posterior import SyncCalibration

LAGS = search_lags()
CALIBRATION = SyncCalibration(sharpness=1.0, weight=1.0, bias=0.0, spread_ms=5.0)


def similar(
    offsets: NDArray[np.float64], noise: float, seed: int = 0, width: float = 5.0, height: float = 1.0
) -> NDArray[np.float32]:
    """(frames, L): a hill at each frame's lag (in rows) in noise that is alike for half a second."""
    rng = np.random.default_rng(seed)
    rough = rng.normal(size=(-(-len(offsets) // 12), len(LAGS)))
    smooth = np.array([np.convolve(row, np.ones(7) / np.sqrt(7), "same") for row in rough])
    hill = height * np.exp(-0.5 * ((LAGS[None] - offsets[:, None]) / width) ** 2)
    return (hill + noise * np.repeat(smooth, 12, axis=0)[: len(offsets)]).astype(np.float32)
