"""Training in two phases, the head alone and then the backbone with it; stops and resumes at any step."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from emotion.classifier.averaging import StatisticsProbe, WeightAverage, decay_after
from emotion.classifier.batches import Batch, Batches
from emotion.classifier.devices import Devices
from emotion.classifier.network import adapting_batch_norms, freeze_backbone, unfreeze_backbone
from emotion.classifier.plateau import EarlyStopping, ReduceLROnPlateau, counters_of, restore_counters
from emotion.classifier.train_state import BEST_FILE, STATE_FILE, TrainState, assign_all, save_state
from emotion.scores.calibration import cross_entropy
from emotion.scores.measures import confusion_counts, macro_f1
from emotion.settings import Settings
from facevox.errors import UserError

TrainStep = Callable[[Batch, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]

HEAD, FINETUNE = "head", "finetune"
PHASES = (HEAD, FINETUNE)
SAVE_EVERY_S = 600.0  # within an epoch, for machines that die without a signal
STATISTICS_STEPS = 32  # batches for BatchNorm's statistics; 1024 pictures at the default batch
Row = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings that training needs, under their names in lower case, and the folder it saves in.

    Attributes:
        save_dir: Folder of the state and the best weights.
        epochs: Of each phase.
        learning_rates: Of each phase.
    """

    save_dir: Path
    epochs: Mapping[str, int]
    learning_rates: Mapping[str, float]
    weight_decay: float
    freeze_bn_mode: str
    unfreeze_from: float
    ema_decay: float
    early_stopping_patience: int
    reduce_lr_patience: int
    reduce_lr_factor: float
    val_steps: int
    seed: int

    @classmethod
    def of(cls, settings: Settings, save_dir: Path) -> "TrainConfig":
        """The part of all settings."""
        same = (
            *("weight_decay", "freeze_bn_mode", "unfreeze_from", "ema_decay", "early_stopping_patience"),
            *("reduce_lr_patience", "reduce_lr_factor", "val_steps", "seed"),
        )
        return cls(
            save_dir=save_dir,
            epochs={HEAD: settings.epochs_head, FINETUNE: settings.epochs_finetune},
            learning_rates={HEAD: settings.learning_rate_head, FINETUNE: settings.learning_rate_finetune},
            **{name: getattr(settings, name) for name in same},
        )


@dataclass
class Position:
    """Position of a run: phase (index into PHASES), epoch within it, step within that; all from 0.

    Attributes:
        num_updates: Steps in all, over both phases.
        num_epochs: Epochs in all; the order of the pictures depends on it.
        loss_sum: Of the epoch's steps so far.
    """

    phase: int = 0
    epoch: int = 0
    step: int = 0
    num_updates: int = 0
    num_epochs: int = 0
    loss_sum: float = 0.0


class Trainer:
    """Trains a network and keeps the averaged weights of its best epoch.

    Args:
        network: Of `emotion.classifier.network`, made in the scope of the strategy.
        train, validation: Batches of the two parts.
        class_weights: (C,) of the loss.
        config: Of the training.
        devices: Of this run.
        about: JSON-able, saved with the state: settings and data that it belongs to.

    Attributes:
        history: A row for each finished epoch.
        best: The row of the lowest validation loss; {} before the first epoch ends.
    """

    def __init__(
        self,
        network: keras.Model,
        train: Batches,
        validation: Batches,
        class_weights: NDArray[np.float32],
        config: TrainConfig,
        devices: Devices,
        about: dict[str, Any],
    ) -> None:
        self.network, self.config, self.devices, self.about = network, config, devices, about
        self.train, self.validation = train, validation
        self.history: list[Row] = []
        self.best: Row = {}
        self.position = Position()
        self._class_weights = class_weights
        self._early, self._reduce = self._new_monitors()
        self._optimizer: keras.optimizers.Optimizer = None
        self._infer: Callable[[tf.Tensor], tf.Tensor] | None = None
        self._step: TrainStep | None = None
        self._has_heard_stop = False
        self._last_save_s = time.monotonic()
        with devices.strategy.scope():
            self.average = WeightAverage(network)

    # --- the run -----------------------------------------------------------------------------------------

    def run(
        self,
        should_stop: Callable[[], bool],
        on_epoch: Callable[[Row], None],
        on_step: Callable[[int, float], None],
    ) -> bool:
        """Trains from the present position to the end, or until `should_stop`, and saves; true at the end.

        Args:
            should_stop: Asked after each step; the step after which it is true is saved.
            on_epoch: Gets the row of each epoch.
            on_step: Gets the steps of the epoch so far, and the mean loss.

        Raises:
            UserError: A loss or gradient is not finite; the weights have not taken that step.
        """
        while self.position.phase < len(PHASES):
            phase = PHASES[self.position.phase]
            if self.position.epoch >= self.config.epochs[phase]:
                self._next_phase()
                continue
            if self._step is None:
                self._begin_phase(phase)
            if not self._train_epoch(should_stop, on_step):
                self.save()
                return False
            ends_phase = self._end_epoch(phase, on_epoch)
            if ends_phase:
                self._next_phase()
            self.save()
            # One process alone may also stop for a signal that came while it validated.
            is_stopping = self._has_heard_stop or (self.devices.num_workers == 1 and should_stop())
            if is_stopping and self.position.phase < len(PHASES):
                return False
        return True

    def estimate(self, num_steps: int = 3) -> dict[str, float]:
        """Seconds of a step in each phase with epochs, by trying; the weights are of no use afterwards."""
        seconds = {}
        for phase in (phase for phase in PHASES if self.config.epochs[phase]):
            self._begin_phase(phase)
            marks_s = [time.monotonic()]
            assert self._step is not None
            for _, batch in zip(range(num_steps + 1), self.train.training(0, 0), strict=False):
                self._step(batch, tf.constant(0.0), tf.constant(0.0))
                marks_s.append(time.monotonic())
            first = min(1, len(marks_s) - 2)  # the first step traces the graph: it counts where it is alone
            seconds[phase] = (marks_s[-1] - marks_s[first]) / (len(marks_s) - 1 - first)
        return seconds

    def _next_phase(self) -> None:
        self.position.phase += 1
        self.position.epoch = 0
        self._step = self._optimizer = None
        self._early, self._reduce = self._new_monitors()

    def _begin_phase(self, phase: str) -> None:
        """Sets the trainable layers, the optimizer of the phase, and the graph of its step."""
        if phase == HEAD:
            freeze_backbone(self.network)
        else:
            unfreeze_backbone(self.network, self.config.unfreeze_from, self.config.freeze_bn_mode)
        with self.devices.strategy.scope():
            self._optimizer = make_optimizer(self.config.learning_rates[phase], self.config.weight_decay)
            self._optimizer.build(self.network.trainable_variables)
        self._probe = StatisticsProbe(self.network, adapting_batch_norms(self.network), self.devices.strategy)
        self._step = make_step(self.network, self._optimizer, self.average, self._class_weights, self.devices)

    def _train_epoch(self, should_stop: Callable[[], bool], on_step: Callable[[int, float], None]) -> bool:
        """Trains the rest of an epoch; False if it was stopped."""
        position, num_steps = self.position, self.train.num_steps
        self._epoch_start = (time.monotonic(), position.step)
        batches = self.train.training(position.num_epochs, position.step)
        assert self._step is not None
        while position.step < num_steps:
            decay = decay_after(position.num_updates, self.config.ema_decay)
            try:
                loss, num_stopping = self._step(
                    next(batches), tf.constant(decay, tf.float32), tf.constant(float(should_stop()))
                )
            except tf.errors.InvalidArgumentError as error:
                if "not finite" not in str(error):
                    raise
                raise UserError(
                    f"the loss or its gradient is not finite in step {position.num_updates + 1}: lower the "
                    "learning rate; the last state is kept"
                ) from None
            position.step += 1
            position.num_updates += 1
            position.loss_sum += float(loss)
            on_step(position.step, position.loss_sum / position.step)
            # A sum over all processes: all of them stop and save after the same step.
            self._has_heard_stop = float(num_stopping) > 0
            if self._has_heard_stop and position.step < num_steps:
                return False
            if self.devices.num_workers == 1 and time.monotonic() - self._last_save_s > SAVE_EVERY_S:
                self.save()
        return True

    def _end_epoch(self, phase: str, on_epoch: Callable[[Row], None]) -> bool:
        """Validates the averaged weights, keeps the best; true if the phase ends here."""
        position = self.position
        seconds = max(time.monotonic() - self._epoch_start[0], 1e-9)
        num_pictures = (position.step - self._epoch_start[1]) * self.train.config.batch_size
        loss, rate = position.loss_sum / position.step, float(self._optimizer.learning_rate.numpy())
        position.num_epochs += 1
        position.epoch += 1
        position.step, position.loss_sum = 0, 0.0
        with self.average.applied():
            self._probe.update(self.train.plain(STATISTICS_STEPS))
            scores = self.validate()
            row: Row = {
                "epoch": position.num_epochs,
                "phase": float(PHASES.index(phase)),
                "loss": loss,
                **scores,
                "learning_rate": rate,
                "items_per_s": num_pictures / seconds,
            }
            if scores["val_loss"] < self.best.get("val_loss", math.inf):
                self.best = row
                if self.devices.is_main:
                    weights = {v.path: v.numpy() for v in self.network.weights}
                    save_state(
                        self.config.save_dir / BEST_FILE, TrainState({"row": row, **self.about}, weights)
                    )
        self.history.append(row)
        on_epoch(row)
        self._optimizer.learning_rate.assign(self._reduce.next_rate(rate, scores["val_loss"]))
        return self._early.should_stop(scores["val_loss"])

    def validate(self) -> Row:
        """Scores on at most VAL_STEPS batches of validation, always the same, of all classes."""
        rng = np.random.default_rng(self.config.seed)
        order = rng.permutation(len(self.validation.samples))
        order = order[: self.config.val_steps * self.validation.config.batch_size]
        logits, is_read = self.logits(order)
        if not is_read.any():
            raise UserError("DATA_DIR_VAL: none of its pictures can be read")
        labels = self.validation.samples.labels[order][is_read]
        return scores_of(logits[is_read], labels)

    def logits(self, order: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(n, C) logits of the validation pictures `order`, and (n,) whether each could be read."""
        strategy = self.devices.strategy
        if self._infer is None:
            self._infer = tf.function(
                lambda images: strategy.run(lambda x: self.network(x, training=False), args=(images,)),
                reduce_retracing=True,
            )
        logits, weights = [], []
        for images, _, weight in self.validation.in_order(order):
            logits.append(np.asarray(strategy.gather(self._infer(images), axis=0)))
            weights.append(np.asarray(strategy.gather(weight, axis=0)))
        count = len(order)
        return np.concatenate(logits)[:count], np.concatenate(weights)[:count] > 0

    # --- the state ---------------------------------------------------------------------------------------

    def save(self) -> None:
        """Writes the state, whole; in the main process only."""
        self._last_save_s = time.monotonic()
        if not self.devices.is_main:
            return
        state = TrainState(
            {
                **self.about,
                "position": vars(self.position),
                "early_stopping": counters_of(self._early),
                "reduce_lr": counters_of(self._reduce),
                "history": self.history,
                "best": self.best,
                "has_optimizer": self._optimizer is not None,
            }
        )
        state.add("network", {v.path: v.numpy() for v in self.network.weights})
        state.add("random", {str(i): v.numpy() for i, v in enumerate(self._generators())})
        state.add("average", self.average.values())
        if self._optimizer is not None:
            state.add("optimizer", {v.path: v.numpy() for v in self._optimizer.variables})
        save_state(self.config.save_dir / STATE_FILE, state)

    def restore(self, state: TrainState) -> None:
        """Takes the position and all values of a saved state.

        Raises:
            UserError: It is another network's.
        """
        about, what = state.about, str(self.config.save_dir / STATE_FILE)
        self.position = Position(**about["position"])
        self.history, self.best = list(about["history"]), dict(about["best"])
        restore_counters(self._early, about["early_stopping"])
        restore_counters(self._reduce, about["reduce_lr"])
        assign_all(self.network.weights, state.group("network"), what)
        for index, generator in enumerate(self._generators()):
            generator.assign(state.group("random")[str(index)])
        self.average.restore(state.group("average"))
        if about["has_optimizer"]:
            self._begin_phase(PHASES[self.position.phase])
            assign_all(self._optimizer.variables, state.group("optimizer"), what)

    def _generators(self) -> list[keras.Variable]:
        """The state of dropout's random generator; its path has a number that differs between processes."""
        weights = {id(weight) for weight in self.network.weights}
        return [variable for variable in self.network.variables if id(variable) not in weights]

    def _new_monitors(self) -> tuple[EarlyStopping, ReduceLROnPlateau]:
        config = self.config
        return (
            EarlyStopping(config.early_stopping_patience),
            ReduceLROnPlateau(config.reduce_lr_patience, config.reduce_lr_factor),
        )


def make_optimizer(learning_rate: float, weight_decay: float) -> keras.optimizers.Optimizer:
    """AdamW whose decay spares biases and BatchNorm; with a scaled loss under half precision.

    Source: Loshchilov and Hutter (2019), "Decoupled Weight Decay Regularization".
    """
    # Named, because Keras would count the optimizers of a process, and a resumed run has made fewer.
    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay, name="adamw")
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    if keras.mixed_precision.global_policy().name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
    return optimizer


def make_step(
    network: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    average: WeightAverage,
    class_weights: NDArray[np.float32],
    devices: Devices,
) -> TrainStep:
    """A step as one graph: (batch, decay, is_stopping) -> (loss, number of processes that are to stop).

    The loss is the cross-entropy to the targets, weighted by class and averaged over the pictures of all
    replicas. Both loss and gradients are checked before any weight changes.
    """
    strategy = devices.strategy
    num_replicas = strategy.num_replicas_in_sync
    scales_loss = hasattr(optimizer, "inner_optimizer")  # which checks the gradients itself

    def replica_step(batch: Batch, decay: tf.Tensor, is_stopping: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, targets, weights = batch
        weights = weights * tf.linalg.matvec(targets, tf.constant(class_weights))
        variables = network.trainable_variables
        with tf.GradientTape() as tape:
            logits = network(images, training=True)
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            # The optimizer adds the replicas' gradients up.
            loss = tf.reduce_mean(weights * losses) / num_replicas
            scaled = optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, variables)
        finite = tf.math.is_finite(loss)
        if not scales_loss:
            finite = tf.math.logical_and(finite, tf.math.is_finite(tf.linalg.global_norm(gradients)))
        with tf.control_dependencies([tf.debugging.Assert(finite, ["not finite", loss])]):
            optimizer.apply([tf.identity(gradient) for gradient in gradients], variables)
        average.update(decay)
        return loss, tf.identity(is_stopping)

    def step(batch: Batch, decay: tf.Tensor, is_stopping: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        losses, stopping = strategy.run(replica_step, args=(batch, decay, is_stopping))
        sums = [strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None) for value in (losses, stopping)]
        return sums[0], sums[1]

    graph: TrainStep = tf.function(step, reduce_retracing=True)
    return graph


def scores_of(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Row:
    """Mean cross-entropy (nats), accuracy and macro-F1 of (n, C) logits."""
    counts = confusion_counts(labels, logits.argmax(axis=1), logits.shape[1])
    return {
        "val_loss": cross_entropy(logits, labels),
        "val_accuracy": float(np.trace(counts) / max(counts.sum(), 1)),
        "val_macro_f1": float(macro_f1(counts)),
    }
