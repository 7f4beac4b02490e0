"""Places of one recording in another, to some hundredths of a second.

The clip is cut into blocks of up to 24 s. The onsets of each are correlated with those of the whole master,
and its highest peaks vote for straight lines: the lag at the clip's middle, and a drift of the two clocks.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.fft

from facevox.signs import report_progress
from lipsync.repair.recordings import BLOCK_FRAMES, FRAME_HZ, STRETCH_FRAMES, Recording, SoundIndex

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MAX_DRIFT = 1e-3  # 1000 ppm; recorders differ by 1 to 200
NUM_PLACES = 4
_LEAST_BLOCK_FRAMES = 100
_NUM_PEAKS = 6  # of a block
_APART_S = 0.3  # of the peaks of a block
_LEAST_Z = 4.0  # of a peak, in standard deviations; the highest of an hour of chance has about 6
_LINE_WIDTH_S = 0.12  # smear of 1000 ppm in a block, and the width of a peak
_OTHER_PLACE_S = 0.25
# A position in which less than this share of the usual power overlaps the block proves nothing.
_LEAST_POWER = 0.2


@dataclass(frozen=True)
class Line:
    """Lags on a straight line: lag(t) = lag_s + slope * (t - middle_s), in seconds of clip and master.

    Attributes:
        lag_s: Time in the master less time in the clip, at middle_s of the clip.
        slope: Drift as a share: 1e-6 is 1 ppm.
        weight: Of all votes for it.
    """

    middle_s: float
    lag_s: float
    slope: float
    weight: float

    def lag_at(self, time_s: Floats) -> Floats:
        """The lags in s at times of the clip in s."""
        return self.lag_s + self.slope * (time_s - self.middle_s)


def find_places(clip: Recording, index: SoundIndex) -> list[Line]:
    """Up to `NUM_PLACES` places of the clip in the master, those with the most evidence first."""
    num_frames = len(clip.onsets_TB)
    num_blocks = max(-(-num_frames // BLOCK_FRAMES), 1)
    bounds = np.linspace(0, num_frames, num_blocks + 1).astype(int).tolist()
    times, lags, weights = [], [], []
    for first, last in itertools.pairwise(bounds):
        if last - first < _LEAST_BLOCK_FRAMES:
            continue
        positions, heights = _block_peaks(clip.onsets_TB[first:last], index)
        times += [(first + last) / 2 / FRAME_HZ] * len(positions)
        lags += ((positions - first) / FRAME_HZ).tolist()
        weights += ((heights - _LEAST_Z) ** 2).tolist()
        report_progress()
    return _lines(np.array(times), np.array(lags), np.array(weights), num_frames / FRAME_HZ)


def _block_peaks(block_TB: NDArray[np.float32], index: SoundIndex) -> tuple[Floats, Floats]:
    """Frames of the master at which the block may begin, and their heights in standard deviations."""
    size = len(block_TB)
    own_power = float((block_TB**2).sum(dtype=np.float64))
    if own_power <= 0:
        return np.zeros(0), np.zeros(0)
    spectrum_BF = np.conj(scipy.fft.rfft(block_TB.T, STRETCH_FRAMES))
    num_valid = STRETCH_FRAMES - BLOCK_FRAMES
    curve: Floats = np.empty((len(index.spectra_CBF), num_valid))
    for number, stretch_BF in enumerate(index.spectra_CBF):
        product = np.einsum("bf,bf->f", stretch_BF, spectrum_BF)
        curve[number] = scipy.fft.irfft(product, STRETCH_FRAMES)[:num_valid]
    power = index.energies[size:] - index.energies[:-size]
    heights = curve.ravel()[: len(power)]
    usual = power[power > 0].mean() if (power > 0).any() else 0.0
    is_used = power > _LEAST_POWER * usual
    if not is_used.any():
        return np.zeros(0), np.zeros(0)
    heights = np.where(is_used, heights / np.sqrt(own_power * np.maximum(power, _LEAST_POWER * usual)), 0.0)
    heights /= heights[is_used].std() + 1e-12
    inner = heights[1:-1]
    is_peak = (inner > heights[:-2]) & (inner >= heights[2:]) & (inner > _LEAST_Z)
    peaks = 1 + np.flatnonzero(is_peak)
    peaks = peaks[np.argsort(-heights[peaks])][: 50 * _NUM_PEAKS]
    chosen: list[int] = []
    for peak in peaks.tolist():
        if all(abs(peak - other) >= _APART_S * FRAME_HZ for other in chosen):
            chosen.append(peak)
        if len(chosen) == _NUM_PEAKS:
            break
    return np.array(chosen, float) - BLOCK_FRAMES, heights[chosen]


def _lines(times: Floats, lags: Floats, weights: Floats, duration_s: float) -> list[Line]:
    """The lines with the most weight, one after the other; each takes its own votes away."""
    middle_s = duration_s / 2
    lines: list[Line] = []
    while len(times) and len(lines) < NUM_PLACES:
        slopes = slopes_around(0.0, MAX_DRIFT, _LINE_WIDTH_S, float(np.ptp(times)))
        line = best_line(times, lags, weights, slopes, _LINE_WIDTH_S, middle_s)
        distance = np.abs(lags - line.lag_at(times))
        lines.append(line)
        is_rest = distance > _OTHER_PLACE_S
        times, lags, weights = times[is_rest], lags[is_rest], weights[is_rest]
    return lines


def slopes_around(slope: float, most: float, width_s: float, span_s: float) -> Floats:
    """Slopes up to `most` away from `slope`: a step moves the ends of `span_s` by a quarter of the width."""
    num_each = int(np.ceil(most * span_s / 2 / (width_s / 4)))
    return slope + np.linspace(-most, most, 2 * num_each + 1) if num_each else np.array([slope])


def best_line(
    times: Floats, lags: Floats, weights: Floats, slopes: Floats, width_s: float, middle_s: float
) -> Line:
    """The line that has the most weight of points within half a width of it.

    Args:
        times: (n,) times in the clip in s; at least one.
        lags: (n,) lags in s.
        weights: (n,) weights from 0 on.
        slopes: Slopes to try; of equal ones the smallest is taken.
        width_s: In lags.
        middle_s: Reference time of the line.
    """
    best = Line(middle_s, float(lags[0]), 0.0, -1.0)
    for slope in slopes[np.argsort(np.abs(slopes), kind="stable")].tolist():
        levels = lags - slope * (times - middle_s)
        order = np.argsort(levels)
        levels = levels[order]
        sums = np.concatenate([[0.0], np.cumsum(weights[order])])
        ends = np.searchsorted(levels, levels + width_s, side="right")
        totals = sums[ends] - sums[:-1]
        at = int(totals.argmax())
        if totals[at] > best.weight + 1e-9:
            inside = slice(at, int(ends[at]))
            shares = weights[order][inside] + 1e-12
            best = Line(middle_s, float(np.average(levels[inside], weights=shares)), slope, float(totals[at]))
    return best
