"""Reproducible random numbers: seeds for a run, and the state of all generators to resume from."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seeds Python's, NumPy's and torch's global generators (on all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries draw from the global one
    torch.manual_seed(seed)


class RandomState:
    """The current state of every generator that a model may draw from.

    Dropout and layer drop use torch's, on the CPU and on this process's GPU; the time masking of Wav2Vec2 in
    transformers uses NumPy's global one.
    """

    def __init__(self) -> None:
        self._python = random.getstate()
        self._numpy: Any = np.random.get_state()  # noqa: NPY002 - the global one is what others draw from
        self._torch = torch.get_rng_state()
        has_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch has no types for it
        self._cuda = torch.cuda.get_rng_state() if has_cuda else None

    def restore(self) -> None:
        """Makes the next random numbers those that followed when this state was taken."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002
        torch.set_rng_state(self._torch)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda)

    def to_plain(self) -> dict[str, object]:
        """The state as numbers, lists and tensors only, which a checkpoint may hold."""
        version, words, gauss = self._python
        name, keys, position, has_gauss, cached = self._numpy
        return {
            "python": [version, list(words), gauss],
            "numpy": [str(name), [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
            "torch": self._torch,
            "cuda": self._cuda,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> RandomState:
        """The state from the values of `to_plain`."""
        state = cls()
        version, words, gauss = plain["python"]
        state._python = (version, tuple(words), gauss)
        name, keys, position, has_gauss, cached = plain["numpy"]
        state._numpy = (name, np.array(keys, np.uint32), position, has_gauss, cached)
        state._torch = plain["torch"].cpu()
        state._cuda = plain["cuda"].cpu() if plain["cuda"] is not None else None
        return state
