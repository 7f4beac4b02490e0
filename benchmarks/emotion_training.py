"""Pictures a second that the expression classifier's input pipeline makes on a core, and of a training step.

    python benchmarks/emotion_training.py
    python benchmarks/emotion_training.py --num_pictures 2000 --img_size 224

An RTX 3060 is documented to train 350,000 pictures (280,000 of them in training) for 48 epochs in 1.5 to 2
hours: 2,490 to 1,870 pictures a second. The pipeline reads, decodes, mirrors and mixes crops as training
does; its pictures a second of processor time show how many cores feed such a card at the faster of the two.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facevox import cli
from facevox.errors import ExitCode
from facevox.files import write_image
from facevox.native_silence import native_silence
from facevox_demo.figures import Figure, print_figures, write_figures

if TYPE_CHECKING:
    from emotion.data.samples import Samples

CARD_PICTURES_PER_S = 280_000 * 48 / (1.5 * 3600)  # an RTX 3060 at the hour and a half of the documents


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this benchmark."""
    parser = cli.make_parser(__doc__, "python benchmarks/emotion_training.py")
    parser.add_argument("--num_pictures", type=cli.positive_int, default=512, help="crops that are read")
    parser.add_argument("--img_size", type=cli.positive_int, default=224, help="of the crops, pixels")
    parser.add_argument("--batch_size", type=cli.positive_int, default=32, help="pictures")
    parser.add_argument("--num_steps", type=cli.positive_int, default=4, help="timed training steps")
    parser.add_argument("--json", metavar="FILE", help="write the figures (default: not written)")
    return parser


def make_samples(folder: Path, count: int, size: int) -> "Samples":
    """Crops of example people, as the demo has them, drawn at the given size."""
    import cv2

    from emotion.data.samples import Samples
    from facevox_demo.example.people import make_person
    from facevox_demo.example.pictures import render_portrait

    faces = [render_portrait(make_person(0, index), "happy", size=256) for index in range(8)]
    files = [folder / f"{number}.jpg" for number in range(count)]
    for number, file in enumerate(files):
        face = cv2.resize(faces[number % len(faces)], (size, size), interpolation=cv2.INTER_AREA)
        write_image(file, face, sync=False)
    return Samples(
        files,
        [file.name for file in files],
        np.arange(count) % 5,
        np.eye(5, dtype=np.float32)[np.arange(count) % 5],
        [str(number) for number in range(count)],
        [""] * count,
        np.full(count, -1),
    )


def measure_pipeline(batches: Any) -> tuple[float, float]:
    """Pictures a second of wall clock, and of processor time, of an epoch after one as warm-up."""
    for images, *_ in batches.training(0):
        np.asarray(images)
    start_s, start_cpu_s, count = time.perf_counter(), time.process_time(), 0
    for images, *_ in batches.training(1):
        count += len(np.asarray(images))
    return count / (time.perf_counter() - start_s), count / (time.process_time() - start_cpu_s)


def measure_step(batches: Any, img_size: int, num_steps: int) -> float:
    """Pictures a second of whole training steps: forward, backward, AdamW, average."""
    import tensorflow as tf

    from emotion.classifier.averaging import WeightAverage
    from emotion.classifier.devices import Devices
    from emotion.classifier.network import build_network
    from emotion.classifier.trainer import make_optimizer, make_step

    network = build_network(img_size, 5, 0.25)
    optimizer = make_optimizer(1e-4, 1e-5)
    optimizer.build(network.trainable_variables)
    devices = Devices(tf.distribute.get_strategy(), 0, "float32", 1, True)
    step = make_step(network, optimizer, WeightAverage(network), np.ones(5, np.float32), devices)
    batch = next(batches.training(0))
    decay, stopping = tf.constant(0.999), tf.constant(0.0)
    float(step(batch, decay, stopping)[0])  # traced here
    start_s = time.perf_counter()
    for _ in range(num_steps):
        float(step(batch, decay, stopping)[0])
    return num_steps * len(batch[0]) / (time.perf_counter() - start_s)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with native_silence():
        import tensorflow as tf

        strategy = tf.distribute.get_strategy()
    from emotion.classifier.batches import BatchConfig, Batches
    from emotion.classifier.mixing import MixConfig

    mixing = MixConfig(mixup_alpha=0.2, cutmix_alpha=0.2, p_mixup=0.7, p_cutmix=0.3)
    config = BatchConfig(img_size=args.img_size, batch_size=args.batch_size, seed=0, mixing=mixing)
    with tempfile.TemporaryDirectory() as folder:
        batches = Batches(make_samples(Path(folder), args.num_pictures, args.img_size), config, strategy)
        wall_hz, core_hz = measure_pipeline(batches)
        step_hz = measure_step(batches, args.img_size, args.num_steps)
    figures = [
        Figure("pipeline, all cores", wall_hz, "pictures/s", is_comparable=False),
        Figure("pipeline, a core", core_hz, "pictures/s", is_comparable=False),
        Figure(
            "cores that feed an RTX 3060",
            CARD_PICTURES_PER_S / core_hz,
            "cores",
            is_better_higher=False,
            is_comparable=False,
        ),
        Figure("training step on the CPU", step_hz, "pictures/s", is_comparable=False),
        Figure("pipeline a core / training step", core_hz / step_hz, "x", bar=5.0),
    ]
    is_met = print_figures(figures)
    if args.json:
        write_figures(args.json, figures)
    return ExitCode.DONE if is_met else ExitCode.SOME_FAILED


if __name__ == "__main__":
    sys.exit(cli.run(main))
