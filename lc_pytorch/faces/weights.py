"""Weights that DeepFace downloads on first use: their paths, and what happens if they are missing.

DeepFace looks in `$DEEPFACE_HOME/.deepface/weights` (the home folder when DEEPFACE_HOME is not set) by
file name. facevox uses the same files in the same folder, so weights fetched by either serve both.
"""

import bz2
import os
import shutil
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from facevox.downloads import answers
from facevox.errors import UserError, one_line
from facevox.file_kinds import file_fault
from facevox.files import replacing

_DOWNLOAD_TIMEOUT_S = 60.0  # without one byte arriving
MISSING = "missing"


@dataclass(frozen=True)
class WeightFile:
    """A file of weights: its name in the weights folder and where DeepFace gets it from."""

    name: str
    urls: tuple[str, ...]  # tried in order; one that ends in .bz2 is unpacked


def weights_dir() -> Path:
    """The folder in which DeepFace looks for weights; it need not exist."""
    home = os.environ.get("DEEPFACE_HOME") or str(Path("~").expanduser())
    return Path(home, ".deepface", "weights")


def weights_fault(path: Path) -> str:
    """`MISSING`, or what a file of weights is instead; "" if nothing is known to be wrong with it."""
    return file_fault(path, "weights") if path.is_file() else MISSING


def require_weights(files: Sequence[WeightFile], user: str, alternative: str = "") -> list[Path]:
    """The paths of `files`, downloaded first where they are missing or damaged and the network answers.

    Imports nothing, and creates nothing in the home folder unless a download starts.

    Args:
        files: The weights that are needed.
        user: What needs them, for the message: "detector retinaface".
        alternative: For the message: what works without these weights.

    Raises:
        UserError: A file is missing or damaged, and cannot be fetched; within seconds.
    """
    if not files:
        return []  # without a question for the home folder, which not every user has
    folder = weights_dir()
    faults = {file: weights_fault(folder / file.name) for file in files}
    for file in files:
        reason = _fetch(file, folder / file.name) if faults[file] else ""
        if reason:
            names = ", ".join(
                file.name if fault == MISSING else f"{file.name} is {fault}"
                for file, fault in faults.items()
                if fault
            )
            hint = f", or {alternative}" if alternative else ""
            raise UserError(
                f"{user}: weights missing: {names} ({reason}); put them into {folder} or run "
                f"'make weights' on a machine with network access{hint}"
            )
    return [folder / file.name for file in files]


def _fetch(file: WeightFile, target: Path) -> str:
    """Downloads `file` to `target`; returns "" or why it could not."""
    if not answers(file.urls[0]):
        return "no network"
    reason = ""
    for url in file.urls:
        try:
            with (
                urllib.request.urlopen(url, timeout=_DOWNLOAD_TIMEOUT_S) as response,  # noqa: S310 - our constants
                replacing(target) as out,
            ):
                is_packed = url.endswith(".bz2")
                shutil.copyfileobj(bz2.BZ2File(response) if is_packed else response, out, 1 << 20)
                # A connection that breaks off ends the response without an error.
                size_bytes, expected = out.tell(), response.headers["Content-Length"]
                if not is_packed and expected and size_bytes != int(expected):
                    raise OSError(f"cut off after {size_bytes} of {expected} bytes")
        except (OSError, EOFError, ValueError) as error:
            reason = f"{url}: {one_line(error)}"
            continue
        reason = weights_fault(target)
        if not reason:
            return ""
        target.unlink()
        reason = f"{url}: {reason}"
    return reason
