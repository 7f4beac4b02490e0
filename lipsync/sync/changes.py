"""Offsets that change in time: a constant drift, or parts with an offset each.

All are compared by the evidence of `lipsync.sync.posterior`, summed along what they say of each block: one
lag, a line through the lags, or a lag for each part. A change has to gain more than DRIFT_COST or JUMP_COST
over one lag for all: among hundreds of lines and moments some gain by chance. The rest must be evidence for a
match: in the sound of somebody else some lines fit better than others.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facevox.signs import report_progress
from lipsync.clips.clock import FRAME_HZ
from lipsync.sync.offset import LAG_MS, peak_lag
from lipsync.sync.posterior import BLOCK_FRAMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_CHANGE_S = 10.0  # shorter recordings show neither drift nor jump
MIN_PART_S = 3.0
MIN_CHANGE_MS = 80.0  # two frames, from one end to the other or across the jump
# Of 23 real clips of one offset, none gains as much (tests), nor do 200 stretches with another's sound.
DRIFT_COST = 10.0
JUMP_COST = 12.0  # each
# Of the strongest part's evidence a block. With the sound of somebody else in the second half, seven of eight
# real clips had at most 0.37; true jumps in them had 0.83 and more.
LEAST_STRENGTH = 0.5
MAX_DRIFT_PPM = 50_000.0  # 25 frames played at 24 are 41 667
MOST_RISE = 0.75  # of the lags of the search
MANY_LAGS, COARSE_LAGS = 401, 4  # of more, first in groups of four
SLOPE_STEP_LAGS = 1.0  # between neighbouring slopes, from one end of the recording to the other
BLOCK_S = BLOCK_FRAMES / FRAME_HZ


@dataclass(frozen=True)
class Drift:
    """An offset that grows in time: offset_ms(t) = start_ms + ppm / 1000 * (t - first_s), in seconds."""

    ppm: float  # positive: the audio runs ahead more and more
    start_ms: float
    end_ms: float


@dataclass(frozen=True)
class Part:
    """A stretch with one offset."""

    start_s: float
    end_s: float
    offset_ms: float


@dataclass(frozen=True)
class Jumps:
    """An offset that changes from part to part; two parts at least."""

    parts: tuple[Part, ...]


Change = Drift | Jumps


def find_change(
    evidence: NDArray[np.floating[Any]], lags: NDArray[np.int64], *, first_s: float = 0.0
) -> Change | None:
    """A constant drift or jumps of the offset, or None where a constant offset does as well.

    Args:
        evidence: (blocks, L) of consecutive blocks, 0 where nothing is known.
        lags: (L,).
        first_s: Time of the first block.
    """
    if len(evidence) * BLOCK_S < MIN_CHANGE_S:
        return None
    least = max(float(evidence.sum(axis=0, dtype=np.float64).max()), 0.0)
    drift_total, drift = _best_drift(evidence, lags)
    jumps_total, jumps = _best_jumps(evidence, lags, first_s)
    if drift is not None and drift_total > max(least, jumps_total):
        return drift
    return jumps if jumps is not None and jumps_total > least else None


def offsets_at(change: Change, times_s: NDArray[np.float64], first_s: float = 0.0) -> NDArray[np.float64]:
    """The offset in ms at each time of a recording whose first block is at `first_s`."""
    if isinstance(change, Drift):
        line: NDArray[np.float64] = change.start_ms + change.ppm / 1000 * (times_s - first_s)
        return line
    ends_s = [part.end_s for part in change.parts[:-1]]
    offsets_ms = np.array([part.offset_ms for part in change.parts])
    steps: NDArray[np.float64] = offsets_ms[np.searchsorted(ends_s, times_s, "right")]
    return steps


def _best_drift(evidence: NDArray[np.floating[Any]], lags: NDArray[np.int64]) -> tuple[float, Drift | None]:
    """(its evidence less DRIFT_COST, the best drift or None where it is under MIN_CHANGE_MS)."""
    num_blocks, num_lags = evidence.shape
    total_s = num_blocks * BLOCK_S
    # In lags from one end to the other; the line stays within the search.
    most = min(MAX_DRIFT_PPM / 1e6 * total_s * 1000 / LAG_MS, MOST_RISE * num_lags)
    step = SLOPE_STEP_LAGS
    if num_lags > MANY_LAGS:  # first roughly: the work grows with the cube of the lags
        coarse = _pooled(_pooled(evidence.T, COARSE_LAGS).T, max(int(num_blocks * COARSE_LAGS / most), 1))
        rough = _best_slope(coarse, np.arange(-(most // COARSE_LAGS), most // COARSE_LAGS + 1))
        near = COARSE_LAGS * rough
        rises = np.arange(max(near - 2 * COARSE_LAGS, -most), min(near + 2 * COARSE_LAGS, most) + 1, step)
    else:
        rises = np.arange(-np.floor(most), np.floor(most) + 1, step)
    rise = _best_slope(evidence, rises)
    middle = int(_along(evidence, _line_shifts(num_blocks, rise)).argmax())
    is_at_edge = abs(rise) >= np.floor(most)  # the true one may be larger
    if abs(rise) * LAG_MS < MIN_CHANGE_MS or is_at_edge:
        return -np.inf, None
    finer = [_along_line(evidence, middle, part) for part in rise + np.linspace(-1, 1, 21) * SLOPE_STEP_LAGS]
    total, rise, place = max(finer)
    middle_ms = LAG_MS * (float(lags[0]) + place)
    half_ms = rise * LAG_MS / 2
    ppm = rise * LAG_MS / total_s * 1000
    return total - DRIFT_COST, Drift(ppm, middle_ms - half_ms, middle_ms + half_ms)


def _best_slope(evidence: NDArray[np.floating[Any]], rises: NDArray[np.float64]) -> float:
    """The rise, in lags from one end to the other, of the line with most evidence."""
    best = (-np.inf, 0.0)
    for rise in rises.tolist():
        report_progress()
        best = max(best, (float(_along(evidence, _line_shifts(len(evidence), rise)).max()), rise))
    return best[1]


def _line_shifts(num_blocks: int, rise: float) -> NDArray[np.int64]:
    """(blocks,) whole lags of a line around its middle."""
    places = (np.arange(num_blocks) + 0.5) / num_blocks - 0.5
    shifts: NDArray[np.int64] = np.rint(rise * places).astype(np.int64)
    return shifts


def _pooled(values: NDArray[np.floating[Any]], size: int) -> NDArray[np.float64]:
    """Sums of `size` rows each; the last may be of fewer."""
    sums: NDArray[np.float64] = np.add.reduceat(
        values, np.arange(0, len(values), size), axis=0, dtype=np.float64
    )
    return sums


def _along(evidence: NDArray[np.floating[Any]], shifts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(L,) sums over the blocks, each moved by its shift; -inf where a block would leave the search."""
    num_lags = evidence.shape[1]
    totals = np.zeros(num_lags)
    totals[: max(-int(shifts.min()), 0)] = totals[num_lags - max(int(shifts.max()), 0) :] = -np.inf
    # Blocks of one shift follow one another: their sums are moved at once.
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(shifts)) + 1])
    sums = np.add.reduceat(evidence, bounds, axis=0)
    for row, shift in zip(sums, shifts[bounds].tolist(), strict=True):
        low, high = max(-shift, 0), min(num_lags, num_lags - shift)
        if low < high:
            totals[low:high] += row[low + shift : high + shift]
    return totals


def _along_line(evidence: NDArray[np.floating[Any]], middle: int, rise: float) -> tuple[float, float, float]:
    """(evidence, rise, index of the lag in the middle, with fraction) of a line near one that was found."""
    totals = _along(evidence, _line_shifts(len(evidence), rise))
    inside = np.flatnonzero(np.isfinite(totals))
    if len(inside) == 0:
        return -np.inf, float(rise), float(middle)
    near = int(np.clip(middle, inside[0], inside[-1]) - inside[0])
    top = peak_lag(totals[inside], inside, near)
    return float(totals[round(top)]), float(rise), top


def _best_jumps(
    evidence: NDArray[np.floating[Any]], lags: NDArray[np.int64], first_s: float
) -> tuple[float, Jumps | None]:
    """(evidence of the parts less the cost of their jumps, the parts); None where none is worth telling.

    Viterbi's algorithm: after each block the best path to each lag either stays or comes from the best
    lag of all, at JUMP_COST.
    """
    num_blocks, num_lags = evidence.shape
    came_from = np.zeros((num_blocks, num_lags), np.int16)
    scores = np.zeros(num_lags)
    stay = np.arange(num_lags, dtype=np.int16)
    for block in range(num_blocks):
        best = int(scores.argmax())
        jumped = scores[best] - JUMP_COST > scores
        came_from[block] = np.where(jumped, best, stay)
        scores = np.where(jumped, scores[best] - JUMP_COST, scores) + evidence[block]
    path = np.zeros(num_blocks, np.int64)
    at = int(scores.argmax())
    total = float(scores[at])
    for block in range(num_blocks - 1, -1, -1):
        path[block] = at
        at = int(came_from[block][at])
    parts = _parts_of(evidence, path, lags, first_s)
    strengths = [_part_evidence(evidence, part, lags, first_s) for part in parts]
    # Where somebody else speaks, some lag of the stretch fits a little; it is no offset of this speaker.
    is_match = min(strengths) >= LEAST_STRENGTH * max(strengths)
    return total, Jumps(parts) if len(parts) > 1 and is_match else None


def _part_evidence(
    evidence: NDArray[np.floating[Any]], part: Part, lags: NDArray[np.int64], first_s: float
) -> float:
    """Evidence a block for a part's own offset."""
    first, last = (round((time_s - first_s) / BLOCK_S) for time_s in (part.start_s, part.end_s))
    at = int(np.clip(round(part.offset_ms / LAG_MS) - lags[0], 0, len(lags) - 1))
    return float(evidence[first:last, at].mean(dtype=np.float64)) if last > first else -np.inf


def _parts_of(
    evidence: NDArray[np.floating[Any]], path: NDArray[np.int64], lags: NDArray[np.int64], first_s: float
) -> tuple[Part, ...]:
    """The stretches of a path; one that is short, or near the one before, belongs to that one."""
    bounds = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
    stretches: list[tuple[int, int, int]] = []
    for start, end in itertools.pairwise(bounds):
        lag = int(path[start])
        is_near = bool(stretches) and abs(lag - stretches[-1][2]) * LAG_MS < MIN_CHANGE_MS
        if stretches and (is_near or (end - start) * BLOCK_S < MIN_PART_S):
            stretches[-1] = (stretches[-1][0], end, stretches[-1][2])
        elif (
            stretches and (stretches[-1][1] - stretches[-1][0]) * BLOCK_S < MIN_PART_S
        ):  # only the first can be
            stretches[-1] = (stretches[-1][0], end, lag)
        else:
            stretches.append((start, end, lag))
    return tuple(
        Part(
            first_s + start * BLOCK_S,
            first_s + end * BLOCK_S,
            LAG_MS * peak_lag(evidence[start:end].sum(axis=0, dtype=np.float64), lags, lag),
        )
        for start, end, lag in stretches
    )
