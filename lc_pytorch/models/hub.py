"""Files of the Hugging Face hub: from the cache, else from the network, else a clear error."""

import os
import pickle
from collections.abc import Callable
from typing import TypeVar

from safetensors import SafetensorError

from facevox.downloads import answers
from facevox.errors import UserError, one_line

T = TypeVar("T")


def read_weights(read: Callable[[], T], source: str, option: str) -> T:
    """Result of `read`; its many errors become one line with the option and the source."""
    try:
        return read()
    except pickle.UnpicklingError:  # torch's message advises to switch the protection off
        raise UserError(f"{option} {source}: its weights file holds other things than weights") from None
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{option} {source}: cannot be loaded ({one_line(error)})") from None


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
    except (KeyError, RuntimeError, SafetensorError, pickle.UnpicklingError):
        # Cached, but damaged: the same again, for its message.
        return read_weights(lambda: load(local_files_only=True), source, option)
    is_offline = bool(os.environ.get("HF_HUB_OFFLINE")) or bool(os.environ.get("TRANSFORMERS_OFFLINE"))
    if is_offline or not answers(os.environ.get("HF_ENDPOINT", "https://huggingface.co")):
        home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
        raise UserError(
            f"{option} {source}: not in the cache ({home}/hub) and no network; where there is one, run "
            f"'make weights' (or: hf download {source}) and copy the cache, or give {option} a folder that "
            "holds the model"
        ) from cached
    return read_weights(load, source, option)
