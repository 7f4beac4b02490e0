"""How often something happens, as an option says it. Needs no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Interval:
    """How often something happens: every so many steps, or every so many seconds.

    Attributes:
        steps: 0 when seconds count.
        seconds: 0 when steps count.
    """

    steps: int = 0
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Interval:
        """ "500" (steps), "10m" (minutes), "30s" or "2h".

        Raises:
            ValueError: It is something else, or 0.
        """
        match = re.fullmatch(r"([0-9]+)([smh]?)", text.strip())
        if not match or int(match[1]) == 0:
            raise ValueError(f"{text!r} is neither a number of steps (500) nor a time (30s, 10m, 2h)")
        number, unit = int(match[1]), match[2]
        if not unit:
            return cls(steps=number)
        return cls(seconds=number * {"s": 1.0, "m": 60.0, "h": 3600.0}[unit])

    def __str__(self) -> str:
        """The text that `parse` takes."""
        if self.steps:
            return str(self.steps)
        seconds = round(self.seconds)
        return next(
            (f"{seconds // size}{unit}" for unit, size in (("h", 3600), ("m", 60)) if seconds % size == 0),
            f"{seconds}s",
        )

    def is_due(self, step: int, seconds: float) -> bool:
        """Whether it is time, at `step` and `seconds` after the last time."""
        if self.steps:
            return step % self.steps == 0
        return self.seconds > 0 and seconds >= self.seconds
