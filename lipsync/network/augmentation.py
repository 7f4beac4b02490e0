"""Random changes of a stretch of a take, equal for all of its frames, as by other people, rooms, cameras.

Nothing here moves the sound against the lips, but that the echo of a room drags it by a row. All draws come
from the generator of the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lipsync.clips.mouths import LIP_MIRROR, NUM_LIP_POINTS
from lipsync.sync.inputs import NUM_COORDINATES

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Side of the part of a mouth crop that the network sees, as a share: in training at a random position, else
# in the middle.
CROP_SHARE = 11 / 12
SHAPE_DEVIATION = 0.2  # of the entries of the matrix that turns, shears and stretches contours
FACE_GAIN_DEVIATION = 0.25  # of the natural logarithm: lips that move more or less
FACE_NOISE = 0.2  # most, in deviations of the input
SOUND_GAIN_DEVIATION = 0.15  # of the natural logarithm of changes in dB: compressors and distance
SOUND_TILT_DEVIATION = 0.2  # over the bands, in deviations of the input
SOUND_NOISE = 0.3
SPEED_RANGE = 0.12  # of the natural logarithm of how fast somebody speaks
THROAT_RANGE = 0.15  # likewise of the place of the bands: shorter and longer throats
NOISE_CHANCE, ROOM_CHANCE = 0.8, 0.15
NOISE_DB = (5.0, 35.0)  # that speech is above the noise
ROOM_ROWS = (4.0, 25.0)  # in which the echo of a room falls to 1 / e
ECHO_SHARE = (0.06, 0.6)  # of the power
MASK_CHANCE = 0.5
MASKED_FRAMES = 8  # at most, 0.3 s
MASKED_ROWS = 40  # at most, 0.4 s
MASKED_BANDS = 8
GREY_GAIN_DEVIATION, GREY_SHIFT, GREY_NOISE = 0.15, 20.0, 6.0  # of 8-bit pictures


def crop_mouths(mouths: NDArray[np.uint8], top_share: float, left_share: float) -> NDArray[np.uint8]:
    """(n, S, S) mouths cut to CROP_SHARE of their side; the other shares (0 to 1) are its position."""
    side = mouths.shape[1]
    cut = round(side * CROP_SHARE)
    top, left = (round(share * (side - cut)) for share in (top_share, left_share))
    return mouths[:, top : top + cut, left : left + cut]


def augment_lips(values: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Movements of lips (frames, NUM_LIP_VALUES), mirrored, of another shape, noisy, partly hidden."""
    contour = values[:, :NUM_COORDINATES].reshape(len(values), NUM_LIP_POINTS, 2)
    if rng.random() < 0.5:
        contour = contour[:, list(LIP_MIRROR)] * np.array([-1.0, 1.0], np.float32)
    matrix = np.eye(2) + rng.normal(0.0, SHAPE_DEVIATION, (2, 2))
    contour = contour @ matrix.astype(np.float32)
    # The contour alone is turned and mirrored: gaps, width and their speeds have no direction.
    changed = np.concatenate([contour.reshape(len(values), -1), values[:, NUM_COORDINATES:]], axis=1)
    changed *= np.float32(np.exp(rng.normal(0.0, FACE_GAIN_DEVIATION)))
    changed += rng.normal(0.0, FACE_NOISE * rng.random(), changed.shape).astype(np.float32)
    return _masked(changed, MASKED_FRAMES, rng)


def augment_mouths(mouths: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """(frames, S, S) mouths cropped at random, mirrored, of other light, noisy, partly hidden."""
    cropped = crop_mouths(mouths, rng.random(), rng.random())
    if rng.random() < 0.5:
        cropped = cropped[:, :, ::-1]
    gain, shift = np.exp(rng.normal(0.0, GREY_GAIN_DEVIATION)), rng.uniform(-GREY_SHIFT, GREY_SHIFT)
    changed = (cropped.astype(np.float32) - 128.0) * np.float32(gain) + np.float32(128.0 + shift)
    changed += rng.normal(0.0, GREY_NOISE * rng.random(), changed.shape).astype(np.float32)
    hidden = _masked(changed, MASKED_FRAMES, rng, float(changed.mean()))
    return np.clip(np.rint(hidden), 0, 255).astype(np.uint8)


def change_levels(
    level_db: NDArray[np.float64], babble_db: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Levels (rows, bands) of another throat, in another room, with noise or somebody else in it.

    Args:
        level_db: In dB.
        babble_db: Levels of another recording, of any length.
        rng: Of the draws.
    """
    changed = level_db
    if rng.random() < ROOM_CHANCE:
        decay = np.exp(-np.arange(60) / rng.uniform(*ROOM_ROWS))
        power = 10 ** (changed / 10)
        echo = np.stack([np.convolve(band, decay / decay.sum())[: len(band)] for band in power.T], axis=1)
        changed = 10 * np.log10(power + rng.uniform(*ECHO_SHARE) * echo)
    if rng.random() < NOISE_CHANCE:
        changed = 10 * np.log10(10 ** (changed / 10) + 10 ** (_noise_db(changed, babble_db, rng) / 10))
    num_bands = changed.shape[1]
    places = np.clip(
        np.arange(num_bands) * np.exp(rng.uniform(-THROAT_RANGE, THROAT_RANGE)), 0, num_bands - 1
    )
    low = np.floor(places).astype(int)
    share = places - low
    warped: NDArray[np.float64] = (
        changed[:, low] * (1 - share) + changed[:, np.minimum(low + 1, num_bands - 1)] * share
    )
    return warped


def _noise_db(
    level_db: NDArray[np.float64], babble_db: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Levels of noise for a stretch: steady with a slope over the bands, and half of the time speech too."""
    below_db = rng.uniform(*NOISE_DB)
    loud_db = float(np.percentile(level_db.mean(axis=1), 90))
    slope = np.linspace(0.0, rng.uniform(-15.0, 5.0), level_db.shape[1])
    noise = loud_db - below_db + slope + rng.normal(0.0, 1.5, level_db.shape)
    if rng.random() < 0.5 and len(babble_db):
        first = int(rng.integers(len(babble_db)))
        other = np.resize(np.roll(babble_db, -first, axis=0), level_db.shape)
        noise = np.maximum(noise - 10.0, other - other.max() + level_db.max() - below_db)
    return noise


def augment_sound(values: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Movements of bands and coefficients (rows, C), larger or smaller, noisy, partly missing.

    A constant gain does not show in movements; here the size of the changes varies.
    """
    changed = values * np.float32(np.exp(rng.normal(0.0, SOUND_GAIN_DEVIATION)))
    tilt = rng.normal(0.0, SOUND_TILT_DEVIATION) * np.linspace(-1.0, 1.0, values.shape[1])
    changed = changed * np.exp(tilt).astype(np.float32)
    changed += rng.normal(0.0, SOUND_NOISE * rng.random(), changed.shape).astype(np.float32)
    if rng.random() < MASK_CHANCE:
        first = rng.integers(0, max(values.shape[1] - MASKED_BANDS, 1))  # bands, not rows
        changed[:, first : first + rng.integers(1, MASKED_BANDS + 1)] = 0.0
    return _masked(changed, MASKED_ROWS, rng)


def _masked(
    values: NDArray[np.float32], longest: int, rng: np.random.Generator, fill: float = 0.0
) -> NDArray[np.float32]:
    """`values` with a stretch of up to `longest` entries set to `fill`, half of the time."""
    if rng.random() < MASK_CHANCE:
        length = int(rng.integers(1, longest + 1))
        first = int(rng.integers(0, max(len(values) - length, 0) + 1))
        values[first : first + length] = fill
    return values
