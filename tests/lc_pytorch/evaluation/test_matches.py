"""The best matches against sorting the whole matrix."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lc_pytorch.evaluation import matches
from lc_pytorch.evaluation.matches import find_matches
from lc_pytorch.utils import similarity
from lc_pytorch.utils.similarity import Bands


def unit_vectors(count: int, width: int, seed: int) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def sorted_whole(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], top_k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every similarity in float64, the whole row sorted, ties by position."""
    scores = queries.astype(np.float64) @ gallery.astype(np.float64).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    return order, np.take_along_axis(scores, order, axis=1)


@pytest.mark.parametrize(
    ("num_queries", "num_items", "top_k"), [(1, 1, 5), (7, 3, 5), (300, 1000, 5), (1100, 5001, 20)]
)
@pytest.mark.numeric
def test_matches_are_those_of_the_whole_matrix(num_queries: int, num_items: int, top_k: int) -> None:
    queries, gallery = unit_vectors(num_queries, 24, 0), unit_vectors(num_items, 24, 1)
    found = find_matches(queries, gallery, top_k)
    items, scores = sorted_whole(queries, gallery, top_k)
    assert found.items_QK.shape == (num_queries, min(top_k, num_items))
    np.testing.assert_allclose(found.similarities_QK, scores, atol=1e-6)
    # Two that differ by less than float32 holds may change places, no others.
    swapped = found.items_QK != items
    assert swapped.mean() < 1e-3
    assert np.all(np.abs(found.similarities_QK[swapped] - scores[swapped]) < 1e-6)


@pytest.mark.parametrize("num_kinds", [1, 3, 40])
@pytest.mark.parametrize("most_sorted", [8, 4096])
def test_items_that_are_level_come_in_the_order_of_the_gallery(
    num_kinds: int, most_sorted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matches, "MAX_LEVEL", most_sorted)
    # Exact in float32 in any order of summing: few bits each.
    kinds = np.round(unit_vectors(num_kinds, 16, 2) * 64).astype(np.float32) / 64
    gallery = kinds[np.random.default_rng(3).integers(0, num_kinds, 700)]
    queries = np.round(unit_vectors(90, 16, 4) * 64).astype(np.float32) / 64
    found = find_matches(queries, gallery, 10)
    items, scores = sorted_whole(queries, gallery, 10)
    np.testing.assert_array_equal(found.items_QK, items)
    np.testing.assert_array_equal(found.similarities_QK, scores.astype(np.float32))


@pytest.mark.numeric
def test_number_of_threads_changes_nothing() -> None:
    queries, gallery = unit_vectors(3000, 16, 5), unit_vectors(2500, 16, 6)
    one, three = (find_matches(queries, gallery, 5, num_threads=n) for n in (1, 3))
    np.testing.assert_array_equal(one.items_QK, three.items_QK)
    np.testing.assert_array_equal(one.similarities_QK, three.similarities_QK)


def check_some_rows(num: int, every: int) -> None:
    """The matches of so many queries among as many items, every so many of them looked at."""
    queries, gallery = unit_vectors(num, 512, 7), unit_vectors(num, 512, 8)
    found = find_matches(queries, gallery, 5)
    rows = np.arange(0, num, every)
    items, scores = sorted_whole(queries[rows], gallery, 5)
    np.testing.assert_allclose(found.similarities_QK[rows], scores, atol=1e-6)
    assert (found.items_QK[rows] != items).mean() < 0.02


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_hundred_thousand_against_hundred_thousand() -> None:
    check_some_rows(100_000, 5000)


def test_thousands_against_thousands_in_bands_of_tiles_that_are_each_made_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(similarity, "BAND_SCORES", 1 << 20)  # bands of 209 rows, so that there are many
    monkeypatch.setattr(similarity, "TILE", 64)
    sizes = []
    plain = Bands._band

    def band(self: Bands, start: int, gallery_MD: NDArray[np.float64]) -> NDArray[np.float32]:
        scores = plain(self, start, gallery_MD)
        sizes.append(scores.size)
        return scores

    monkeypatch.setattr(Bands, "_band", band)
    check_some_rows(5000, 97)
    assert len(sizes) == 24
    assert sum(sizes) == 5000 * 5000
    assert max(sizes) <= 1 << 20  # as much memory as that, however many there are
