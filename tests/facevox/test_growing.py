"""Arrays that grow."""

import numpy as np
import pytest

from facevox.growing import GrowingArray


@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (4, 5)])
def test_rows_come_back_in_their_order(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    growing = GrowingArray(np.float32, shape)
    parts = [rng.normal(size=(count, *shape)).astype(np.float32) for count in (1, 0, 7, 1, 300, 2)]
    for part in parts:
        growing.add(part)
    assert len(growing) == 311
    rows = growing.take()
    np.testing.assert_array_equal(rows, np.concatenate(parts))
    assert rows.dtype == np.float32
    growing.add(parts[0])  # and nothing of before
    np.testing.assert_array_equal(growing.take(), parts[0])
    np.testing.assert_array_equal(rows, np.concatenate(parts))


def test_of_nothing_is_empty() -> None:
    assert GrowingArray(np.uint8, (2,)).take().shape == (0, 2)


def test_unused_memory_stays_small() -> None:
    growing = GrowingArray(np.uint8, (1000,))
    for _ in range(1000):
        growing.add(np.zeros((1, 1000), np.uint8))
        assert growing._rows.nbytes <= 1000 * len(growing) * 9 / 8
