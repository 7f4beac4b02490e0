"""The items of each batch: a function of seed and epoch, so that training can start at any batch.

Items are requested as (epoch, index): data sets key their random crops by that (and the seed), and then
neither the number of loader workers nor that of processes changes a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from facevox.errors import UserError
from facevox.limits import MemoryLimit, spare_bytes
from facevox.signals import end_children_at_exit, ignore_stop_signals

_Item = TypeVar("_Item")
_Key = TypeVar("_Key")


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """The batches of this process; every epoch has another order, and the incomplete last batch is left out.

    All processes draw the same order; of each global batch process r takes the r-th part.

    Args:
        num_items: Size of the data set.
        batch_size: Items of a batch of one process; fewer where the data set is smaller than one batch.
        seed: Seed of the order.
        rank: Rank of this process.
        world_size: Number of processes.

    Raises:
        UserError: There are fewer items than processes.
    """

    def __init__(
        self, num_items: int, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        if num_items < world_size:
            raise UserError(f"{num_items} items for {world_size} processes: use fewer processes or more data")
        self.batch_size = min(batch_size, num_items // world_size)
        self.num_batches = num_items // (self.batch_size * world_size)
        self._num_items, self._seed = num_items, seed
        self._rank, self._world_size = rank, world_size
        self._epoch = self._first = 0

    def start(self, epoch: int, first_batch: int = 0) -> None:
        """Sets the epoch of the next iteration, and its first batch."""
        self._epoch, self._first = epoch, first_batch

    def __len__(self) -> int:
        return self.num_batches - self._first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, global_size = self._epoch, self.batch_size * self._world_size
        order = np.random.default_rng([self._seed, epoch]).permutation(self._num_items)
        for batch in range(self._first, self.num_batches):
            start = batch * global_size + self._rank * self.batch_size
            yield [(epoch, int(index)) for index in order[start : start + self.batch_size]]


def make_loader(
    dataset: Dataset[_Item],
    batches: Sampler[list[_Key]],
    *,
    num_workers: int,
    device: torch.device,
    collate_fn: Callable[[list[_Item]], Any] | None = None,
) -> DataLoader[_Item]:
    """A loader whose workers live as long as it does and leave stop signals to the main process.

    Args:
        dataset: Takes the keys that `batches` yields.
        batches: Yields the keys of each batch.
        num_workers: Worker processes; 0: load in this process.
        device: Device of the training; memory is pinned for a GPU.
        collate_fn: Makes a batch of items; None: stacks their tensors.
    """
    if num_workers:
        end_children_at_exit()
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=device.type == "cuda",
        worker_init_fn=start_worker,
        # A separate generator: the loader would draw its workers' seed from the global one, and a resumed
        # run, which makes one more loader, would continue with other random numbers.
        generator=torch.Generator().manual_seed(0),
        collate_fn=collate_fn,
    )


def end_workers(loader: Iterable[object]) -> None:
    """Ends the worker processes of a loader now, not when it is collected; it may be used again."""
    # Persistent workers hang on this attribute; torch has no public way to end them.
    if isinstance(loader, DataLoader) and loader._iterator is not None:
        loader._iterator._shutdown_workers()  # type: ignore[attr-defined]  # only the multi-process one's
        loader._iterator = None


def start_worker(number: int) -> None:
    """Prepares a process of a loader: one thread, no stop signals, and a limit to its memory."""
    import cv2  # here: data sets without pictures need none

    ignore_stop_signals()
    MemoryLimit().set(spare_bytes(0))
    torch.set_num_threads(1)
    cv2.setNumThreads(0)  # threads of many workers would compete for the cores, and do not survive a fork
