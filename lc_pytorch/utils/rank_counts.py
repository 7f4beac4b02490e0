"""Number of negatives above each query's positives, and the effect of gallery items on matching."""

import numpy as np
from numpy.typing import NDArray

from lc_pytorch.utils.chance import share_without
from lc_pytorch.utils.similarity import MAX_PROBES, Bands, Counts, Floats, Ints

COLUMNS = 8192  # of a mask, converted to float32 at a time


class RankCounter:
    """Counter of one direction, from its bands.

    Args:
        bands: The similarities.
        choices: N of each 1:N matching, at least 2.
    """

    def __init__(self, bands: Bands, choices: tuple[int, ...]) -> None:
        self.bands, self.plan, self.choices = bands, bands.plan, choices
        plan = self.plan
        num_strata, num_pairs = len(plan.strata), int(plan.pair_starts[-1])
        num_queries, num_gallery = len(plan.starts), len(plan.gallery.identities)
        amounts = np.diff(plan.pair_starts)
        self.counts = Counts(
            scores=bands.positive_scores(),
            queries=np.repeat(np.arange(num_queries), amounts),
            higher=np.zeros((num_strata, num_pairs), np.int64),
            equal=np.zeros((num_strata, num_pairs), np.int64),
            totals=plan.totals(),
            num_positives=amounts,
            influence=np.zeros((num_strata, len(choices), num_gallery)),
            expected=np.zeros((num_strata, len(choices), num_queries)),
        )

    def add(self, start: int, band: Floats) -> None:
        """Counts a band in which the positives are hidden."""
        probes, weights = self._probes(start, len(band))
        rows = np.flatnonzero(np.diff(self.plan.pair_starts[start : start + len(band) + 1]) > MAX_PROBES)
        for row in rows:
            self._count_sorted(start, int(row), band)
        mask = self.bands.buffers.get("mask", band.size, np.bool_).reshape(band.shape)
        influence = np.zeros_like(self.counts.influence)
        for k in range(probes.shape[1]):
            scores = np.where(probes[:, k] >= 0, self.counts.scores[probes[:, k]], np.float32(np.inf))
            np.equal(band, scores[:, None], out=mask)
            equal = self._sums(start, mask)
            np.greater(band, scores[:, None], out=mask)
            higher = self._sums(start, mask)
            has = np.flatnonzero(probes[:, k] >= 0)
            # Rows with more positives than probes were counted by sorting; theirs serve the influence only.
            few = has[np.diff(self.plan.pair_starts)[start + has] <= MAX_PROBES]
            self.counts.higher[:, probes[few, k]] = higher[:, few]
            self.counts.equal[:, probes[few, k]] = equal[:, few]
            self._add_influence(start, mask, higher, equal, weights[:, k], influence)

        def apply() -> None:
            self.counts.influence += influence

        self.bands.in_order(start, apply)

    def _probes(self, start: int, count: int) -> tuple[Ints, NDArray[np.float64]]:
        """Up to 8 pairs of each row (-1: none), spread evenly over its scores, and their weights."""
        edges = self.plan.pair_starts[start : start + count + 1]
        amounts = np.diff(edges)
        width = int(min(MAX_PROBES, amounts.max(initial=0)))
        probes = np.full((count, width), -1, np.int64)
        for k in range(width):
            has = amounts > k
            probes[has, k] = edges[:-1][has] + k
        for row in np.flatnonzero(amounts > MAX_PROBES):
            order = np.argsort(self.counts.scores[edges[row] : edges[row + 1]], kind="stable")
            spread = ((np.arange(width) + 0.5) * amounts[row] / width).astype(np.int64)
            probes[row] = edges[row] + order[spread]
        used = np.maximum(np.minimum(amounts, MAX_PROBES), 1)
        return probes, (probes >= 0) / used[:, None]

    def _sums(self, start: int, mask: NDArray[np.bool_]) -> Ints:
        """(S, rows) true entries of each row in each stratum."""
        sums = np.zeros((len(self.plan.strata), len(mask)), np.int64)
        for s, stratum in enumerate(self.plan.strata):
            for rows, runs in self.plan.parts(stratum, start, start + len(mask)):
                for row in range(rows.start, rows.stop):
                    line = mask[row]
                    # Counting a run of bytes is far faster than a sum along an axis.
                    sums[s, row] = sum([np.count_nonzero(line[run]) for run in runs])
        return sums

    def _count_sorted(self, start: int, row: int, band: Floats) -> None:
        """Counts for a query with many positives, whose row is sorted once."""
        pairs = slice(*self.plan.pair_starts[start + row : start + row + 2])
        scores = self.counts.scores[pairs]
        for s, stratum in enumerate(self.plan.strata):
            for _, runs in self.plan.parts(stratum, start + row, start + row + 1):
                for run in runs:
                    line = np.sort(band[row, run])
                    right = np.searchsorted(line, scores, side="right")
                    self.counts.higher[s, pairs] += len(line) - right
                    self.counts.equal[s, pairs] += right - np.searchsorted(line, scores, side="left")

    def _add_influence(
        self,
        start: int,
        mask: NDArray[np.bool_],
        higher: Ints,
        equal: Ints,
        weights: NDArray[np.float64],
        influence: NDArray[np.float64],
    ) -> None:
        """Adds the cost of items above the positive: n/T · P(the other n - 1 distractors are all below).

        For the variance only, so one that is level counts as below: where most are, it is off by a percent.
        """
        totals = self.counts.totals[:, start : start + len(mask)]
        below = totals - higher - equal / 2
        for s, stratum in enumerate(self.plan.strata):
            total = totals[s]
            cost = np.empty((len(self.choices), len(mask)))
            for c, choice in enumerate(self.choices):
                n = choice - 1
                others = share_without(below[s] - 1, total - 1, np.full(len(mask), n - 1))
                cost[c] = np.where(total >= n, weights * n / np.maximum(total, 1) * others, 0.0)
            lost = np.divide(higher[s], total, out=np.zeros(len(total)), where=total > 0)
            self.counts.expected[s, :, start : start + len(mask)] += cost * lost
            single = cost.astype(np.float32)
            for rows, runs in self.plan.parts(stratum, start, start + len(mask)):
                for run in runs:
                    for left in range(run.start, run.stop, COLUMNS):
                        columns = slice(left, min(left + COLUMNS, run.stop))
                        part = single[:, rows] @ mask[rows, columns].astype(np.float32)
                        influence[s, :, columns] += part
