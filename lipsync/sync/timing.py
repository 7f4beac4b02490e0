"""The timing of a sound on the clock of the pictures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cut:
    """A place in a sound where some of it is missing or too much.

    Attributes:
        at_s: On the clock of the sound's file.
        by_ms: Positive: silence of that length is put there; negative: so much sound from there on is taken
            out.
    """

    at_s: float
    by_ms: float


@dataclass(frozen=True)
class Timing:
    """The timing of a sound; `lipsync.repair.shift.shift_audio` says what the numbers mean.

    Attributes:
        offset_ms: Positive: the audio is early and is delayed.
        drift_ppm: Growth of the offset.
        cuts: Places where it jumps, in the order of their times.
    """

    offset_ms: float
    drift_ppm: float = 0.0
    cuts: tuple[Cut, ...] = ()

    def then(self, rest: Timing) -> Timing | None:
        """This timing followed by what is still missing in its result; None where both are not simple.

        Cuts of `rest` are at times of the result.
        """
        if self.cuts and (rest.cuts or rest.drift_ppm):
            return None
        rate = 1 - self.drift_ppm / 1e6
        cuts = tuple(Cut(cut.at_s * rate - self.offset_ms / 1000, cut.by_ms * rate) for cut in rest.cuts)
        return Timing(
            self.offset_ms + rest.offset_ms * rate,
            1e6 * (1 - rate * (1 - rest.drift_ppm / 1e6)),
            self.cuts or cuts,
        )
