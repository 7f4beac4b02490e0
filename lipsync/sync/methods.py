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
        checkpoint: Its file; "" without one.
    """

    name: str
    estimator: SyncEstimator
    calibration: SyncCalibration
    notes: tuple[str, ...] = ()
    checkpoint: str = ""


def check_method(method: str, checkpoint: str | Path | None) -> None:
    """Raises UserError where a method and a checkpoint exclude each other."""
    if checkpoint is not None and method != AUTO:
        raise UserError(f"--method {method} does not go with --checkpoint, which is a method of its own")
    if method not in METHODS:
        raise UserError(f"method {method!r}: one of {', '.join(METHODS)} is expected")
