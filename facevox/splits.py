"""The order in which people are assigned to parts: a hash of seed and name.

It depends neither on the other people, nor on the order of the files, nor on versions of a random generator:
the same seed and the same name give the same position in every version.
"""

import hashlib
from collections.abc import Iterable


def draw(name: str, seed: int) -> bytes:
    """32 bytes derived from a name and a seed, uniformly distributed over names."""
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()


def drawn_order(names: Iterable[str], seed: int) -> list[str]:
    """The names, each once, in the order of their draws."""
    return sorted(set(names), key=lambda name: draw(name, seed))


def drawn_share(name: str, seed: int) -> float:
    """The draw as a number of at least 0 and below 1."""
    return int.from_bytes(draw(name, seed)[:8], "big") / 2**64
