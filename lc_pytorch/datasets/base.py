"""Base of every set of pairs: keys of items, seeded randomness, and bad files that do not end a training.

A loader asks for an item either by its number, for evaluation, or by (epoch, number), for training. All that
is random about a training item comes from (seed, epoch, number) alone, so that it is the same with any number
of worker processes and ranks, and in a resumed run.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, SupportsIndex

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from facevox.errors import UserError, one_line
from lc_pytorch.datasets.splits import normalise_identity

MAX_ATTEMPTS = 10  # replacements of one bad item; eleven bad ones in a row are no accident
Purpose = Literal["face", "voice", "replacement"]
# Fixed numbers: part of what a seed means.
_PURPOSES: dict[str, int] = {"face": 0, "voice": 1, "replacement": 2}
Key = SupportsIndex | tuple[SupportsIndex, SupportsIndex]


def item_generator(
    seed: int, epoch: int, index: int, purpose: Purpose, attempt: int = 0
) -> np.random.Generator:
    """The random generator for one use of one item: the same in every process, independent between uses.

    Args:
        seed: Seed of the run, at least 0.
        epoch: Number of the epoch, from 0.
        index: Number of the item.
        purpose: What the numbers are for; each purpose has its own stream.
        attempt: Number of the try, for repeated uses.
    """
    return np.random.default_rng(np.random.SeedSequence([seed, epoch, index, _PURPOSES[purpose], attempt]))


class PairDataset(Dataset[dict[str, Tensor]]):
    """Faces, each with a voice or a spectrogram of the same person.

    Attributes:
        second: Name of the other side of a pair: "voice", (T,) float32 waveform; or "mel", (n_mels, T).
        identities: Normalised name of the person of each item.
        identity_names: The people, sorted; `identity` of an item is an index into this list.
        identity_numbers: (N,) int64, that index for each item.
        seed: Seed of crops and augmentation.
        collate: Makes a batch of a list of items.
    """

    second: ClassVar[str]

    def __init__(self, identities: Sequence[str], *, seed: int = 0) -> None:
        if seed < 0:
            raise UserError(f"--seed {seed}: at least 0 is expected")
        self.identities = [normalise_identity(name) for name in identities]
        self.identity_names = sorted(set(self.identities))
        number_of = {name: number for number, name in enumerate(self.identity_names)}
        # Not a list: reading Python objects writes their reference counts, so every forked loader process
        # would get its own copy of the memory.
        self.identity_numbers = np.array([number_of[name] for name in self.identities], np.int64)
        self.seed = seed
        self.collate: Callable[[list[dict[str, Tensor]]], dict[str, object]] = default_collate

    def __len__(self) -> int:
        return len(self.identities)

    def load(self, index: int, epoch: int | None) -> dict[str, Tensor]:
        """{"face": (3, H, W) float32, normalised; `second`: its tensor} of one item.

        With a `DeviceTransform` of pictures the face is what its `collate` expects instead.

        Args:
            index: 0 to len - 1.
            epoch: None: for evaluation, from the middle of the recording and without augmentation. Otherwise
                a random crop, and augmentation, from (seed, epoch, index) alone.

        Raises:
            UserError: One of its files cannot be used.
        """
        raise NotImplementedError

    def describe(self, index: int, epoch: int | None = None) -> str:
        """The files that an item consists of in an epoch (None: in evaluation), for messages."""
        raise NotImplementedError

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        """An item with "identity" (its number), "index" (as requested), "used_index" (as loaded).

        Training items have their "epoch" too.

        Args:
            key: A number: as `load` with epoch None; a file that cannot be used is an error. A pair (epoch,
                number): a training item. One whose files cannot be used is replaced by another, chosen by
                (seed, epoch, number) alone: the same whichever process loads it.

        Raises:
            UserError: See above; or the item and all MAX_ATTEMPTS replacements are bad.
            IndexError: There is no such item.
        """
        if not isinstance(key, tuple):
            index = self._index(key)
            return self._with_numbers(self.load(index, None), index, index)
        epoch, index = operator.index(key[0]), self._index(key[1])
        used, reasons = index, []
        for attempt in range(MAX_ATTEMPTS + 1):
            try:
                item = self._with_numbers(self.load(used, epoch), index, used)
                return item | {"epoch": torch.tensor(epoch)}
            except UserError as error:
                reasons.append(one_line(error))
            generator = item_generator(self.seed, epoch, index, "replacement", attempt)
            used = int(generator.integers(len(self)))
        raise UserError(
            f"item {index} ({self.describe(index)}) and {MAX_ATTEMPTS} others drawn instead cannot be "
            f"loaded; check the files. The first reason: {reasons[0]}; the last: {reasons[-1]}"
        )

    def _index(self, index: SupportsIndex) -> int:
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"item {number} of {len(self)}")
        return number % len(self)

    def _with_numbers(self, tensors: dict[str, Tensor], index: int, used: int) -> dict[str, Tensor]:
        numbers = {"identity": int(self.identity_numbers[used]), "index": index, "used_index": used}
        return tensors | {name: torch.tensor(number) for name, number in numbers.items()}
