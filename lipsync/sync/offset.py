"""The offset between lips and sound: its sign, its interval, and how it changes in time.

Signs: a lag is counted in rows of the sound's features, an offset in milliseconds. Both are positive where
the audio is early, that is, where what is heard now will be seen later: frame k then belongs to row 4k - lag
(`rows_of_frames`). SyncNet's published offsets count in frames of 40 ms with the same sign.

`similarities` are those of `lipsync.sync.estimators.SyncEstimator`: (frames, lags), NaN where there is
nothing to compare. Lags are whole rows of 10 ms, ascending and without holes; positive: the audio is early.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facevox.signs import report_progress
from lipsync.clips.clock import FRAME_HZ, ROW_HZ, ROWS_PER_FRAME

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAG_MS = 1000.0 / ROW_HZ  # of a step between lags
MAX_OFFSET_MS = 1000.0  # of the search; a larger offset means that the files do not belong together

# A lag is compared where at least this many frames have it, so that a few frames at an edge never win.
MIN_FRAMES = 20
MIN_SHARE = 0.5  # of the frames of the lag that has most
PEAK_STEPS = 2  # lags on either side of the peak that its parabola goes through
# Syllables last 0.2 s; stretches of 0.4 s are about independent of one another.
BLOCK_FRAMES = 10
NUM_RESAMPLES = 400
INTERVAL = 0.90
FRAME_MS = 1000.0 / FRAME_HZ
NORMAL_90 = 1.645  # deviations on either side that hold 90 %
SPREAD_FACTOR = 1.4826  # of a normal deviation over its median absolute one

MIN_CHANGE_S = 10.0  # shorter recordings show neither drift nor jump
MIN_PART_S = 3.0  # on either side of a jump
CHANGE_BLOCK_FRAMES = 12  # half a second: short clips have enough of them for shuffling to undo a jump
MAX_BLOCKS = 120
MAX_DRIFT_PPM = 20_000.0  # 1 s a minute; 25 frames played at 24 are 41 667, which no one overlooks
NUM_SLOPES = 41
NUM_FINER_SLOPES = 21  # between the neighbours of the best one
NUM_SHUFFLES = 99
MIN_CHANGE_MS = 80.0  # two frames, from one end to the other or across the jump


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


@dataclass(frozen=True)
class LagCurve:
    """Mean similarity by lag.

    Attributes:
        lags: (L,) whole rows.
        values: (L,) float64; NaN where too few frames have that lag.
        num_frames: (L,) frames behind each value.
    """

    lags: NDArray[np.int64]
    values: NDArray[np.float64]
    num_frames: NDArray[np.int64]

    @property
    def is_empty(self) -> bool:
        """True if no lag can be compared with another."""
        return bool(np.isfinite(self.values).sum() < 2 * PEAK_STEPS + 1)

    @property
    def middle(self) -> float:
        """The median value: that of a lag that does not fit."""
        return float(np.nanmedian(self.values))

    @property
    def spread(self) -> float:
        """Deviation of the values of lags that do not fit, by the median so that the peak does not count."""
        return float(SPREAD_FACTOR * np.nanmedian(np.abs(self.values - self.middle))) + 1e-12

    @property
    def peak_z(self) -> float:
        """Height of the best lag above the median, in deviations."""
        return (float(np.nanmax(self.values)) - self.middle) / self.spread


@dataclass(frozen=True)
class Offset:
    """The best offset and how sure it is.

    Attributes:
        offset_ms: Positive: the audio is early.
        interval_ms: Contains the true one with a probability of 90 %.
        confidence: 0 to 1: share of resampled recordings that agree to one frame.
        peak_z: Of the curve.
        curve: The curve.
    """

    offset_ms: float
    interval_ms: tuple[float, float]
    confidence: float
    peak_z: float
    curve: LagCurve


@dataclass(frozen=True)
class Drift:
    """An offset that grows in time: offset_ms(t) = start_ms + ppm / 1000 * (t - first_s), in seconds."""

    ppm: float  # positive: the audio runs ahead more and more
    start_ms: float
    end_ms: float
    p_value: float


@dataclass(frozen=True)
class Jump:
    """An offset that changes at one moment."""

    time_s: float
    before_ms: float
    after_ms: float
    p_value: float


def lag_curve(similarities: NDArray[np.float32], lags: NDArray[np.int64]) -> LagCurve:
    """The mean over the frames, lag by lag.

    Where the recording ends, some lags have fewer frames than others. A mean over fewer frames is brought
    nearer to the mean of all by the root of their share: its deviation is then that of the others.
    """
    has_value = np.isfinite(similarities)
    counts = has_value.sum(axis=0).astype(np.int64)
    sums = np.where(has_value, similarities, 0.0).sum(axis=0, dtype=np.float64)
    return _curve_of(sums, counts, lags)


def _curve_of(sums: NDArray[np.float64], counts: NDArray[np.int64], lags: NDArray[np.int64]) -> LagCurve:
    most = int(counts.max(initial=0))
    enough = counts >= max(MIN_FRAMES, MIN_SHARE * most)
    values = np.full(len(lags), np.nan)
    if enough.any():
        means = sums[enough] / counts[enough]
        overall = sums[enough].sum() / counts[enough].sum()
        values[enough] = overall + (means - overall) * np.sqrt(counts[enough] / most)
    return LagCurve(lags, values, counts)


def peak_lags(values: NDArray[np.float64], lags: NDArray[np.int64]) -> NDArray[np.float64]:
    """The lag of the largest value of each row, refined by the least-squares parabola around it.

    Args:
        values: (N, L); NaN is never the largest. Rows of NaN alone give the first lag.
        lags: (L,).
    """
    filled = np.where(np.isfinite(values), values, -np.inf)
    best = filled.argmax(axis=1)
    steps = np.arange(-PEAK_STEPS, PEAK_STEPS + 1)
    around = filled[np.arange(len(filled))[:, None], np.clip(best[:, None] + steps, 0, len(lags) - 1)]
    is_inside = (best >= PEAK_STEPS) & (best < len(lags) - PEAK_STEPS) & np.isfinite(around).all(axis=1)
    around = np.where(is_inside[:, None], around, 0.0)
    # Least squares on steps that are symmetric: slope and bend come apart.
    slope = around @ steps / (steps @ steps)
    squares = steps**2 - (steps @ steps) / len(steps)
    bend = around @ squares / (squares @ squares)
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.where(is_inside & (bend < 0), -slope / (2 * bend), 0.0)
    refined = np.clip(shift, -PEAK_STEPS, PEAK_STEPS)
    peaks: NDArray[np.float64] = np.add(lags[best], refined, dtype=np.float64)
    return peaks


def peak_lag(values: NDArray[np.float64], lags: NDArray[np.int64]) -> float:
    """`peak_lags` of one curve."""
    return float(peak_lags(values[None], lags)[0])


def _blocks(
    similarities: NDArray[np.float32], block_frames: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sums and counts of consecutive blocks: (blocks, L) each; the last block may be shorter."""
    starts = np.arange(0, len(similarities), block_frames)
    has_value = np.isfinite(similarities)
    sums = np.add.reduceat(np.where(has_value, similarities, 0.0).astype(np.float64), starts, axis=0)
    return sums, np.add.reduceat(has_value.astype(np.int64), starts, axis=0)


def find_offset(
    similarities: NDArray[np.float32], lags: NDArray[np.int64], *, spread_ms: float = 0.0, seed: int = 0
) -> Offset | None:
    """The best offset, or None where there are too few frames to compare.

    Args:
        similarities: (frames, L).
        lags: (L,).
        spread_ms: `SyncEstimator.spread_ms`: added (as a variance) to the spread of the resampled ones.
        seed: Of the resampling (a bootstrap over stretches of 0.4 s).
    """
    curve = lag_curve(similarities, lags)
    if curve.is_empty:
        return None
    offset_ms = LAG_MS * peak_lag(curve.values, lags)
    sums, counts = _blocks(similarities, BLOCK_FRAMES)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), NUM_RESAMPLES)
    # A draw says how often each block counts, so that one product makes the curves of all recordings.
    resampled = [_curve_of(*totals, lags) for totals in zip(draws @ sums, draws @ counts, strict=True)]
    values = np.stack([redrawn.values for redrawn in resampled if not redrawn.is_empty] or [curve.values])
    resampled_ms = LAG_MS * peak_lags(values, lags)
    tail = (1 - INTERVAL) / 2 * 100
    low_ms, high_ms = np.percentile(resampled_ms, [tail, 100 - tail])
    widened = [np.hypot(side, NORMAL_90 * spread_ms) for side in (offset_ms - low_ms, high_ms - offset_ms)]
    return Offset(
        offset_ms=offset_ms,
        interval_ms=(offset_ms - float(widened[0]), offset_ms + float(widened[1])),
        confidence=float((np.abs(resampled_ms - offset_ms) <= FRAME_MS).mean()),
        peak_z=curve.peak_z,
        curve=curve,
    )


def find_change(
    similarities: NDArray[np.float32], lags: NDArray[np.int64], *, first_s: float = 0.0, seed: int = 0
) -> Drift | Jump | None:
    """A constant drift or one jump of the offset, or None where a constant offset does as well.

    The sums of similarity that the best drift and the best jump reach are compared with those that they
    reach when the blocks of the recording are shuffled in time, which undoes any drift or jump. A change
    counts if it reaches more than in any of `NUM_SHUFFLES` shuffles, and is at least `MIN_CHANGE_MS`.

    Args:
        similarities: (frames, L).
        lags: (L,).
        first_s: Time of the first frame.
        seed: Of the shuffling.
    """
    if len(similarities) < MIN_CHANGE_S * FRAME_HZ:
        return None
    block_frames = max(CHANGE_BLOCK_FRAMES, -(-len(similarities) // MAX_BLOCKS))
    sums, counts = _blocks(similarities, block_frames)
    # Less the overall mean, so that a lag without frames at an end of the recording counts as an average one.
    overall = sums.sum() / max(int(counts.sum()), 1)
    gains = sums - overall * counts
    block_s = block_frames / FRAME_HZ
    least = max(round(MIN_PART_S / block_s), 2)
    rng = np.random.default_rng(seed)
    slopes = _slopes(gains.shape[0], gains.shape[1], block_s)
    drift_gain, slope, _ = _best_drift(gains, block_s, slopes)
    jump_gain, first_after, before, after = _best_jump(gains, lags, least)
    shuffled = []
    for _ in range(NUM_SHUFFLES):
        report_progress()
        other = gains[rng.permutation(len(gains))]
        shuffled.append((_best_drift(other, block_s, slopes)[0], _best_jump(other, lags, least)[0]))
    drift_worse, jump_worse = (np.array(column) for column in zip(*shuffled, strict=True))
    total_s = len(gains) * block_s
    drift_p = (1 + int((drift_worse >= drift_gain).sum())) / (1 + NUM_SHUFFLES)
    jump_p = (1 + int((jump_worse >= jump_gain).sum())) / (1 + NUM_SHUFFLES)
    # The grid that shuffling needs is coarse; the reported drift comes from a finer one around its best.
    step = slopes[1] - slopes[0]
    finer = np.linspace(slope - step, slope + step, NUM_FINER_SLOPES)
    _, slope, start = _best_drift(gains, block_s, finer)
    drift_ms = slope * total_s * LAG_MS
    jump_ms = (after - before) * LAG_MS
    is_drift = drift_p <= 1 / (1 + NUM_SHUFFLES) and abs(drift_ms) >= MIN_CHANGE_MS
    is_jump = jump_p <= 1 / (1 + NUM_SHUFFLES) and abs(jump_ms) >= MIN_CHANGE_MS
    if is_jump and (not is_drift or jump_gain > drift_gain):
        return Jump(first_s + first_after * block_s, before * LAG_MS, after * LAG_MS, jump_p)
    if is_drift:
        start_ms = LAG_MS * (float(lags[0]) + start)
        return Drift(slope * LAG_MS * 1000, start_ms, start_ms + drift_ms, drift_p)
    return None


def _slopes(num_blocks: int, num_lags: int, block_s: float) -> NDArray[np.float64]:
    """The drifts that are tried, in steps a second."""
    most = MAX_DRIFT_PPM / 1e6 * 1000 / LAG_MS
    most = min(most, num_lags / 2 / (num_blocks * block_s))  # no more than half of the lags in all
    return np.linspace(-most, most, NUM_SLOPES)


def _best_drift(
    gains: NDArray[np.float64], block_s: float, slopes: NDArray[np.float64]
) -> tuple[float, float, float]:
    """(gain over a constant offset, steps a second, index of the lag at the start)."""
    num_blocks, num_lags = gains.shape
    middle_s = (np.arange(num_blocks) + 0.5) * block_s
    half_s = num_blocks * block_s / 2
    best = (-np.inf, 0.0, 0.0)
    constant = float(gains.sum(axis=0).max())
    lag_indices = np.arange(num_lags)
    for slope in slopes:
        # Each block is shifted by its drift from the middle of the recording: a lag of the result is a line
        # of that slope through all blocks. Beyond the lags of the search a block adds nothing.
        shifts = np.rint(slope * (middle_s - half_s)).astype(int)
        indices = lag_indices[None, :] + shifts[:, None]
        inside = (indices >= 0) & (indices < num_lags)
        clipped = np.clip(indices, 0, num_lags - 1)
        score = np.where(inside, gains[np.arange(num_blocks)[:, None], clipped], 0.0).sum(axis=0)
        middle = int(score.argmax())
        if score[middle] > best[0]:
            best = (float(score[middle]), float(slope), middle - float(slope) * half_s)
    return best[0] - constant, best[1], best[2]


def _best_jump(
    gains: NDArray[np.float64], lags: NDArray[np.int64], least: int
) -> tuple[float, int, float, float]:
    """(gain over a constant offset, first block after the jump, lag before, lag after)."""
    # Sums up to each block, so that every way to cut the recording in two is compared at once.
    before = np.cumsum(gains, axis=0)
    total = before[-1]
    cuts = np.arange(least, len(gains) - least + 1)
    first, second = before[cuts - 1], total - before[cuts - 1]
    scores = first.max(axis=1) + second.max(axis=1)
    best = int(scores.argmax())
    return (
        float(scores[best] - total.max()),
        int(cuts[best]),
        peak_lag(first[best], lags),
        peak_lag(second[best], lags),
    )
