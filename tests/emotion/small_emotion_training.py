"""Face-free pictures of three classes, and a network of one convolution that learns them in seconds."""

from pathlib import Path
from typing import Any

import numpy as np

from emotion.classifier.batches import BatchConfig, Batches
from emotion.classifier.mixing import MixConfig
from emotion.classifier.trainer import FINETUNE, HEAD, TrainConfig, Trainer
from emotion.data.samples import Samples, read_samples
from facevox.files import write_image

CLASSES = ("red", "green", "blue")
SIZE = 32
NO_MIXING = MixConfig(mixup_alpha=0.2, cutmix_alpha=0.2, p_mixup=0.0, p_cutmix=0.0)
HALF_MIXING = MixConfig(mixup_alpha=0.2, cutmix_alpha=0.2, p_mixup=0.4, p_cutmix=0.3)


def write_crops(folder: Path, num_people: int = 4, per_person: int = 2, size: int = SIZE) -> Path:
    """train/ and validation/ with different people, named as AIHub names pictures."""
    rng = np.random.default_rng(0)
    for part, first in (("train", 0), ("validation", 100)):
        for person in range(first, first + num_people):
            for place, name in enumerate(CLASSES):
                for number in range(per_person):
                    image = rng.integers(0, 140, (size, size, 3), dtype=np.uint8)
                    image[..., place] += 100
                    gender, age = ("남", "여")[person % 2], (20, 30)[person // 2 % 2]
                    file = f"person{person}_{gender}_{age}_기쁨_실내_{place}-001-{number:03d}.jpg"
                    write_image(folder / part / name / file, image)
    return folder


def read_parts(folder: Path) -> tuple[Samples, Samples]:
    return tuple(read_samples(folder / part, CLASSES, what=part) for part in ("train", "validation"))  # type: ignore[return-value]


def small_network(seed: int = 0) -> Any:
    """A network with the layer names that the phases use: a backbone of two BatchNorms, and the head."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(pixels)
    x = layers.Conv2D(4, 3, strides=4, use_bias=False, name="conv")(x)
    x = layers.ReLU(name="conv_act")(layers.BatchNormalization(name="conv_bn")(x))
    x = layers.Conv2D(6, 1, use_bias=False, name="conv_1")(x)
    x = layers.ReLU(name="conv_1_act")(layers.BatchNormalization(name="conv_1_bn")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(8, activation="relu", name="hidden")(x)
    x = layers.Dropout(0.25, seed=seed, name="dropout")(x)
    x = layers.Dense(len(CLASSES), name="logits")(x)
    return keras.Model(pixels, x)


def make_trainer(crops: Path, save_dir: Path, mixing: MixConfig = HALF_MIXING, **changes: Any) -> Trainer:
    """A trainer of `small_network`: two epochs of the head and two of fine-tuning, 3 steps each."""
    import tensorflow as tf

    from emotion.classifier.devices import Devices

    settings: dict[str, Any] = {
        "save_dir": save_dir,
        "epochs": {HEAD: 2, FINETUNE: 2},
        "learning_rates": {HEAD: 0.01, FINETUNE: 0.01},
        "weight_decay": 0.01,
        "freeze_bn_mode": "none",
        "unfreeze_from": 0.0,
        "ema_decay": 0.9,
        "early_stopping_patience": 5,
        "reduce_lr_patience": 1,
        "reduce_lr_factor": 0.5,
        "val_steps": 2,
        "seed": 0,
    }
    strategy = tf.distribute.get_strategy()
    devices = Devices(strategy, 0, "float32", 1, True)
    config = BatchConfig(img_size=SIZE, batch_size=8, seed=3, mixing=mixing)
    parts = [Batches(samples, config, strategy) for samples in read_parts(crops)]
    save_dir.mkdir(parents=True, exist_ok=True)
    network = changes.pop("network", None) or small_network()
    return Trainer(
        network,
        *parts,
        np.ones(len(CLASSES), np.float32),
        TrainConfig(**{**settings, **changes}),
        devices,
        {"settings": {}, "data": "", "is_complete": False},
    )


def run_all(trainer: Trainer, stop_after: int | None = None) -> bool:
    """Trains; stops after that many steps of this call."""
    steps: list[int] = []
    return trainer.run(
        lambda: stop_after is not None and len(steps) + 1 >= stop_after,
        lambda row: None,
        lambda step, loss: steps.append(step),
    )
