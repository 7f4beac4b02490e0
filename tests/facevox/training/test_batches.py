"""Which items make up which batch."""

from itertools import chain

import pytest
import torch
from torch.utils.data import Dataset

from facevox.errors import UserError
from facevox.training.batches import EpochBatches, make_loader

Batches = list[list[tuple[int, int]]]


def batches_of(
    num_items: int,
    batch_size: int,
    *,
    epoch: int = 0,
    first: int = 0,
    seed: int = 5,
    rank: int = 0,
    size: int = 1,
) -> Batches:
    batches = EpochBatches(num_items, batch_size, seed=seed, rank=rank, world_size=size)
    batches.start(epoch, first)
    listed = list(batches)
    assert len(batches) == len(listed)
    return listed


def items_of(batches: Batches) -> list[int]:
    return [index for _, index in chain.from_iterable(batches)]


@pytest.mark.parametrize(("num_items", "batch_size"), [(20, 4), (23, 4), (7, 3), (5, 5)])
def test_every_item_comes_once_but_for_the_incomplete_batch(num_items: int, batch_size: int) -> None:
    found = batches_of(num_items, batch_size)
    assert {len(batch) for batch in found} == {batch_size}
    assert len(found) == num_items // batch_size
    items = items_of(found)
    assert len(set(items)) == len(items) == num_items // batch_size * batch_size
    assert set(items) <= set(range(num_items))


def test_every_epoch_has_its_own_order_and_leaves_out_other_items() -> None:
    epochs = [items_of(batches_of(23, 4, epoch=epoch)) for epoch in range(30)]
    assert len({tuple(items) for items in epochs}) == 30
    assert set(chain.from_iterable(epochs)) == set(range(23))
    assert {epoch for epoch, _ in chain.from_iterable(batches_of(23, 4, epoch=7))} == {7}


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    assert batches_of(23, 4, epoch=3) == batches_of(23, 4, epoch=3)
    assert batches_of(23, 4, epoch=3) != batches_of(23, 4, epoch=3, seed=6)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    first = batches_of(23, 4)
    torch.manual_seed(2)
    assert batches_of(23, 4) == first
    torch.set_rng_state(state)


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_out_the_batch_of_one_process(size: int) -> None:
    one = batches_of(50, 4 * size, epoch=2)
    ranks = [batches_of(50, 4, epoch=2, rank=rank, size=size) for rank in range(size)]
    assert {len(batches) for batches in ranks} == {len(one)}
    for number, whole in enumerate(one):
        assert list(chain.from_iterable(batches[number] for batches in ranks)) == whole
    sets = [set(items_of(batches)) for batches in ranks]
    assert len(set().union(*sets)) == sum(map(len, sets))


@pytest.mark.parametrize("first", [0, 1, 4, 5])
def test_an_epoch_can_be_entered_at_any_batch(first: int) -> None:
    assert batches_of(23, 4, epoch=1, first=first) == batches_of(23, 4, epoch=1)[first:]


def test_a_start_holds_for_one_epoch_only_when_it_is_set_again() -> None:
    batches = EpochBatches(23, 4, seed=5)
    batches.start(0, 3)
    assert len(list(batches)) == 2
    batches.start(1)
    assert list(batches) == batches_of(23, 4, epoch=1)


def test_a_set_smaller_than_a_batch_makes_one_smaller_batch() -> None:
    assert [len(batch) for batch in batches_of(3, 32)] == [3]
    ranks = [batches_of(7, 32, rank=rank, size=2) for rank in range(2)]
    assert [[len(batch) for batch in batches] for batches in ranks] == [[3], [3]]


def test_fewer_items_than_processes_are_refused() -> None:
    with pytest.raises(UserError, match="1 items for 2 processes"):
        EpochBatches(1, 4, seed=0, world_size=2)


class Keys(Dataset[tuple[int, int]]):
    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        return key


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loader_gives_the_batches_in_order_and_draws_no_global_random_number(num_workers: int) -> None:
    batches = EpochBatches(23, 4, seed=5)
    loader = make_loader(Keys(), batches, num_workers=num_workers, device=torch.device("cpu"))
    state = torch.get_rng_state()
    for epoch, first in ((0, 2), (1, 0), (2, 5)):
        batches.start(epoch, first)
        found = [list(zip(*(part.tolist() for part in batch), strict=True)) for batch in loader]
        assert found == batches_of(23, 4, epoch=epoch, first=first)
    assert torch.equal(torch.get_rng_state(), state)
