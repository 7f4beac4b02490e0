"""The offsets of clips of which nobody knows by how much they are off."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from facevox.errors import UserError
from lipsync.network.takes import Take
from lipsync.shipped.model import load_shipped
from lipsync.sync.changes import find_change
from lipsync.sync.estimators import SyncEstimator
from lipsync.sync.offset import search_lags
from lipsync.sync.posterior import SyncCalibration, find_posterior
from lipsync.sync.verdicts import change_text, judge

logger = logging.getLogger(__name__)

LEAST_SHARE = 0.5  # of the faces whose offset stands out, for these to be believed


@dataclass(frozen=True)
class FoundOffset:
    """A take and the offset that was found for it.

    Attributes:
        take: With the offset as its own, where one is found.
        interval_ms: Of the offset; nan without one.
        reason: Why it is left out; "" where it is used.
    """

    take: Take
    interval_ms: tuple[float, float]
    reason: str

    @property
    def is_used(self) -> bool:
        """True where it is trained on."""
        return not self.reason


def find_take_offset(take: Take, estimator: SyncEstimator, calibration: SyncCalibration) -> FoundOffset:
    """The offset of a take as a whole."""
    lags = search_lags()
    sound_RD = estimator.sound_vectors(take.sound)
    evidence, counts = estimator.evidence(take.track, sound_RD, lags, calibration.sharpness)
    total = evidence.sum(axis=0, dtype=np.float64)
    posterior = find_posterior(total, int(counts.sum()), lags, calibration)
    nothing = (float("nan"), float("nan"))
    if posterior is None:
        return FoundOffset(take, nothing, "under a second of lips and sound")
    change = find_change(evidence, lags)
    if change is not None:
        return FoundOffset(take, nothing, change_text(change))
    verdict = judge(posterior)
    if not verdict.band:
        return FoundOffset(take, nothing, verdict.reason)
    return FoundOffset(replace(take, offset_ms=posterior.offset_ms), posterior.interval_ms, "")


def with_found_offsets(takes: Sequence[Take], *, is_logged: bool = True) -> list[Take]:
    """The takes with the offset that the model of the package finds; those without one are left out.

    Where under LEAST_SHARE of them have one (people who are drawn, sound features of other sizes), all stay
    as they are, and a message says so.

    Args:
        takes: Of clips that may be off by any offset of the search.
        is_logged: Whether to log what was left out.
    """
    shipped = load_shipped()
    try:
        offsets = [find_take_offset(take, shipped.estimator, shipped.calibration) for take in takes]
    except UserError as error:  # other sizes of the sound features
        _log(is_logged, f"clips are taken to be in sync: {error}")
        return list(takes)
    used = [one.take for one in offsets if one.is_used]
    if len(used) < LEAST_SHARE * len(takes):
        _log(
            is_logged,
            f"an offset stands out for {len(used)} of {len(takes)} faces: all are taken to be in sync",
        )
        return list(takes)
    for one in offsets:
        if not one.is_used:
            _log(is_logged, f"{one.take.name}: left out: {one.reason}")
    largest = max((abs(take.offset_ms) for take in used), default=0.0)
    _log(is_logged, f"offsets of {len(used)} of {len(takes)} faces found, up to {largest:.0f} ms")
    return used


def _log(is_logged: bool, text: str) -> None:
    if is_logged:
        logger.info(text)
