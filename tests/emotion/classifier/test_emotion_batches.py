"""Batches: each picture once an epoch, the rest of an epoch after a stop, the parts of several replicas."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_emotion_training import HALF_MIXING, NO_MIXING, SIZE, read_parts, write_crops

from emotion.classifier.batches import BatchConfig, Batches, read_square
from emotion.data.samples import Samples
from facevox.errors import UserError
from facevox.files import read_image, write_image


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return read_parts(write_crops(tmp_path_factory.mktemp("crops")))[0]


def make(samples: Samples, mixing: Any = NO_MIXING, **changes: Any) -> Batches:
    import tensorflow as tf

    config = BatchConfig(**{"img_size": SIZE, "batch_size": 8, "seed": 1, "mixing": mixing, **changes})
    return Batches(samples, config, tf.distribute.get_strategy())


def arrays(batches: Any) -> list[list[np.ndarray]]:
    return [[np.asarray(value) for value in batch] for batch in batches]


def test_epoch_has_each_picture_once_as_it_is_or_turned_over(samples: Samples) -> None:
    batches = arrays(make(samples).training(0))
    assert len(batches) == 3
    images = np.concatenate([batch[0] for batch in batches])
    assert images.dtype == np.float32
    files = {file: read_image(file).astype(np.float32) for file in samples.files}
    found, num_flipped = [], 0
    for image in images:
        for file, picture in files.items():
            if (image == picture).all() or (image == picture[:, ::-1]).all():
                found.append(file)
                num_flipped += bool((image == picture[:, ::-1]).all())
    assert sorted(found) == sorted(samples.files)
    assert 0 < num_flipped < 24
    assert found != sorted(samples.files)
    targets = np.concatenate([batch[1] for batch in batches])
    place = {file: index for index, file in enumerate(samples.files)}
    np.testing.assert_array_equal(targets.argmax(axis=1), samples.labels[[place[file] for file in found]])


def test_epochs_differ_and_repeat_themselves(samples: Samples) -> None:
    first, again, second = (arrays(make(samples, HALF_MIXING).training(epoch)) for epoch in (0, 0, 1))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
    assert any((one[0] != other[0]).any() for one, other in zip(first, second, strict=True))


def test_rest_of_an_epoch_is_what_the_whole_has_there(samples: Samples) -> None:
    batches = make(samples, HALF_MIXING)
    whole, rest = arrays(batches.training(4)), arrays(batches.training(4, first_step=1))
    assert len(rest) == len(whole) - 1
    for one, other in zip(whole[1:], rest, strict=True):
        for value, expected in zip(other, one, strict=True):
            np.testing.assert_array_equal(value, expected)


def test_last_batch_in_order_is_filled_with_weight_0(samples: Samples) -> None:
    order = np.array([5, 0, 7, 3, 1, 2, 4, 6, 11, 9])
    batches = arrays(make(samples).in_order(order))
    weights = np.concatenate([batch[2] for batch in batches])
    np.testing.assert_array_equal(weights, [1] * 10 + [0] * 6)
    images = np.concatenate([batch[0] for batch in batches])
    for index, image in zip(order, images, strict=False):
        np.testing.assert_array_equal(image, read_image(samples.files[index]))


def test_set_smaller_than_a_batch_fills_it(samples: Samples) -> None:
    (batch,) = arrays(make(samples, batch_size=50).training(0))
    assert len(batch[0]) == 50


def test_picture_of_another_size_is_scaled(tmp_path: Path) -> None:
    write_image(tmp_path / "x.png", np.full((50, 40, 3), 77, np.uint8))
    np.testing.assert_array_equal(read_square(tmp_path / "x.png", 16), np.full((16, 16, 3), 77))


class _TwoReplicas:
    """A strategy's view of two machines with two GPUs each: what machine `pipeline` would read."""

    num_replicas_in_sync = 4

    def __init__(self, pipeline: int) -> None:
        self.pipeline = pipeline

    def distribute_datasets_from_function(self, make: Any) -> Any:
        context = type("Context", (), {"num_input_pipelines": 2, "input_pipeline_id": self.pipeline})
        return make(context)


def test_replicas_of_all_machines_share_the_batches_of_one(samples: Samples) -> None:
    whole = arrays(make(samples).training(2))
    config = BatchConfig(img_size=SIZE, batch_size=8, seed=1, mixing=NO_MIXING)
    parts = [arrays(Batches(samples, config, _TwoReplicas(p)).training(2)) for p in (0, 1)]  # type: ignore[arg-type]
    for step, batch in enumerate(whole):
        replicas = [parts[machine][2 * step + gpu] for machine in (0, 1) for gpu in (0, 1)]
        np.testing.assert_array_equal(np.concatenate([part[0] for part in replicas]), batch[0])
        np.testing.assert_array_equal(np.concatenate([part[1] for part in replicas]), batch[1])


def test_batch_that_does_not_split_over_the_gpus_is_refused(samples: Samples) -> None:
    config = BatchConfig(img_size=SIZE, batch_size=6, seed=1, mixing=NO_MIXING)
    with pytest.raises(UserError, match="BATCH_SIZE=6: with 4 GPUs a multiple of 4"):
        Batches(samples, config, _TwoReplicas(0))  # type: ignore[arg-type]
