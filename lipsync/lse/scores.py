"""LSE-C, LSE-D and the offset, from the distances of lips and sound at 31 lags.

Source: Chung and Zisserman 2016 for the distances, Prajwal et al. 2020 (Wav2Lip) for the names LSE-D, the
least mean distance, and LSE-C, by how much the median is above it. Neither has a unit.

Sign: an offset of +3 frames says that the sound of window i is best at the lips of window i + 3: the audio is
early, as `offset_ms` > 0 says it elsewhere.

Letters: W windows of 5 frames, the first from frame 0 on, the next from frame 1 on; L = 31 lags; D = 1024.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facevox.signs import report_progress
from lipsync.clips.clock import FRAME_HZ, ROWS_PER_FRAME
from lipsync.clips.sounds import SAMPLE_RATE_HZ
from lipsync.lse.network import NUM_FEATURES, WINDOW_FRAMES, WINDOW_ROWS, SyncNet
from lipsync.lse.sound import sound_rows

Features = NDArray[np.float32]

MAX_LAG = 15  # frames, 0.6 s
NUM_LAGS = 2 * MAX_LAG + 1
# At the largest lag half of them are then compared with sound of the clip, not with the zeros outside.
MIN_WINDOWS = NUM_LAGS
BATCH_WINDOWS = 20  # of lips: 0.3 GB of memory in the first layers
SOUND_BATCH_WINDOWS = 64
SAMPLES_PER_FRAME = round(SAMPLE_RATE_HZ / FRAME_HZ)
EPSILON = 1e-6  # added to differences, as torch.nn.functional.pairwise_distance does


@dataclass(frozen=True)
class LseScore:
    """The scores of a face.

    Attributes:
        lse_c: Confidence: median of the distances minus the least one; higher is better.
        lse_d: The least distance; lower is better.
        offset_frames: Of 40 ms, -15 to 15; positive: the audio is early.
        num_windows: Windows that the distances are averages over.
    """

    lse_c: float
    lse_d: float
    offset_frames: int
    num_windows: int


def num_windows_of(num_frames: int, num_samples: int) -> int:
    """Number of windows that are compared; the authors' code leaves the last one out, and so does this."""
    return max(min(num_frames, num_samples // SAMPLES_PER_FRAME) - WINDOW_FRAMES, 0)


def lag_distances(lips_WD: Features, sound_WD: Features, first: int = 0) -> NDArray[np.float64]:
    """(n, L) distances of lips to the sound 15 windows before up to 15 windows after.

    Args:
        lips_WD: (n, D), windows `first` to before `first + n`.
        sound_WD: Of all windows; outside of them there are zeros.
        first: Index of the first row of lips in `sound_WD`.
    """
    start, stop = first - MAX_LAG, first + len(lips_WD) + MAX_LAG
    outside = (max(-start, 0), max(stop - len(sound_WD), 0))
    padded_WD = np.pad(sound_WD[max(start, 0) : stop], (outside, (0, 0)))
    distances_WL = np.empty((len(lips_WD), NUM_LAGS))
    for lag in range(NUM_LAGS):
        difference_WD = lips_WD - padded_WD[lag : lag + len(lips_WD)] + np.float32(EPSILON)
        distances_WL[:, lag] = np.linalg.norm(difference_WD, axis=1)
    return distances_WL


def score_of(mean_L: NDArray[np.float64], num_windows: int) -> LseScore:
    """The scores of (L,) distances, which are averages over windows."""
    best = int(mean_L.argmin())
    least = float(mean_L[best])
    return LseScore(float(np.median(mean_L)) - least, least, MAX_LAG - best, num_windows)


def sound_features(network: SyncNet, samples: NDArray[np.float32], num_windows: int) -> Features:
    """(W, D) features of the first windows of (n,) samples at 16 kHz, -1 to 1."""
    rows_TK = sound_rows(samples)
    features_WD = np.zeros((num_windows, NUM_FEATURES), np.float32)
    if num_windows == 0:
        return features_WD
    windows_WKR = np.lib.stride_tricks.sliding_window_view(rows_TK, WINDOW_ROWS, axis=0)[::ROWS_PER_FRAME]
    for start in range(0, num_windows, SOUND_BATCH_WINDOWS):
        report_progress()
        stop = min(start + SOUND_BATCH_WINDOWS, num_windows)
        features_WD[start:stop] = _run(network, network.sound_features, windows_WKR[start:stop])
    return features_WD


def _run(
    network: SyncNet, branch: Callable[[Tensor], Tensor], batch: NDArray[np.float32 | np.uint8]
) -> Features:
    """The features of a batch from one of the branches."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        features: Features = branch(torch.from_numpy(np.array(batch)).to(device).float()).cpu().numpy()
    return features


class FaceScorer:
    """Scores of one face, whose crops come one by one; holds a batch of them and 31 sums.

    Args:
        network: SyncNet.
        sound_WD: Features of the sound in the windows that are to be scored.
    """

    def __init__(self, network: SyncNet, sound_WD: Features) -> None:
        self._network, self._sound_WD = network, sound_WD
        self._crops: list[NDArray[np.uint8]] = []  # of windows to come
        self._sum_L = np.zeros(NUM_LAGS)
        self._num_done = 0

    def push(self, crop_bgr: NDArray[np.uint8]) -> None:
        """Takes the crop of the next frame, (224, 224, 3); those after the last window are ignored."""
        self._crops.append(crop_bgr)
        if len(self._crops) - WINDOW_FRAMES + 1 >= BATCH_WINDOWS:
            self._score(BATCH_WINDOWS)

    def finish(self) -> LseScore | None:
        """The scores of all windows; None where there are fewer than MIN_WINDOWS."""
        self._score(len(self._crops) - WINDOW_FRAMES + 1)
        if self._num_done < MIN_WINDOWS:
            return None
        return score_of(self._sum_L / self._num_done, self._num_done)

    def _score(self, num_windows: int) -> None:
        num_windows = min(num_windows, len(self._sound_WD) - self._num_done)
        if num_windows > 0:
            frames_F3HW = np.stack(self._crops[: num_windows + WINDOW_FRAMES - 1]).transpose(0, 3, 1, 2)
            lips_WD = _run(self._network, self._network.lip_features, frames_F3HW)
            self._sum_L += lag_distances(lips_WD, self._sound_WD, self._num_done).sum(axis=0)
            self._num_done += num_windows
        del self._crops[: max(len(self._crops) - WINDOW_FRAMES + 1, 0)]
