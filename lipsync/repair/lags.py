"""Lags of one recording in another to hundredths of a millisecond, around a place that is known roughly.

In windows along the overlap the two are compared by GCC-PHAT (Knapp and Carter 1976: the cross spectrum with
its magnitudes taken out, so that rooms and microphones count little), and a line is fitted to the lags that
agree. In unrelated sounds the lags are spread over the whole range of the search: how many agree says how
likely it is that they do by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.fft
from scipy.special import bdtrc

from facevox.signs import report_progress
from lipsync.repair.places import MAX_DRIFT, Line, best_line, slopes_around
from lipsync.repair.recordings import RATE_HZ, Recording

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST_OVERLAP_S = 2.5
AGREE_S = 1e-3  # lags this near to a line agree with it: people and microphones move by 0.3 m
_SEARCH_S = 0.1  # to each side of a rough place
_NEAR_S = 0.01  # and of a place that is known
_WINDOW_S, _LONG_WINDOW_S = 1.0, 2.0
_MOST_WINDOWS = 160
_LOW_HZ, _HIGH_HZ = 150.0, 4000.0
_WHITENING = 0.8  # exponent of the magnitudes taken out; 1 would make bins of noise alone count in full
_SILENCE = 1e-5  # root mean square; -100 dB
_MOST_SIGMA, _LEAST_SIGMA_S = 3.5, 5e-5


@dataclass(frozen=True)
class Lags:
    """Lags measured along a place.

    Attributes:
        line: Fitted to those that agree.
        num_windows: Windows with sound in both.
        num_agreeing: Those within `AGREE_S` of a line.
        chance: Probability that as many agree by chance, 0 to 1.
        residual_s: Standard deviation of the agreeing lags around the line, in s (robust).
        overlap_s: Length of the overlap, in s of the clip.
    """

    line: Line
    num_windows: int
    num_agreeing: int
    chance: float
    residual_s: float
    overlap_s: float


def measure_lags(clip: Recording, master: Recording, rough: Line) -> Lags:
    """The lags of the clip in the master around a rough line."""
    start_s, end_s = _overlap(clip, master, rough)
    overlap_s = max(end_s - start_s, 0.0)
    if overlap_s < LEAST_OVERLAP_S:
        return Lags(rough, 0, 0, 1.0, np.nan, overlap_s)
    times, lags = _window_lags(clip, master, rough, (start_s, end_s), _WINDOW_S, _SEARCH_S)
    if len(times) < 2:
        return Lags(rough, len(times), 0, 1.0, np.nan, overlap_s)
    span_s = float(np.ptp(times))
    # The rough line is right to the range of the search at both ends, and no clock is off by more.
    most = min(2 * _SEARCH_S / span_s, MAX_DRIFT + abs(rough.slope))
    slopes = slopes_around(rough.slope, most, 2 * AGREE_S, span_s)
    slopes = slopes[np.abs(slopes) <= 1.1 * MAX_DRIFT]
    ones = np.ones(len(times))
    line = best_line(times, lags, ones, slopes, 2 * AGREE_S, rough.middle_s)
    num_agreeing = round(line.weight)
    chance = _chance(len(times), num_agreeing, max(len(slopes) // 4, 1))
    window_s = _LONG_WINDOW_S if overlap_s > 4 * _LONG_WINDOW_S else _WINDOW_S
    times, lags = _window_lags(clip, master, line, (start_s, end_s), window_s, _NEAR_S)
    line, residual_s = _fit(times, lags, line)
    return Lags(line, len(ones), num_agreeing, chance, residual_s, overlap_s)


def _overlap(clip: Recording, master: Recording, line: Line) -> tuple[float, float]:
    """First and last moment of the clip, in s, at which the master has sound too."""
    rate = 1 + line.slope
    zero_s = float(line.lag_at(np.zeros(1))[0])
    return max(-zero_s / rate, 0.0), min((master.duration_s - zero_s) / rate, clip.duration_s)


def _window_lags(
    clip: Recording,
    master: Recording,
    line: Line,
    overlap: tuple[float, float],
    window_s: float,
    search_s: float,
) -> tuple[Floats, Floats]:
    """Middles of the windows with sound in both, and their lags, in s."""
    start_s, end_s = overlap
    num = int(np.clip((end_s - start_s - window_s) // (window_s / 2) + 1, 1, _MOST_WINDOWS))
    times, lags = [], []
    for first_s in np.linspace(start_s, end_s - window_s, num).tolist():
        lag_s = _window_lag(clip, master, line, first_s, window_s, search_s)
        if lag_s is not None:
            times.append(first_s + window_s / 2)
            lags.append(lag_s)
        report_progress()
    return np.array(times), np.array(lags)


def _window_lag(
    clip: Recording, master: Recording, line: Line, first_s: float, window_s: float, search_s: float
) -> float | None:
    """The lag of one window in s; None where one of the two is silent."""
    first, size, reach = round(first_s * RATE_HZ), round(window_s * RATE_HZ), round(search_s * RATE_HZ)
    part = clip.samples[first : first + size].astype(np.float64)
    middle_s = (first + size / 2) / RATE_HZ
    lag_s = float(line.lag_at(np.array([middle_s]))[0])
    # The master on the clip's clock: at 1000 ppm the ends of a window would be 2 ms apart otherwise.
    offsets = np.arange(-reach - size / 2, size / 2 + reach) * (1 + line.slope)
    other = _resampled(master.samples, (middle_s + lag_s) * RATE_HZ + offsets)
    if len(part) < size or min(part.std(), other.std()) < _SILENCE:
        return None
    num_fft = scipy.fft.next_fast_len(len(other), real=True)
    cross = np.conj(scipy.fft.rfft(part * np.hanning(size), num_fft)) * scipy.fft.rfft(other, num_fft)
    frequencies = scipy.fft.rfftfreq(num_fft, 1 / RATE_HZ)
    cross[(frequencies < _LOW_HZ) | (frequencies > _HIGH_HZ)] = 0
    magnitude = np.abs(cross)
    cross /= (magnitude + 1e-9 * magnitude.max() + 1e-30) ** _WHITENING
    # A microphone of opposite polarity turns the peak over.
    curve = np.abs(scipy.fft.irfft(cross, num_fft)[: 2 * reach + 1])
    at = int(curve.argmax())
    shift = float(at)
    if 0 < at < 2 * reach:
        before, peak, after = curve[at - 1 : at + 2]
        shift += 0.5 * (before - after) / min(before - 2 * peak + after, -1e-30)
    # A shift of `reach` samples of the clip's clock is no shift at all.
    return lag_s + (shift - reach) / RATE_HZ * (1 + line.slope)


def _resampled(samples: NDArray[np.float16], positions: Floats) -> Floats:
    """Samples at ascending positions between them; 0 outside."""
    first = max(int(positions[0]) - 2, 0)
    last = min(int(positions[-1]) + 3, len(samples))
    if last - first < 2:
        return np.zeros(len(positions))
    part = samples[first:last].astype(np.float64)
    return np.interp(positions - first, np.arange(len(part)), part, left=0.0, right=0.0)


def _chance(num: int, num_agreeing: int, num_slopes: int) -> float:
    """Probability that lags that are spread evenly agree as well as these with some line."""
    # The line goes through one of the lags, which proves nothing.
    share = AGREE_S / _SEARCH_S
    tail = float(bdtrc(num_agreeing - 2, num - 1, share)) if num_agreeing > 1 else 1.0
    return min(tail * num * num_slopes, 1.0)


def _fit(times: Floats, lags: Floats, line: Line) -> tuple[Line, float]:
    """The line of least squares through the lags near `line`, and their deviation from it in s."""
    limit_s, sigma_s = AGREE_S, np.nan
    for _ in range(6):
        is_near = np.abs(lags - line.lag_at(times)) <= limit_s
        if is_near.sum() < 2:
            break
        x, y = times[is_near] - line.middle_s, lags[is_near]
        slope, lag_s = np.polyfit(x, y, 1) if np.ptp(x) > 0 else (line.slope, float(y.mean()))
        line = Line(line.middle_s, float(lag_s), float(slope), float(is_near.sum()))
        distance = np.abs(y - line.lag_at(times[is_near]))
        sigma_s = 1.4826 * float(np.median(distance))
        limit_s = min(max(_MOST_SIGMA * sigma_s, _LEAST_SIGMA_S), AGREE_S)
    return line, sigma_s
