"""Averages by a slow loop; BatchNorm statistics by NumPy over all data at once."""

from typing import Any

import numpy as np
import pytest

from emotion.classifier.averaging import StatisticsProbe, WeightAverage, averaged_weights, decay_after


@pytest.fixture(scope="module")
def network() -> Any:
    """Two BatchNorms, the second behind a nonlinearity of the first."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    pixels = keras.Input((4, 4, 3))
    x = layers.BatchNormalization(name="first", epsilon=1e-3)(pixels)
    x = layers.Conv2D(2, 1, name="mix")(layers.ReLU()(x))
    x = layers.BatchNormalization(name="second")(x)
    return keras.Model(pixels, x)


def test_decay_warms_up_to_its_setting() -> None:
    assert decay_after(0, 0.999) == 0.1
    assert decay_after(90, 0.999) == 0.91
    assert decay_after(10**6, 0.999) == 0.999
    assert decay_after(5, 0.0) == 0.0


def test_statistics_are_not_averaged(network: Any) -> None:
    paths = [weight.path for weight in averaged_weights(network)]
    assert sorted(paths) == [
        "first/beta", "first/gamma", "mix/bias", "mix/kernel", "second/beta", "second/gamma",
    ]  # fmt: skip


def test_applied_average_is_taken_back(network: Any) -> None:
    average = WeightAverage(network)
    kernel = network.get_layer("mix").kernel
    own = kernel.numpy()
    kernel.assign(own + 1)
    average.update(0.75)
    with average.applied():
        np.testing.assert_allclose(kernel.numpy(), own + 0.25, rtol=1e-6)
    np.testing.assert_allclose(kernel.numpy(), own + 1)
    kernel.assign(own)


def test_statistics_are_those_of_all_pictures_at_once(network: Any) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(1)
    # Batches that differ: the variance between their means counts.
    batches = [rng.normal(number, 1 + number, (6, 4, 4, 3)).astype(np.float32) for number in range(3)]
    layers = [network.get_layer("first"), network.get_layer("second")]
    StatisticsProbe(network, layers, tf.distribute.get_strategy()).update((batch, None) for batch in batches)
    pixels = np.concatenate(batches).reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(layers[0].moving_mean.numpy(), pixels.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(layers[0].moving_variance.numpy(), pixels.var(axis=0), rtol=1e-5)
    # The second layer sees what the first makes with each batch's own statistics.
    kernel, bias = (w.numpy().astype(np.float64) for w in network.get_layer("mix").weights)
    seen = []
    for batch in batches:
        flat = batch.reshape(-1, 3).astype(np.float64)
        normal = (flat - flat.mean(axis=0)) / np.sqrt(flat.var(axis=0) + 1e-3)
        seen.append(np.maximum(normal, 0) @ kernel[0, 0] + bias)
    inputs = np.concatenate(seen)
    np.testing.assert_allclose(layers[1].moving_mean.numpy(), inputs.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layers[1].moving_variance.numpy(), inputs.var(axis=0), rtol=1e-4)


def test_layers_that_are_frozen_keep_their_statistics(network: Any) -> None:
    import tensorflow as tf

    first = network.get_layer("first")
    before = first.moving_mean.numpy()
    batch = np.full((2, 4, 4, 3), 9, np.float32)
    StatisticsProbe(network, [], tf.distribute.get_strategy()).update(iter([(batch, None)]))
    np.testing.assert_array_equal(first.moving_mean.numpy(), before)
