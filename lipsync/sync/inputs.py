"""The inputs of networks, out of lips and of sound: their movements.

"Movements" are changes faster than about 0.7 Hz (`lipsync.sync.estimators.high_passed`), so that neither the
shape of a face nor the level of a recording distinguishes one person from another. NumPy alone: the model
that comes with the package runs on this, and torch's networks train on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from lipsync.clips.clock import ROWS_PER_FRAME
from lipsync.clips.mouths import NUM_LIP_POINTS
from lipsync.clips.sounds import NUMPY, SILENCE_DB, SoundFeatures, mfcc_of
from lipsync.sync.chunks import in_chunks
from lipsync.sync.estimators import HIGH_PASS_REACH, high_passed

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOUTH_CNN, LIP_LANDMARKS, LIP_DISTANCES = "mouth_cnn", "lip_landmarks", "lip_distances"
# Slower movements stay in than for the untrained estimators: of 3, 6 and 25 frames, 6 found most offsets.
HIGH_PASS_FRAMES = 6.0
# Frames on either side that the movement of a frame depends on; for the sound the same time.
INPUT_CONTEXT_FRAMES = round(HIGH_PASS_FRAMES * HIGH_PASS_REACH)
CHUNK_FRAMES = 1000  # computed at once
# Factors that bring movements to deviations of about 1 (measured on talking clips).
LIP_SCALE = 15.0  # of points in halves of the crop
DISTANCE_SCALE = 10.0
SPEED_SCALE = 15.0  # of changes of distances a frame
LEVEL_SCALE = 0.1  # of bands in dB
MFCC_SCALE = 0.05
NUM_COORDINATES = 2 * NUM_LIP_POINTS
NUM_LIP_VALUES = NUM_COORDINATES + 6
NUM_SPEEDS = 3  # the last of them
# Positions in LIP_POINTS: corners, and the middles of the lower and upper lip, of the outer and inner ring.
_WIDTH, _OUTER_GAP, _INNER_GAP = (10, 0), (5, 15), (25, 35)
LOUDEST_PERCENTILE = 95.0
# Both below the loudest rows of a recording.
QUIET_DB = 70.0  # quieter values are raised to this (of 50 and more, more was better)
VOICED_DB = 35.0  # louder rows count as speech
# Coordinates of the contour (x of point k is number 2 k, y is 2 k + 1) that the six distances of
# `lipsync.sync.estimators.lip_distances` are differences of; the last two are heights themselves.
DISTANCES_FROM = (11, 20, 51, 60, 11, 31)
DISTANCES_LESS = (31, 0, 71, 40)
NUM_DISTANCES = len(DISTANCES_FROM)
# Sizes of the convolutions of all networks.
FACE_KERNEL = 5  # frames
NUM_FACE_BLOCKS = 2
SOUND_KERNEL = 7  # rows
SOUND_DILATIONS = (1, 2, 2)  # 15 rows to each side together


def lip_values(lips: NDArray[np.float32]) -> NDArray[np.float32]:
    """Movements of lips (n, 40, 2), as (n, NUM_LIP_VALUES).

    First the contours around their middle (x and y of each point in turn), then width and gaps of the mouth,
    then the speeds of these.
    """
    return in_chunks(lips, CHUNK_FRAMES, INPUT_CONTEXT_FRAMES + 1, _lip_values_of)


def _lip_values_of(lips: NDArray[np.float32]) -> NDArray[np.float32]:
    points = lips.astype(np.float64)
    contour = high_passed(points - points.mean(axis=1, keepdims=True), HIGH_PASS_FRAMES) * LIP_SCALE
    distances = np.stack(
        [
            np.linalg.norm(points[:, start] - points[:, end], axis=1)
            for start, end in (_WIDTH, _OUTER_GAP, _INNER_GAP)
        ],
        axis=1,
    )
    speeds = np.gradient(distances, axis=0) if len(distances) > 1 else np.zeros_like(distances)
    movements = high_passed(distances, HIGH_PASS_FRAMES) * DISTANCE_SCALE
    return np.concatenate(
        [contour.reshape(len(lips), -1), movements, speeds * SPEED_SCALE], axis=1, dtype=np.float32
    )


def sound_values(sound: SoundFeatures) -> NDArray[np.float32]:
    """Movements of the log-mel bands and of the MFCC, (rows, bands + coefficients).

    Neither depends on the gain of the recording: the floor of the levels is QUIET_DB below its loudest rows.
    """
    return of_sound_values(sound, 0, lambda values: values)


def of_sound_values(
    sound: SoundFeatures, reach: int, function: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """`function(sound_values(sound))`, without all of the values in memory.

    Args:
        sound: The sound.
        reach: Rows on either side that a row of the result depends on.
        function: Of (rows, bands + coefficients) values; returns a row for each.
    """
    floor_db = np.float32(_loudest_db(sound) - QUIET_DB)
    context = INPUT_CONTEXT_FRAMES * ROWS_PER_FRAME
    size = CHUNK_FRAMES * ROWS_PER_FRAME

    def of_levels(level_db: NDArray[np.float32]) -> NDArray[np.float32]:
        values = values_of_levels(np.maximum(level_db, floor_db), sound.mfcc.shape[1], sound.features)
        return function(values)

    return in_chunks(sound.log_mel, size, context + reach, of_levels)


def floored_levels(sound: SoundFeatures) -> NDArray[np.float32]:
    """(rows, bands) levels in dB, raised to QUIET_DB below the loudest rows where they are lower."""
    levels: NDArray[np.float32] = np.maximum(sound.log_mel, np.float32(_loudest_db(sound) - QUIET_DB))
    return levels


def values_of_levels(
    level_db: NDArray[np.float32] | NDArray[np.float64], num_mfcc: int, features: str = NUMPY
) -> NDArray[np.float32]:
    """`sound_values` of (rows, bands) levels."""
    bands = high_passed(level_db.astype(np.float64), HIGH_PASS_FRAMES * ROWS_PER_FRAME)
    # MFCC are sums over bands: their movements are the MFCC of the bands' movements.
    coefficients = mfcc_of(bands, num_mfcc, features)
    return np.concatenate([bands * LEVEL_SCALE, coefficients * MFCC_SCALE], axis=1, dtype=np.float32)


def is_voiced(sound: SoundFeatures) -> NDArray[np.bool_]:
    """(rows,) true where there is more than room noise."""
    voiced: NDArray[np.bool_] = sound.log_mel.max(axis=1) > max(_loudest_db(sound) - VOICED_DB, SILENCE_DB)
    return voiced


def _loudest_db(sound: SoundFeatures) -> float:
    """Level of the loudest band in the loud rows of a recording."""
    loudness_db = sound.log_mel.max(axis=1)
    return float(np.percentile(loudness_db, LOUDEST_PERCENTILE)) if len(loudness_db) else 0.0
