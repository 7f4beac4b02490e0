"""The order in which people are dealt into parts: a hash of seed and name.

It depends neither on who else is there, nor on the order of the files, nor on versions of a random generator:
the same seed and the same name come to the same place in every version.
"""

import hashlib
from collections.abc import Iterable


def draw(name: str, seed: int) -> bytes:
    """32 bytes that belong to a name and a seed, evenly spread over names."""
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()


def drawn_order(names: Iterable[str], seed: int) -> list[str]:
    """The names, each once, in the order of their draws."""
    return sorted(set(names), key=lambda name: draw(name, seed))


def drawn_share(name: str, seed: int) -> float:
    """The draw as a number from 0 to below 1."""
    return int.from_bytes(draw(name, seed)[:8], "big") / 2**64
