"""The path of SyncNet's weights; costs no torch, so that a missing file is reported at once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from facevox.errors import UserError
from facevox.files import refuse_special

FILE_NAME = "syncnet_v2.model"
URL = f"http://www.robots.ox.ac.uk/~vgg/software/lipsync/data/{FILE_NAME}"
VARIABLE = "FACEVOX_SYNCNET"
DEFAULT_FILE = Path("models", FILE_NAME)
MOST_BYTES = 200_000_000  # the published file has about 54 MB


def find_weights(file: Path | None = None) -> Path:
    """The file of weights: `file`, or else the one that FACEVOX_SYNCNET names, or models/syncnet_v2.model.

    Raises:
        UserError: There is no such file, or one that is far too large.
    """
    path = file or Path(os.environ.get(VARIABLE) or DEFAULT_FILE)
    refuse_special(path)
    try:
        num_bytes = path.stat().st_size
    except OSError as error:
        raise UserError(
            f"--syncnet {path}: {error.strerror or 'cannot be read'}; --metric lse needs SyncNet's weights: "
            f"fetch {URL} (54 MB) and put it at {DEFAULT_FILE}, or name it by --syncnet or {VARIABLE}"
        ) from None
    if num_bytes > MOST_BYTES:
        raise UserError(f"--syncnet {path}: {num_bytes} bytes; SyncNet's weights have about 54 million")
    return path


def weights_sha256(path: Path) -> str:
    """The sha256 of a file of weights, in hexadecimal digits.

    Raises:
        UserError: It cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"--syncnet {path}: {error.strerror or 'cannot be read'}") from None
