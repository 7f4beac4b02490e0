"""A model fitted to the folder that a batch scores, before it scores: once for all its shards and restarts.

The folder `adapted/` of the batch's output has the files of lipsync/fit.py, and adapted.json: the checkpoint,
or the reason why there is none and the model that comes with the package is used. Once that file is there, it
stays as it is.
"""

import argparse
import hashlib
import logging
import time
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facevox.errors import ExitCode, UserError, one_line
from facevox.files import read_json, write_json
from facevox.locks import HeldError, OutputLock
from facevox.signals import StopFlag
from lipsync.settings import Settings

logger = logging.getLogger(__name__)
ADAPTED_DIR, RESULT_FILE = "adapted", "adapted.json"
WAIT_S = 2.0


@dataclass(frozen=True)
class Adapted:
    """The model that a batch scores with.

    Attributes:
        checkpoint: Below the batch's output folder; None: the model that comes with the package.
        note: One sentence for every row.
    """

    checkpoint: Path | None
    note: str


def adapt(videos: Path, output_dir: Path, settings: Settings, args: argparse.Namespace) -> Adapted:
    """Fits a model to the videos of a batch, or finds the one that was fitted before.

    Of several shards, the first one fits it and the others wait.

    Args:
        videos: The folder that is scored.
        output_dir: Of the batch.
        settings: Of the clips.
        args: With the options of `BatchOptions`.

    Raises:
        UserError: The result of an earlier fit is damaged or its model is gone.
        SystemExit: A stop signal came; the code is that of stopped runs.
    """
    folder = output_dir / ADAPTED_DIR
    folder.mkdir(parents=True, exist_ok=True)
    result, is_waiting = folder / RESULT_FILE, False
    while not result.is_file():
        try:
            with OutputLock(folder / "adapt.lock"):
                if not result.is_file():
                    _fit(videos, folder, settings, args)
        except HeldError:
            if not is_waiting:
                logger.info(f"{folder}: another shard fits the model; waiting for it")
            is_waiting = True
            _wait()
    return _read(result)


def _wait() -> None:
    with StopFlag() as stop:
        time.sleep(WAIT_S)
        if stop:
            raise SystemExit(ExitCode.STOPPED)


def _fit(videos: Path, folder: Path, settings: Settings, args: argparse.Namespace) -> None:
    from lipsync.fit import fit_videos

    whole = copy(args)
    whole.num_shards, whole.shard_index, whole.overwrite = 1, 0, False
    logger.info(f"a model is fitted to {videos} first, into {folder}")
    outcome = fit_videos(videos, folder, settings, whole)
    if outcome.code not in (ExitCode.DONE, ExitCode.SOME_FAILED):
        raise SystemExit(outcome.code)
    plain: dict[str, object] = {"checkpoint": None, "sha256": "", "reason": outcome.message}
    if outcome.model_file is not None:
        digest = hashlib.sha256(outcome.model_file.read_bytes()).hexdigest()
        plain |= {"checkpoint": outcome.model_file.name, "sha256": digest}
    write_json(folder / RESULT_FILE, plain)


def _read(result: Path) -> Adapted:
    again = f"delete {result} to fit again"
    try:
        plain: Any = read_json(result)
        name, reason = plain["checkpoint"], str(plain["reason"])
        checkpoint = None if name is None else result.parent / Path(str(name)).name
        if checkpoint is not None and hashlib.sha256(checkpoint.read_bytes()).hexdigest() != plain["sha256"]:
            raise ValueError(f"{checkpoint.name} is another file than the one that was fitted")
    except (OSError, ValueError, TypeError, KeyError, UserError) as error:
        raise UserError(f"{result}: {one_line(error)}; {again}") from None
    if checkpoint is None:
        note = f"no model was fitted to this folder: {reason}"
    else:
        note = f"the model was fitted to this folder; {reason}"
    logger.info(note)
    return Adapted(checkpoint, note)
