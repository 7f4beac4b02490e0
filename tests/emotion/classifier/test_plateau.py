"""The two monitors, compared with Keras' callbacks of the same names."""

import numpy as np
import pytest

from emotion.classifier.plateau import EarlyStopping, ReduceLROnPlateau, counters_of, restore_counters


class _Stub:
    """What Keras' callbacks touch of a model."""

    def __init__(self, rate: float) -> None:
        import keras

        self.stop_training = False
        self.optimizer = keras.optimizers.SGD(rate)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("patience", [1, 2, 3])
def test_monitors_do_what_keras_callbacks_do(seed: int, patience: int) -> None:
    import keras

    losses = np.random.default_rng(seed).normal(1, 0.3, 30) + np.linspace(0.5, 0, 30)
    model = _Stub(0.1)
    early = keras.callbacks.EarlyStopping("val_loss", patience=patience, mode="min")
    reduce = keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=patience, mode="min")
    for callback in (early, reduce):
        callback.set_model(model)
        callback.on_train_begin()
    ours, rate = EarlyStopping(patience), 0.1
    plateau = ReduceLROnPlateau(patience, 0.5)
    for epoch, loss in enumerate(losses):
        reduce.on_epoch_end(epoch, {"val_loss": float(loss)})
        early.on_epoch_end(epoch, {"val_loss": float(loss)})
        rate = plateau.next_rate(rate, float(loss))
        assert rate == pytest.approx(float(model.optimizer.learning_rate), rel=1e-6)
        stops = ours.should_stop(float(loss))
        assert stops == model.stop_training
        if stops:
            break


def test_counters_survive_json() -> None:
    for monitor in (EarlyStopping(3), ReduceLROnPlateau(3, 0.5)):
        assert counters_of(monitor) == {"best": None, "wait": 0}
        monitor.best, monitor.wait = 0.7, 2
        other = type(monitor)(**{**vars(monitor), "best": float("inf"), "wait": 0})
        restore_counters(other, counters_of(monitor))
        assert other == monitor
