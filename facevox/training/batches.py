"""Which items make up which batch: a function of seed and epoch, so that any batch can be begun with.

Items are asked for as (epoch, index): data sets key their random crops by that (and the seed), and then
neither the number of loader workers nor that of processes changes what a sample looks like.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from facevox.errors import UserError
from facevox.signals import end_children_at_exit, ignore_stop_signals


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """The batches of this process; every epoch another order, the incomplete last batch left out.

    All processes draw the same order; of each global batch process r takes the r-th part.

    Args:
        num_items: Size of the data set.
        batch_size: Items of a batch of one process; fewer where the data set is smaller than one batch.
        seed: Of the order.
        rank: Of this process.
        world_size: Number of processes.

    Raises:
        UserError: There is not even one item for each process.
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
        """Sets the epoch that the next iteration runs over, and the batch it begins with."""
        self._epoch, self._first = epoch, first_batch

    def __len__(self) -> int:
        return self.num_batches - self._first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, all_of_them = self._epoch, self.batch_size * self._world_size
        order = np.random.default_rng([self._seed, epoch]).permutation(self._num_items)
        for batch in range(self._first, self.num_batches):
            start = batch * all_of_them + self._rank * self.batch_size
            yield [(epoch, int(index)) for index in order[start : start + self.batch_size]]


def make_loader(
    dataset: Dataset[Any], batches: Sampler[Any], *, num_workers: int, device: torch.device, **options: Any
) -> DataLoader[Any]:
    """A loader whose workers live as long as it does and leave stop signals to the main process.

    Args:
        dataset: Takes what `batches` yields.
        batches: Yields lists of keys.
        num_workers: Processes; 0: load in this one.
        device: Where the batches go; memory is pinned for a GPU.
        options: Further ones of DataLoader.
    """
    if num_workers:
        end_children_at_exit()
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=device.type == "cuda",
        worker_init_fn=_start_worker,
        # Its own generator: the loader would draw its workers' seed from the global one, and a resumed
        # run, which makes one loader more, would go on with other random numbers.
        generator=torch.Generator().manual_seed(0),
        **options,
    )


def end_workers(loader: Iterable[object]) -> None:
    """Ends the processes of a loader now, not when somebody drops it; it may be used again."""
    iterator = getattr(loader, "_iterator", None)  # of persistent workers; torch has no public way
    if iterator is not None:
        iterator._shutdown_workers()
        loader._iterator = None  # type: ignore[attr-defined]


def _start_worker(number: int) -> None:
    ignore_stop_signals()
    torch.set_num_threads(1)
    import cv2

    cv2.setNumThreads(0)  # threads of many workers would fight for the cores; and they do not survive a fork
