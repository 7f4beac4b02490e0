"""Counts over all similarities of two sets of embeddings, in memory that does not grow with their product.

Both sets are sorted by gender, nationality and identity. So the positives of a query, and the negatives of
each stratum, are a few runs of neighbouring columns, and a stratum costs no mask. The matrix is computed in
bands of rows, each thread its own.

A pair of vectors has one similarity, to the last bit, at every position, on every processor and with every
BLAS: coordinates are rounded to multiples of 2^-26, so that products are multiples of 2^-52, and all sums of
them stay below 2 (unit vectors, Cauchy-Schwarz). They fit into the 53 bits of a float64 without any rounding,
in whatever order a kernel adds them. Equal vectors are therefore exact ties, and ranks do not depend on the
machine. A similarity is that sum rounded to float32; of 512 numbers it is at most 4e-7 away from the product
of the original vectors (1e-8 as a rule, and the rounding's 3e-8).

A stratum is the set of possible distractors: `all`, those of the query's `gender` or `nationality`, or those
of `both`. An unknown gender or nationality (empty or absent) equals no other.
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from facevox.cli import num_cores

STRATA = ("all", "gender", "nationality", "both")
GRID = 2.0**26  # coordinates become multiples of its reciprocal; see above
TILE = 512  # columns of one product: 1024 rows of it are 4 MiB of float64
PAIRS = 4096  # multiplied at a time: twice 16 MiB for 512 numbers
BAND_ROWS = 1024
BAND_SCORES = 1 << 24  # of one band: 64 MiB of float32 for each thread
MAX_PROBES = 8  # positives of a row that are compared with the whole row; where there are more, it is sorted
BELOW_ALL = np.float32(-2.0)  # overwrites hidden positives: below every similarity

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class Side:
    """One set of embeddings, sorted.

    Attributes:
        vectors: (n, D) float32.
        order: (n,) position of each row before sorting.
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
    """Counts of one direction. S strata, Q queries, M gallery, P positive pairs (by query, then column).

    Attributes:
        scores: (P,) similarity of each positive pair.
        queries: (P,) row of each pair (sorted order).
        higher: (S, P) negatives of the same query above the pair.
        equal: (S, P) negatives level with it.
        totals: (S, Q) negatives of each query.
        num_positives: (Q,) positives of each query.
        influence: (S, C, M) for each size of matching, the amount that each gallery item takes away from the
            sum of the queries' accuracies, in expectation over the other distractors.
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
    """Positions of the positives and the strata of each query in the sorted gallery.

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
        # A cell is a run of queries of one gender and nationality; the band may begin inside of one.
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


def on_grid(vectors: Floats) -> NDArray[np.float64]:
    """(n, D) float64 multiples of 1 / GRID next to the vectors, which have at most about unit length."""
    grid = np.multiply(vectors, GRID, dtype=np.float64)
    np.rint(grid, out=grid)
    grid /= GRID
    return grid


def pair_similarities(left: Floats, right: Floats, rows: ArrayLike, columns: ArrayLike) -> Floats:
    """(P,) similarities of `left[rows]` and `right[columns]`, those of the whole matrix to the last bit.

    Args:
        left, right: (n, D) and (m, D) float32 of at most unit length.
        rows, columns: (P,) indices of the vectors that are multiplied.
    """
    rows, columns = np.asarray(rows), np.asarray(columns)
    similarities = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), PAIRS):
        part = slice(start, start + PAIRS)
        similarities[part] = np.einsum("pd,pd->p", on_grid(left[rows[part]]), on_grid(right[columns[part]]))
    return similarities


class _Buffers(threading.local):
    """Memory of one thread, made once: a fresh array costs a page fault for each of its pages."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[np.generic]] = {}

    def get(self, name: str, size: int, kind: type[_Scalar]) -> NDArray[_Scalar]:
        """A flat array of `size`, whose memory the next band uses again."""
        array = self._arrays.get(name)
        if array is None or len(array) < size:
            array = self._arrays[name] = np.empty(size, kind)
        return cast("NDArray[_Scalar]", array[:size])


class Bands:
    """The rows of the similarity matrix, band by band.

    Args:
        plan: What is compared with what.
        num_threads: Number of threads; default: the cores this process may use.
    """

    def __init__(self, plan: Plan, num_threads: int | None = None) -> None:
        self.plan = plan
        self.num_threads = num_threads or num_cores()
        self.buffers = _Buffers()
        self._lock = threading.Lock()
        self._waiting: dict[int, list[Callable[[], None]]] = {}
        self._ended: set[int] = set()
        num, columns = len(plan.queries.vectors), len(plan.gallery.vectors)
        self.rows = max(64, min(BAND_ROWS, BAND_SCORES // columns, num))

    def starts(self) -> range:
        """First row of each band."""
        return range(0, len(self.plan.queries.vectors), self.rows)

    def each(self, work: Callable[[int, Floats], None]) -> None:
        """Calls `work(start, scores (rows, M))` for every band, on all threads, in no order.

        The scores are in a buffer of the thread, which the next band overwrites.
        """
        gallery_MD = on_grid(self.plan.gallery.vectors)
        turns = iter(self.starts())
        upcoming = next(turns, None)

        def run(start: int) -> None:
            nonlocal upcoming
            work(start, self._band(start, gallery_MD))
            # Bands end in any order: what they queued is applied once all bands before them have ended.
            with self._lock:
                self._ended.add(start)
                while upcoming in self._ended:
                    for apply in self._waiting.pop(upcoming, ()):
                        apply()
                    upcoming = next(turns, None)

        # BLAS itself has one thread: comparing and counting, which are more than half, use all cores.
        with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(self.num_threads) as pool:
            for _ in pool.map(run, self.starts()):
                pass

    def in_order(self, start: int, apply: Callable[[], None]) -> None:
        """Calls `apply` once all bands before the one at `start` have ended, one call at a time.

        For sums of floats over the bands: added in the order in which threads finish, they would differ from
        run to run. To be called within `each`'s work.
        """
        with self._lock:
            self._waiting.setdefault(start, []).append(apply)

    def _band(self, start: int, gallery_MD: NDArray[np.float64]) -> Floats:
        """(rows, M) similarities of the queries from `start` on."""
        part_RD = on_grid(self.plan.queries.vectors[start : start + self.rows])
        count, columns = len(part_RD), len(gallery_MD)
        band = self.buffers.get("band", self.rows * columns, np.float32)[: count * columns]
        band = band.reshape(count, columns)
        for left in range(0, columns, TILE):
            tile_TD = gallery_MD[left : left + TILE]
            sums = self.buffers.get("sums", self.rows * TILE, np.float64)[: count * len(tile_TD)]
            sums = sums.reshape(count, len(tile_TD))
            np.matmul(part_RD, tile_TD.T, out=sums)
            band[:, left : left + TILE] = sums
        return band

    def positive_scores(self) -> Floats:
        """(P,) similarities of the positive pairs, by query, then column."""
        plan = self.plan
        scores = np.empty(int(plan.pair_starts[-1]), np.float32)
        # Both sides are sorted, so the positives of a person are one block of the matrix.
        names = plan.queries.identities
        edges = np.concatenate([[0], np.flatnonzero(names[1:] != names[:-1]) + 1, [len(names)]]).tolist()
        for first, end in itertools.pairwise(edges):
            gallery = slice(int(plan.starts[first]), int(plan.stops[first]))
            if gallery.start < gallery.stop:
                block = on_grid(plan.queries.vectors[first:end]) @ on_grid(plan.gallery.vectors[gallery]).T
                scores[plan.pair_starts[first] : plan.pair_starts[end]] = block.ravel()
        return scores

    def hide_positives(self, start: int, band: Floats) -> None:
        """Overwrites the positives of a band with `BELOW_ALL`."""
        starts, stops = self.plan.starts[start:], self.plan.stops[start:]
        for row, first, stop in zip(range(len(band)), starts, stops, strict=False):
            band[row, first:stop] = BELOW_ALL
