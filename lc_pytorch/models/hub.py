"""Files of the Hugging Face hub: from the cache, else from the network, else a clear error."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from facevox.downloads import answers
from facevox.errors import UserError, one_line
from facevox.file_kinds import file_fault

T = TypeVar("T")
_SUFFIXES = (".safetensors", ".bin", ".json")  # of the files that transformers reads


def read_weights(read: Callable[[], T], source: str, option: str) -> T:
    """Result of `read`; any error of a model's reader becomes one line with the option and the source."""
    try:
        return read()
    except UserError:
        raise
    except Exception as error:
        _refuse_damaged(source, option)
        if isinstance(error, pickle.UnpicklingError):  # torch's message advises to switch the protection off
            reason = "its weights file holds other things than weights"
        else:
            reason = f"cannot be loaded ({one_line(error)})"
        raise UserError(f"{option} {source}: {reason}") from None


def _refuse_damaged(source: str, option: str) -> None:
    """Raises a UserError if a file of a model, in a folder or in the hub's cache, is something else.

    Args:
        source: The folder, or the hub id.
        option: The option that named it.
    """
    folder = Path(source)
    files = folder.glob("*")
    advice = ""
    if not folder.is_dir():
        folder = _cache_dir(source)
        files = folder.glob("snapshots/*/**/*")
        advice = f"; remove {folder} and run it again"
    for file in sorted(files):
        if file.suffix in _SUFFIXES and (fault := file_fault(file, "weights")):
            raise UserError(f"{option} {source}: {file.name}: {fault}{advice}") from None


def _cache_dir(name: str) -> Path:
    """The folder of a model in the hub's cache, which need not exist."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE, f"models--{name.replace('/', '--')}")


def from_hub(load: Callable[..., T], source: str, option: str) -> T:
    """Result of `load` from the cache, else over the network if it answers.

    Args:
        load: Takes `local_files_only` as transformers and huggingface_hub do.
        source: The hub id, for messages.
        option: The option that named it.

    Raises:
        UserError: Neither cached nor to be fetched (known within seconds); or damaged.
    """
    try:
        return load(local_files_only=True)
    except (OSError, ValueError) as error:
        cached = error
    except Exception:
        # Cached, but damaged: the same again, for its message.
        return read_weights(lambda: load(local_files_only=True), source, option)
    _refuse_damaged(source, option)
    from huggingface_hub import is_offline_mode

    if is_offline_mode() or not answers(os.environ.get("HF_ENDPOINT", "https://huggingface.co")):
        raise UserError(
            f"{option} {source}: not in the cache ({_cache_dir(source).parent}) and no network; where there "
            f"is one, run 'make weights' (or: hf download {source}) and copy the cache, or give {option} a "
            "folder that holds the model"
        ) from cached
    return read_weights(load, source, option)
