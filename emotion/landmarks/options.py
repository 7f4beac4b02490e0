"""The options of the landmark programs. Importing this costs no torch: `--help` is quick."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion.landmarks.normalisation import NORMALISATIONS, SCALED
from emotion.landmarks.shards import SHARD_PICTURES
from facevox import spreadsheets
from facevox.mesh.kinds import FACE_MESH, MESHES
from facevox.options import (
    DEVICE,
    Options,
    choice,
    number,
    option,
    path,
    required,
    several,
    switch,
    text,
    whole,
)

# What the network gets of each face; the last two need the mesh face_landmarker.
LANDMARKS, BLENDSHAPES, BOTH = "landmarks", "blendshapes", "both"
INPUTS = (LANDMARKS, BLENDSHAPES, BOTH)
DEFAULT_CLASSES = ("neutral", "anxiety")  # 중립 (0), 불안 (1)


def add_log_dir_option(parser: argparse.ArgumentParser) -> None:
    """Adds --log_dir."""
    parser.add_argument("--log_dir", type=Path, default=Path("logs"), metavar="DIR", help="of the day's log")


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(Options):
    """The options of the extraction.

    Attributes:
        shard_pictures: Largest number in a shard.
    """

    zips: tuple[Path, ...] = required(
        several(path("an archive")), "archives, or folders of archives", metavar="ZIP"
    )
    output_dir: Path = required(path(), "folder for shards and index", metavar="DIR")
    labels: tuple[str, ...] = option(
        (),
        several(text()),
        "one for each of --zips (default: from annotations, file names, folders, archive names)",
        metavar="LABEL",
    )
    mesh: str = option(
        FACE_MESH,
        choice(*MESHES),
        "whose landmarks; face_landmarker (newer, slower, with blendshapes) needs the extra mesh256",
    )
    limit: int = option(0, whole(0), "pictures in all, spread over the archives; 0: every one")
    shard_pictures: int = SHARD_PICTURES


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Options):
    """The options of the training.

    Attributes:
        landmarks_dir: Output folder of `extract.py`.
    """

    landmarks_dir: Path
    save_dir: Path = option(
        Path("models/emotion_landmarks"), path(), "folder of the run", metavar="DIR", group="training"
    )
    class_names: tuple[str, ...] = option(
        DEFAULT_CLASSES,
        several(text()),
        "labels, in the order of the outputs",
        metavar="NAME",
        group="training",
    )
    normalisation: str = option(
        SCALED,
        choice(*NORMALISATIONS),
        "of the landmarks; each does what the one before it does and one thing more",
        group="training",
    )
    inputs: str = option(
        LANDMARKS,
        choice(*INPUTS),
        "of the network; blendshapes and both need landmarks of the mesh face_landmarker",
        group="training",
    )
    num_epochs: int = option(60, whole(1), "epochs at most", group="training")
    batch_size: int = option(
        64,
        whole(2),  # BatchNorm needs more than one face
        "faces, of each process",
        group="training",
    )
    learning_rate: float = option(1e-3, number(is_above=True), "at its peak", group="training")
    weight_decay: float = option(1e-2, number(0, 1), "of AdamW", group="training")
    val_share: float = option(
        0.2, number(0, 1, is_above=True, is_below=True), "of the people, for validation", group="training"
    )
    patience: int = option(
        15,
        whole(0),
        "epochs without a lower validation loss after which training ends; 0: never",
        group="training",
    )
    class_balance: bool = option(
        True, switch(), "let rare classes weigh as much as frequent ones", group="training"
    )
    seed: int = option(0, whole(0), "of weights, split and order", group="training")
    device: str = option("auto", DEVICE, "where it computes", group="training")
    resume: str = option(
        "auto",
        text(),
        "auto: resume from last.pth in --save_dir if it is there; never: start from scratch; or a checkpoint",
        metavar="auto|never|FILE",
        group="training",
    )
    spreadsheet_safe: bool = option(False, switch(), spreadsheets.HELP, group="training")

    def contradictions(self) -> list[str]:
        """A fault where there are fewer than two different class names."""
        if len(set(self.class_names)) == len(self.class_names) >= 2:
            return []
        return [f"--class_names {' '.join(self.class_names)}: two or more different names are expected"]

    def lasting(self) -> dict[str, Any]:
        """The values that must be the same when a run resumes."""
        free = {"landmarks_dir", "save_dir", "num_epochs", "device", "resume", "spreadsheet_safe"}
        values = {name: value for name, value in vars(self).items() if name not in free}
        return values | {"class_names": list(self.class_names)}
