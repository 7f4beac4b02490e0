"""Functions of neighbourhoods, computed piece by piece, so that memory does not grow with a clip."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from facevox.signs import report_progress

if TYPE_CHECKING:
    from numpy.typing import NDArray


def in_chunks(
    values: NDArray[Any], size: int, reach: int, function: Callable[[NDArray[Any]], NDArray[Any]]
) -> NDArray[Any]:
    """`function(values)` of (n, ...), `size` entries at a time.

    Args:
        values: Entries in the order of time.
        size: Of a chunk.
        reach: Entries on either side that an entry of the result depends on: each chunk has them around it.
        function: Of (m, ...) entries, m >= 0; returns as many.
    """
    result: NDArray[Any] | None = None
    for start in range(0, max(len(values), 1), size):
        report_progress()
        first = max(start - reach, 0)
        part = function(values[first : start + size + reach])[start - first : start - first + size]
        if result is None:
            if len(values) <= size:
                return part
            result = np.empty((len(values), *part.shape[1:]), part.dtype)
        result[start : start + size] = part
    assert result is not None, "there is a chunk at least"
    return result
