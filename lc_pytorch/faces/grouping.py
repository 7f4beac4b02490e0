"""One group per person from face embeddings: exact average linkage in memory that grows with the faces.

Two groups become one while the mean cosine distance over *all* pairs between them is at most the threshold
(average linkage, UPGMA). A chain of look-alikes is therefore not one group: its ends raise the mean distance,
whereas connected components would merge everyone who is linked by somebody in between.

Why it is cheap, and still exact:

* The mean similarity of two groups is the dot product of the means of their unit vectors, so no matrix of
  distances is kept: one sum vector per group is enough.
* Two groups whose mean similarity reaches a cut must hold at least one pair of faces that reaches it. So the
  only candidates are the pairs of faces above the cut ("edges"), found tile by tile in half of the matrix
  product and stored as a list.
* Average linkage is reducible: pairs of groups that are each other's nearest can all be merged in one
  vectorised round, in any order, with the same result as merging one pair after the other.

Where nearly every face resembles every other the list would grow with the square of the faces. Then only the
strongest edges of each face are kept (`edges_per_face`), and a last pass over the group means ensures that no
two groups remain whose mean similarity reaches the cut. Only the order of merges is approximate then.

Source: average linkage after Sokal and Michener (1958); reciprocal nearest neighbours after Murtagh (1983).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from facevox.cli import num_cores
from facevox.errors import UserError
from lc_pytorch.utils.similarity import on_grid, pair_similarities

TILE = 1024  # faces; a tile of 1024 × 1024 float32 is 4 MiB and stays in the cache while it is compared
WAVE = 16  # tiles between two counts of the edges: at most 16 Mi new edges (192 MiB) at a time
EDGES_PER_FACE = 64  # strongest edges kept of each face, once the list outgrows its budget
MIN_EDGE_BUDGET = 8_000_000  # edges (96 MB): small sets are never cut
DOT_CHUNK = 4096  # pairs of sum vectors multiplied at a time: 2 × 16 MiB for 512 numbers
DENSE = 16  # where more than one product in 16 is a candidate, a whole tile is quicker than its pairs
# Float32 products of unit vectors are off by a few 1e-7: a distance of 0 must reach threshold 0.
ROUNDING = 1e-6
NORM_TOLERANCE = 1e-3

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
EdgeArrays = tuple[IntArray, IntArray, FloatArray]  # as the fields of `Edges`


@dataclass(frozen=True)
class Edges:
    """Pairs of faces whose similarity reaches the cut, `first < second`, each pair once.

    Attributes:
        first: (E,) int32 face index.
        second: (E,) int32 face index.
        similarity: (E,) float32 cosine similarity.
        is_capped: Whether only the strongest edges of each face were kept.
    """

    first: IntArray
    second: IntArray
    similarity: FloatArray
    is_capped: bool = False


def group_faces(
    embeddings: ArrayLike,
    threshold: float,
    *,
    edges_per_face: int = EDGES_PER_FACE,
    num_threads: int | None = None,
) -> NDArray[np.int64]:
    """Number of the person of each face.

    The groups do not depend on the order of the faces (save for exact ties), on the number of threads, on
    the processor, or on chance: similarities are exact sums (`lc_pytorch.utils.similarity`), and so are the
    sums of the groups' vectors. Only the mean similarity of groups of several faces is rounded, by 1e-7 at
    most, which matters where it is that close to the cut or to another.

    Args:
        embeddings: (N, D) unit vectors, one per face.
        threshold: Largest mean cosine distance (1 - cosine, 0 to 2) between two parts of one group.
        edges_per_face: Strongest edges kept of each face when there are too many to keep them all (more than
            `2 * edges_per_face * N`, and more than 8 million).
        num_threads: Threads for the matrix products. Default: the cores this process may use.

    Returns:
        (N,) int64 labels 0, 1, 2, … in the order in which the groups first appear.

    Raises:
        UserError: Embeddings that are not finite, not unit vectors or not a matrix; a threshold out of range.
    """
    vectors_ND = _checked_embeddings(embeddings)
    if not 0.0 <= threshold <= 2.0:
        raise UserError(f"threshold {threshold}: a cosine distance from 0 to 2 is expected")
    if edges_per_face < 1:
        raise UserError(f"edges_per_face {edges_per_face}: at least 1 is expected")
    min_similarity = 1.0 - threshold - ROUNDING
    num_faces = len(vectors_ND)
    labels = np.arange(num_faces)
    sums_ND = on_grid(vectors_ND)
    sizes_N = np.ones(num_faces)
    means_ND = vectors_ND
    while True:
        edges = find_edges(means_ND, min_similarity, edges_per_face=edges_per_face, num_threads=num_threads)
        merged = _merge_groups(sums_ND, sizes_N, edges, min_similarity)
        labels = merged[labels]
        if not edges.is_capped:
            return _numbered_by_first(labels)
        # Some edges were left out, so two groups that belong together may remain: compare the group means.
        rows, labels = np.unique(labels, return_inverse=True)
        sums_ND, sizes_N = sums_ND[rows], sizes_N[rows]
        means_ND = (sums_ND / sizes_N[:, None]).astype(np.float32)


def find_edges(
    vectors: FloatArray,
    min_similarity: float,
    *,
    edges_per_face: int = EDGES_PER_FACE,
    num_threads: int | None = None,
) -> Edges:
    """Pairs with a dot product of at least `min_similarity`, from half of the matrix product, tile by tile.

    Each thread multiplies and compares its own tile, so that comparing uses all cores as well; meanwhile BLAS
    itself is limited to one thread.

    Args:
        vectors: (N, D) float32 of at most unit length.
        min_similarity: Smallest dot product of an edge.
        edges_per_face: See `group_faces`.
        num_threads: See `group_faces`.

    Returns:
        The edges, in the order of the tiles: the same to the last bit on every machine.
    """
    num = len(vectors)
    budget = max(MIN_EDGE_BUDGET, 2 * edges_per_face * num)
    first, second, similarity = _no_edges()
    # An edge below a face's bar is not among its strongest. None: no face has a bar but the cut.
    bars: FloatArray | None = None
    workspace = _Workspace()
    threads = num_threads or num_cores()
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        parts: list[EdgeArrays] = []
        num_edges = 0
        for wave in _waves(num):
            bars_now = bars

            def edges_of(tile: tuple[int, int], bars_now: FloatArray | None = bars_now) -> EdgeArrays:
                return _tile_edges(vectors, tile, min_similarity, bars_now, workspace)

            new = list(pool.map(edges_of, wave))
            parts += new
            num_edges += sum(len(part[0]) for part in new)
            if num_edges > budget:
                first, second, similarity = _joined(parts)
                strong, bars = _strongest(first, second, similarity, num, edges_per_face, min_similarity)
                parts = [(first[strong], second[strong], similarity[strong])]
                num_edges = len(parts[0][0])
        first, second, similarity = _joined(parts)
    if bars is not None:
        strong, _ = _strongest(first, second, similarity, num, edges_per_face, min_similarity)
        first, second, similarity = first[strong], second[strong], similarity[strong]
    return Edges(first, second, similarity, is_capped=bars is not None)


def bcubed_f1(labels: ArrayLike, truth: ArrayLike) -> float:
    """B-cubed F1 of a grouping, 0 to 1.

    For each face: the share of its group that is the same person (precision), and the share of that person
    that is in its group (recall); both are averaged over the faces and joined by their harmonic mean.

    Args:
        labels: (N,) groups; any values that can be compared.
        truth: (N,) true people.

    Raises:
        UserError: The two differ in length or are empty.

    Source: Bagga and Baldwin (1998).
    """
    groups_N = np.unique(np.asarray(labels), return_inverse=True)[1]
    people_N = np.unique(np.asarray(truth), return_inverse=True)[1]
    if len(groups_N) != len(people_N) or len(groups_N) == 0:
        raise UserError(
            f"B-cubed needs two lists of one length, not {len(groups_N)} and {len(people_N)} labels"
        )
    num = len(groups_N)
    cells, counts = np.unique(groups_N * (int(people_N.max()) + 1) + people_N, return_counts=True)
    group_sizes = np.bincount(groups_N)[cells // (int(people_N.max()) + 1)]
    person_sizes = np.bincount(people_N)[cells % (int(people_N.max()) + 1)]
    # A cell of c faces adds c × (c / size) to the sum over faces.
    precision = float(np.sum(counts**2 / group_sizes)) / num
    recall = float(np.sum(counts**2 / person_sizes)) / num
    return 2 * precision * recall / (precision + recall)


class _Workspace(threading.local):
    """Buffers of one thread, made once: a fresh array costs a page fault for each of its pages."""

    products: FloatArray
    mask: NDArray[np.bool_]

    def __init__(self) -> None:
        self.products = np.empty(TILE * TILE, np.float32)
        self.mask = np.zeros(TILE * TILE + 8, bool)


def _checked_embeddings(embeddings: ArrayLike) -> FloatArray:
    """(N, D) float32, checked to be finite unit vectors."""
    vectors = np.ascontiguousarray(embeddings, dtype=np.float32)
    if vectors.ndim != 2:
        raise UserError(f"embeddings of shape {vectors.shape}: one row per face (N, D) is expected")
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float32))
    # A NaN or an infinity anywhere in a row makes its norm fail the comparison as well.
    bad = np.flatnonzero(~(np.abs(norms - 1.0) <= NORM_TOLERANCE))
    if len(bad):
        row = int(bad[0])
        raise UserError(
            f"embedding {row} has the norm {norms[row]} ({len(bad)} of {len(vectors)} are like this): "
            "finite unit vectors are expected; check the model that made them"
        )
    return vectors


def _waves(num: int) -> Iterator[list[tuple[int, int]]]:
    """Tiles (row start, column start) of the upper triangle, a few at a time."""
    wave: list[tuple[int, int]] = []
    for row in range(0, num, TILE):
        for column in range(row, num, TILE):
            wave.append((row, column))
            if len(wave) == WAVE:
                yield wave
                wave = []
    if wave:
        yield wave


def _tile_edges(
    vectors: FloatArray,
    tile: tuple[int, int],
    min_similarity: float,
    bars: FloatArray | None,
    workspace: _Workspace,
) -> EdgeArrays:
    """Edges inside one tile.

    A quick product in float32 finds the candidates, and misses none; the exact product decides.
    """
    row, column = tile
    left, right = vectors[row : row + TILE], vectors[column : column + TILE]
    size = len(left) * len(right)
    products = workspace.products[:size].reshape(len(left), len(right))
    mask = workspace.mask[:size].reshape(len(left), len(right))
    np.matmul(left, right.T, out=products)
    # However a kernel adds, a product of unit vectors is off by at most this (Higham 2002, section 3.1).
    error = np.float32((vectors.shape[1] + 8) * 2.0**-24)
    if bars is None:
        np.greater_equal(products, np.float32(min_similarity) - error, out=mask)
    else:
        # Kept when it is stronger than what either of the two faces has already.
        lower = np.minimum(bars[row : row + TILE, None], bars[None, column : column + TILE])
        np.greater(products, lower - error, out=mask)
    # Edges are rare: test eight comparisons at a time, as one 64-bit word (the buffer has room for padding).
    padded = -(-size // 8) * 8
    workspace.mask[size:padded] = False
    words = np.flatnonzero(workspace.mask[:padded].view(np.uint64))
    spots = (words[:, None] * 8 + np.arange(8)).ravel()
    spots = spots[workspace.mask[spots]]
    rows, columns = np.divmod(spots, len(right))
    if row == column:  # a tile on the diagonal has each pair twice, and each face with itself
        upper = rows < columns
        rows, columns = rows[upper], columns[upper]
    if len(rows) > size // DENSE:
        similarity = (on_grid(left) @ on_grid(right).T)[rows, columns].astype(np.float32)
    else:
        similarity = pair_similarities(left, right, rows, columns)
    if bars is None:
        is_edge = similarity >= np.float32(min_similarity)
    else:
        is_edge = similarity > np.minimum(bars[row + rows], bars[column + columns])
    rows, columns, similarity = rows[is_edge], columns[is_edge], similarity[is_edge]
    return (rows + row).astype(np.int32), (columns + column).astype(np.int32), similarity


def _strongest(
    first: IntArray, second: IntArray, similarity: FloatArray, num: int, per_face: int, min_similarity: float
) -> tuple[NDArray[np.bool_], FloatArray]:
    """The edges among the `per_face` strongest of at least one of their two faces, and the new bars.

    Returns:
        (E,) mask of the edges to keep; (N,) float32 bar of each face: the weakest of its strongest edges, or
        just below the cut while it has fewer than `per_face`.
    """
    bars = np.full(num, np.nextafter(np.float32(min_similarity), np.float32(-4)), np.float32)
    keep = np.zeros(len(first), bool)
    degrees = np.bincount(first, minlength=num) + np.bincount(second, minlength=num)
    # Bands of about 4 million edge ends (little memory) and at most 2^16 faces (their 16 bits of the key).
    bands = np.cumsum(degrees) // 4_000_000 * num + np.arange(num) // 65536
    for band in np.unique(bands):
        nodes = np.flatnonzero(bands == band)
        low, high = int(nodes[0]), int(nodes[-1])
        in_first = np.flatnonzero((first >= low) & (first <= high))
        in_second = np.flatnonzero((second >= low) & (second <= high))
        edge = np.concatenate([in_first, in_second])
        node = np.concatenate([first[in_first], second[in_second]])
        # One number sorts by face, then strongest first, then by a hash of the pair: without the hash every
        # face of a crowd of copies would keep the same few edges.
        luck = _pair_hash(first[edge], second[edge]) >> np.uint64(48)
        key = (node - low).astype(np.uint64) << np.uint64(48) | _descending(similarity[edge]) << np.uint64(16)
        order = np.argsort(key | luck, kind="stable")  # of equal keys the first edge, whatever the processor
        edge, node = edge[order], node[order]
        starts = np.searchsorted(node, np.arange(low, high + 1))
        rank = np.arange(len(node)) - starts[node - low]
        keep[edge[rank < per_face]] = True
        last = rank == per_face - 1
        bars[node[last]] = similarity[edge[last]]
    return keep, bars


def _merge_groups(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], edges: Edges, min_similarity: float
) -> NDArray[np.int64]:
    """Merges groups, round by round, until no pair reaches the cut.

    Args:
        sums: (N, D) exact sum of the vectors of each group; changed in place (row of the group that stays).
        sizes: (N,) faces in each group; changed in place.
        edges: Candidates: pairs of groups with their mean similarity.
        min_similarity: The cut.

    Returns:
        (N,) int64: the row of the group into which each row was merged.
    """
    home: NDArray[np.int64] = np.arange(len(sums))
    first, second, similarity = edges.first, edges.second, edges.similarity
    while len(first):
        nearest = _mutual_nearest(first, second, similarity, len(sums))
        stays, goes = first[nearest], second[nearest]
        sums[stays] += sums[goes]
        sizes[stays] += sizes[goes]
        moves_to = np.arange(len(sums), dtype=np.int32)
        moves_to[goes] = stays
        home = moves_to[home].astype(np.int64)
        grew = np.zeros(len(sums), bool)
        grew[stays] = True
        first, second = moves_to[first], moves_to[second]
        # Only edges of groups that grew have another mean now; those inside a group are dropped.
        is_changed = grew[first] | grew[second]
        changed = is_changed & (first != second)
        low = np.minimum(first[changed], second[changed]).astype(np.int64)
        pairs = np.unique(low * len(sums) + np.maximum(first[changed], second[changed]))
        left, right = (pairs // len(sums)).astype(np.int32), (pairs % len(sums)).astype(np.int32)
        means = _mean_similarity(sums, sizes, left, right)
        linked = means >= min_similarity
        first = np.concatenate([first[~is_changed], left[linked]])
        second = np.concatenate([second[~is_changed], right[linked]])
        similarity = np.concatenate([similarity[~is_changed], means[linked]])
    return home.astype(np.int64)


def _mutual_nearest(first: IntArray, second: IntArray, similarity: FloatArray, num: int) -> NDArray[np.int64]:
    """Indices of edges that are the strongest of both of their groups, no group twice. Never empty."""
    best = np.full(num, -np.inf, np.float32)
    np.maximum.at(best, first, similarity)
    np.maximum.at(best, second, similarity)
    mutual = np.flatnonzero((similarity == best[first]) & (similarity == best[second]))
    # With ties a group can have several: the smallest hash of the pair wins, on both sides.
    left, right = first[mutual], second[mutual]
    luck = _pair_hash(left, right)
    smallest = np.full(num, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, left, luck)
    np.minimum.at(smallest, right, luck)
    chosen: NDArray[np.int64] = mutual[(luck == smallest[left]) & (luck == smallest[right])]
    return chosen


def _descending(values: FloatArray) -> NDArray[np.uint64]:
    """32-bit numbers that are the smaller the larger the value is (IEEE 754 floats sort like their bits)."""
    bits = (values + np.float32(0.0)).view(np.uint32)  # adding 0 turns -0.0 into 0.0
    ascending = np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(0x80000000))
    return (~ascending).astype(np.uint64)


def _pair_hash(first: IntArray, second: IntArray) -> NDArray[np.uint64]:
    """Well mixed number of a pair; different pairs never share one (every step can be undone)."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    mixed = low.astype(np.uint64) << np.uint64(32) | high.astype(np.uint64)
    # The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _mean_similarity(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], left: IntArray, right: IntArray
) -> FloatArray:
    """(P,) mean similarity between all faces of two groups, for P pairs of groups."""
    means = np.empty(len(left), np.float32)
    for start in range(0, len(left), DOT_CHUNK):
        part = slice(start, start + DOT_CHUNK)
        dots = np.einsum("pd,pd->p", sums[left[part]], sums[right[part]])
        means[part] = dots / (sizes[left[part]] * sizes[right[part]])
    return means


def _no_edges() -> EdgeArrays:
    return np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32)


def _joined(parts: list[EdgeArrays]) -> EdgeArrays:
    if not parts:
        return _no_edges()
    first, second, similarity = zip(*parts, strict=True)
    return np.concatenate(first), np.concatenate(second), np.concatenate(similarity)


def _numbered_by_first(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same groups, numbered in the order in which they first appear."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
