"""A large contrastive batch in parts: its full set of negatives, its exact gradients, the memory of one part.

Splitting a batch and adding up the losses of the parts would lose the negatives between parts. Instead:

1. All parts go through the encoders without a graph; only their embeddings are kept, and the state of the
   random number generators before each part.
2. The loss of the whole batch is differentiated with respect to the embeddings and the temperature.
3. Each part goes through the encoders again, with the same random numbers, this time with a graph, and the
   gradients of step 2 are sent through it.

By the chain rule the gradients are those of the graphs of all parts kept at once. Without dropout that is one
big batch. The price is one more forward pass.

Source: Gao, Zhang, Han and Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"
(GradCache, 2021), section 3. What differs: the temperature takes part in the last pass like an embedding, so
that its gradient is exact too and travels through DDP's hooks; the generators of NumPy and of Python are
replayed as well.

Shape suffixes: B samples of this process, all parts together; G samples of all ranks; D numbers per
embedding; b samples of one part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from facevox.training.distributed import all_gather_rows, gather_identities, own_rows
from facevox.training.seeding import RandomState
from lc_pytorch.losses import LOSS

Part = TypeVar("Part")
Forward = Callable[[Part], tuple[Tensor, Tensor, Tensor]]
# (face_GD, voice_GD, identity_G, temperature, rows of this rank) → scalar, the mean over those rows
Loss = Callable[[Tensor, Tensor, Tensor, Tensor, slice], Tensor]


@dataclass(frozen=True)
class StepResult:
    """The results of a step besides the gradients.

    Attributes:
        loss: Scalar, detached; the mean over the samples of this process. `mean_over_ranks` gives the whole
            batch's.
        replay_error: Scalar; the largest difference between an embedding's numbers in the two passes, 0 with
            one part. More than rounding means that the two passes were not the same function (an encoder
            with its own random number generator, layers that change with each call): the gradients are wrong.
    """

    loss: Tensor
    replay_error: Tensor


def accumulated_step(
    model_forward: Forward[Part],
    parts: Sequence[Part],
    identity_B: Tensor,
    *,
    loss_fn: Loss = LOSS,
    no_sync: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> StepResult:
    """Adds the gradients of the loss over the whole batch, of all parts and ranks, to the parameters.

    With one part it is the plain step: one forward and one backward pass. With several, the gradients equal
    those of one backward pass through the graphs of all parts, dropout included; without dropout, those of
    one big batch. After the step, random numbers continue as if each part had been passed once.

    Encoders must not carry state from call to call (BatchNorm in training mode would count each part twice).

    Args:
        model_forward: Returns (face_bD, voice_bD, temperature) of a part; the embeddings L2-normalised, the
            temperature a scalar. Under DDP it calls the wrapped model. *All three* must come out of that call
            (also the temperature, or DDP would not average its gradient), and autocast belongs inside it.
        parts: K parts, of equal or different sizes; on all ranks the same K and the same number of samples in
            total.
        identity_B: (B,) integers, those of the parts one after the other. On the CPU they cost no wait for
            the GPU.
        loss_fn: The loss of this rank's rows, from the features of all ranks.
        no_sync: DDP's `model.no_sync`, under which gradients of all parts but the last stay local; without
            DDP a context that does nothing.

    Raises:
        UserError: The ranks have batches of different sizes.
        ValueError: There are no parts, samples and identities differ in number, or nothing can be trained.
    """
    if not parts:
        raise ValueError("there are no parts")
    identity_G = gather_identities(identity_B)  # first, so that unequal ranks stop before any work
    if len(parts) == 1:
        face_BD, voice_BD, temperature = model_forward(parts[0])
        loss = _loss_of_all(loss_fn, face_BD, voice_BD, temperature, identity_B, identity_G)
        if not loss.requires_grad:
            raise ValueError("nothing can be trained: neither embeddings nor temperature have a gradient")
        torch.autograd.backward(loss)
        return StepResult(loss.detach(), loss.new_zeros(()).detach())
    return _step_in_parts(model_forward, parts, identity_B, identity_G, loss_fn, no_sync)


def _step_in_parts(
    model_forward: Forward[Part],
    parts: Sequence[Part],
    identity_B: Tensor,
    identity_G: Tensor,
    loss_fn: Loss,
    no_sync: Callable[[], AbstractContextManager[None]],
) -> StepResult:
    # First pass: embeddings without graphs, so that only one part's activations are in memory at a time.
    cached, states = _embed_without_graph(model_forward, parts)
    end_state = RandomState()
    faces, voices, temperatures = zip(*cached, strict=True)
    # Leaves of a graph of their own: the loss is differentiated up to here and no further.
    face_BD, voice_BD, temperature = (
        tensor.detach().requires_grad_() for tensor in (torch.cat(faces), torch.cat(voices), temperatures[-1])
    )
    loss = _loss_of_all(loss_fn, face_BD, voice_BD, temperature, identity_B, identity_G)
    face_grad_BD, voice_grad_BD, temperature_grad = torch.autograd.grad(
        loss, (face_BD, voice_BD, temperature)
    )

    sizes = [len(face_bD) for face_bD in faces]
    grads: list[tuple[Tensor, Tensor, Tensor | None]] = [
        (*pair, None)
        for pair in zip(torch.split(face_grad_BD, sizes), torch.split(voice_grad_BD, sizes), strict=True)
    ]
    grads[-1] = (*grads[-1][:2], temperature_grad)  # once, and where DDP communicates
    replay_error = loss.new_zeros(()).detach()
    # Second pass: each part again, with the same random numbers and a graph for that part's gradients.
    try:
        for i, part in enumerate(parts):
            states[i].restore()
            # The forward pass must run inside as well: DDP decides there whether to communicate.
            with no_sync() if i < len(parts) - 1 else nullcontext():
                outputs = model_forward(part)
                replay_error = torch.maximum(replay_error, _difference(outputs[:2], cached[i][:2]))
                _backward(outputs, grads[i])
    finally:
        end_state.restore()
    return StepResult(loss.detach(), replay_error)


def _embed_without_graph(
    model_forward: Forward[Part], parts: Sequence[Part]
) -> tuple[list[tuple[Tensor, Tensor, Tensor]], list[RandomState]]:
    cached, states = [], []
    with torch.no_grad():
        for part in parts:
            states.append(RandomState())
            cached.append(model_forward(part))
    return cached, states


def _loss_of_all(
    loss_fn: Loss,
    face_BD: Tensor,
    voice_BD: Tensor,
    temperature: Tensor,
    identity_B: Tensor,
    identity_G: Tensor,
) -> Tensor:
    """The loss of this rank's rows: gathers the embeddings of all ranks, differentiably."""
    num_local = len(identity_B)
    if len(face_BD) != num_local or len(voice_BD) != num_local:
        raise ValueError(f"{len(face_BD)} faces and {len(voice_BD)} voices for {num_local} identities")
    # Both sides in one gather operation; in float32, because its backward pass sums over all ranks.
    dtype = torch.promote_types(torch.promote_types(face_BD.dtype, voice_BD.dtype), torch.float32)
    both_BD = torch.cat([face_BD.to(dtype), voice_BD.to(dtype)], dim=1)
    face_GD, voice_GD = torch.split(all_gather_rows(both_BD), [face_BD.shape[1], voice_BD.shape[1]], dim=1)
    return loss_fn(face_GD, voice_GD, identity_G, temperature, own_rows(num_local))


def _difference(now: Sequence[Tensor], before: Sequence[Tensor]) -> Tensor:
    pairs = zip(now, before, strict=True)
    return torch.stack([(a.detach().float() - b.float()).abs().max() for a, b in pairs]).max()


def _backward(outputs: Sequence[Tensor], grads: Sequence[Tensor | None]) -> None:
    """Sends the gradients through the graphs of those outputs that have one (a frozen side has none)."""
    pairs = [
        (output, grad.to(output.dtype).view_as(output))
        for output, grad in zip(outputs, grads, strict=True)
        if grad is not None and output.requires_grad
    ]
    if not pairs:
        raise ValueError("nothing can be trained: neither embeddings nor temperature have a gradient")
    roots, root_grads = zip(*pairs, strict=True)
    torch.autograd.backward(roots, root_grads)
