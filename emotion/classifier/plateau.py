"""Reactions to a validation loss that does not fall: a lower learning rate, then the end of the phase.

As Keras' callbacks of the same names do with their defaults; here their counters are plain numbers, so that a
resumed run has them.
"""

from dataclasses import dataclass
from typing import TypedDict

MIN_DELTA = 1e-4  # a smaller fall counts as none for ReduceLROnPlateau (Keras' default)


@dataclass
class EarlyStopping:
    """Ends a phase after `patience` epochs without a lower validation loss.

    Attributes:
        patience: EARLY_STOPPING_PATIENCE, epochs.
        best: Lowest loss of the phase.
        wait: Epochs since.
    """

    patience: int
    best: float = float("inf")
    wait: int = 0

    def should_stop(self, val_loss: float) -> bool:
        """Takes an epoch's loss; true if the phase ends after it."""
        self.wait += 1
        if val_loss < self.best:
            self.best, self.wait = val_loss, 0
        return self.wait >= self.patience


@dataclass
class ReduceLROnPlateau:
    """Multiplies the learning rate by `factor` after `patience` epochs without a lower validation loss.

    Attributes:
        patience: REDUCE_LR_PATIENCE, epochs.
        factor: REDUCE_LR_FACTOR.
        best: Lowest loss so far, in steps of MIN_DELTA at least.
        wait: Epochs since.
    """

    patience: int
    factor: float
    best: float = float("inf")
    wait: int = 0

    def next_rate(self, rate: float, val_loss: float) -> float:
        """Takes an epoch's loss; returns the learning rate of the next."""
        if val_loss < self.best - MIN_DELTA:
            self.best, self.wait = val_loss, 0
            return rate
        self.wait += 1
        if self.wait < self.patience:
            return rate
        self.wait = 0
        return rate * self.factor


class Counters(TypedDict):
    """The changing values of a monitor; `best` is None for infinity, which JSON does not have."""

    best: float | None
    wait: int


def counters_of(monitor: EarlyStopping | ReduceLROnPlateau) -> Counters:
    """The counters of a monitor."""
    return {"best": None if monitor.best == float("inf") else monitor.best, "wait": monitor.wait}


def restore_counters(monitor: EarlyStopping | ReduceLROnPlateau, values: Counters) -> None:
    """Sets the counters to what `counters_of` returned."""
    monitor.best = float("inf") if values["best"] is None else float(values["best"])
    monitor.wait = int(values["wait"])
