"""Counts over all similarities of two sets of embeddings, in memory that does not grow with their product.

Both sets are sorted by gender, nationality and identity. So the positives of a query, and the negatives of
each stratum, are a few runs of neighbouring columns, and a stratum costs no mask. The matrix is computed in
bands of rows, each thread its own, from tiles of one fixed shape: a pair of vectors then gives the same 32
bits wherever it stands, and equal vectors are exact ties.

Strata say who may be a distractor: `all`, `gender` and `nationality` (those of the query), `both`. An unknown
gender or nationality (empty, or nobody said) equals no other.
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from facevox.cli import num_cores

STRATA = ("all", "gender", "nationality", "both")
TILE = 4096  # columns of one product
BAND_ROWS = 1024
BAND_SCORES = 1 << 24  # of one band: 64 MiB of float32 for each thread
MAX_PROBES = 8  # positives of a row that are compared with the whole row; where there are more, it is sorted
BELOW_ALL = np.float32(-2.0)  # stands in the place of positives: below every similarity

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Side:
    """One set of embeddings, sorted.

    Attributes:
        vectors: (n, D) float32.
        order: (n,) where each row was before sorting.
        identities: (n,) number of the identity, 0 to G - 1.
        genders: (n,) number of the gender of each row.
        nationalities: (n,) likewise.
    """

    vectors: Floats
    order: Ints
    identities: Ints
    genders: Ints
    nationalities: Ints


@dataclass
class Counts:
    """What one direction counts. S strata, Q queries, M gallery, P positive pairs (by query, then column).

    Attributes:
        scores: (P,) similarity of each positive pair.
        queries: (P,) row of each pair (sorted order).
        higher: (S, P) negatives of the same query above the pair.
        equal: (S, P) negatives level with it.
        totals: (S, Q) negatives of each query.
        num_positives: (Q,) positives of each query.
        influence: (S, C, M) for each size of matching, what each gallery item took away from the sum over
            the queries of their accuracy, in expectation of the other distractors.
        expected: (S, C, Q) mean of the same over the negatives of each query.
    """

    scores: Floats
    queries: Ints
    higher: Ints
    equal: Ints
    totals: Ints
    num_positives: Ints
    influence: NDArray[np.float64]
    expected: NDArray[np.float64]


def sorted_side(vectors: Floats, identities: Ints, genders: Ints, nationalities: Ints) -> Side:
    """Sorts by gender, nationality, identity; the last two are (G,) numbers by identity."""
    order = np.lexsort((identities, nationalities[identities], genders[identities])).astype(np.int64)
    is_sorted = bool((order[1:] > order[:-1]).all())
    names = identities[order]
    return Side(vectors if is_sorted else vectors[order], order, names, genders[names], nationalities[names])


class Plan:
    """Where the positives and the strata of each query lie in the sorted gallery.

    Attributes:
        starts: (Q,) first positive column of each query.
        stops: (Q,) end of its positive columns.
        pair_starts: (Q + 1,) first pair of each query.
    """

    def __init__(self, queries: Side, gallery: Side, strata: tuple[str, ...]) -> None:
        self.queries, self.gallery, self.strata = queries, gallery, strata
        num_people = 1 + int(max(queries.identities.max(), gallery.identities.max()))
        first, end = _runs(gallery.identities, num_people)
        self.starts, self.stops = first[queries.identities], end[queries.identities]
        self.pair_starts = np.concatenate([[0], np.cumsum(self.stops - self.starts)])
        cells = np.stack([queries.genders, queries.nationalities])
        change = np.flatnonzero((cells[:, 1:] != cells[:, :-1]).any(axis=0)) + 1
        self.cell_starts = np.concatenate([[0], change])
        self.cell_ends = np.append(change, len(queries.identities))
        self._blocks = _gallery_blocks(gallery)

    def parts(self, stratum: str, start: int, stop: int) -> Iterator[tuple[slice, list[slice]]]:
        """(rows, their column runs) of the stratum inside the band of rows start:stop; rows count from start.

        The runs hold the positives too.
        """
        if stratum == "all":
            yield slice(0, stop - start), [slice(0, len(self.gallery.identities))]
            return
        low = int(np.searchsorted(self.cell_ends, start, side="right"))
        for first, end in zip(self.cell_starts[low:], self.cell_ends[low:], strict=True):
            if first >= stop:
                return
            rows = slice(max(int(first) - start, 0), min(int(end), stop) - start)
            yield rows, self.runs(stratum, int(first))

    def runs(self, stratum: str, query: int) -> list[slice]:
        """Column runs of a query in a stratum other than `all`."""
        gender, nation = int(self.queries.genders[query]), int(self.queries.nationalities[query])
        key = {"gender": (gender, -1), "nationality": (-1, nation), "both": (gender, nation)}[stratum]
        return self._blocks.get(key, [])

    def totals(self) -> Ints:
        """(S, Q) negatives of each query in each stratum."""
        num = len(self.queries.identities)
        totals = np.zeros((len(self.strata), num), np.int64)
        for s, stratum in enumerate(self.strata):
            for rows, runs in self.parts(stratum, 0, num):
                totals[s, rows] = sum(run.stop - run.start for run in runs)
        return totals - (self.stops - self.starts)


def _runs(codes: Ints, num: int) -> tuple[Ints, Ints]:
    """First and end position of each code 0 to num - 1 in a list where equal codes are neighbours."""
    first, end = np.zeros(num, np.int64), np.zeros(num, np.int64)
    change = np.concatenate([[0], np.flatnonzero(codes[1:] != codes[:-1]) + 1, [len(codes)]])
    first[codes[change[:-1]]], end[codes[change[:-1]]] = change[:-1], change[1:]
    return first, end


def _gallery_blocks(gallery: Side) -> dict[tuple[int, int], list[slice]]:
    """Column runs by (gender, nationality); -1 stands for any."""
    blocks: dict[tuple[int, int], list[slice]] = {}
    cells = np.stack([gallery.genders, gallery.nationalities])
    change = np.flatnonzero((cells[:, 1:] != cells[:, :-1]).any(axis=0)) + 1
    edges = [0, *change.tolist(), cells.shape[1]]
    for start, stop in itertools.pairwise(edges):
        gender, nation = int(cells[0, start]), int(cells[1, start])
        for key in ((gender, nation), (-1, nation)):
            blocks.setdefault(key, []).append(slice(start, stop))
        whole = blocks.setdefault((gender, -1), [slice(start, stop)])
        whole[0] = slice(whole[0].start, stop)  # cells of one gender are neighbours
    return blocks


class _Buffers(threading.local):
    """Memory of one thread, made once: a fresh array costs a page fault for each of its pages."""

    def __init__(self) -> None:
        self.kept: dict[str, NDArray[Any]] = {}

    def get(self, name: str, size: int, kind: type) -> NDArray[Any]:
        """A flat array of at least `size`, kept for the next band."""
        kept = self.kept.get(name)
        if kept is None or len(kept) < size:
            kept = self.kept[name] = np.empty(size, kind)
        return kept[:size]


class Bands:
    """The rows of the similarity matrix, band by band.

    Args:
        plan: What is compared with what.
        num_threads: Default: the cores this process may use.
    """

    def __init__(self, plan: Plan, num_threads: int | None = None) -> None:
        self.plan = plan
        self.num_threads = num_threads or num_cores()
        self.buffers = _Buffers()
        num, columns = len(plan.queries.vectors), len(plan.gallery.vectors)
        # Multiples of 64: the inner kernels of BLAS then never meet a ragged edge, whose sums may round
        # differently.
        num_tiles = -(-columns // TILE)
        self.tile = -(-columns // num_tiles // 64) * 64
        self.width = num_tiles * self.tile
        self.rows = max(64, min(BAND_ROWS, BAND_SCORES // self.width // 64 * 64, -(-num // 64) * 64))

    def starts(self) -> range:
        """First row of each band."""
        return range(0, len(self.plan.queries.vectors), self.rows)

    def each(self, work: Callable[[int, Floats], None]) -> None:
        """Calls `work(start, scores (rows, M))` for every band, on all threads, in no order."""

        def one(start: int) -> None:
            work(start, self.product(start, 0, self.width))

        self._on_all_threads(one)

    def _on_all_threads(self, work: Callable[[int], None]) -> None:
        # BLAS itself is held to one thread: comparing and counting, which are more than half, use all cores.
        with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(self.num_threads) as pool:
            for _ in pool.map(work, self.starts()):
                pass

    def product(self, start: int, left: int, right: int) -> Floats:
        """Similarities of a band with the columns of the tiles from `left` to `right` (multiples of a tile).

        Returns:
            (rows, M) float32 in a buffer of this thread, other columns undefined.
        """
        queries, gallery = self.plan.queries.vectors, self.plan.gallery.vectors
        band = self.buffers.get("band", self.rows * self.width, np.float32).reshape(self.rows, self.width)
        part = queries[start : start + self.rows]
        count = len(part)
        if count < self.rows:
            part = np.concatenate([part, np.zeros((self.rows - count, part.shape[1]), np.float32)])
        for column in range(left, right, self.tile):
            other = gallery[column : column + self.tile]
            if len(other) < self.tile:
                other = np.concatenate(
                    [other, np.zeros((self.tile - len(other), other.shape[1]), np.float32)]
                )
            np.matmul(part, other.T, out=band[:, column : column + self.tile])
        return band[:count, : len(gallery)]

    def positive_scores(self) -> Floats:
        """(P,) similarities of the positive pairs: only the tiles that hold some are computed."""
        plan = self.plan
        scores = np.empty(int(plan.pair_starts[-1]), np.float32)

        def one(start: int) -> None:
            rows = slice(start, min(start + self.rows, len(plan.starts)))
            tiles = {
                tile
                for first, stop in zip(plan.starts[rows], plan.stops[rows], strict=True)
                for tile in range(int(first) // self.tile, -(-int(stop) // self.tile))
                if first < stop
            }
            for tile in sorted(tiles):
                left = tile * self.tile
                band = self.product(start, left, left + self.tile)
                self._take_positives(scores, band, start, left, left + self.tile)

        self._on_all_threads(one)
        return scores

    def _take_positives(self, scores: Floats, band: Floats, start: int, left: int, right: int) -> None:
        plan = self.plan
        for row in range(len(band)):
            query = start + row
            first, stop = max(int(plan.starts[query]), left), min(int(plan.stops[query]), right)
            if first < stop:
                at = int(plan.pair_starts[query]) + first - int(plan.starts[query])
                scores[at : at + stop - first] = band[row, first:stop]

    def hide_positives(self, start: int, band: Floats) -> None:
        """Puts `BELOW_ALL` in the place of the positives of a band."""
        starts, stops = self.plan.starts[start:], self.plan.stops[start:]
        for row, first, stop in zip(range(len(band)), starts, stops, strict=False):
            band[row, first:stop] = BELOW_ALL
