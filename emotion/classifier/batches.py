"""Batches of pictures for training and scoring, with tf.data: read, decoded, flipped, mixed.

Every epoch's order, flips and mixing follow from (seed, epoch), so that a stopped run resumes in the middle
of one. With several replicas (GPUs) the batch is split: replica r of a step gets the r-th part.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from emotion.classifier.mixing import MixConfig, mix_batch, plan_mixing
from emotion.data.samples import Samples
from facevox.errors import UserError, one_line
from facevox.files import read_image

Batch = tuple[tf.Tensor, tf.Tensor, tf.Tensor]  # images, targets, weights
Columns = tuple[NDArray[np.generic], ...]  # of `MixPlan`

GREY = 128
PLAIN_EPOCH = 2**31  # of the pictures on which BatchNorm statistics are computed; no epoch of training


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Configuration of the batches.

    Attributes:
        img_size: Side of the pictures, pixels; others are scaled to it.
        batch_size: Pictures in a step, over all replicas.
        seed: Of order, flips and mixing.
        mixing: MixUp and CutMix.
    """

    img_size: int
    batch_size: int
    seed: int
    mixing: MixConfig


class Batches:
    """Makes the batches of a strategy's replicas.

    Args:
        samples: Of the part.
        config: Of the batches.
        strategy: A tf.distribute strategy; BATCH_SIZE must be a multiple of its replicas.

    Raises:
        UserError: It is not.
    """

    def __init__(self, samples: Samples, config: BatchConfig, strategy: tf.distribute.Strategy) -> None:
        self.samples, self.config, self.strategy = samples, config, strategy
        self.num_replicas = int(strategy.num_replicas_in_sync)
        if config.batch_size % self.num_replicas:
            raise UserError(
                f"BATCH_SIZE={config.batch_size}: with {self.num_replicas} GPUs a multiple of "
                f"{self.num_replicas} is needed"
            )
        self.part_size = config.batch_size // self.num_replicas
        self.unreadable: dict[str, str] = {}

    @property
    def num_steps(self) -> int:
        """Steps of an epoch: whole batches; other pictures are left out in each epoch."""
        return max(len(self.samples) // self.config.batch_size, 1)

    def training(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """(images, targets, weights) of each step of an epoch, from `first_step` on, shuffled and mixed.

        Images (b, S, S, 3) float32 0–255, targets (b, C) float32, weights (b,) float32: 0 for a picture that
        could not be read, else 1; b is the part of a replica.
        """
        return self._shuffled(epoch, self.num_steps, first_step, is_mixed=True)

    def plain(self, num_steps: int) -> Iterator[Batch]:
        """Batches of training pictures that are shuffled and flipped, but not mixed; always the same."""
        return self._shuffled(PLAIN_EPOCH, min(num_steps, self.num_steps), 0, is_mixed=False)

    def in_order(self, order: NDArray[np.int64]) -> Iterator[Batch]:
        """Batches of the pictures `order`, as they are; the last is filled with pictures of weight 0."""
        num_steps = -(-len(order) // self.config.batch_size)
        filled = np.full(num_steps * self.config.batch_size, -1, np.int64)
        filled[: len(order)] = order
        parts = filled.reshape(num_steps * self.num_replicas, self.part_size)
        return self._iterate(parts, np.zeros(parts.shape, bool), None)

    def _shuffled(self, epoch: int, num_steps: int, first_step: int, *, is_mixed: bool) -> Iterator[Batch]:
        rng = np.random.default_rng([self.config.seed, epoch])
        # Sets smaller than a batch are repeated to fill it.
        order = np.resize(rng.permutation(len(self.samples)), num_steps * self.config.batch_size)
        parts = order.reshape(num_steps * self.num_replicas, self.part_size)
        flips = rng.random(parts.shape) < 0.5
        plan: Columns | None = None
        if is_mixed:
            drawn = plan_mixing(self.config.mixing, len(parts), self.part_size, self.config.img_size, rng)
            plan = (drawn.shares, drawn.boxes, drawn.partners, drawn.kinds)
        first = first_step * self.num_replicas
        plan = None if plan is None else tuple(column[first:] for column in plan)
        return self._iterate(parts[first:], flips[first:], plan)

    def _iterate(
        self, parts: NDArray[np.int64], flips: NDArray[np.bool_], plan: Columns | None
    ) -> Iterator[Batch]:
        """The batches of `parts` (M, b), of which this process makes those of its own replicas."""

        def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
            # (steps, replicas): the replicas of a process are neighbours.
            rows_of_step = np.arange(len(parts)).reshape(-1, self.num_replicas)
            width = self.num_replicas // context.num_input_pipelines
            first = context.input_pipeline_id * width
            rows = rows_of_step[:, first : first + width].reshape(-1)
            plan_of_rows = None if plan is None else tuple(column[rows] for column in plan)
            targets, size = self.samples.targets, self.config.img_size
            return make_dataset(self._read, targets, parts[rows], flips[rows], plan_of_rows, size)

        return iter(self.strategy.distribute_datasets_from_function(make))

    def _read(self, index: int) -> tuple[NDArray[np.uint8], np.float32]:
        """Picture `index` and weight 1; a grey one of weight 0 for -1 and for what cannot be read."""
        size = self.config.img_size
        if index >= 0:
            try:
                return read_square(self.samples.files[index], size), np.float32(1)
            except (UserError, OSError) as error:
                self.unreadable[self.samples.names[index]] = one_line(error)
        return np.full((size, size, 3), GREY, np.uint8), np.float32(0)


def read_square(path: Path, size: int) -> NDArray[np.uint8]:
    """(size, size, 3) uint8 RGB: the crop in a file, scaled where it has another size.

    Raises:
        ImageError: It cannot be read.
    """
    image = read_image(path)
    if image.shape[:2] == (size, size):
        return image
    interpolation = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_LINEAR
    resized: NDArray[np.uint8] = cv2.resize(image, (size, size), interpolation=interpolation)
    return resized


def make_dataset(
    read: Callable[[int], tuple[NDArray[np.uint8], np.float32]],
    targets: NDArray[np.float32],
    parts: NDArray[np.int64],
    flips: NDArray[np.bool_],
    plan: Columns | None,
    img_size: int,
) -> tf.data.Dataset:
    """The batches of `parts` as (images, targets, weights), read ahead on all cores, in order.

    Args:
        read: Index of a picture -> (S, S, 3) uint8 RGB, and its weight.
        targets: (N, C) of all pictures.
        parts: (M, b) indices; `read` gets -1 too.
        flips: (M, b) whether left and right change places.
        plan: The columns of `MixPlan` for these M parts, or None.
        img_size: S.
    """
    all_targets = tf.constant(targets)

    def read_one(index: tf.Tensor, is_flipped: tf.Tensor) -> Batch:
        image, weight = tf.numpy_function(lambda i: read(int(i)), [index], (tf.uint8, tf.float32))
        image = tf.ensure_shape(image, (img_size, img_size, 3))
        image = tf.cond(is_flipped, lambda: tf.reverse(image, [1]), lambda: image)
        return image, tf.gather(all_targets, tf.maximum(index, 0)), tf.ensure_shape(weight, ())

    def mix(batch: Batch, row: tuple[tf.Tensor, ...]) -> Batch:
        return *mix_batch(batch[0], batch[1], *row), batch[2]

    dataset = tf.data.Dataset.from_tensor_slices((parts.reshape(-1), flips.reshape(-1)))
    dataset = dataset.map(read_one, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.batch(parts.shape[1], drop_remainder=True)
    dataset = dataset.map(lambda images, *rest: (tf.cast(images, tf.float32), *rest))
    if plan is not None:
        rows = tf.data.Dataset.from_tensor_slices(plan)
        dataset = tf.data.Dataset.zip((dataset, rows)).map(mix, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.prefetch(tf.data.AUTOTUNE)
