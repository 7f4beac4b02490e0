"""Accumulation in parts: the gradients of the whole batch, in one process and in two, dropout off and on."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from gloo_processes import run_ranks
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from two_towers import (
    DIMENSION,
    Batch,
    TwoTowers,
    gradients,
    largest_error,
    make_batch,
    make_towers,
    part_of,
    split,
)

from facevox.errors import UserError
from facevox.training import distributed
from lc_pytorch.losses import symmetric_info_nce
from lc_pytorch.training.accumulation import accumulated_step

NUM_SAMPLES = 12
SIZES = {1: [12], 2: [6, 6], 4: [3, 3, 3, 3], 3: [5, 4, 3]}  # by K; the last one uneven


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def next_draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))  # noqa: NPY002


def loss_of_kept_graphs(model: TwoTowers, parts: list[Batch], identity: Tensor) -> Tensor:
    """The oracle: every part's graph kept, one loss over all of them."""
    faces, voices, temperatures = zip(*[model(part) for part in parts], strict=True)
    return symmetric_info_nce(torch.cat(faces), torch.cat(voices), identity, temperatures[-1])


@pytest.mark.parametrize("num_parts", SIZES)
def test_without_dropout_gradients_equal_one_big_batch(num_parts: int) -> None:
    batch, identity = make_batch(NUM_SAMPLES)
    expected, model = make_towers(), make_towers()
    loss = loss_of_kept_graphs(expected, [batch], identity)
    loss.backward()
    result = accumulated_step(model, split(batch, SIZES[num_parts]), identity)
    assert float(result.loss) == pytest.approx(float(loss.detach()), abs=1e-6)
    assert "log_temperature" in gradients(model)
    assert largest_error(gradients(model), gradients(expected)) < 1e-5
    assert float(result.replay_error) < 1e-6


@pytest.mark.parametrize("is_checkpointed", [False, True])
@pytest.mark.parametrize("num_parts", SIZES)
@pytest.mark.resume
def test_with_dropout_gradients_equal_kept_graphs_and_one_backward(
    num_parts: int, is_checkpointed: bool
) -> None:
    batch, identity = make_batch(NUM_SAMPLES)
    options = {"dropout": 0.4, "uses_numpy": True, "is_checkpointed": is_checkpointed}
    expected, model = make_towers(**options), make_towers(**options)
    parts = split(batch, SIZES[num_parts])
    seed_all(11)
    loss = loss_of_kept_graphs(expected, parts, identity)
    loss.backward()
    draws = next_draws()
    seed_all(11)
    result = accumulated_step(model, parts, identity)
    assert next_draws() == draws  # training goes on with the random numbers of a run without parts
    assert float(result.loss) == pytest.approx(float(loss.detach()), abs=1e-6)
    assert largest_error(gradients(model), gradients(expected)) < 1e-5
    assert float(result.replay_error) == 0.0


def test_gradients_add_to_those_already_there() -> None:
    batch, identity = make_batch(NUM_SAMPLES)
    once, twice = make_towers(), make_towers()
    accumulated_step(once, split(batch, SIZES[2]), identity)
    for _ in range(2):
        accumulated_step(twice, split(batch, SIZES[2]), identity)
    doubled = {name: 2 * grad for name, grad in gradients(once).items()}
    assert largest_error(gradients(twice), doubled) < 1e-6


@pytest.mark.parametrize("num_parts", [1, 2, 4])
def test_autocast_around_the_whole_step_loses_no_gradient(num_parts: int) -> None:
    """Weights that autocast keeps from the pass without a graph must not be used in the pass with one."""
    batch, identity = make_batch(NUM_SAMPLES)
    options = {"dropout": 0.4}
    expected, model = make_towers(**options), make_towers(**options)
    parts = split(batch, SIZES[num_parts])
    with torch.autocast("cpu", torch.bfloat16):
        seed_all(5)
        loss_of_kept_graphs(expected, parts, identity).backward()
        seed_all(5)
        result = accumulated_step(model, parts, identity)
    assert result.loss.dtype == torch.float32
    # One bfloat16 step is 2^-8; gradients of a weight are added up in another order.
    assert largest_error(gradients(model), gradients(expected)) < 0.01


@pytest.mark.parametrize("num_parts", [2, 4])
def test_bfloat16_embeddings_get_the_gradients_of_kept_graphs(num_parts: int) -> None:
    batch, identity = make_batch(NUM_SAMPLES)

    def forward_of(model: TwoTowers, part: Batch) -> tuple[Tensor, Tensor, Tensor]:
        face, voice, temperature = model(part)
        return face.bfloat16(), voice.bfloat16(), temperature

    expected, model = make_towers(), make_towers()
    parts = split(batch, SIZES[num_parts])
    faces, voices, temperatures = zip(*[forward_of(expected, part) for part in parts], strict=True)
    symmetric_info_nce(torch.cat(faces), torch.cat(voices), identity, temperatures[-1]).backward()
    accumulated_step(lambda part: forward_of(model, part), parts, identity)
    assert largest_error(gradients(model), gradients(expected)) < 1e-5


def test_all_parts_but_the_last_run_inside_no_sync() -> None:
    batch, identity = make_batch(NUM_SAMPLES)
    model = make_towers()
    calls: list[tuple[str, int]] = []

    @contextmanager
    def no_sync() -> Iterator[None]:
        calls.append(("enter", model.num_calls))
        yield
        calls.append(("leave", model.num_calls))

    accumulated_step(model, split(batch, SIZES[4]), identity, no_sync=no_sync)
    assert model.num_calls == 8
    assert calls == [(word, 4 + i + (word == "leave")) for i in range(3) for word in ("enter", "leave")]


def test_one_part_is_passed_once() -> None:
    batch, identity = make_batch(NUM_SAMPLES)
    model = make_towers()
    accumulated_step(model, [batch], identity)
    assert model.num_calls == 1


def test_generator_that_cannot_be_replayed_shows_in_the_replay_error() -> None:
    batch, identity = make_batch(NUM_SAMPLES)
    model, own = make_towers(), torch.Generator().manual_seed(0)

    def forward(part: Batch) -> tuple[Tensor, Tensor, Tensor]:
        return model((part[0] + torch.rand(part[0].shape, generator=own), part[1]))

    assert float(accumulated_step(forward, split(batch, SIZES[2]), identity).replay_error) > 0.01


@pytest.mark.parametrize("num_parts", [1, 2])
def test_frozen_parts_get_no_gradient_and_the_rest_stays_exact(num_parts: int) -> None:
    batch, identity = make_batch(NUM_SAMPLES)
    expected, model = make_towers(), make_towers()
    for towers in (expected, model):
        towers.face.requires_grad_(False)
        towers.log_temperature.requires_grad_(False)
    loss_of_kept_graphs(expected, [batch], identity).backward()
    accumulated_step(model, split(batch, SIZES[num_parts]), identity)
    assert {name.split(".")[0] for name in gradients(model)} == {"voice"}
    assert largest_error(gradients(model), gradients(expected)) < 1e-5


@pytest.mark.parametrize("num_parts", [1, 2])
def test_nothing_to_train_no_parts_and_wrong_counts_are_refused(num_parts: int) -> None:
    batch, identity = make_batch(NUM_SAMPLES)
    parts = split(batch, SIZES[num_parts])
    with pytest.raises(ValueError, match="nothing can be trained"):
        accumulated_step(make_towers().requires_grad_(False), parts, identity)
    with pytest.raises(ValueError, match="no parts"):
        accumulated_step(make_towers(), [], identity)
    with pytest.raises(ValueError, match="12 faces and 12 voices for 11 identities"):
        accumulated_step(make_towers(), parts, identity[:-1])


def steps_of_rank(world: distributed.World, dropout: float) -> dict:
    """The rank's half of the batch in parts, through DDP; and what it was told when halves differ."""
    batch, identity_G = make_batch(2 * NUM_SAMPLES)
    rows = distributed.own_rows(NUM_SAMPLES)
    found: dict = {}
    gatherings: list[tuple[int, ...]] = []
    plain_gathered = distributed._gathered

    def counted(rows_BX: Tensor) -> Tensor:
        gatherings.append(tuple(rows_BX.shape))
        return plain_gathered(rows_BX)

    distributed._gathered = counted
    for num_parts, sizes in SIZES.items():
        model = make_towers(dropout=dropout, uses_numpy=dropout > 0)
        wrapped = DistributedDataParallel(model)
        buckets: list[int] = []

        def reduce(seen: list[int], bucket: torch.distributed.GradBucket) -> torch.futures.Future[Tensor]:
            seen.append(bucket.buffer().numel())
            mean = torch.distributed.all_reduce(bucket.buffer() / 2, async_op=True)
            assert mean is not None
            return mean.get_future().then(lambda done: done.value()[0])

        wrapped.register_comm_hook(buckets, reduce)
        gatherings.clear()
        seed_all(100 + world.rank)
        parts = split(part_of(batch, rows), sizes)
        result = accumulated_step(wrapped, parts, identity_G[rows], no_sync=wrapped.no_sync)
        found[str(num_parts)] = {
            "loss": float(distributed.mean_over_ranks(result.loss)),
            "gradients": gradients(model),
            "buckets": buckets,
            "gatherings": gatherings.copy(),
        }
    try:
        unequal = slice(0, 5 + world.rank)
        accumulated_step(make_towers(), [part_of(batch, unequal)], identity_G[unequal])
    except UserError as error:
        found["refusal"] = str(error)
    return found


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_two_processes_equal_one(dropout: float, tmp_path: Path) -> None:
    batch, identity = make_batch(2 * NUM_SAMPLES)
    ranks = run_ranks(steps_of_rank, 2, tmp_path, dropout)
    for num_parts, sizes in SIZES.items():
        expected = make_towers(dropout=dropout, uses_numpy=dropout > 0)
        outputs = []
        for rank in range(2):
            seed_all(100 + rank)
            half = part_of(batch, slice(rank * NUM_SAMPLES, (rank + 1) * NUM_SAMPLES))
            outputs += [expected(part) for part in split(half, sizes)]
        faces, voices, temperatures = zip(*outputs, strict=True)
        loss = symmetric_info_nce(torch.cat(faces), torch.cat(voices), identity, temperatures[-1])
        loss.backward()
        num_parameters = sum(parameter.numel() for parameter in expected.parameters())
        for rank in ranks:
            found = rank[str(num_parts)]
            assert found["loss"] == pytest.approx(float(loss.detach()), abs=1e-6)
            assert largest_error(found["gradients"], gradients(expected)) < 1e-5
            # The number of samples, the identities, both sides' features: once a step, however many parts.
            assert found["gatherings"] == [(1,), (NUM_SAMPLES,), (NUM_SAMPLES, 2 * DIMENSION)]
            assert sum(found["buckets"]) == num_parameters  # each number once, however many parts
    assert {rank["refusal"] for rank in ranks} == {
        "the processes have batches of different sizes (5, 6 samples, by rank): "
        "every process needs the same number; leave out the last, incomplete batch"
    }
