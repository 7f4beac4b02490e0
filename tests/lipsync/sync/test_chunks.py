"""Piece by piece, the numbers of the whole."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic_takes import make_take

from lipsync.shipped.model import load_shipped
from lipsync.sync import estimators, inputs
from lipsync.sync.chunks import in_chunks
from lipsync.sync.estimators import LoudnessEstimator, RidgeEstimator, RidgeExample
from lipsync.sync.inputs import lip_values, sound_values


def moving_sum(values: np.ndarray) -> np.ndarray:
    """Over three neighbours to each side; beyond the ends there is nothing."""
    padded = np.pad(values, ((3, 3), (0, 0)))
    return sum(padded[k : k + len(values)] for k in range(7))


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 47])
@pytest.mark.parametrize("size", [1, 5, 10, 100])
def test_chunks_do_not_show(count: int, size: int) -> None:
    values = np.random.default_rng(0).integers(0, 100, (count, 2))
    found = in_chunks(values, size, 3, moving_sum)
    np.testing.assert_array_equal(found, moving_sum(values))
    assert (found.shape, found.dtype) == (values.shape, values.dtype)


def test_reach_that_is_too_short_shows() -> None:
    values = np.arange(40)[:, None]
    assert (in_chunks(values, 10, 2, moving_sum) != moving_sum(values)).any()


def test_features_of_a_long_clip_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """With chunks far smaller than what the filters reach over."""
    take = make_take(0, 700)
    # Two lengths of rows that no chunk divides.
    take = replace(take, track=replace(take.track, start=7))
    ridge = RidgeEstimator.fit([RidgeExample(take.track, take.sound, take.offset_ms)])
    shipped = load_shipped().estimator

    def all_values() -> list[np.ndarray]:
        return [
            lip_values(take.track.lips),
            sound_values(take.sound),
            LoudnessEstimator().sound_vectors(take.sound),
            ridge.sound_vectors(take.sound),
            shipped.sound_vectors(take.sound),
            shipped.face_vectors(take.track),
        ]

    whole = all_values()
    for module, name, size in (
        (inputs, "CHUNK_FRAMES", 33),
        (estimators, "CHUNK_ROWS", 101),
    ):
        monkeypatch.setattr(module, name, size)
    for piecewise, expected in zip(all_values(), whole, strict=True):
        np.testing.assert_allclose(piecewise, expected, atol=2e-5)
