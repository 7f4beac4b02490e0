"""MixUp and CutMix, one of them or neither for each batch, planned before the epoch begins.

The plan depends on (seed, epoch) alone, so that a resumed run mixes as an uninterrupted one.

Source: Zhang et al. (2018), "mixup: Beyond Empirical Risk Minimization"; Yun et al. (2019), "CutMix", eq. 1.
Both draw their share from Beta(alpha, alpha). Keras' layers draw from a range instead, which is
something else.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

NEITHER, MIXUP, CUTMIX = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """The settings of the same names.

    Attributes:
        mixup_alpha, cutmix_alpha: Of the Beta distributions.
        p_mixup, p_cutmix: Shares of the batches; together at most 1.
    """

    mixup_alpha: float
    cutmix_alpha: float
    p_mixup: float
    p_cutmix: float


@dataclass(frozen=True)
class MixPlan:
    """The mixing of each of S batches of B pictures.

    Attributes:
        shares: (S,) float32, what a picture and its label keep of themselves; 1 for neither.
        boxes: (S, 4) int32, top, left, bottom, right of CutMix's box, pixels; empty unless CutMix.
        partners: (S, B) int32, with which picture of the batch each is mixed.
        kinds: (S,) int32, NEITHER, MIXUP or CUTMIX.
    """

    shares: NDArray[np.float32]
    boxes: NDArray[np.int32]
    partners: NDArray[np.int32]
    kinds: NDArray[np.int32]


def plan_mixing(
    config: MixConfig, num_batches: int, batch_size: int, img_size: int, rng: np.random.Generator
) -> MixPlan:
    """The plan of an epoch of S batches of B pictures.

    CutMix's share is that of the pixels that remain: its box may reach over the border and be cut there.
    """
    draws = rng.random(num_batches)
    kinds = np.select(
        [draws < config.p_mixup, draws < config.p_mixup + config.p_cutmix], [MIXUP, CUTMIX], NEITHER
    ).astype(np.int32)
    alphas = np.where(kinds == CUTMIX, config.cutmix_alpha, config.mixup_alpha)
    shares = np.where(kinds == NEITHER, 1.0, rng.beta(alphas, alphas))
    partners = np.argsort(rng.random((num_batches, batch_size)), axis=1).astype(np.int32)
    # The box has 1 - share of the area, about a point drawn evenly over the picture.
    half = np.where(kinds == CUTMIX, np.sqrt(1.0 - shares), 0.0)[:, None] * img_size / 2
    centres = rng.random((num_batches, 2)) * img_size
    boxes = np.rint(np.clip(np.concatenate([centres - half, centres + half], axis=1), 0, img_size))
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    shares = np.where(kinds == CUTMIX, 1.0 - area / img_size**2, shares)
    return MixPlan(shares.astype(np.float32), boxes.astype(np.int32), partners, kinds)


def mix_batch(
    images: tf.Tensor,
    targets: tf.Tensor,
    share: tf.Tensor,
    box: tf.Tensor,
    partner: tf.Tensor,
    kind: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """A batch mixed by its row of the plan; for tf.data.

    Args:
        images: (B, H, W, 3) float32 pixel values.
        targets: (B, C) float32 distributions.
        share: () float32.
        box: (4,) int32.
        partner: (B,) int32.
        kind: () int32.

    Returns:
        Images and targets of the same shapes.
    """

    def mixup() -> tf.Tensor:
        return share * images + (1.0 - share) * tf.gather(images, partner)

    def cutmix() -> tf.Tensor:
        rows, columns = tf.range(tf.shape(images)[1]), tf.range(tf.shape(images)[2])
        is_row = (rows >= box[0]) & (rows < box[2])
        is_column = (columns >= box[1]) & (columns < box[3])
        is_inside = (is_row[:, None] & is_column[None, :])[None, :, :, None]
        return tf.where(is_inside, tf.gather(images, partner), images)

    mixed = tf.switch_case(kind, [lambda: images, mixup, cutmix])
    return mixed, share * targets + (1.0 - share) * tf.gather(targets, partner)
