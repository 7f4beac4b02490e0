"""Training and validation rows of a table of landmarks, with nobody in both."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emotion.data.samples import Samples
from emotion.data.split import validation_people
from emotion.landmarks.features import Features
from emotion.landmarks.normalisation import Integers
from emotion.landmarks.options import LANDMARKS, TrainConfig
from emotion.landmarks.table import LandmarkTable
from facevox.errors import UserError


@dataclass(frozen=True)
class Part:
    """The rows of a table that belong to training or to validation.

    Attributes:
        table: Of both parts.
        samples: Of both parts.
        rows: (n,) the rows of this one.
    """

    table: LandmarkTable
    samples: Samples
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) classes."""
        return self.samples.labels[self.rows]

    @property
    def people(self) -> list[str]:
        """(n,)."""
        return [self.samples.people[row] for row in self.rows]

    def inputs(self, indices: Integers, features: Features) -> Tensor:
        """(b, …) float32 inputs of the network, of some of them, read now."""
        rows = self.rows[indices]
        blendshapes = None
        if features.inputs != LANDMARKS and self.table.blendshapes is not None:
            blendshapes = self.table.blendshapes.read(rows)
        raw = self.table.rows.read(rows)
        return torch.from_numpy(features.of(raw, self.table.sizes[rows], blendshapes))


def split_table(table: LandmarkTable, config: TrainConfig) -> tuple[Part, Part]:
    """Training and validation, with nobody in both.

    Raises:
        UserError: A class is missing, in all or in one part.
    """
    missing = [name for name in config.class_names if name not in set(table.labels)]
    if missing:
        raise UserError(
            f"--class_names: no faces labelled {', '.join(missing)} in {config.landmarks_dir} "
            f"(it has {len(table)} faces of the others); give classes that it has"
        )
    samples = table.to_samples(config.class_names)
    chosen = validation_people(samples.people, config.seed, config.val_share)
    is_validation = np.array([person in chosen for person in samples.people])
    parts = [Part(table, samples, np.flatnonzero(is_validation == side)) for side in (False, True)]
    for part, part_name in zip(parts, ("training", "validation"), strict=True):
        counts = Counter(part.labels.tolist())
        absent = [name for label, name in enumerate(config.class_names) if not counts[label]]
        if absent:
            raise UserError(
                f"{len(set(samples.people))} people: nobody of the {part_name} part shows "
                f"{', '.join(absent)}; add people, or give another --seed or --val_share"
            )
    return parts[0], parts[1]
