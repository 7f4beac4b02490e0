"""Arrays of rows that come one after the other."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray


class GrowingArray:
    """Rows in one block of memory, of which at most an eighth is not used yet.

    A list of them that is joined at the end takes twice the memory then.

    Args:
        dtype: Of the rows.
        shape: Of each row; (): numbers.
    """

    def __init__(self, dtype: "DTypeLike", shape: tuple[int, ...] = ()) -> None:
        self._rows: NDArray[Any] = np.zeros((0, *shape), dtype)
        self._num = 0

    def __len__(self) -> int:
        return self._num

    def add(self, rows: "ArrayLike") -> None:
        """Appends (n, *shape) rows."""
        added = np.asarray(rows)
        end = self._num + len(added)
        if end > len(self._rows):
            # Nothing else refers to the block: the system may move its pages without a copy.
            self._rows.resize((max(end, end + end // 8), *self._rows.shape[1:]), refcheck=False)
        self._rows[self._num : end] = added
        self._num = end

    def take(self) -> "NDArray[Any]":
        """(number of rows, *shape); this object is empty afterwards."""
        rows, self._rows = self._rows, np.zeros((0, *self._rows.shape[1:]), self._rows.dtype)
        rows.resize((self._num, *rows.shape[1:]), refcheck=False)
        self._num = 0
        return rows
