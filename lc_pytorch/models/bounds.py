"""Bounds on the sizes in a foreign config.json, before a network of them is built."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from facevox.errors import UserError

logger = logging.getLogger(__name__)
MAX_NUMBER = 1_000_000
MAX_LAYERS = 200
MAX_ENTRIES = 1000  # of a list: layers of convolutions and their sizes
MAX_DEPTH = 20
MAX_PARAMETERS = 3_000_000_000  # the largest ViT and the largest Wav2Vec2 have about 2 billion
FREE_PARAMETERS = 1_000_000  # built, so that the message says which weights do not fit
# They choose code, from the hub too, with which a network runs.
_DROPPED = ("attn_implementation", "experts_implementation", "quantization_config", "auto_map")
_told: set[str] = set()


def bounded_config(config: Mapping[str, object], file: str) -> dict[str, Any]:
    """The configuration without the keys that choose code, which is logged once.

    Args:
        config: The content of a config.json.
        file: For messages.

    Raises:
        UserError: A number is too large.
    """
    dropped: list[str] = []
    bounded = _bounded(config, file, dropped, 0)
    if dropped and file not in _told:
        _told.add(file)
        logger.warning(f"{file}: {', '.join(sorted(set(dropped)))} ignored: they choose code")
    return dict(bounded)


def _bounded(value: Any, file: str, dropped: list[str], depth: int, key: str = "") -> Any:
    if depth > MAX_DEPTH:
        raise UserError(f"{file}: more than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        dropped += [name for name in value if str(name).endswith(_DROPPED)]
        return {
            name: _bounded(inner, file, dropped, depth + 1, str(name))
            for name, inner in value.items()
            if not str(name).endswith(_DROPPED)
        }
    if isinstance(value, list):
        if len(value) > MAX_ENTRIES:
            raise UserError(f"{file}: {key} has {len(value)} entries; at most {MAX_ENTRIES} are read")
        return [_bounded(inner, file, dropped, depth + 1, key) for inner in value]
    most = MAX_LAYERS if "layers" in key or key.startswith("depth") else MAX_NUMBER
    if isinstance(value, int | float) and abs(value) > most:
        raise UserError(f"{file}: {key} is {value}; at most {most} is read")
    return value


def check_parameters(build: Callable[[], nn.Module], weight_bytes: int, file: str) -> None:
    """Builds a network without memory for its weights, and counts them.

    Args:
        build: Makes the network.
        weight_bytes: Size of the files with its weights; 0: there are none.
        file: For the message.

    Raises:
        UserError: It has more than there are bytes for.
    """
    with torch.device("meta"):
        count = sum(weight.numel() for weight in build().parameters())
    most = min(FREE_PARAMETERS + weight_bytes, MAX_PARAMETERS) if weight_bytes else MAX_PARAMETERS
    if count > most:
        raise UserError(f"{file}: a network of {count} weights; at most {most} are possible here")
