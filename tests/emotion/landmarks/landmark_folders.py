"""Extracted folders made of numbers: the class is the shape of a face, the person its size and position."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from emotion.landmarks.shards import COLUMNS, NUM_POINTS

CLASSES = ("neutral", "anxiety", "happy")


def made_face(label: int, rng: np.random.Generator) -> np.ndarray:
    """(478, 3) in pixels about (0, 0): a fixed shape, which the class moves, with noise."""
    shape = np.random.default_rng(1).normal(0, 1, (NUM_POINTS, 3))
    move = np.random.default_rng(10 + label).normal(0, 0.25, (NUM_POINTS, 3))
    return (shape + move + rng.normal(0, 0.3, shape.shape)) * 40


def make_folder(
    folder: Path,
    num_people: int = 12,
    per_person: int = 3,
    shard_rows: int = 10,
    classes: tuple[str, ...] = CLASSES,
    with_people: bool = True,
) -> Path:
    """Shards and index as extract.py writes them."""
    rng = np.random.default_rng(0)
    rows, shard = [], []
    (folder / "shards").mkdir(parents=True)
    for person in range(num_people):
        for label, name in enumerate(classes):
            for number in range(per_person):
                width, height = (1920, 1080) if person % 2 else (600, 800)
                points = made_face(label, rng) * rng.uniform(0.5, 1.5)
                points[:, :2] += rng.uniform(200, 400, 2)
                shard.append((points / [width, height, width]).astype(np.float32))
                rows.append(
                    {
                        "archive": "x/a.zip",
                        "member": f"{person}_남_20_{name}_{number}.jpg",
                        "shard": f"shards/{len(rows) // shard_rows:03d}.npy",
                        "row": len(rows) % shard_rows,
                        "label": name,
                        "person": f"person {person}" if with_people else "",
                        "width": width,
                        "height": height,
                        "status": "done",
                    }
                )
    for first in range(0, len(shard), shard_rows):
        np.save(folder / f"shards/{first // shard_rows:03d}.npy", np.stack(shard[first : first + shard_rows]))
    rows.append({"archive": "x/a.zip", "member": "none.jpg", "label": classes[0], "status": "no_face"})
    with (folder / "index.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, "status", "reason"], restval="")
        writer.writeheader()
        writer.writerows(rows)
    return folder


def train_on_rank(world: Any, landmarks_dir: str, save_dir: str) -> int:
    """Program of each process of a group."""
    from emotion.landmarks.options import TrainConfig
    from emotion.landmarks.run import run_training

    config = TrainConfig(
        landmarks_dir=Path(landmarks_dir), save_dir=Path(save_dir), num_epochs=12, batch_size=8, patience=0
    )
    return int(run_training(config, world).exit_code)
