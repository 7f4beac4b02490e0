"""The contrastive loss: against slow loops, in every precision, by rows, and over two real processes."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from gloo_processes import run_ranks
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from two_towers import gradients, largest_error, make_batch, make_towers, part_of

from facevox.errors import UserError
from facevox.training import distributed
from lc_pytorch.losses import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    clamp_log_temperature_,
    log_temperature,
    symmetric_info_nce,
    temperature_of,
)

IDENTITIES = {
    "all different": [0, 1, 2, 3, 4, 5],
    "some twice": [4, 1, 4, 2, 1, 9],
    "two people": [3, 3, 3, 8, 8, 3],
    "one person": [5, 5, 5, 5, 5, 5],
}


def embeddings(num_samples: int = 6, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        F.normalize(torch.randn(num_samples, 5, generator=generator, dtype=torch.float64), dim=1).to(dtype)
        for _ in range(2)
    ]


def slow_info_nce(face: Tensor, voice: Tensor, identity: list[int], temperature: Tensor) -> Tensor:
    """The definition, one anchor and one candidate at a time; (N,) the two directions' mean by anchor."""
    losses = []
    for i in range(len(identity)):
        both = []
        for anchor, others in ((face[i], voice), (voice[i], face)):
            positive = torch.exp(sum(anchor[d] * others[i][d] for d in range(len(anchor))) / temperature)
            total = positive
            for j in range(len(identity)):
                if identity[j] != identity[i]:
                    dot = sum(anchor[d] * others[j][d] for d in range(len(anchor)))
                    total = total + torch.exp(dot / temperature)
            both.append(-torch.log(positive / total))
        losses.append((both[0] + both[1]) / 2)
    return torch.stack(losses)


@pytest.mark.parametrize("name", IDENTITIES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_loss_and_gradients_equal_a_slow_loop(name: str, dtype: torch.dtype) -> None:
    identity = IDENTITIES[name]
    fast = [*embeddings(dtype=dtype), torch.tensor(0.3, dtype=dtype)]
    slow = [tensor.to(torch.float64) for tensor in fast]
    for tensor in (*fast, *slow):
        tensor.requires_grad_()
    loss = symmetric_info_nce(fast[0], fast[1], torch.tensor(identity), fast[2])
    expected = slow_info_nce(slow[0], slow[1], identity, slow[2]).mean()
    loss.backward()
    expected.backward()
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    assert loss.dtype == dtype
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=tolerance)
    for ours, theirs in zip(fast, slow, strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert float((ours.grad.double() - theirs.grad).abs().max()) < tolerance


def test_other_samples_of_an_identity_have_no_part_in_an_anchors_loss() -> None:
    """By hand: identities A A B, so each anchor of A sees its own pair and B, nothing else."""
    face, voice = embeddings(3)
    face.requires_grad_()
    voice.requires_grad_()
    loss = symmetric_info_nce(face, voice, torch.tensor([0, 0, 1]), torch.tensor(1.0), slice(0, 1))
    to_voices = torch.softmax(torch.stack([face[0] @ voice[0], face[0] @ voice[2]]), 0)[0]
    to_faces = torch.softmax(torch.stack([voice[0] @ face[0], voice[0] @ face[2]]), 0)[0]
    assert float(loss.detach()) == pytest.approx(
        float(-(to_voices.log() + to_faces.log()).detach() / 2), abs=1e-12
    )
    loss.backward()
    for tensor in (face, voice):
        assert tensor.grad is not None
        assert torch.equal(tensor.grad[1], torch.zeros(5, dtype=torch.float64))
        assert (tensor.grad[[0, 2]] != 0).all()


def test_batch_of_one_identity_has_zero_loss_and_zero_gradients() -> None:
    face, voice = (tensor.requires_grad_() for tensor in embeddings(4, torch.float32))
    temperature = torch.tensor(0.01, requires_grad=True)
    loss = symmetric_info_nce(face, voice, torch.full((4,), 3), temperature)
    loss.backward()
    assert float(loss.detach()) == 0.0
    for tensor in (face, voice, temperature):
        assert tensor.grad is not None
        assert (tensor.grad == 0).all()


@pytest.mark.parametrize("rows", [slice(0, 2), slice(2, 5), slice(5, 6), slice(None), None])
def test_rows_give_the_mean_of_their_own_anchors(rows: slice | None) -> None:
    face, voice = embeddings()
    identity, temperature = IDENTITIES["some twice"], torch.tensor(0.1, dtype=torch.float64)
    loss = symmetric_info_nce(face, voice, torch.tensor(identity), temperature, rows)
    expected = slow_info_nce(face, voice, identity, temperature)[rows or slice(None)].mean()
    assert float(loss.detach()) == pytest.approx(float(expected), abs=1e-12)


class Shapes(TorchDispatchMode):
    """Notes the shape of every tensor that an operation makes, in the backward pass too."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else (result,):
            if isinstance(tensor, Tensor):
                self.seen.add(tuple(tensor.shape))
        return result


def test_memory_of_rows_is_local_times_global() -> None:
    num_all, num_own = 64, 16
    face, voice = (tensor.requires_grad_() for tensor in embeddings(num_all, torch.float32))
    temperature = torch.tensor(0.1, requires_grad=True)
    with Shapes() as shapes:
        rows = slice(16, 16 + num_own)
        symmetric_info_nce(face, voice, torch.arange(num_all), temperature, rows).backward()
    assert (num_own, num_all) in shapes.seen
    assert max(math.prod(shape) for shape in shapes.seen) == num_own * num_all


@pytest.mark.parametrize("is_autocast", [False, True])
def test_bfloat16_embeddings_are_compared_in_float32(is_autocast: bool) -> None:
    face, voice = embeddings(16, torch.bfloat16)
    identity, temperature = torch.arange(16) % 11, torch.tensor(0.01)
    expected = symmetric_info_nce(face.double(), voice.double(), identity, temperature)
    face.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
        loss = symmetric_info_nce(face, voice, identity, temperature)
    loss.backward()
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)
    assert face.grad is not None
    assert face.grad.dtype == torch.bfloat16
    assert face.grad.isfinite().all()


@pytest.mark.parametrize("sign", [1, -1])
def test_extreme_embeddings_at_the_lowest_temperature_stay_finite(sign: int) -> None:
    """Perfect and perfectly wrong pairs: the second has a loss of 2 / t + log(N - 1) nearly."""
    face = torch.zeros(4, 4)
    face[:, 0] = torch.tensor([1.0, -1.0, 1.0, -1.0])
    face.requires_grad_()
    temperature = torch.tensor(MIN_TEMPERATURE, requires_grad=True)
    loss = symmetric_info_nce(face, sign * face.detach(), torch.tensor([0, 1, 0, 1]), temperature)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.0 if sign == 1 else 200 + math.log(2), abs=1e-3)
    assert face.grad is not None
    assert temperature.grad is not None
    assert face.grad.isfinite().all()
    assert temperature.grad.isfinite()


def test_gradients_equal_finite_differences_also_of_the_temperature() -> None:
    face, voice = (tensor.requires_grad_() for tensor in embeddings(5))
    log_value = torch.tensor(math.log(0.2), dtype=torch.float64, requires_grad=True)
    identity = torch.tensor([0, 1, 0, 2, 3])
    assert torch.autograd.gradcheck(
        lambda a, b, c: symmetric_info_nce(a, b, identity, temperature_of(c), slice(1, 4)),
        (face, voice, log_value),
    )


@pytest.mark.parametrize("bound", [MIN_TEMPERATURE, MAX_TEMPERATURE])
def test_temperature_stops_at_its_bounds_and_comes_back(bound: float) -> None:
    parameter = torch.nn.Parameter(log_temperature(bound))
    outward = -1 if bound == MIN_TEMPERATURE else 1
    with torch.no_grad():
        parameter += outward * 3
    assert float(temperature_of(parameter).detach()) == pytest.approx(bound, rel=1e-6)
    clamp_log_temperature_(parameter)
    temperature = temperature_of(parameter)
    temperature.backward()
    assert float(temperature.detach()) == pytest.approx(bound, rel=1e-6)
    assert parameter.grad is not None
    assert float(parameter.grad) == pytest.approx(bound, rel=1e-6)  # d exp(x)/dx: not stuck at the bound


@pytest.mark.parametrize("value", [0.001, 0.0, -1.0, 2.0, float("nan")])
def test_learnable_temperature_outside_its_bounds_is_refused(value: float) -> None:
    with pytest.raises(UserError, match=r"--temperature is .* between 0.01 and 1"):
        log_temperature(value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"voice": torch.zeros(3, 5)}, "both the same"),
        ({"face": torch.zeros(4), "voice": torch.zeros(4)}, "both the same"),
        ({"identity": torch.arange(3)}, "identities for 4 samples"),
        ({"identity": torch.zeros(4)}, "should be integers"),
        ({"temperature": torch.ones(2)}, "should be one number"),
        ({"rows": slice(0, 4, 2)}, "contiguous"),
        ({"rows": slice(4, 6)}, "contiguous"),
    ],
)
def test_tensors_that_do_not_go_together_are_refused(change: dict, words: str) -> None:
    good = {
        "face": torch.zeros(4, 5),
        "voice": torch.zeros(4, 5),
        "identity": torch.arange(4),
        "temperature": torch.tensor(0.1),
        "rows": None,
    }
    with pytest.raises(ValueError, match=words):
        symmetric_info_nce(*(good | change).values())


def loss_of_rank(world: distributed.World, num_samples: int) -> dict:
    """One rank's part of the step, without DDP: its averaging is written out."""
    batch, identity_G = make_batch(num_samples)
    model = make_towers()
    rows = distributed.own_rows(num_samples // world.size)
    face_BD, voice_BD, temperature = model(part_of(batch, rows))
    gathered_G = distributed.gather_identities(identity_G[rows])
    face_GD, voice_GD = distributed.all_gather_rows(face_BD), distributed.all_gather_rows(voice_BD)
    with Shapes() as shapes:
        loss = symmetric_info_nce(face_GD, voice_GD, gathered_G, temperature, rows)
    loss.backward()
    averaged = {name: distributed.mean_over_ranks(grad) for name, grad in gradients(model).items()}
    return {
        "loss": float(distributed.mean_over_ranks(loss)),
        "gradients": averaged,
        "mask": gathered_G[rows, None] == gathered_G[None, :],
        "shapes": sorted(shapes.seen),
    }


def test_two_processes_give_loss_masks_and_gradients_of_one(tmp_path: Path) -> None:
    size, num_samples = 2, 12
    batch, identity = make_batch(num_samples)
    model = make_towers()
    face_GD, voice_GD, temperature = model(batch)
    loss = symmetric_info_nce(face_GD, voice_GD, identity, temperature)
    loss.backward()
    ranks = run_ranks(loss_of_rank, size, tmp_path, num_samples)
    assert torch.equal(torch.cat([rank["mask"] for rank in ranks]), identity[:, None] == identity[None, :])
    for rank in ranks:
        assert rank["loss"] == pytest.approx(float(loss.detach()), abs=1e-6)
        assert largest_error(rank["gradients"], gradients(model)) < 1e-5
        num_own = num_samples // size
        assert (num_own, num_samples) in rank["shapes"]
        assert max(math.prod(shape) for shape in rank["shapes"]) < num_samples**2
