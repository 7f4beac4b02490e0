"""The most similar items of a gallery for each query, in memory that does not grow with their product.

The similarities are those of the measures to the last bit: the same bands of the same tiles.

Letters: Q queries, M gallery, K matches of a query, D numbers of an embedding.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lc_pytorch.utils.similarity import Bands, Plan, Side, sorted_side

GROUP = 64  # gallery items that are first compared among themselves; see `_candidates`
MAX_LEVEL = 4096  # candidates of a row that are sorted; with more of them, ties are cut off first


@dataclass(frozen=True)
class Matches:
    """The best matches of each query, best first; items with the same similarity in order of the gallery.

    Attributes:
        items_QK: (Q, K) rows of the gallery; K is the smaller of `top_k` and the gallery's size.
        similarities_QK: (Q, K) cosine similarity, float32.
    """

    items_QK: NDArray[np.int64]
    similarities_QK: NDArray[np.float32]


def find_matches(
    queries_QD: NDArray[np.float32],
    gallery_MD: NDArray[np.float32],
    top_k: int,
    num_threads: int | None = None,
) -> Matches:
    """The `top_k` most similar items of the gallery for each query.

    Args:
        queries_QD: (Q, D) unit vectors.
        gallery_MD: (M, D) unit vectors.
        top_k: K, at least 1.
        num_threads: Default: the cores this process may use.
    """
    count = min(top_k, len(gallery_MD))
    items = np.empty((len(queries_QD), count), np.int64)
    similarities = np.empty((len(queries_QD), count), np.float32)

    def add(start: int, band: NDArray[np.float32]) -> None:
        bounds = _lower_bounds(band, count)
        for row, (scores, bound) in enumerate(zip(band, bounds, strict=True), start):
            items[row] = _best(scores, bound, count)
            similarities[row] = scores[items[row]]

    plan = Plan(_in_order(queries_QD), _in_order(gallery_MD), ("all",))
    Bands(plan, num_threads).each(add)
    return Matches(items, similarities)


def _in_order(vectors: NDArray[np.float32]) -> Side:
    """A side whose rows keep their order: as if each item were another person, of unknown attributes."""
    numbers, nothing = np.arange(len(vectors)), np.zeros(len(vectors), np.int64)
    return sorted_side(vectors, numbers, nothing, nothing)


def _lower_bounds(band: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """(rows,) a similarity that at least `count` items of each row reach, close to the highest such number.

    The columns are dealt into groups; one sweep over the memory gives the best of each group. The count-th
    best of those is reached by at least `count` items, and by few more. Selecting from the whole row instead
    takes ten times as long.
    """
    rows, columns = band.shape
    num_groups = columns // GROUP
    if num_groups < count:
        return np.partition(band, columns - count, axis=1)[:, columns - count]
    # Columns beyond the last full group are left out: the bound holds all the same, for fewer candidates.
    groups = band[:, : num_groups * GROUP].reshape(rows, GROUP, num_groups)
    best = groups.max(axis=1)
    return np.partition(best, num_groups - count, axis=1)[:, num_groups - count]


def _best(scores: NDArray[np.float32], bound: np.float32, count: int) -> NDArray[np.int64]:
    """(count,) columns of the best scores; equal ones in order."""
    candidates = np.flatnonzero(scores >= bound)
    if len(candidates) > MAX_LEVEL:
        # Many ties at the bound (a model that gives everybody one embedding): only as many as are needed.
        reached = scores[candidates]
        last = np.partition(reached, len(reached) - count)[len(reached) - count]
        above = candidates[reached > last]
        candidates = np.concatenate([above, candidates[reached == last][: count - len(above)]])
    order = np.argsort(-scores[candidates], kind="stable")[:count]
    best: NDArray[np.int64] = candidates[order]
    return best
