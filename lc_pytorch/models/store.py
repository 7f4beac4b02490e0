"""A trained model's folder: config.json and the weights, written together and checked when read.

face_encoder.pth face_projection.pth audio_encoder.pth audio_projection.pth   the parts (plain state dicts)
full_model.pth    all of them, as of the last save
best_model.pth    the same, as of the best epoch
config.json       how the model is built and what its inputs are; no hub is needed to load it
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from facevox.errors import UserError, one_line
from facevox.files import read_json, require_folder, write_json
from facevox.training.checkpoint import load_checkpoint, load_weights, save_checkpoint
from lc_pytorch.models.bounds import bounded_config, check_parameters
from lc_pytorch.models.face_voice import FaceVoiceModel, TwoTowerModel
from lc_pytorch.models.hq import HQVoxCelebModel

FORMAT = 1
CONFIG_FILE = "config.json"
KINDS: dict[str, type[TwoTowerModel]] = {"face_voice": FaceVoiceModel, "hq_voxceleb": HQVoxCelebModel}
WEIGHT_FILES = {"best": "best_model.pth", "last": "full_model.pth"}


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A trained model with its configuration and its files.

    Attributes:
        model: The network in evaluation mode, on the device asked for.
        kind: `face_voice` or `hq_voxceleb`.
        config: Content of config.json.
        model_dir: Folder of the model.
        weights_file: File of these weights.
    """

    model: TwoTowerModel
    kind: str
    config: dict[str, Any]
    model_dir: Path
    weights_file: Path


def save_config(
    save_dir: Path,
    model: TwoTowerModel,
    *,
    kind: str,
    data: Mapping[str, object],
    training: Mapping[str, object],
) -> None:
    """Writes config.json.

    Args:
        save_dir: The model's folder.
        model: The network; its `settings()` are written.
        kind: See `TrainedModel`.
        data: Description of its inputs (sizes, normalisation, rates, lengths).
        training: Settings that it was trained with.
    """
    names = ("facevox", "torch", "transformers", "numpy")
    write_json(
        save_dir / CONFIG_FILE,
        {
            "format": FORMAT,
            "kind": kind,
            "model": model.settings(),
            "data": data,
            "training": training,
            "versions": {name: version(name) for name in names} | {"python": platform.python_version()},
        },
    )


def save_weights(save_dir: Path, model: TwoTowerModel, *, which: str) -> None:
    """Writes the weights as `best` (one file) or `last` (one file, and one for each part)."""
    save_checkpoint(save_dir / WEIGHT_FILES[which], model.state_dict())
    if which == "last":
        for name, part in model.parts().items():
            save_checkpoint(save_dir / f"{name}.pth", part.state_dict())


def load_model(
    model_dir: str | Path, checkpoint: str = "best", device: str | torch.device = "cpu"
) -> TrainedModel:
    """The model of a folder that training wrote.

    Args:
        model_dir: The folder.
        checkpoint: `best` or `last`.
        device: Device for the network.

    Raises:
        UserError: There is no model, it has another format, or its files do not belong together.
    """
    folder = require_folder(model_dir, "--model_dir")
    if checkpoint not in WEIGHT_FILES:
        raise UserError(f"--checkpoint is {checkpoint!r}: it should be one of {', '.join(WEIGHT_FILES)}")
    config_file, weights_file = folder / CONFIG_FILE, folder / WEIGHT_FILES[checkpoint]
    missing = [file.name for file in (config_file, weights_file) if not file.is_file()]
    if missing:
        raise UserError(f"{folder}: no trained model here ({' and '.join(missing)} missing); train one first")
    config = read_json(config_file)
    kind, settings = _checked(config, config_file)
    try:
        config = bounded_config(config, str(config_file))
        settings = config["model"]
        num_bytes = weights_file.stat().st_size
        check_parameters(lambda: KINDS[kind].from_settings(settings), num_bytes, str(config_file))
        model = KINDS[kind].from_settings(settings)
    except UserError:
        raise
    except Exception as error:  # of values that do not fit the parts of a model raise anything
        raise UserError(f"{config_file}: the model cannot be built from it ({one_line(error)})") from None
    load_weights(model, load_checkpoint(weights_file), weights_file)
    model.to(device).eval()
    return TrainedModel(model=model, kind=kind, config=config, model_dir=folder, weights_file=weights_file)


def _checked(config: object, file: Path) -> tuple[str, dict[str, Any]]:
    if not isinstance(config, dict) or config.get("kind") not in tuple(KINDS):
        raise UserError(f"{file}: not the configuration of a face-voice model (one of {', '.join(KINDS)})")
    if config.get("format") != FORMAT:
        raise UserError(
            f"{file}: format {config.get('format')}, this program reads {FORMAT}; use the version it is from"
        )
    absent = [name for name in ("model", "data") if not isinstance(config.get(name), dict)]
    if absent:
        raise UserError(f"{file}: {' and '.join(absent)} missing; train again or restore the file")
    return str(config["kind"]), config["model"]
