"""The options of the example data and the demo's embedder; importing this costs little, for `--help`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facevox.options import Options, choice, number, option, where, whole
from facevox_demo.example import people

SHAPES = ("videos", "vox", "hq")
ZIP_NAMES = ("cp949", "utf-8")
EVEN_SIZE = where(whole(128, 1024), lambda size: size % 2 == 0, "an even number from 128 to 1024")


@dataclass(frozen=True, kw_only=True)
class SetConfig(Options):
    """Contents of a set of people who speak.

    Attributes:
        shapes: Which parts are written, of `SHAPES`.
    """

    num_people: int = option(120, whole(1, 10_000), "how many people")
    clips_per_person: int = option(2, whole(1, 1000), "clips of each person")
    clip_s: float = option(2.0, number(0.5, 600), "length of a clip in seconds")
    fps: float = option(25.0, number(5, 60), "frames a second")
    size: int = option(256, EVEN_SIZE, "width and height of the videos in pixels")
    seed: int = option(0, whole(0), "another seed gives other people")
    shapes: tuple[str, ...] = SHAPES

    def contradictions(self) -> list[str]:
        """Parts that are unknown, or none."""
        unknown = [shape for shape in self.shapes if shape not in SHAPES]
        if self.shapes and not unknown:
            return []
        return [f"--shape {' '.join(unknown)}: choose from {', '.join(SHAPES)}"]

    @property
    def frames_per_clip(self) -> int:
        """Frames of a clip; the last one ends no later than the sound."""
        return int(self.clip_s * self.fps + 1e-6)

    @property
    def frame_times_s(self) -> NDArray[np.float64]:
        """Presentation times (n,) of the frames in seconds."""
        return np.arange(self.frames_per_clip) / self.fps

    def settings(self) -> dict[str, Any]:
        """Settings that change the files of a person (the number of people does not)."""
        return {
            "version": people.VERSION,
            "seed": self.seed,
            "clips_per_person": self.clips_per_person,
            "clip_s": self.clip_s,
            "fps": self.fps,
            "size": self.size,
            "shapes": sorted(self.shapes),
        }


@dataclass(frozen=True, kw_only=True)
class AihubConfig(Options):
    """Contents of an AIHub-shaped set; pictures are half as wide again as the portraits in them."""

    num_people: int = option(40, whole(1, 10_000), "how many people")
    pictures_per_expression: int = option(3, whole(1, 99), "aihub: of each person")
    picture_size: int = option(192, whole(128, 1024), "aihub: side of a portrait in pixels")
    seed: int = option(0, whole(0), "another seed gives other people")
    zip_names: str = option(
        "cp949", choice(*ZIP_NAMES), "aihub: encoding of the Korean names in the archives"
    )

    def settings(self) -> dict[str, Any]:
        """Settings that change the pictures of a person."""
        return {
            "version": people.VERSION,
            "seed": self.seed,
            "pictures_per_expression": self.pictures_per_expression,
            "picture_size": self.picture_size,
        }


@dataclass(frozen=True, kw_only=True)
class DemoEmbedderConfig(Options):
    """Training of the demo embedder; a further fifth of the people is held out to choose the threshold.

    Attributes:
        embedding_dim: Numbers per face.
        scale: Of the cosines in the softmax (1 / temperature).
        margin: Subtracted from the cosine to the same person, so that people end up apart (CosFace,
            arXiv:1801.09414, eq. 4).
    """

    num_people: int = option(160, whole(10), "example people to train on")
    pictures_per_person: int = option(6, whole(2), "pictures of each of them")
    num_epochs: int = option(20, whole(1), "passes over the pictures")
    seed: int = option(1000, whole(0), "of the people; not that of the data to be grouped")
    batch_size: int = 64
    learning_rate: float = 3e-3
    embedding_dim: int = 64
    scale: float = 16.0
    margin: float = 0.3

    @property
    def num_held_out(self) -> int:
        """People who are not trained on."""
        return max(self.num_people // 5, 5)
