"""Schedules: the learning rate as a function of the step alone, so that resuming needs nothing but the step,
and intervals between repeated work. Needs no torch.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from facevox.errors import UserError


def warmup_steps(warmup: float, num_steps: int) -> int:
    """Number of warm-up steps: `warmup` below 1 is a share of all steps, from 1 on a number of steps.

    Raises:
        UserError: It is negative, or above 1 and not whole.
    """
    if warmup < 0 or not math.isfinite(warmup) or (warmup > 1 and warmup != int(warmup)):
        raise UserError(
            f"--warmup is {warmup:g}: it should be a share of all steps (below 1) or a whole number of steps"
        )
    return round(warmup * num_steps) if warmup < 1 else int(warmup)


def warmup_cosine(step: int, num_steps: int, num_warmup: int) -> float:
    """The share of the full learning rate at `step` (from 0): a linear rise, then half a cosine to 0.

    Source: Loshchilov and Hutter, "SGDR" (2017), eq. 5 without restarts; the warm-up after Goyal et al.,
    "Accurate, Large Minibatch SGD" (2017), section 2.2.
    """
    if step < num_warmup:
        return (step + 1) / num_warmup
    rest = max(num_steps - num_warmup, 1)
    return 0.5 * (1.0 + math.cos(math.pi * min((step - num_warmup) / rest, 1.0)))


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An interval between repeated work, in steps or in seconds.

    Attributes:
        steps: 0 for an interval in seconds.
        seconds: 0 for an interval in steps.
    """

    steps: int = 0
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Reads "500" (steps), "10m" (minutes), "30s" or "2h".

        Raises:
            ValueError: It is none of these, or 0.
        """
        match = re.fullmatch(r"([0-9]+)([smh]?)", text.strip())
        if not match or int(match[1]) == 0:
            raise ValueError(f"{text!r} is neither a number of steps (500) nor a time (30s, 10m, 2h)")
        number, unit = int(match[1]), match[2]
        if not unit:
            return cls(steps=number)
        return cls(seconds=number * {"s": 1.0, "m": 60.0, "h": 3600.0}[unit])

    def __str__(self) -> str:
        """The text from which `parse` makes this interval."""
        if self.steps:
            return str(self.steps)
        seconds = round(self.seconds)
        return next(
            (f"{seconds // size}{unit}" for unit, size in (("h", 3600), ("m", 60)) if seconds % size == 0),
            f"{seconds}s",
        )

    def is_due(self, step: int, seconds: float) -> bool:
        """True if the work is due at `step`, `seconds` after the last time."""
        if self.steps:
            return step % self.steps == 0
        return self.seconds > 0 and seconds >= self.seconds
