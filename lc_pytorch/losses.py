"""Contrastive loss between faces and voices, as pure functions of tensors.

Shape suffixes: B samples of this rank (of the whole batch in a single process), G samples of all ranks,
D numbers per embedding.

Source: InfoNCE after van den Oord, Li and Vinyals, "Representation Learning with Contrastive Predictive
Coding" (2018), eq. 4; both directions averaged and a learnable temperature kept as a logarithm after Radford
et al., "Learning Transferable Visual Models From Natural Language Supervision" (CLIP, 2021), section 2.3 and
figure 3. What differs: other samples of the anchor's own identity are not negatives here. CLIP pushes them
apart, and with 901 people and a batch of 512 that hits 43 % of the anchors.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from facevox.errors import UserError

# CLIP's bound: logits are scaled by at most 100, beyond which training becomes unstable.
MIN_TEMPERATURE = 0.01
# Logits of unit vectors are in [-1/t, 1/t]: at 1 the softmax over any useful batch is nearly flat already.
MAX_TEMPERATURE = 1.0


def symmetric_info_nce(
    face_GD: Tensor,
    voice_GD: Tensor,
    identity_G: Tensor,
    temperature: Tensor,
    rows: slice | None = None,
) -> Tensor:
    """The mean InfoNCE loss of faces against voices and of voices against faces.

    Anchor i is a face, its positive the voice i, its negatives the voices of other identities, and the
    reverse. Other samples of the anchor's identity count neither as positive nor as negative. An anchor
    without any negative adds exactly zero to the sum, with zero gradient, and still counts in the mean: a
    batch of one person only has loss 0. (An error would end a long run for one unlucky batch; a constant
    denominator keeps ranks comparable.)

    With `rows`, only those anchors are computed, in both directions, against all G samples: the matrices are
    (B, G), never (G, G). The mean of the results over ranks of equal B is the loss of the whole batch, and
    its gradients too when features come from `facevox.training.distributed.all_gather_rows` and DDP averages.

    Computed in float32 at least, autocast or not: at a temperature of 0.01 the spacing of bfloat16 near a
    cosine of 1 (0.004) would be a step of 0.4 in a logit.

    Args:
        face_GD: (G, D) L2-normalised, of any floating type.
        voice_GD: (G, D) L2-normalised; voice i belongs to face i.
        identity_G: (G,) integers on any device.
        temperature: Scalar above 0.
        rows: The anchors to compute, contiguous; all when None.

    Returns:
        Scalar ≥ 0, float32 (float64 for float64 embeddings).

    Raises:
        ValueError: Shapes or types do not go together.
    """
    _check_shapes(face_GD, voice_GD, identity_G, temperature)
    first, last, step = (rows or slice(None)).indices(len(face_GD))
    if step != 1 or last <= first:
        raise ValueError(
            f"rows is {rows}: it should be a contiguous, non-empty part of {len(face_GD)} samples"
        )
    with torch.autocast(face_GD.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(face_GD.dtype, voice_GD.dtype), torch.float32)
        face_GD, voice_GD, temperature = face_GD.to(dtype), voice_GD.to(dtype), temperature.to(dtype)
        identity_G = identity_G.to(face_GD.device, non_blocking=True)
        positive_B = torch.arange(first, last, device=face_GD.device)
        # Everybody of the anchor's identity is masked, and then the positive itself is let in again.
        is_masked_BG = identity_G[first:last, None] == identity_G[None, :]
        is_masked_BG.scatter_(1, positive_B[:, None], False)
        losses = [
            _info_nce(anchor_GD[first:last], other_GD, is_masked_BG, positive_B, temperature)
            for anchor_GD, other_GD in ((face_GD, voice_GD), (voice_GD, face_GD))
        ]
        return (losses[0] + losses[1]) / 2


def _info_nce(
    anchor_BD: Tensor, other_GD: Tensor, is_masked_BG: Tensor, positive_B: Tensor, temperature: Tensor
) -> Tensor:
    # The temperature divides (B, D) instead of (B, G), and the mask works in place: both save a matrix.
    logits_BG = (anchor_BD / temperature) @ other_GD.T
    logits_BG.masked_fill_(is_masked_BG, -math.inf)
    return F.cross_entropy(logits_BG, positive_B)


def _check_shapes(face_GD: Tensor, voice_GD: Tensor, identity_G: Tensor, temperature: Tensor) -> None:
    if face_GD.ndim != 2 or face_GD.shape != voice_GD.shape:
        shapes = f"{tuple(face_GD.shape)} and {tuple(voice_GD.shape)}"
        raise ValueError(
            f"face and voice embeddings are {shapes}: they should be (samples, numbers), both the same"
        )
    if identity_G.shape != face_GD.shape[:1]:
        raise ValueError(f"there are {tuple(identity_G.shape)} identities for {len(face_GD)} samples")
    if identity_G.is_floating_point() or identity_G.is_complex():
        raise ValueError(f"identities are {identity_G.dtype}: they should be integers")
    if temperature.numel() != 1:
        raise ValueError(f"temperature has shape {tuple(temperature.shape)}: it should be one number")


def log_temperature(temperature: float) -> Tensor:
    """The scalar to learn for an initial temperature: its logarithm, float32.

    A step of the optimizer then changes the temperature by a factor, whatever its size, and it stays above 0.

    Raises:
        UserError: The temperature is outside the bounds of a learnable one.
    """
    if not MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE:
        raise UserError(
            f"--temperature is {temperature}: a learnable one starts "
            f"between {MIN_TEMPERATURE} and {MAX_TEMPERATURE}"
        )
    return torch.tensor(math.log(temperature), dtype=torch.float32)


def temperature_of(log_temperature: Tensor) -> Tensor:
    """The temperature for the loss, within its bounds; the gradient passes inside them and on them.

    Call `clamp_log_temperature_` after each step of the optimizer as well: outside the bounds the gradient is
    zero, and a parameter left there could never come back.
    """
    return log_temperature.clamp(math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)).exp()


@torch.no_grad()
def clamp_log_temperature_(log_temperature: Tensor) -> None:
    """Clamps the learnt logarithm to its bounds, in place."""
    log_temperature.clamp_(math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))


LOSS = symmetric_info_nce  # what training minimises and validation reports
