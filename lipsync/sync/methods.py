"""The three ways to compare lips and sound, and which one is used.

checkpoint   a network that was trained by lipsync/train.py or fitted by lipsync/fit.py
shipped      the small network that comes with the package (`lipsync.shipped`)
untrained    height of the lips against loudness of the voice
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from facevox.errors import UserError

if TYPE_CHECKING:
    from lipsync.sync.estimators import SyncEstimator
    from lipsync.sync.posterior import SyncCalibration

AUTO, SHIPPED, UNTRAINED, CHECKPOINT = "auto", "shipped", "untrained", "checkpoint"
METHODS = (AUTO, SHIPPED, UNTRAINED)  # that an option may name


@dataclass(frozen=True)
class Method:
    """An estimator with the calibration that makes probabilities of its similarities.

    Attributes:
        name: Begins with the word for its kind, as in "untrained: mouth opening x loudness".
        estimator: Compares lips and sound.
        calibration: Of the estimator.
        notes: Sentences that every answer carries: about a checkpoint of an earlier version.
    """

    name: str
    estimator: SyncEstimator
    calibration: SyncCalibration
    notes: tuple[str, ...] = ()


def check_method(method: str, checkpoint: str | Path | None) -> None:
    """Raises UserError where a method and a checkpoint exclude each other."""
    if checkpoint is not None and method != AUTO:
        raise UserError(f"--method {method} does not go with --checkpoint, which is a method of its own")
    if method not in METHODS:
        raise UserError(f"method {method!r}: one of {', '.join(METHODS)} is expected")


def open_method(method: str = AUTO, checkpoint: str | Path | None = None, device: str = "auto") -> Method:
    """The method that is to be used: a checkpoint where one is given, else the one that is named.

    Args:
        method: One of METHODS; auto: the model that comes with the package.
        checkpoint: best_model.pth of train.py or fit.py.
        device: auto, cpu or cuda; of a checkpoint.

    Raises:
        UserError: No such checkpoint, the file is something else, or both are given.
    """
    check_method(method, checkpoint)
    # Imported here: a checkpoint needs torch, which takes seconds to load.
    if checkpoint is not None:
        from lipsync.network.estimator import load_method

        method_of_file: Method = load_method(checkpoint, device)
        return method_of_file
    from lipsync.sync.estimators import UNTRAINED_CALIBRATION, LoudnessEstimator

    if method == UNTRAINED:
        estimator = LoudnessEstimator()
        return Method(f"{UNTRAINED}: {estimator.name}", estimator, UNTRAINED_CALIBRATION)
    from lipsync.shipped.model import load_shipped

    return load_shipped()
