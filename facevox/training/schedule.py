"""The learning rate as a function of the step alone, so that resuming needs nothing but the step."""

import math

from facevox.errors import UserError


def warmup_steps(warmup: float, num_steps: int) -> int:
    """Steps of warm-up: `warmup` below 1 is a share of all steps, from 1 on a number of them.

    Raises:
        UserError: It is negative, or above 1 and not whole.
    """
    if warmup < 0 or not math.isfinite(warmup) or (warmup > 1 and warmup != int(warmup)):
        raise UserError(
            f"--warmup is {warmup:g}: it should be a share of all steps (below 1) or a whole number of steps"
        )
    return round(warmup * num_steps) if warmup < 1 else int(warmup)


def warmup_cosine(step: int, num_steps: int, num_warmup: int) -> float:
    """The share of the full learning rate at `step` (from 0): a straight line up, then half a cosine to 0.

    Source: Loshchilov and Hutter, "SGDR" (2017), eq. 5 without restarts; the warm-up after Goyal et al.,
    "Accurate, Large Minibatch SGD" (2017), section 2.2.
    """
    if step < num_warmup:
        return (step + 1) / num_warmup
    rest = max(num_steps - num_warmup, 1)
    return 0.5 * (1.0 + math.cos(math.pi * min((step - num_warmup) / rest, 1.0)))
