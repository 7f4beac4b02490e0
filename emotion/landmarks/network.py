"""The document's network over landmarks, and the file that holds a trained one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emotion.landmarks.features import Features
from emotion.landmarks.normalisation import Integers, check_normalisation
from emotion.landmarks.options import LANDMARKS
from emotion.landmarks.shards import NUM_POINTS
from facevox.errors import UserError
from facevox.mesh.kinds import marked_mesh
from facevox.training.checkpoint import load_checkpoint, load_weights, save_checkpoint

KIND, FORMAT = "emotion landmarks", 1
MODEL_FILE = "model.pth"
NUM_FEATURES = NUM_POINTS * 3  # 1434
HIDDEN = (512, 256, 128)
DROPOUT = (0.3, 0.2)


class LandmarkNetwork(nn.Module):
    """1434 → 512 → 256 → 128 → classes, as the source document has it.

    Linear, ReLU, BatchNorm, Dropout twice; then Linear, ReLU; then Linear.

    Args:
        num_classes: Outputs.
        num_features: Inputs; other than 1434 with blendshapes.
    """

    def __init__(self, num_classes: int, num_features: int = NUM_FEATURES) -> None:
        super().__init__()
        first, second, third = HIDDEN
        self.layers = nn.Sequential(
            *(nn.Linear(num_features, first), nn.ReLU(), nn.BatchNorm1d(first), nn.Dropout(DROPOUT[0])),
            *(nn.Linear(first, second), nn.ReLU(), nn.BatchNorm1d(second), nn.Dropout(DROPOUT[1])),
            *(nn.Linear(second, third), nn.ReLU()),
            nn.Linear(third, num_classes),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, num_classes) logits of (B, 478, 3) normalised landmarks, or (B, num_features) of `Features`."""
        logits_BC: Tensor = self.layers(features.flatten(1))
        return logits_BC


@dataclass(frozen=True, kw_only=True)
class LandmarkModel:
    """A trained network with its classes, inputs and temperature.

    Attributes:
        network: In evaluation mode.
        class_names: Of its outputs.
        features: Its inputs.
        temperature: That logits are divided by.
        notes: Plain values about its training data.
    """

    network: LandmarkNetwork
    class_names: tuple[str, ...]
    features: Features
    temperature: float
    notes: Mapping[str, object]

    def probabilities(
        self,
        raw_NPC: NDArray[np.float32],
        sizes_N2: Integers,
        blendshapes_NB: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float64]:
        """(N, C) calibrated probabilities of raw landmarks; see `Features.of` for the arguments."""
        device = next(self.network.parameters()).device
        inputs = torch.from_numpy(self.features.of(raw_NPC, sizes_N2, blendshapes_NB)).to(device)
        with torch.inference_mode():
            scaled = self.network(inputs).double() / self.temperature
        result: NDArray[np.float64] = torch.softmax(scaled, dim=1).cpu().numpy()
        return result


def save_model(path: Path, model: LandmarkModel) -> None:
    """Writes a model; `load_model` reads it."""
    save_checkpoint(
        path,
        {
            "format": FORMAT,
            "kind": KIND,
            "class_names": list(model.class_names),
            "normalisation": model.features.normalisation,
            "inputs": model.features.inputs,
            "mesh": model.features.mesh,
            "temperature": model.temperature,
            "notes": model.notes,
            "network": {name: value.cpu() for name, value in model.network.state_dict().items()},
        },
    )


def load_model(path: Path) -> LandmarkModel:
    """The model in a file of `save_model`, or in a folder of `train.py`.

    Raises:
        UserError: There is none, or it is of another kind.
    """
    file = path / MODEL_FILE if path.is_dir() else path
    content = load_checkpoint(file)
    if content.get("kind") != KIND:
        raise UserError(f"{file}: holds {content.get('kind', 'something else')!r}; {KIND!r} is expected")
    if content.get("format") != FORMAT:
        raise UserError(f"{file}: of format {content.get('format')}; this program reads {FORMAT}")
    class_names, temperature = content.get("class_names", []), content.get("temperature", 0.0)
    is_sound = isinstance(temperature, float) and temperature > 0 and isinstance(class_names, list)
    if not is_sound or not is_class_list(class_names):
        raise UserError(f"{file}: its class names or its temperature are damaged")
    names = tuple(str(name) for name in class_names)
    normalisation, inputs = str(content.get("normalisation")), str(content.get("inputs", LANDMARKS))
    notes = content.get("notes") or {}
    if not isinstance(notes, dict):
        raise UserError(f"{file}: its notes are damaged")
    try:
        features = Features(check_normalisation(normalisation), inputs, marked_mesh(content, file))
    except UserError as error:
        raise UserError(f"{file}: its inputs are damaged ({error})") from None
    network = LandmarkNetwork(len(names), features.size)
    load_weights(network, content.get("network"), file)
    network.eval()
    return LandmarkModel(
        network=network,
        class_names=names,
        features=features,
        temperature=temperature,
        notes=notes,
    )


def is_class_list(names: Sequence[object]) -> bool:
    """True if these are two or more different names."""
    return (
        len(names) >= 2
        and all(isinstance(name, str) and name for name in names)
        and len(set(names)) == len(names)
    )
