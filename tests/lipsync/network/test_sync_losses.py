"""The contrast over time against a slow loop, and what is left out of it."""

import math

import numpy as np
import pytest
import torch

from lipsync.network import losses
from lipsync.network.losses import MAX_LAG_ROWS, Stretch, contrast_over_time

MARGIN = MAX_LAG_ROWS + 3
NUM_FRAMES, NUM_CLIPS, NUM_VALUES = 14, 3, 4


def make_stretch(seed: int = 0, **masks: torch.Tensor) -> Stretch:
    generator = torch.Generator().manual_seed(seed)
    num_rows = 4 * NUM_FRAMES + 2 * MARGIN
    face = torch.randn(NUM_CLIPS, NUM_FRAMES, NUM_VALUES, generator=generator, dtype=torch.float64)
    sound = torch.randn(NUM_CLIPS, num_rows, NUM_VALUES, generator=generator, dtype=torch.float64)
    everything = {
        "is_measured_BT": torch.ones(NUM_CLIPS, NUM_FRAMES, dtype=torch.bool),
        "is_heard_BR": torch.ones(NUM_CLIPS, num_rows, dtype=torch.bool),
        "is_voiced_BR": torch.ones(NUM_CLIPS, num_rows, dtype=torch.bool),
    } | masks
    return Stretch(
        torch.nn.functional.normalize(face, dim=2),
        torch.nn.functional.normalize(sound, dim=2),
        everything["is_measured_BT"],
        everything["is_heard_BR"],
        everything["is_voiced_BR"],
        MARGIN,
    )


def slow_choice(
    logits: dict[int, float], weights: dict[int, float], counts: set[int], bias: float
) -> float | None:
    """Cross entropy by hand: lags to logits, right lags to weights, lags that count."""
    usable = {lag: value for lag, value in logits.items() if lag in counts}
    if not any(lag not in weights for lag in usable) or 0 not in usable:
        return None
    total = math.log(sum(map(math.exp, usable.values())) + math.exp(bias))
    right = {lag: weight for lag, weight in weights.items() if lag in usable}
    norm = sum(right.values())
    return -sum(weight / norm * (usable[lag] - total) for lag, weight in right.items())


def slow_loss(stretch: Stretch, log_scale: float, bias: float, length: int) -> float:
    """The loss for one length of stretch, loop by loop."""
    face, sound = stretch.face_BTD.numpy(), stretch.sound_BRD.numpy()
    measured, heard = stretch.is_measured_BT.numpy(), stretch.is_heard_BR.numpy()
    voiced = stretch.is_voiced_BR.numpy()
    own, foreign, back = [], [], []
    sharp = math.exp(log_scale) * math.sqrt(length)
    fine = {lag: math.exp(-0.5 * (lag / 2) ** 2) for lag in range(-4, 5)}
    fine_counts = {lag for lag in range(-MAX_LAG_ROWS, MAX_LAG_ROWS + 1) if abs(lag) <= 4 or abs(lag) >= 12}
    coarse = {step: math.exp(-0.5 * (4 * step / 2) ** 2) for step in (-1, 0, 1)}
    coarse_counts = {step for step in range(-15, 16) if abs(step) <= 1 or abs(step) >= 3}

    def mean(pairs: list[tuple[float, bool]]) -> float | None:
        kept = [value for value, is_usable in pairs if is_usable]
        return sharp * float(np.mean(kept)) if len(kept) / len(pairs) >= losses.MIN_USABLE - 1e-6 else None

    for clip in range(NUM_CLIPS):
        other = (clip - 1) % NUM_CLIPS
        for first in range(0, NUM_FRAMES - length + 1, max(length // 3, 1)):
            frames = range(first, first + length)
            if np.mean([voiced[clip, MARGIN + 4 * t] for t in frames]) < losses.MIN_VOICED - 1e-6:
                continue
            for whose, into in ((clip, own), (other, foreign)):
                logits = {}
                for lag in range(-MAX_LAG_ROWS, MAX_LAG_ROWS + 1):
                    pairs = []
                    for t in frames:
                        row = MARGIN + 4 * t - lag
                        is_usable = bool(measured[clip, t] and heard[whose, row])
                        pairs.append((float(face[clip, t] @ sound[whose, row]), is_usable))
                    if (found := mean(pairs)) is not None:
                        logits[lag] = found
                if into is own:
                    loss = slow_choice(logits, fine, fine_counts, bias)
                elif logits:
                    loss = math.log(sum(map(math.exp, logits.values())) + math.exp(bias)) - bias
                else:
                    loss = None
                if loss is not None:
                    into.append(loss)
            logits = {}
            for step in range(-15, 16):
                pairs = []
                for t in frames:
                    row, moved = MARGIN + 4 * t, t + step
                    is_usable = 0 <= moved < NUM_FRAMES and bool(measured[clip, moved] and heard[clip, row])
                    value = float(face[clip, moved] @ sound[clip, row]) if is_usable else 0.0
                    pairs.append((value, is_usable))
                if (found := mean(pairs)) is not None:
                    logits[step] = found
            loss = slow_choice(logits, coarse, coarse_counts, bias)
            if loss is not None:
                back.append(loss)
    means = [float(np.mean(part)) if part else 0.0 for part in (own, foreign, back)]
    return (means[0] + losses.FOREIGN_WEIGHT * means[1] + means[2]) / (2 + losses.FOREIGN_WEIGHT)


def random_mask(seed: int, shape: tuple[int, ...], share: float) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


NUM_ROWS = 4 * NUM_FRAMES + 2 * MARGIN


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("is_masked", [False, True])
def test_loss_is_that_of_a_slow_loop(seed: int, is_masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "STRETCHES", (3,))
    masks = {}
    if is_masked:
        masks = {
            "is_measured_BT": random_mask(seed, (NUM_CLIPS, NUM_FRAMES), 0.9),
            "is_heard_BR": random_mask(seed + 5, (NUM_CLIPS, NUM_ROWS), 0.9),
            "is_voiced_BR": random_mask(seed + 9, (NUM_CLIPS, NUM_ROWS), 0.4),
        }
    stretch = make_stretch(seed, **masks)
    log_scale, bias = torch.tensor(1.1, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    found = contrast_over_time(stretch, log_scale, bias)
    assert float(found) == pytest.approx(slow_loss(stretch, 1.1, 0.4, 3), rel=1e-6)  # weights are float32


def test_several_lengths_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    stretch = make_stretch()
    scale, bias = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    parts = []
    for lengths in ((3,), (5,), (3, 5), (3, 5, 50)):  # 50 is longer than what is there
        monkeypatch.setattr(losses, "STRETCHES", lengths)
        parts.append(float(contrast_over_time(stretch, scale, bias)))
    assert parts[2] == pytest.approx((parts[0] + parts[1]) / 2)
    assert parts[3] == pytest.approx(parts[2])


def test_lags_next_to_the_right_one_are_neither_right_nor_wrong() -> None:
    """Sound 2 frames away may be as like as it wants."""
    weights, counts = losses.right_answers(MAX_LAG_ROWS, 1, torch.device("cpu"))
    lags = torch.arange(-MAX_LAG_ROWS, MAX_LAG_ROWS + 1)
    assert weights.sum() == pytest.approx(1.0)
    assert set(lags[weights > 0].tolist()) == set(range(-4, 5))
    assert set(lags[~counts].tolist()) == {lag for lag in range(-11, 12) if abs(lag) > 4}


def test_gradients_are_finite_and_silence_gives_none() -> None:
    silent = torch.zeros(NUM_CLIPS, NUM_ROWS, dtype=torch.bool)
    for masks, is_moved in (({}, True), ({"is_voiced_BR": silent}, False), ({"is_heard_BR": silent}, False)):
        stretch = make_stretch(**masks)
        leaf = stretch.face_BTD.clone().requires_grad_()
        scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        loss = contrast_over_time(
            Stretch(leaf, *list(vars(stretch).values())[1:]), scale, torch.tensor(0.0, dtype=torch.float64)
        )
        loss.backward()
        assert torch.isfinite(leaf.grad).all()
        assert bool((leaf.grad != 0).any()) == is_moved
