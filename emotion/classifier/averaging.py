"""Averaged weights, and BatchNorm statistics that belong to them.

The exponential moving average belongs to the run, not to an optimizer: it continues from the head phase
into fine-tuning. Statistics are not averaged: those of past weights do not fit the averaged weights. They are
computed again, over training pictures, before the averaged weights are scored or saved.

Source: Polyak and Juditsky (1992); Wu and Johnson (2021), "Rethinking 'Batch' in BatchNorm", section 3.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from emotion.classifier.batches import Batch

WARM_UP = 10.0


def decay_after(num_updates: int, decay: float) -> float:
    """The decay of update number `num_updates` (0 the first): min(EMA_DECAY, (1 + n) / (10 + n)).

    A constant decay of 0.999 would hold on to the random start for thousands of steps.
    """
    return min(decay, (1.0 + num_updates) / (WARM_UP + num_updates))


class WeightAverage:
    """The average of every weight that can train; the statistics of BatchNorm are left alone.

    Args:
        network: Whose weights; made in the scope of its strategy.
    """

    def __init__(self, network: keras.Model) -> None:
        self._sources = averaged_weights(network)
        # One replica's sum goes to all: every replica has the same weights.
        self._averages = [
            tf.Variable(
                source.numpy(),
                dtype=tf.float32,
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            for source in self._sources
        ]

    def update(self, decay: tf.Tensor) -> None:
        """average += (1 - decay) (weight - average); in a replica's step."""
        for average, source in zip(self._averages, self._sources, strict=True):
            average.assign_sub((average - source.value) * (1.0 - decay))

    def values(self) -> dict[str, NDArray[np.float32]]:
        """Path of a weight -> its average."""
        return {s.path: a.numpy() for s, a in zip(self._sources, self._averages, strict=True)}

    def restore(self, values: dict[str, NDArray[np.float32]]) -> None:
        """Sets the averages to what `values` returned."""
        for source, average in zip(self._sources, self._averages, strict=True):
            average.assign(values[source.path])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A context in which the network has the averaged weights; after it, its own again."""
        weights = [source.numpy() for source in self._sources]
        for source, average in zip(self._sources, self._averages, strict=True):
            source.assign(average.numpy())
        try:
            yield
        finally:
            for source, value in zip(self._sources, weights, strict=True):
                source.assign(value)


def averaged_weights(network: keras.Model) -> list[keras.Variable]:
    """All weights except the statistics of BatchNorm, whether they train in this phase or not."""
    return [w for w in network.weights if not w.path.endswith(("/moving_mean", "/moving_variance"))]


class StatisticsProbe:
    """Computes the statistics of BatchNorm layers for the present weights.

    Each layer gets the mean and variance of its inputs over all pixels of all given batches, while every
    layer before it works with the statistics of each batch, as in training. Variances within the batches and
    between their means add up to that of all together (batches of one size).

    Args:
        network: Whose layers; in training mode they normalise by the batch.
        layers: The BatchNorm layers that adapt. Without any there is nothing to do.
        strategy: Whose replicas see the batches.
    """

    def __init__(
        self, network: keras.Model, layers: list[keras.Layer], strategy: tf.distribute.Strategy
    ) -> None:
        self._layers, self._strategy = layers, strategy
        if not layers:
            return
        # Up to the last of the layers only: what follows is not needed.
        probe = keras.Model(network.input, [layer.input for layer in layers])

        def moments_of(images: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
            moments = []
            for values in probe(images, training=True):
                mean, variance = tf.nn.moments(tf.cast(values, tf.float32), axes=[0, 1, 2])
                # Mean and mean square, which add up over batches and replicas; variances do not.
                moments.append((mean, variance + tf.square(mean)))
            return moments

        def over_replicas(images: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
            parts = strategy.run(moments_of, args=(images,))
            means: list[tuple[tf.Tensor, tf.Tensor]] = tf.nest.map_structure(
                lambda part: strategy.reduce(tf.distribute.ReduceOp.MEAN, part, axis=None), parts
            )
            return means

        self._moments = tf.function(over_replicas, reduce_retracing=True)

    def update(self, batches: Iterator[Batch]) -> None:
        """Sets the statistics to those of `batches`: (images, …) each."""
        if not self._layers:
            return
        sums: list[list[NDArray[np.float64]]] = [[np.zeros(()), np.zeros(())] for _ in self._layers]
        count = 0
        for images, *_ in batches:
            count += 1
            for total, (mean, square) in zip(sums, self._moments(images), strict=True):
                total[0] = total[0] + np.asarray(mean, np.float64)
                total[1] = total[1] + np.asarray(square, np.float64)
        for layer, (mean_sum, square_sum) in zip(self._layers, sums, strict=True):
            mean, square = mean_sum / count, square_sum / count
            layer.moving_mean.assign(mean.astype(np.float32))
            layer.moving_variance.assign(np.maximum(square - mean**2, 0.0).astype(np.float32))
