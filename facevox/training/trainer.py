"""The training loop of all models here: epochs, checkpoints, signals, resuming, history.

A `TrainingTask` defines a step; this loop decides when steps are taken and when files are written. It ends
in one of these ways: all epochs are done (or patience ran out); a signal came, and `last.pth` holds the state
after the current step; a step was not finite, and did not change the weights.

A run that was stopped, by a signal or by a power cut, resumes from `last.pth` with the same command, also in
the middle of an epoch. On the CPU, with the same processor, threads and number of processes (one or two), its
final weights equal those of an uninterrupted run bit for bit: batches and random crops are functions of
(seed, epoch, index), the learning rate is one of the step, and the state of all random number generators is
saved for each rank. From three processes on they are equal up to rounding: after its first step a process
sorts the gradients into other buckets, and the order in which gloo adds three numbers depends on their
position there.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from facevox.errors import ExitCode, UserError, one_line
from facevox.progress import Progress, duration_text
from facevox.signals import StopFlag
from facevox.training import distributed
from facevox.training.batches import EpochBatches, end_workers
from facevox.training.checkpoint import (
    LAST_FILE,
    checkpoint_to_resume,
    load_checkpoint,
    load_weights,
    named_checkpoint,
    save_checkpoint,
)
from facevox.training.distributed import World
from facevox.training.events import EventWriter, remove_events
from facevox.training.history import write_history
from facevox.training.schedule import Interval, warmup_cosine, warmup_steps
from facevox.training.seeding import RandomState

logger = logging.getLogger(__name__)
FORMAT = 1
EVENTS_DIR = "events"
LOG_EVERY = 10  # steps between two points of the curves in TensorBoard
DONE, STOPPED, NOT_FINITE = "done", "stopped", "not finite"


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """Settings of the training loop.

    Attributes:
        save_dir: Folder of the run.
        folder_option: The option that names it, for messages.
        num_epochs: Total number, including those before the run was resumed.
        learning_rate: Peak learning rate.
        warmup: Share of all steps below 1, number of steps from 1 on.
        clip_norm: Highest norm of the gradient over all parameters; 0: no clipping.
        checkpoint_interval: Interval between two writes of last.pth.
        save_interval: Epochs between two calls of `TrainingTask.save`.
        patience: Epochs without a better value after which training ends; 0: never.
        resume: `auto` (resume where there is a last.pth), `never`, or a checkpoint.
        kind: Kind of training, as the checkpoint names it.
        settings: Values that must be the same when a run resumes, for the result to be the same.
        implied: Values of those settings that checkpoints of older versions do not name.
        events_dir: Folder of TensorBoard's files; None: `events` in `save_dir`.
    """

    save_dir: Path
    num_epochs: int
    learning_rate: float
    warmup: float
    clip_norm: float
    checkpoint_interval: Interval
    save_interval: int
    patience: int = 0
    resume: str = "auto"
    kind: str = "training"
    settings: Mapping[str, object] = field(default_factory=dict)
    implied: Mapping[str, object] = field(default_factory=dict)
    folder_option: str = "--save_dir"
    events_dir: Path | None = None


class ParameterGroup(TypedDict):
    """A parameter group of AdamW; `lr_scale` multiplies the learning rate."""

    params: list[nn.Parameter]
    weight_decay: float
    lr_scale: NotRequired[float]


class TrainingTask:
    """The model and its steps. All methods but `save` are called on every rank, in the same order.

    Attributes:
        model: Its weights are saved in the checkpoint.
        best_by: Name of the value in an epoch's row that determines the best epoch.
        is_best_highest: Whether a higher value is better.
        weight_decay: Weight decay of AdamW, for matrices only.
    """

    model: nn.Module
    best_by: str = "train_loss"
    is_best_highest: bool = False
    weight_decay: float = 0.0

    def parameter_groups(self) -> list[ParameterGroup]:
        """Groups for AdamW, by default without decay of biases, norms, gains and scales.

        `lr_scale` (default 1) multiplies the learning rate of a group.
        """
        parameters = list(self.model.parameters())
        return [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]

    def backward(self, batch: Any) -> Tensor:
        """Adds the gradients of one batch; returns the loss of this rank, a detached scalar.

        The loss is a mean over samples, so that the mean over ranks is that of the whole batch, and the
        gradients are the same on all ranks.
        """
        raise NotImplementedError

    def start_epoch(self) -> None:
        """Puts the model into training mode."""
        self.model.train()

    def after_step(self) -> None:
        """Hook that is called after the weights changed."""

    def validate(self, epoch: int) -> dict[str, float]:
        """Values for the row of this epoch, which takes those of rank 0; must not draw random numbers."""
        return {}

    def save(self, *, is_best: bool) -> None:
        """Writes the model's files after this epoch; called on rank 0 only."""


@dataclass
class _Position:
    """Progress of a run: plain numbers, all of them in the checkpoint."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    best: float | None = None
    best_epoch: int = -1
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """Result of a run.

    Attributes:
        status: DONE, STOPPED or NOT_FINITE.
        message: One line for people.
        history: A row (epoch, values) for each finished epoch.
        best_epoch: Counted from 1; 0: there is none.
        num_steps: Steps of the optimizer, including those of earlier runs.
        num_new_steps: Steps of this run.
    """

    status: str
    message: str
    history: list[dict[str, float]]
    best_epoch: int
    num_steps: int
    num_new_steps: int

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the program."""
        return {DONE: ExitCode.DONE, STOPPED: ExitCode.STOPPED}.get(self.status, ExitCode.SOME_FAILED)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Estimated time and disk space of a training, from a few of its steps.

    Attributes:
        num_epochs: Passes over the training set.
        num_steps: Steps of the optimizer in all epochs.
        step_s: Seconds of a step, including the wait for its batch.
        weights_bytes: Size of the model's weights.
        checkpoint_bytes: Size of last.pth: weights, and two running means of the optimizer for each trained
            parameter.
        exit_code: Exit code of the program, which did what it was asked for.
    """

    num_epochs: int
    num_steps: int
    step_s: float
    weights_bytes: int
    checkpoint_bytes: int
    exit_code: ExitCode = ExitCode.DONE

    def lines(self) -> list[str]:
        """The estimate as text."""
        seconds = self.num_steps * self.step_s
        return [
            f"{self.num_epochs} epochs, {self.num_steps} steps of {self.step_s:.3g} s: about "
            f"{duration_text(seconds)}, and the validation after each epoch",
            f"disk: {_size_text(self.checkpoint_bytes)} for last.pth, as much again while it is replaced, "
            f"{_size_text(self.weights_bytes)} for the weights",
        ]


def _size_text(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.0f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.0f} kB"


class Step(NamedTuple):
    """Result of a step, the same on every rank.

    Attributes:
        loss: Mean over the ranks.
        is_finite: Whether the weights changed.
        is_stopping: Whether a signal came to any rank.
        is_due: Whether a checkpoint is due.
    """

    loss: float
    is_finite: bool
    is_stopping: bool
    is_due: bool


class Trainer:
    """Runs a task's epochs.

    Args:
        task: Model and steps; the model is on the device and wrapped already.
        batches: Batch sampler of the loader; its `start` sets epoch and first batch.
        loader: Yields the batches.
        config: Settings of the loop.
        world: Rank and device of this process.
    """

    def __init__(
        self,
        task: TrainingTask,
        batches: EpochBatches,
        loader: Iterable[object],
        config: TrainerConfig,
        world: World,
    ) -> None:
        self.task, self.batches, self.loader, self.config, self.world = task, batches, loader, config, world
        groups: list[ParameterGroup] = [{"lr_scale": 1.0, **group} for group in task.parameter_groups()]
        self.optimizer = torch.optim.AdamW(
            [dict(group) for group in groups], lr=config.learning_rate, fused=True
        )
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.num_steps = batches.num_batches * config.num_epochs
        self.num_warmup = warmup_steps(config.warmup, self.num_steps)
        self.position = _Position()
        self.history: list[dict[str, float]] = []
        self._stop: StopFlag = StopFlag()
        self._saved_s = self._started_s = self._epoch_s = time.monotonic()
        self._waited_s = 0.0
        self._first_step = 0
        self._began_from = ""  # the checkpoint that --resume named when this run started

    def run(self) -> TrainingResult:
        """Trains to the end, or until it is stopped; inside `run_folder`.

        Raises:
            UserError: The checkpoint in the folder is not of this run.
        """
        with ExitStack() as stack:
            self._restore()
            self._first_step = self.position.step
            if self.position.epoch >= self.config.num_epochs:
                return self._result(DONE)
            self._started_s -= self.position.seconds
            events = None
            if self.world.is_main:
                events_dir = self.config.events_dir or self.config.save_dir / EVENTS_DIR
                if self.position.step == 0:
                    remove_events(events_dir)
                # Values that a stopped run wrote after its checkpoint are written again.
                events = stack.enter_context(EventWriter(events_dir, self.position.step + 1))
            stack.callback(end_workers, self.loader)
            self._stop = stack.enter_context(StopFlag())
            progress = None
            if self.world.is_main:
                remaining = self.num_steps - self.position.step
                progress = stack.enter_context(Progress(remaining, "training", "step"))
            status = DONE
            num_epochs = self.config.num_epochs
            while status == DONE and self.position.epoch < num_epochs and not self._has_converged():
                status = self._run_epoch(events, progress)
            if status == DONE:
                # In this order: once last.pth marks a run as done, everything else has been written.
                self._on_main(lambda: self.task.save(is_best=False))
                self._save_last()
        return self._result(status)

    def estimate(self, num_steps: int = 3) -> Estimate:
        """Measures a few steps; writes nothing, and the weights cannot be used afterwards."""
        self.batches.start(0, 0)
        self.task.start_epoch()
        marks_s = []
        # The first step allocates and compiles; it counts only if there is no other.
        try:
            for _, batch in zip(range(num_steps + 1), self._timed(self.loader), strict=False):
                marks_s.append(time.monotonic())
                self.take_step(batch)
        finally:
            end_workers(self.loader)
        marks_s.append(time.monotonic())
        step_s = (marks_s[-1] - marks_s[min(1, len(marks_s) - 2)]) / max(len(marks_s) - 2, 1)
        weights = sum(tensor.nbytes for tensor in self.task.model.state_dict().values())
        trained = sum(parameter.nbytes for parameter in self.parameters)
        return Estimate(
            num_epochs=self.config.num_epochs,
            num_steps=self.num_steps,
            step_s=step_s,
            weights_bytes=weights,
            checkpoint_bytes=weights + 2 * trained,
        )

    def _result(self, status: str) -> TrainingResult:
        at = self.position
        where = f"step {at.step} of {self.num_steps}, epoch {at.epoch + 1} of {self.config.num_epochs}"
        if status == STOPPED:
            name = self._stop.signal_name or "a signal"
            message = f"stopped by {name} after {where}; run again to continue"
        elif status == NOT_FINITE:
            message = (
                f"the loss or its gradient was not finite after {where}; the weights before it are in "
                f"{LAST_FILE}; start again with --resume never and a lower learning rate, a smaller gradient "
                "clip or full precision"
            )
        elif self._has_converged():
            message = f"no better {self.task.best_by} for {self.config.patience} epochs: ended at {where}"
        else:
            message = f"done: {at.epoch} epochs, {at.step} steps in {duration_text(at.seconds)}"
        return TrainingResult(
            status=status,
            message=message,
            history=self.history,
            best_epoch=at.best_epoch + 1,
            num_steps=at.step,
            num_new_steps=at.step - self._first_step,
        )

    def _run_epoch(self, events: EventWriter | None, progress: Progress | None) -> str:
        at, num_batches = self.position, self.batches.num_batches
        self.batches.start(at.epoch, at.batch)
        self._epoch_s, self._waited_s, first_batch = time.monotonic(), 0.0, at.batch
        self.task.start_epoch()
        for batch in self._timed(self.loader):
            step = self.take_step(batch)
            if not step.is_finite:
                self._save_last()
                return NOT_FINITE
            at.step, at.batch, at.loss_sum = at.step + 1, at.batch + 1, at.loss_sum + step.loss
            if events and (at.step % LOG_EVERY == 0 or at.step == 1):
                events.scalars(
                    {"step/loss": step.loss, "step/learning_rate": self._rate(at.step - 1)}, at.step
                )
            if progress:
                progress.update(
                    1, note=f"epoch {at.epoch + 1}/{self.config.num_epochs}, loss {step.loss:.4f}"
                )
            if step.is_stopping or (step.is_due and at.batch < num_batches):
                self._save_last()
            if step.is_stopping:
                return STOPPED
        self._end_epoch(events, at.batch - first_batch)
        is_due = self.config.checkpoint_interval.is_due(at.step, time.monotonic() - self._saved_s)
        is_stopping = bool(self._stop)
        stopping, due = (distributed.sum_over_ranks([float(is_stopping), float(is_due)]))[:2]
        if (stopping or due) and at.epoch < self.config.num_epochs:
            self._save_last()
            if stopping:
                return STOPPED
        return DONE

    def _timed(self, loader: Iterable[object]) -> Iterable[object]:
        """The batches, with the time that was spent waiting for them."""
        batches = iter(loader)
        while True:
            start_s = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            except UserError as error:  # from a worker its text is a traceback, with the message at the end
                raise UserError(str(error).strip().splitlines()[-1].split("UserError: ", 1)[-1]) from None
            self._waited_s += time.monotonic() - start_s
            yield batch

    def take_step(self, batch: object) -> Step:
        """Trains on one batch; if its loss or gradient is not finite, the weights do not change."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(self.position.step) * group["lr_scale"]
        loss = self.task.backward(batch)
        limit = self.config.clip_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self.parameters, limit)
        values = torch.stack([loss.double(), norm.to(loss.device).double()]).tolist()
        interval = self.config.checkpoint_interval
        is_due = interval.is_due(self.position.step + 1, time.monotonic() - self._saved_s)
        # One small reduction: every rank must take the same decisions at the same step.
        total, bad, stop, due = distributed.sum_over_ranks(
            [
                values[0] if math.isfinite(values[0]) else 0.0,
                float(not all(map(math.isfinite, values))),
                float(bool(self._stop)),
                float(is_due),
            ]
        )
        if bad:
            self.optimizer.zero_grad(set_to_none=True)
            return Step(math.nan, is_finite=False, is_stopping=False, is_due=False)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.task.after_step()
        return Step(total / self.world.size, is_finite=True, is_stopping=stop > 0, is_due=due > 0)

    def _rate(self, step: int) -> float:
        return self.config.learning_rate * warmup_cosine(step, self.num_steps, self.num_warmup)

    def _end_epoch(self, events: EventWriter | None, num_batches: int) -> None:
        at = self.position
        seconds = max(time.monotonic() - self._epoch_s, 1e-9)
        row = {
            "epoch": at.epoch + 1,
            "step": at.step,
            "train_loss": at.loss_sum / self.batches.num_batches,
            "learning_rate": self._rate(at.step - 1),
            "items_per_s": num_batches * self.batches.batch_size * self.world.size / seconds,
            "data_wait_share": min(self._waited_s / seconds, 1.0),
        }
        self.task.model.eval()
        # Another rank may round differently, and all of them must have the same best epoch.
        row |= distributed.gather_objects(self.task.validate(at.epoch))[0]
        value = row[self.task.best_by]
        sign = 1.0 if self.task.is_best_highest else -1.0
        # Without a finite value so far, the latest epoch is the best: there always is a best model.
        is_best = at.best is None or (math.isfinite(value) and sign * value > sign * at.best)
        if is_best:
            at.best, at.best_epoch = value if math.isfinite(value) else None, at.epoch
        self.history.append(row)
        if events:
            # By steps, as the other curves: TensorBoard drops by step the values that a resumed run repeats.
            events.scalars({f"epoch/{name}": value for name, value in row.items() if name != "step"}, at.step)
        at.epoch, at.batch, at.loss_sum = at.epoch + 1, 0, 0.0
        is_last = at.epoch == self.config.num_epochs
        if self.world.is_main:
            write_history(self.config.save_dir, self.history)
            values = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "epoch")
            best = ", the best so far" if is_best else ""
            logger.debug(f"epoch {at.epoch} of {self.config.num_epochs}: {values}{best}")
        if is_best:
            self._on_main(lambda: self.task.save(is_best=True))
        if at.epoch % self.config.save_interval == 0 and not is_last:
            self._on_main(lambda: self.task.save(is_best=False))

    def _has_converged(self) -> bool:
        at = self.position
        return 0 < self.config.patience < at.epoch - at.best_epoch and at.best is not None

    def _on_main(self, action: Callable[[], object]) -> None:
        if self.world.is_main:
            action()

    # --- the checkpoint -----------------------------------------------------------------------------------

    def _save_last(self) -> None:
        """Writes last.pth: the whole state that resuming needs."""
        self.position.seconds = time.monotonic() - self._started_s
        randoms = distributed.gather_objects(RandomState().to_plain())
        self._saved_s = time.monotonic()
        if self.world.is_main:
            save_checkpoint(
                self.config.save_dir / LAST_FILE,
                {
                    "format": FORMAT,
                    "kind": self.config.kind,
                    "settings": self.config.settings,
                    "num_steps": self.num_steps,
                    "num_batches": self.batches.num_batches,
                    "model": self.task.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "num_optimized": len(self.optimizer.state),
                    "position": vars(self.position),
                    "history": self.history,
                    "random": randoms,
                    "began_from": self._began_from,
                },
            )
            write_history(self.config.save_dir, self.history)

    def _restore(self) -> None:
        resume, save_dir = self.config.resume, self.config.save_dir
        if resume == "never":
            # Otherwise, if stopped before its first checkpoint, the next start would resume the former run.
            self._on_main(lambda: (save_dir / LAST_FILE).unlink(missing_ok=True))
        file = checkpoint_to_resume(save_dir, resume)
        if file is None:
            return
        content = load_checkpoint(file)
        try:
            self._check(content, file)
            load_weights(self.task.model, content["model"], file)
            self.optimizer.load_state_dict(content["optimizer"])
            self.position, self.history = _Position(**content["position"]), list(content["history"])
            self._check_completeness(content)
            if len(content["random"]) == self.world.size:
                RandomState.from_plain(content["random"][self.world.rank]).restore()
        except UserError:
            raise
        except Exception as error:  # of another shape than expected, anything may be raised
            raise UserError(
                f"{file}: not the whole state of a run ({one_line(error)}); give another file, or --resume "
                "never to start again"
            ) from None
        self._began_from = named_checkpoint(resume) or content.get("began_from", "")
        at = self.position
        if len(content["random"]) != self.world.size and self.world.is_main:
            logger.info(
                f"{file}: from a run of {len(content['random'])} processes, now {self.world.size}: continues "
                "with other random numbers, so the result is not bit for bit that of one run"
            )
        # Another number of processes divides an epoch into another number of batches: continue at the same
        # share of the epoch, with the mean loss so far.
        num_before = content["num_batches"]
        if num_before != self.batches.num_batches:
            num_done = at.batch * self.batches.num_batches // num_before
            at.loss_sum *= num_done / max(at.batch, 1)
            at.batch = num_done
            at.step = at.epoch * self.batches.num_batches + at.batch
        if self.world.is_main and at.epoch >= self.config.num_epochs:
            logger.info(f"resuming from {file}: all {at.epoch} epochs are done already")
        elif self.world.is_main:
            logger.info(f"resuming from {file}: epoch {at.epoch + 1}, step {at.step} of {self.num_steps}")
            if content["num_steps"] != num_before * self.config.num_epochs:
                logger.info(
                    f"--num_epochs changed ({content['num_steps']} steps before): the schedule is stretched"
                )

    def _check_completeness(self, content: Mapping[str, Any]) -> None:
        """Compares the parts of a state, just loaded, with each other and with this run.

        Raises:
            ValueError: One lacks something.
        """
        at, num_batches = self.position, content["num_batches"]
        if len(content["random"]) == self.world.size and num_batches != self.batches.num_batches:
            raise ValueError(f"{num_batches} batches an epoch; this run has {self.batches.num_batches}")
        if not content["random"] or content["num_steps"] % num_batches:
            raise ValueError("without a process, or with a part of an epoch")
        if at.step != at.epoch * num_batches + at.batch or not 0 <= at.batch <= num_batches:
            raise ValueError(f"step {at.step} in epoch {at.epoch + 1}, batch {at.batch} of {num_batches}")
        if len(self.history) != at.epoch or not math.isfinite(at.seconds + at.loss_sum):
            raise ValueError(f"{len(self.history)} rows of history after {at.epoch} epochs, {at.seconds} s")
        rows = [{**vars(at), "best": 0 if at.best is None else at.best}, *self.history]
        if not all(isinstance(value, int | float) for row in rows for value in row.values()):
            raise ValueError("values that are no numbers")
        # A parameter that no loss depends on has none, so the number is in the file.
        states = self.optimizer.state
        num_expected = content.get("num_optimized", max(len(states), 1)) if at.step else 0
        if len(states) != num_expected:
            raise ValueError(f"the optimizer's state of {len(states)} parameters of {num_expected}")
        for parameter, state in states.items():
            shapes = [state[name].shape for name in ("exp_avg", "exp_avg_sq")]
            if "step" not in state or shapes != 2 * [parameter.shape]:
                raise ValueError("an optimizer's state of another size")

    def _check(self, content: Mapping[str, Any], file: Path) -> None:
        if content.get("kind") != self.config.kind:
            raise UserError(f"{file}: a checkpoint of {content.get('kind', 'something else')!r}, not of this")
        if content.get("format") != FORMAT:
            raise UserError(f"{file}: of format {content.get('format')}; this program reads {FORMAT}")
        before = {**self.config.implied, **content["settings"]}
        now = {**self.config.implied, **self.config.settings}
        changed = [
            f"{name} {before.get(name)!r} → {now.get(name)!r}"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]
        if changed:
            raise UserError(
                f"{file}: the run there had other settings ({', '.join(changed)}); use the same, another "
                f"{self.config.folder_option}, or --resume never to start again"
            )
