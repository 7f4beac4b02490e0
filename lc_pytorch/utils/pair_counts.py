"""Exact counts of negative pairs below each positive pair, over all pairs, without storing them.

All scores go into a histogram of 2^20 bins. The order inside a bin matters only where the bin has a positive:
the scores of these bins are sorted band by band and compared. Everything else is counting.
"""

import threading
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lc_pytorch.utils.similarity import Bands, Floats, Ints

NUM_BINS = 1 << 20
HALF = np.float32(NUM_BINS // 2)
NO_PAIR = np.float32(-1.5)  # between the mark of hidden positives and the smallest similarity
CHUNK = 1 << 21  # scores that are sorted into bins at a time
# Bits for the attributes in which a pair agrees; a stratum is the pairs that have all of its bits.
AGREE = {"all": 0, "gender": 1, "nationality": 2, "both": 3}


def bins_of(scores: Floats) -> Ints:
    """Bin of each similarity; a larger score never has a smaller bin."""
    return np.clip(((scores + np.float32(1)) * HALF).astype(np.int64), 0, NUM_BINS - 1)


@dataclass
class PairCounts:
    """Negative pairs around the positives, S strata, U different scores of positives in ascending order.

    Attributes:
        values: (U,) scores of positives.
        counts: (U,) positives with that score.
        lower: (S, U) negatives below it.
        equal: (S, U) negatives level with it.
        totals: (S,) all negatives.
        row_sums: (S, N) for each query, its negatives weighted by the share of positives above them.
        column_sums: (S, M) for each gallery item.
    """

    values: Floats
    counts: Ints
    lower: Ints
    equal: Ints
    totals: Ints
    row_sums: NDArray[np.float64]
    column_sums: NDArray[np.float64]


class PairCounter:
    """Counter of all pairs, from bands in which the positives are hidden.

    Args:
        bands: The similarities.
        scores: (P,) similarities of the positive pairs.
    """

    def __init__(self, bands: Bands, scores: Floats) -> None:
        self.bands, self.plan = bands, bands.plan
        self.values, self.counts = np.unique(scores, return_counts=True)
        self.num_codes = 4 if len(self.plan.strata) > 1 else 1
        self._bins = bins_of(self.values)
        self._flags = np.zeros(NUM_BINS, bool)
        self._flags[self._bins] = True
        # Share of the positives above the middle of each bin; for the variance only, so bins are enough.
        in_bin = np.bincount(self._bins, self.counts, minlength=NUM_BINS)
        above = in_bin.sum() - np.cumsum(in_bin) + in_bin / 2
        self._above = (above / max(in_bin.sum(), 1)).astype(np.float32)
        self._histogram = np.zeros(self.num_codes * NUM_BINS, np.int64)
        self._lower = np.zeros((self.num_codes, len(self.values)), np.int64)
        self._level = np.zeros((self.num_codes, len(self.values)), np.int64)
        strata = len(self.plan.strata)
        self._row_sums = np.zeros((strata, len(self.plan.starts)))
        self._column_sums = np.zeros((strata, len(self.plan.gallery.identities)))
        self._lock = threading.Lock()

    def add(self, start: int, band: Floats) -> None:
        """Counts a band."""
        step = max(1, CHUNK // band.shape[1])
        for row in range(0, len(band), step):
            self._add_chunk(start, start + row, band[row : row + step])

    def _add_chunk(self, band_start: int, start: int, scores: Floats) -> None:
        buffers, shape = self.bands.buffers, scores.shape
        scaled = buffers.get("scaled", scores.size, np.float32).reshape(shape)
        bins = buffers.get("bins", scores.size, np.int64).reshape(shape)
        np.add(scores, np.float32(1), out=scaled)
        np.multiply(scaled, HALF, out=scaled)
        np.clip(scaled, np.float32(0), np.float32(NUM_BINS - 1), out=scaled)
        np.copyto(bins, scaled, casting="unsafe")
        self._add_weights(band_start, start, bins)
        picked = np.flatnonzero(np.take(self._flags, bins.ravel()))
        exact = scores.ravel()[picked] if scores.flags.c_contiguous else scores[np.divmod(picked, shape[1])]
        # The histograms of the codes are one array: a pair's bin moves by NUM_BINS for each bit of its code.
        if self.num_codes > 1:
            for stratum in ("gender", "nationality"):
                for rows, runs in self.plan.parts(stratum, start, start + len(scores)):
                    for run in runs:
                        bins[rows, run] += AGREE[stratum] * NUM_BINS
            codes = bins.ravel()[picked] // NUM_BINS
        else:
            codes = np.zeros(len(picked), np.int64)
        histogram = np.bincount(bins.ravel(), minlength=len(self._histogram))
        with self._lock:
            self._histogram += histogram
        self._add_exact(exact, codes)

    def _add_exact(self, exact: Floats, codes: Ints) -> None:
        """Compares the scores of bins that hold a positive with the positives."""
        for code in range(self.num_codes):
            mine = np.sort(exact[(codes == code) & (exact > NO_PAIR)])
            left = np.searchsorted(mine, self.values, side="left")
            right = np.searchsorted(mine, self.values, side="right")
            with self._lock:
                self._lower[code] += left
                self._level[code] += right - left

    def _add_weights(self, band_start: int, start: int, bins: Ints) -> None:
        above = self.bands.buffers.get("above", bins.size, np.float32).reshape(bins.shape)
        np.take(self._above, bins, out=above, mode="clip")
        for row in range(len(bins)):
            query = start + row
            above[row, self.plan.starts[query] : self.plan.stops[query]] = 0
        sums = (self._row_sums, self._column_sums)
        _add_sums(sums, self.bands, band_start, start, above)

    def finish(self) -> PairCounts:
        """The counts, once all bands have been added."""
        histogram = self._histogram.reshape(self.num_codes, NUM_BINS).copy()
        # The hidden positives are in the lowest bin; pairs of one person agree in every attribute.
        histogram[-1, 0] -= int(self.plan.pair_starts[-1])
        # Bins with a positive were counted exactly, score by score; below them whole bins count.
        rest = np.where(self._flags, 0, histogram)
        below = np.cumsum(rest, axis=1)[:, self._bins]
        lower, equal = self._lower + below, self._level
        strata = [AGREE[stratum] for stratum in self.plan.strata]
        has = np.array([[(code & bits) == bits for code in range(self.num_codes)] for bits in strata])
        if self.num_codes == 1:
            has = np.ones((1, 1), bool)
        return PairCounts(
            values=self.values,
            counts=self.counts,
            lower=has.astype(np.int64) @ lower,
            equal=has.astype(np.int64) @ equal,
            totals=has.astype(np.int64) @ histogram.sum(axis=1),
            row_sums=self._row_sums,
            column_sums=self._column_sums,
        )


class ThresholdCounter:
    """Counter of the negatives at or above one threshold per stratum, by query and by gallery item.

    Args:
        bands: The similarities.
        thresholds: (S,) one of each stratum; NaN counts nothing.

    Attributes:
        row_sums: (S, Q) negatives of each query.
        column_sums: (S, M) negatives of each gallery item.
    """

    def __init__(self, bands: Bands, thresholds: Floats) -> None:
        self.bands, self.thresholds = bands, thresholds
        self.row_sums = np.zeros((len(thresholds), len(bands.plan.starts)))
        self.column_sums = np.zeros((len(thresholds), len(bands.plan.gallery.identities)))

    def add(self, start: int, band: Floats) -> None:
        """Counts a band in which the positives are hidden."""
        strata = self.bands.plan.strata
        for threshold in np.unique(self.thresholds[~np.isnan(self.thresholds)]):
            same = [s for s in range(len(strata)) if self.thresholds[s] == threshold]
            passed = np.greater_equal(band, threshold)
            weights = passed.view(np.uint8)
            _add_sums((self.row_sums, self.column_sums), self.bands, start, start, weights, same)


def _add_sums(
    sums: tuple[NDArray[np.float64], NDArray[np.float64]],
    bands: Bands,
    band_start: int,
    start: int,
    values: NDArray[np.float32] | NDArray[np.uint8],
    strata: list[int] | None = None,
) -> None:
    """Adds the sums of a chunk of a band along both axes, in each stratum, to (row sums, column sums)."""
    row_sums, column_sums = sums
    kind = np.float32 if values.dtype == np.float32 else np.int32
    for s, stratum in enumerate(bands.plan.strata):
        if strata is not None and s not in strata:
            continue
        for rows, runs in bands.plan.parts(stratum, start, start + len(values)):
            for run in runs:
                block = values[rows, run]
                # No other thread has these rows; the columns are everybody's, so they wait their turn.
                row_sums[s, start + rows.start : start + rows.stop] += block.sum(axis=1, dtype=kind)
                down = block.sum(axis=0, dtype=kind)
                bands.in_order(band_start, partial(_add, column_sums[s, run], down))


def _add(total: NDArray[np.float64], part: NDArray[Any]) -> None:
    total += part
