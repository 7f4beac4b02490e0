"""N-way contrast over time: choice of the moment of a sound that belongs to a stretch of a face, and back.

A stretch of w frames is compared with the sound at every lag of the search; the logit of a lag is the mean of
the similarities over the stretch, times a learned scale, times the root of w (long stretches may be surer).
The right answer is lag 0 and its nearest neighbours (a clip "in sync" is right to a frame only), lags up to 3
frames away are neither right nor wrong, and all others of the same clip are negatives. One more answer, "none
of these", has the learned bias as its logit; it is right for the sound of another clip (easy negatives).

Letters: B clips, T frames, R rows, L lags, D numbers of an embedding, W stretches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lipsync.clips.clock import ROWS_PER_FRAME

MAX_LAG_FRAMES = 15  # of the search, to each side
MAX_LAG_ROWS = MAX_LAG_FRAMES * ROWS_PER_FRAME
NEGATIVE_FRAMES = 3  # from here on a lag is wrong
RIGHT_ROWS = ROWS_PER_FRAME  # up to here it is right, with falling weight:
RIGHT_DEVIATION_ROWS = 2.0
STRETCHES = (5, 25, 50)  # frames
MIN_USABLE = 0.7  # share of a stretch that was measured and has sound
MIN_VOICED = 0.2
FOREIGN_WEIGHT = 0.3  # of the sound of other clips


@dataclass(frozen=True)
class Stretch:
    """A batch of stretches of takes.

    Attributes:
        face_BTD: Embeddings, length 1.
        sound_BRD: Embeddings; row `margin` + 4 t belongs to frame t.
        is_measured_BT: Whether the face was measured in that frame.
        is_heard_BR: Whether the recording has that row.
        is_voiced_BR: Whether there is more than room noise in it.
        margin: Rows before the one of frame 0, at least MAX_LAG_ROWS.
    """

    face_BTD: Tensor
    sound_BRD: Tensor
    is_measured_BT: Tensor
    is_heard_BR: Tensor
    is_voiced_BR: Tensor
    margin: int


def lag_rows(num_frames: int, margin: int) -> Tensor:
    """(T, L) row of each frame at lags -MAX_LAG_ROWS … MAX_LAG_ROWS; a positive lag is an earlier row."""
    lags = torch.arange(-MAX_LAG_ROWS, MAX_LAG_ROWS + 1)
    return margin + ROWS_PER_FRAME * torch.arange(num_frames)[:, None] - lags[None, :]


def at_lags(similarities_BTR: Tensor, margin: int) -> Tensor:
    """(B, T, L): the similarities of each frame with its rows at all lags."""
    rows_TL = lag_rows(similarities_BTR.shape[1], margin).to(similarities_BTR.device)
    return similarities_BTR.gather(2, rows_TL.expand(len(similarities_BTR), -1, -1))


def right_answers(num_steps: int, rows_per_step: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(weights (2 n + 1,) of the right answers, whether each counts at all) for lags of -n … n steps."""
    rows = torch.arange(-num_steps, num_steps + 1, device=device).abs() * rows_per_step
    weights = torch.exp(-0.5 * (rows / RIGHT_DEVIATION_ROWS) ** 2) * (rows <= RIGHT_ROWS)
    counts = (rows <= RIGHT_ROWS) | (rows >= NEGATIVE_FRAMES * ROWS_PER_FRAME)
    return weights / weights.sum(), counts


def contrast_over_time(stretch: Stretch, log_scale: Tensor, bias: Tensor) -> Tensor:
    """The loss of a batch: mean over lengths of stretch, in both directions, foreign sounds included.

    Stretches that are silent at the right lag, or mostly not measured, are left out.
    """
    scale = log_scale.exp()
    product_BTR = torch.einsum("btd,brd->btr", stretch.face_BTD, stretch.sound_BRD)
    own_BTL = at_lags(product_BTR, stretch.margin)
    # Each face with the sound of the clip before it in the batch: as many foreign pairs as matching ones.
    foreign = torch.roll(torch.arange(len(product_BTR), device=own_BTL.device), 1)
    foreign_BTL = at_lags(
        torch.einsum("btd,brd->btr", stretch.face_BTD, stretch.sound_BRD[foreign]), stretch.margin
    )
    rows_TL = lag_rows(own_BTL.shape[1], stretch.margin).to(own_BTL.device)
    measured_BT1 = stretch.is_measured_BT.unsqueeze(2)
    usable_BTL = stretch.is_heard_BR[:, rows_TL] & measured_BT1
    usable_foreign_BTL = stretch.is_heard_BR[foreign][:, rows_TL] & measured_BT1
    voiced_BT = stretch.is_voiced_BR[:, rows_TL[:, MAX_LAG_ROWS]]
    by_row = _frames_around_rows(product_BTR, stretch)
    losses = []
    for length in [n for n in STRETCHES if n <= own_BTL.shape[1]]:
        sharpness = scale * length**0.5
        is_spoken_BW = _means(voiced_BT.unsqueeze(2).float(), length)[..., 0] >= MIN_VOICED
        logits, usable = _stretch_logits(own_BTL, usable_BTL, length, sharpness)
        losses.append(_choice_loss(logits, usable, is_spoken_BW, bias, 1))
        logits, usable = _stretch_logits(foreign_BTL, usable_foreign_BTL, length, sharpness)
        losses.append(FOREIGN_WEIGHT * _none_loss(logits, usable, is_spoken_BW, bias))
        logits, usable = _stretch_logits(*by_row, length, sharpness)
        losses.append(_choice_loss(logits, usable, is_spoken_BW, bias, ROWS_PER_FRAME))
    # Three terms for each length: their mean over lengths, in units of a single choice.
    return torch.stack(losses).sum() / max(len(losses) // 3, 1) / (2 + FOREIGN_WEIGHT)


def _frames_around_rows(product_BTR: Tensor, stretch: Stretch) -> tuple[Tensor, Tensor]:
    """For the row of each frame its similarity with frames around: ((B, T, 2 n + 1), whether they exist)."""
    num = product_BTR.shape[1]
    frames = torch.arange(num, device=product_BTR.device)
    rows = stretch.margin + ROWS_PER_FRAME * frames
    steps = torch.arange(-MAX_LAG_FRAMES, MAX_LAG_FRAMES + 1, device=product_BTR.device)
    others = frames[:, None] + steps[None, :]
    exists = (others >= 0) & (others < num)
    inside = others.clamp(0, num - 1)
    similarities = product_BTR[:, inside, rows[:, None].expand_as(inside)]
    usable = exists & stretch.is_measured_BT[:, inside] & stretch.is_heard_BR[:, rows].unsqueeze(2)
    return similarities, usable


def _means(values_BTL: Tensor, length: int) -> Tensor:
    """Means over stretches of `length` frames, a new one every third of it: (B, W, L)."""
    pooled = functional.avg_pool1d(values_BTL.transpose(1, 2), length, stride=max(length // 3, 1))
    return pooled.transpose(1, 2)


def _stretch_logits(
    values_BTL: Tensor, usable_BTL: Tensor, length: int, sharpness: Tensor
) -> tuple[Tensor, Tensor]:
    """(logits (B, W, L) over the usable frames of each stretch, whether there are enough of them)."""
    share_BWL = _means(usable_BTL.to(values_BTL.dtype), length)
    means_BWL = _means(values_BTL * usable_BTL, length) / share_BWL.clamp(min=1e-3)
    return means_BWL * sharpness, share_BWL >= MIN_USABLE


def _choice_loss(
    logits_BWL: Tensor, usable_BWL: Tensor, is_spoken_BW: Tensor, bias: Tensor, rows_per_step: int
) -> Tensor:
    """Cross entropy of the right lags among the usable ones and "none of these"."""
    middle = logits_BWL.shape[2] // 2
    weights_L, counts_L = right_answers(middle, rows_per_step, logits_BWL.device)
    log_shares = _log_shares(logits_BWL, usable_BWL & counts_L, bias)[..., :-1]
    # Where a right lag is not usable, the others take its weight.
    weights_BWL = weights_L * usable_BWL
    weights_BWL = weights_BWL / weights_BWL.sum(dim=2, keepdim=True).clamp(min=1e-6)
    losses_BW = -(weights_BWL * log_shares.masked_fill(weights_BWL == 0, 0.0)).sum(dim=2)
    # Without a wrong lag there is nothing to choose from.
    is_used = is_spoken_BW & usable_BWL[..., middle] & (usable_BWL & counts_L & (weights_L == 0)).any(dim=2)
    return (losses_BW * is_used).sum() / is_used.sum().clamp(min=1)


def _none_loss(logits_BWL: Tensor, usable_BWL: Tensor, is_spoken_BW: Tensor, bias: Tensor) -> Tensor:
    """Cross entropy of "none of these"."""
    losses_BW = -_log_shares(logits_BWL, usable_BWL, bias)[..., -1]
    is_used = is_spoken_BW & usable_BWL.any(dim=2)
    return (losses_BW * is_used).sum() / is_used.sum().clamp(min=1)


def _log_shares(logits_BWL: Tensor, counts_BWL: Tensor, bias: Tensor) -> Tensor:
    """(B, W, L + 1) logarithms of the softmax over the lags that count and the bias, which comes last."""
    masked = logits_BWL.masked_fill(~counts_BWL, -torch.inf)
    none = bias.expand(*masked.shape[:2], 1)
    return functional.log_softmax(torch.cat([masked, none], dim=2), dim=2)
