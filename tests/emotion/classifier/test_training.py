"""The two phases, stopping and going on, the best epoch; on a network of one convolution."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from small_emotion_training import NO_MIXING, make_trainer, run_all, write_crops

from emotion.classifier.averaging import averaged_weights
from emotion.classifier.train_state import assign_all, load_state
from emotion.classifier.trainer import BEST_FILE, FINETUNE, HEAD, STATE_FILE
from facevox.errors import UserError


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_crops(tmp_path_factory.mktemp("crops"))


def test_learns_what_the_pictures_show(crops: Path, tmp_path: Path) -> None:
    trainer = make_trainer(crops, tmp_path, NO_MIXING, epochs={HEAD: 0, FINETUNE: 8}, ema_decay=0.5)
    assert run_all(trainer)
    assert trainer.best["val_macro_f1"] > 0.9
    assert trainer.history[-1]["loss"] < trainer.history[0]["loss"]


def test_stopped_run_that_goes_on_ends_with_the_same_weights(crops: Path, tmp_path: Path) -> None:
    whole = make_trainer(crops, tmp_path / "whole")
    assert run_all(whole)
    # In the head phase within an epoch; at the end of its first epoch; in fine-tuning; to the end.
    for stop_after in (2, 1, 5, None):
        trainer = make_trainer(crops, tmp_path / "parts")
        state = load_state(tmp_path / "parts" / STATE_FILE)
        if state is not None:
            trainer.restore(state)
        has_ended = run_all(trainer, stop_after)
        assert has_ended == (stop_after is None)
    assert [row["epoch"] for row in trainer.history] == [1, 2, 3, 4]
    for name in ("loss", "val_loss", "learning_rate", "phase"):
        expected = [row[name] for row in whole.history]
        np.testing.assert_allclose([row[name] for row in trainer.history], expected, rtol=1e-5)
    for one, other in zip(trainer.network.variables, whole.network.variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-6, err_msg=one.path)
    averages = whole.average.values()
    for path, value in trainer.average.values().items():
        np.testing.assert_allclose(value, averages[path], rtol=1e-4, atol=1e-6, err_msg=path)


def test_stop_during_the_first_epoch_saves_its_step(crops: Path, tmp_path: Path) -> None:
    trainer = make_trainer(crops, tmp_path)
    assert not run_all(trainer, stop_after=2)
    state = load_state(tmp_path / STATE_FILE)
    assert state is not None
    assert state.about["position"]["step"] == 2
    assert state.about["position"]["num_epochs"] == 0
    assert not (tmp_path / BEST_FILE).exists()


def test_head_phase_leaves_the_backbone_alone_and_finetuning_changes_it(crops: Path, tmp_path: Path) -> None:
    trainer = make_trainer(crops, tmp_path, epochs={HEAD: 1, FINETUNE: 1})
    layer = trainer.network.get_layer("conv")
    before = layer.get_weights()[0]
    statistics = trainer.network.get_layer("conv_bn").moving_mean.numpy()
    run_all(trainer, stop_after=5)  # the head's epoch, and two steps of fine-tuning after it
    trainer = make_trainer(crops, tmp_path / "head", epochs={HEAD: 1, FINETUNE: 0})
    run_all(trainer)
    np.testing.assert_array_equal(trainer.network.get_layer("conv").get_weights()[0], before)
    np.testing.assert_array_equal(trainer.network.get_layer("conv_bn").moving_mean.numpy(), statistics)
    assert np.abs(layer.get_weights()[0] - before).max() > 0


def test_average_goes_on_over_the_change_of_phase(crops: Path, tmp_path: Path) -> None:
    """Held against a slow average over the weights after each step."""
    trainer = make_trainer(crops, tmp_path)
    weights = averaged_weights(trainer.network)
    slow = [w.numpy().astype(np.float64) for w in weights]
    steps = 0

    def follow(step: int, loss: float) -> None:
        nonlocal steps
        decay = min(0.9, (1 + steps) / (10 + steps))
        for place, weight in enumerate(weights):
            slow[place] = decay * slow[place] + (1 - decay) * weight.numpy()
        steps += 1

    assert trainer.run(lambda: False, lambda row: None, follow)
    assert steps == 12
    values = trainer.average.values()
    for weight, expected in zip(weights, slow, strict=True):
        np.testing.assert_allclose(values[weight.path], expected, rtol=1e-4, atol=1e-5)


def test_best_file_holds_the_epoch_of_the_lowest_loss_with_its_statistics(
    crops: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(crops, tmp_path, epochs={HEAD: 0, FINETUNE: 3})
    run_all(trainer)
    lowest = min(trainer.history, key=lambda row: row["val_loss"])
    best = load_state(tmp_path / BEST_FILE)
    assert best is not None
    assert best.about["row"]["epoch"] == lowest["epoch"]
    assign_all(trainer.network.weights, best.arrays, "best")
    assert trainer.validate()["val_loss"] == pytest.approx(lowest["val_loss"], rel=1e-5)


def test_early_stopping_ends_the_phase_and_the_next_begins(crops: Path, tmp_path: Path) -> None:
    trainer = make_trainer(
        crops, tmp_path, epochs={HEAD: 30, FINETUNE: 1}, early_stopping_patience=1, ema_decay=0.0,
        learning_rates={HEAD: 1.0, FINETUNE: 0.001},
    )  # fmt: skip
    assert run_all(trainer)
    phases = [row["phase"] for row in trainer.history]
    assert phases[-1] == 1
    assert 1 < phases.count(0) < 30
    losses = [row["val_loss"] for row in trainer.history if row["phase"] == 0]
    assert losses[-1] >= min(losses[:-1])


@pytest.mark.slow
def test_learning_rate_falls_when_the_loss_does_not(crops: Path, tmp_path: Path) -> None:
    trainer = make_trainer(
        crops, tmp_path, epochs={HEAD: 8, FINETUNE: 0}, ema_decay=0.0,
        learning_rates={HEAD: 1.0, FINETUNE: 0.1},
    )  # fmt: skip
    run_all(trainer)
    rates = [row["learning_rate"] for row in trainer.history]
    assert rates[-1] < rates[0]
    assert all(after / before in (1.0, 0.5) for before, after in itertools.pairwise(rates))


def test_step_that_is_not_finite_ends_training_with_the_weights_as_they_were(
    crops: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(crops, tmp_path, epochs={HEAD: 0, FINETUNE: 1})
    kernel = trainer.network.get_layer("logits").kernel
    kernel.assign(np.full(kernel.shape, 3e38))
    before = [w.numpy() for w in trainer.network.trainable_weights]
    with pytest.raises(UserError, match="not finite in step 1"):
        run_all(trainer)
    for weight, value in zip(trainer.network.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def test_state_of_another_network_is_refused(crops: Path, tmp_path: Path) -> None:
    trainer = make_trainer(crops, tmp_path)
    run_all(trainer, stop_after=1)
    state = load_state(tmp_path / STATE_FILE)
    assert state is not None
    state.arrays["network:other/kernel"] = state.arrays.pop("network:conv/kernel")
    with pytest.raises(UserError, match="not of this network"):
        make_trainer(crops, tmp_path).restore(state)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x05\x06" + bytes(18)])
def test_other_file_in_place_of_a_state_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_bytes(content)
    with pytest.raises(UserError, match="--overwrite"):
        load_state(tmp_path / STATE_FILE)


def test_picture_that_breaks_is_left_out_and_named(tmp_path: Path) -> None:
    crops = write_crops(tmp_path / "crops")
    broken = sorted((crops / "train" / "red").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:300])
    trainer = make_trainer(crops, tmp_path / "run", epochs={HEAD: 1, FINETUNE: 0})
    assert run_all(trainer)
    assert list(trainer.train.unreadable) == [f"train/red/{broken.name}"]


def test_validation_without_a_readable_picture_ends_in_one_line(tmp_path: Path) -> None:
    crops = write_crops(tmp_path / "crops")
    for file in (crops / "validation").rglob("*.jpg"):
        file.write_bytes(b"no picture")
    trainer = make_trainer(crops, tmp_path / "run", epochs={HEAD: 1, FINETUNE: 0})
    with pytest.raises(UserError, match="DATA_DIR_VAL: none of its pictures can be read"):
        run_all(trainer)
