"""What a training would take: time and disk, told before it begins."""

from dataclasses import dataclass

from facevox.progress import duration_text


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a training would take, from a few of its steps.

    Attributes:
        num_epochs: Passes over the training set.
        num_steps: Steps of the optimizer in all of them.
        step_s: Seconds of one, waiting for its batch included.
        weights_bytes: Of the model.
        checkpoint_bytes: Of last.pth: weights, and two running means of the optimizer for what is trained.
        status: As of a training that is done.
    """

    num_epochs: int
    num_steps: int
    step_s: float
    weights_bytes: int
    checkpoint_bytes: int
    status: str = "done"  # trainer.DONE

    def lines(self) -> list[str]:
        """For people."""
        seconds = self.num_steps * self.step_s
        return [
            f"{self.num_epochs} epochs, {self.num_steps} steps of {self.step_s:.3g} s: about "
            f"{duration_text(seconds)}, and the validation after each epoch",
            f"disk: {_size_text(self.checkpoint_bytes)} for last.pth, as much again while it is replaced, "
            f"{_size_text(self.weights_bytes)} for the weights",
        ]


def _size_text(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.0f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.0f} kB"
