"""Random numbers that can be repeated."""

from pathlib import Path

import numpy as np
import torch
from small_training import next_draws

from facevox.training.checkpoint import load_checkpoint, save_checkpoint
from facevox.training.seeding import RandomState, seed_everything


def test_the_same_seed_gives_the_same_numbers_of_all_generators() -> None:
    found = []
    for seed in (3, 3, 4):
        seed_everything(seed)
        found.append(next_draws())
    assert found[0] == found[1]
    assert all(a != b for a, b in zip(found[0], found[2], strict=True))


def test_a_seed_beyond_numpys_range_is_taken() -> None:
    seed_everything(2**32 + 3)
    assert len(set(next_draws())) == 3


def test_a_state_that_went_through_a_checkpoint_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    seed_everything(1)
    np.random.standard_normal()  # noqa: NPY002 - leaves a second normal number waiting in the state
    torch.randn(3)
    save_checkpoint(tmp_path / "state.pth", {"random": RandomState().to_plain()})
    expected = (float(np.random.standard_normal()), *next_draws())  # noqa: NPY002
    seed_everything(2)
    next_draws()
    RandomState.from_plain(load_checkpoint(tmp_path / "state.pth")["random"]).restore()
    assert (float(np.random.standard_normal()), *next_draws()) == expected  # noqa: NPY002


def test_taking_a_state_changes_nothing() -> None:
    seed_everything(1)
    expected = next_draws()
    seed_everything(1)
    RandomState().to_plain()
    assert next_draws() == expected
