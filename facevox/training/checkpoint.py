"""Checkpoints: written whole or not at all, read as weights only, refused if they are another model's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from facevox.errors import UserError, one_line
from facevox.files import replacing


def save_checkpoint(path: str | Path, content: Mapping[str, object]) -> None:
    """Writes tensors, plain numbers, strings, lists and dicts in torch's format.

    Nothing else is allowed: `load_checkpoint` reads weights only, and even a NumPy number would make the file
    unreadable.
    """
    with replacing(path) as file:
        torch.save(dict(content), file)


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """The content of a file of `save_checkpoint`; reading it cannot run code.

    Raises:
        UserError: There is no such file, or it is not a checkpoint.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except Exception as error:  # on a file of another kind the unpickler may raise anything
        # Cut off before torch's own advice, which is to switch the protection off.
        reason = one_line(error, limit=2000).split(" Please file an issue")[0].split(". ")[0]
        raise UserError(f"{path}: no checkpoint of facevox, or a damaged one ({reason[:120]})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: no checkpoint of facevox: it holds a {type(content).__name__}")
    return content


def load_weights(module: nn.Module, state: object, path: str | Path) -> None:
    """Loads `state` into `module`, all of it and nothing else.

    Raises:
        UserError: Names or sizes differ; nothing has been changed then.
    """
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: it holds no weights")
    expected = module.state_dict()
    missing, surplus = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or surplus:
        example = min(missing or surplus)
        raise UserError(
            f"{path}: weights of another model ({len(missing)} of this one's are missing, {len(surplus)} are "
            f"unknown to it, such as {example})"
        )
    for name, value in expected.items():
        if value.shape != state[name].shape:
            raise UserError(
                f"{path}: weights of another size: {name} is {tuple(state[name].shape)}, this model's is "
                f"{tuple(value.shape)}"
            )
    module.load_state_dict(dict(state))
