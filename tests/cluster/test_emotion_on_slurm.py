"""`sbatch slurm/train_emotion.sbatch`: two TensorFlow workers of a real SLURM step train what one trains."""

from pathlib import Path
from typing import Any

import pytest

from facevox.files import read_json

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]
# Frozen BatchNorm and nothing random in a step: the workers see halves of the same batches.
OPTIONS = {
    "class_names": "red,green,blue", "img_size": 32, "batch_size": 8, "backbone_weights": "none",
    "freeze_bn_mode": "all", "unfreeze_from": 0, "dropout_rate": 0, "p_mixup": 0, "p_cutmix": 0,
    "epochs_head": 0, "epochs_finetune": 2, "learning_rate_finetune": 0.001, "device": "cpu",
}  # fmt: skip


def write_crops(folder: Path) -> Path:
    """Pictures of three colours, of people named as AIHub names them."""
    import numpy as np

    from facevox.files import write_image

    rng = np.random.default_rng(0)
    for part, first in (("train", 0), ("validation", 100)):
        for person in range(first, first + 4):
            for place, name in enumerate(("red", "green", "blue")):
                image = rng.integers(0, 140, (32, 32, 3), dtype=np.uint8)
                image[..., place] += 100
                write_image(
                    folder / part / name / f"person{person}_남_20_기쁨_실내_{place}-001-000.jpg", image
                )
    return folder


def test_two_workers_of_a_step_train_what_one_process_trains(
    jobs: Any, repository: Path, tmp_path: Path
) -> None:
    crops = write_crops(tmp_path / "crops")
    lines = (repository / ".env.example").read_text(encoding="utf-8").splitlines()
    variables = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    words = [f"--{name}={value}" for name, value in OPTIONS.items()]
    rows = []
    # On one node: the nodes of this cluster are one machine, where two workers of one port would collide.
    for num_tasks in (1, 2):
        model = tmp_path / f"model-{num_tasks}"
        job = jobs.submit(
            "slurm/train_emotion.sbatch", *words, f"--log_dir={tmp_path / 'app'}",
            options=("--time=15", "--cpus-per-task=1", "--mem-per-cpu=4G", f"--ntasks-per-node={num_tasks}"),
            **variables, DATA_DIR=str(crops), SAVE_DIR=str(model), CUDA_VISIBLE_DEVICES="-1",
        )  # fmt: skip
        jobs.wait(job, seconds=400)
        rows.append(read_json(model / "training" / "history.json"))
        assert (model / "emotion_classifier_3_classes.tflite").is_file()
    assert len(rows[0]) == len(rows[1]) == 2
    for one, two in zip(*rows, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
        assert two["val_loss"] == pytest.approx(one["val_loss"], rel=1e-3)
