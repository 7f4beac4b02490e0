"""How much of something a client may have."""

import time


class TokenBucket:
    """Fills at a steady rate up to its size; each use takes one token.

    Args:
        rate_per_s: Tokens that come each second.
        size: The most that it holds, and what it holds at first: how many may be taken at once.
        now_s: The moment at which it begins, on time.monotonic's clock; None: now.
    """

    def __init__(self, rate_per_s: float, size: float, now_s: float | None = None) -> None:
        self._rate_per_s = rate_per_s
        self._size = self._level = size
        self._seen_s = time.monotonic() if now_s is None else now_s

    def take(self, now_s: float | None = None) -> bool:
        """Takes a token; False where there is none."""
        now_s = time.monotonic() if now_s is None else now_s
        self._level = min(self._level + (now_s - self._seen_s) * self._rate_per_s, self._size)
        self._seen_s = now_s
        if self._level < 1:
            return False
        self._level -= 1
        return True
