"""The training loop: resuming to the bit, signals, steps that are not finite, what is written when."""

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gloo_processes import run_ranks
from small_training import assert_same, copy_of, next_draws, plain_rows, read_scalars
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from facevox.errors import ExitCode, UserError
from facevox.training.batches import EpochBatches, make_loader
from facevox.training.checkpoint import load_checkpoint
from facevox.training.distributed import World
from facevox.training.run_folder import run_folder
from facevox.training.schedule import Interval, warmup_cosine
from facevox.training.seeding import seed_everything
from facevox.training.trainer import (
    DONE,
    NOT_FINITE,
    STOPPED,
    Trainer,
    TrainerConfig,
    TrainingResult,
    TrainingTask,
)

NUM_ITEMS, BATCH = 11, 3  # three batches an epoch, two items left out
NUM_EPOCHS = 4
NUM_STEPS = NUM_EPOCHS * (NUM_ITEMS // BATCH)
ONE = World(device=torch.device("cpu"))
pytestmark = pytest.mark.usefixtures("one_thread")


class Points(Dataset[Tensor]):
    """Items that differ by epoch, as random crops do."""

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * key[0] + key[1])
        return torch.randn(4, generator=generator)


class SmallTask(TrainingTask):
    """A net with dropout and a normalisation that keeps state; hooks let tests meddle with single steps."""

    def __init__(self, dropout: float = 0.3) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.BatchNorm1d(4), nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1)
        )
        self.forward: nn.Module = self.model
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self.spoil: Callable[[Tensor], Tensor] = lambda loss: loss
        self.values: list[float] = []
        self.saved: list[tuple[bool, dict[str, Tensor]]] = []
        self.rates: list[list[float]] = []
        self.trainer: Trainer | None = None

    def parameter_groups(self) -> list[dict[str, Any]]:
        norm, first, *_, last = self.model.children()
        return [
            {"params": [*norm.parameters(), *first.parameters()], "lr_scale": 0.5, "weight_decay": 0.1},
            {"params": list(last.parameters()), "weight_decay": 0.0},
        ]

    def backward(self, batch: Tensor) -> Tensor:
        self.before()
        assert self.model.training
        loss = self.spoil(((self.forward(batch)[:, 0] - batch.sum(1)) ** 2).mean())
        loss.backward()
        return loss.detach()

    def after_step(self) -> None:
        assert self.trainer is not None
        self.rates.append([group["lr"] for group in self.trainer.optimizer.param_groups])
        self.after()

    def validate(self, epoch: int) -> dict[str, float]:
        assert not self.model.training
        return {"value": self.values[epoch] if epoch < len(self.values) else float(epoch % 3)}

    def save(self, *, is_best: bool) -> None:
        self.saved.append((is_best, copy_of(self.model)))


def make_trainer(
    save_dir: Path, task: SmallTask, *, world: World = ONE, batch_size: int = BATCH, **changes: Any
) -> Trainer:
    options: dict[str, Any] = {
        "save_dir": save_dir,
        "num_epochs": NUM_EPOCHS,
        "learning_rate": 0.01,
        "warmup": 2.0,
        "clip_norm": 1.0,
        "save_interval": 5,
        "checkpoint_interval": Interval(steps=10**9),
        "settings": {"seed": 3, "width": 8},
    } | changes
    seed_everything(3)
    batches = EpochBatches(NUM_ITEMS, batch_size, seed=3, rank=world.rank, world_size=world.size)
    loader = make_loader(Points(), batches, num_workers=0, device=world.device)
    task.trainer = Trainer(task, batches, loader, TrainerConfig(**options), world)
    return task.trainer


def final_state(trainer: Trainer, result: TrainingResult) -> dict[str, Any]:
    """All that must not depend on whether a run was interrupted."""
    saved = load_checkpoint(trainer.config.save_dir / "last.pth")
    position = {name: value for name, value in saved["position"].items() if name != "seconds"}
    return {
        "weights": copy_of(trainer.task.model),
        "optimizer": trainer.optimizer.state_dict(),
        "history": plain_rows(result.history),
        "best": [result.best_epoch, result.num_steps, position],
        "file": [saved["model"], saved["optimizer"], plain_rows(saved["history"]), saved["random"]],
        "draws": next_draws(),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run that nobody ended."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the tests: another number adds up in another order
    trainer = make_trainer(tmp_path_factory.mktemp("whole"), SmallTask())
    result = trainer.run()
    torch.set_num_threads(num_threads)
    assert result.status == DONE
    return final_state(trainer, result)


def at_call(number: int, action: Callable[[], None]) -> Callable[[], None]:
    calls = iter(range(1, 10**9))
    return lambda: action() if next(calls) == number else None


def send(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


class PowerCut(BaseException):
    pass


def cut() -> None:
    raise PowerCut


def test_epochs_are_what_a_plain_loop_computes(tmp_path: Path) -> None:
    task = SmallTask(dropout=0.0)
    trainer = make_trainer(tmp_path, task, clip_norm=0.5)
    trainer.run()
    model = SmallTask(dropout=0.0).model.train()
    groups = [
        ([*model[0].parameters(), *model[1].parameters()], 0.5, 0.1),
        ([*model[4].parameters()], 1.0, 0.0),
    ]
    optimizer = torch.optim.AdamW([{"params": p, "weight_decay": decay} for p, _, decay in groups])
    batches, points, losses = EpochBatches(NUM_ITEMS, BATCH, seed=3), Points(), []
    step = 0
    for epoch in range(NUM_EPOCHS):
        batches.start(epoch)
        losses.append(0.0)
        for keys in batches:
            rate = 0.01 * warmup_cosine(step, NUM_STEPS, 2)
            for group, (_, scale, _) in zip(optimizer.param_groups, groups, strict=True):
                group["lr"] = rate * scale
            batch = torch.stack([points[key] for key in keys])
            loss = ((model(batch)[:, 0] - batch.sum(1)) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            losses[-1] += float(loss.detach()) / batches.num_batches
            step += 1
    for name, value in model.state_dict().items():
        torch.testing.assert_close(task.model.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    history = json.loads((tmp_path / "history.json").read_text())
    assert [row["train_loss"] for row in history] == pytest.approx(losses, rel=1e-5)
    assert [row["step"] for row in history] == [3, 6, 9, 12]
    expected = [0.01 * warmup_cosine(step, NUM_STEPS, 2) for step in range(NUM_STEPS)]
    assert [rates[1] for rates in task.rates] == pytest.approx(expected)
    assert [rates[0] for rates in task.rates] == pytest.approx([rate / 2 for rate in expected])


@pytest.mark.parametrize("step", range(1, NUM_STEPS + 1))
@pytest.mark.resume
def test_a_run_stopped_by_a_signal_goes_on_to_the_bit(tmp_path: Path, whole: dict, step: int) -> None:
    """Stopped at each step, that at the end of an epoch and the very last one among them."""
    task = SmallTask()
    task.after = at_call(step, send((signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)[step % 3]))
    former = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)]
    stopped = make_trainer(tmp_path, task).run()
    assert stopped.status == STOPPED or (step == NUM_STEPS and stopped.status == DONE)
    # The flag is looked at once a step, before the weights change: that step or the next is the last.
    assert step <= stopped.num_steps <= step + 1
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)] == former
    trainer = make_trainer(tmp_path, SmallTask())
    assert_same(final_state(trainer, trainer.run()), whole)


def test_a_run_stopped_at_every_single_step_ends_the_same(tmp_path: Path, whole: dict) -> None:
    for _ in range(NUM_STEPS + 5):
        task = SmallTask()
        task.before = at_call(1, send(signal.SIGTERM))
        trainer = make_trainer(tmp_path, task)
        result = trainer.run()
        if result.status == DONE:
            break
        assert "SIGTERM" in result.message
        assert "run again to continue" in result.message
    assert_same(final_state(trainer, result), whole)


@pytest.mark.parametrize(("step", "interval"), [(1, 2), (3, 1), (4, 1), (7, 2), (11, 5), (12, 1)])
@pytest.mark.resume
def test_a_run_that_was_cut_off_goes_on_from_its_checkpoint_to_the_bit(
    tmp_path: Path, whole: dict, step: int, interval: int
) -> None:
    task, steps = SmallTask(), {"checkpoint_interval": Interval(steps=interval)}
    task.after = at_call(step, cut)
    with pytest.raises(PowerCut):
        make_trainer(tmp_path, task, **steps).run()
    file = tmp_path / "last.pth"
    assert (load_checkpoint(file)["position"]["step"] if file.exists() else 0) == (
        step - 1
    ) // interval * interval
    trainer = make_trainer(tmp_path, SmallTask(), **steps)
    assert_same(final_state(trainer, trainer.run()), whole)
    rows = json.loads((tmp_path / "history.json").read_text())
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    for tag, points in read_scalars(tmp_path / "events").items():
        shown = [at for at, _ in points]
        assert shown == ([3, 6, 9, 12] if tag.startswith("epoch/") else [1, 10]), tag


@pytest.mark.parametrize("moment", ["validate", "save"])
def test_a_signal_between_epochs_stops_after_a_checkpoint(tmp_path: Path, whole: dict, moment: str) -> None:
    task = SmallTask()
    plain = getattr(task, moment)

    def hooked(*args: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGUSR1)
        return plain(*args, **options)

    setattr(task, moment, hooked)
    result = make_trainer(tmp_path, task).run()
    assert (result.status, result.num_steps) == (STOPPED, 3)
    trainer = make_trainer(tmp_path, SmallTask())
    assert_same(final_state(trainer, trainer.run()), whole)


@pytest.mark.parametrize("spoiled", ["loss", "gradient", "overflow"])
@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_a_step_that_is_not_finite_ends_the_run_before_the_weights_change(
    tmp_path: Path, spoiled: str, clip_norm: float
) -> None:
    task, seen = SmallTask(), []
    calls = iter(range(1, 100))

    def spoil(loss: Tensor) -> Tensor:
        if next(calls) != 5:
            return loss
        seen.append(copy_of(task.model))
        if spoiled == "gradient":  # of one weight only, the loss is fine
            weight = task.model[4].weight
            return loss + (weight.flatten()[0] - weight.flatten()[0].detach()).abs().sqrt()
        return loss * (math.nan if spoiled == "loss" else 3e38)

    task.spoil = spoil
    trainer = make_trainer(tmp_path, task, clip_norm=clip_norm)
    result = trainer.run()
    assert result.status == NOT_FINITE
    assert result.num_steps == 4
    assert "not finite after step 4 of 12" in result.message
    assert "\n" not in result.message
    for name, parameter in task.model.named_parameters():
        assert torch.equal(parameter, seen[0][name]), name
    assert all(parameter.grad is None for parameter in task.model.parameters())
    assert len(result.history) == 1


def one_bad_rank(world: World, folder: str) -> dict[str, Any]:
    """Only rank 1 sees a loss that is not finite, in the fourth step; and a stop signal reaches it only."""
    found: dict[str, Any] = {}
    for name in ("nan", "signal"):
        task = SmallTask(dropout=0.0)
        task.forward = DistributedDataParallel(task.model)
        calls = iter(range(1, 100))

        def spoil(loss: Tensor, calls: Any = calls, name: str = name) -> Tensor:
            if next(calls) == 4 and world.rank == 1:
                if name == "signal":
                    os.kill(os.getpid(), signal.SIGTERM)
                else:
                    return loss * math.nan
            return loss

        task.spoil = spoil
        result = make_trainer(Path(folder) / name, task, world=world).run()
        found[name] = [result.status, result.num_steps, result.message]
        found[name + " weights"] = [float(p.detach().double().sum()) for p in task.model.parameters()]
    return found


def test_what_one_rank_sees_stops_all_at_the_same_step(tmp_path: Path) -> None:
    ranks = run_ranks(one_bad_rank, 2, tmp_path, str(tmp_path))
    for rank in ranks:
        assert rank["nan"][:2] == [NOT_FINITE, 3]
        assert rank["signal"][:2] == [STOPPED, 4]
        assert all(math.isfinite(value) for value in rank["nan weights"])
    assert ranks[0]["nan weights"] == ranks[1]["nan weights"]
    assert ranks[0]["signal weights"] == ranks[1]["signal weights"]
    assert {file.name for file in (tmp_path / "signal").iterdir()} == {"last.pth", "history.json", "events"}
    # The weights before the step that was not finite are kept, to start again from with other settings.
    kept = load_checkpoint(tmp_path / "nan" / "last.pth")
    assert kept["position"]["step"] == 3
    assert all(torch.isfinite(value).all() for value in kept["model"].values())
    saved = load_checkpoint(tmp_path / "signal" / "last.pth")
    assert len(saved["random"]) == 2  # each process its own generators


def test_a_run_of_two_processes_can_go_on_in_one(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    """Not to the bit, and it says so; but with the rest of the epoch and of the schedule."""
    task = SmallTask()
    task.before = at_call(3, send(signal.SIGTERM))  # in the first of two batches of the second epoch
    make_trainer(tmp_path, task, batch_size=4).run()
    saved = load_checkpoint(tmp_path / "last.pth")
    assert [saved["position"][name] for name in ("epoch", "batch", "step")] == [1, 1, 3]
    saved["random"] *= 2  # as if two processes had had batches of two
    torch.save(saved, tmp_path / "last.pth")
    task = SmallTask()
    trainer = make_trainer(tmp_path, task, batch_size=2)
    result = trainer.run()
    assert "from a run of 2 processes, now 1" in logged.text
    assert (result.status, result.num_steps) == (DONE, 20)
    # Half of the second epoch's five batches is left, rounded up; the rate goes on from the same place.
    assert len(task.rates) == 3 + 5 + 5
    assert task.rates[0][1] == pytest.approx(0.01 * warmup_cosine(7, 20, 2))
    assert [row["step"] for row in result.history] == [2, 10, 15, 20]
    ratio = result.history[1]["train_loss"] / (saved["position"]["loss_sum"])
    assert 0.3 < ratio < 3  # a mean over five batches, of which two are known by the one before


def test_a_finished_run_trains_no_more_and_more_epochs_go_on(
    tmp_path: Path, whole: dict, logged: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(tmp_path, SmallTask())
    trainer.run()
    files = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    task = SmallTask()
    again = make_trainer(tmp_path, task)
    result = again.run()
    assert (result.status, result.num_steps, task.rates, task.saved) == (DONE, NUM_STEPS, [], [])
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == files
    assert_same(copy_of(task.model), whole["weights"])
    assert plain_rows(result.history) == whole["history"]
    logged.clear()
    longer = make_trainer(tmp_path, SmallTask(), num_epochs=6)
    result = longer.run()
    assert (result.status, result.num_steps, [row["epoch"] for row in result.history]) == (
        DONE,
        18,
        [1, 2, 3, 4, 5, 6],
    )
    assert "--num_epochs changed" in logged.text
    assert plain_rows(result.history)[:4] == whole["history"]


def test_never_begins_anew_and_forgets_the_former_run(tmp_path: Path, whole: dict) -> None:
    task = SmallTask()
    task.after = at_call(8, send(signal.SIGTERM))
    make_trainer(tmp_path, task).run()
    task = SmallTask()
    task.after = at_call(2, cut)  # before it has a checkpoint of its own
    with pytest.raises(PowerCut):
        make_trainer(tmp_path, task, resume="never").run()
    assert not (tmp_path / "last.pth").exists()
    trainer = make_trainer(tmp_path, SmallTask(), resume="never")
    assert_same(final_state(trainer, trainer.run()), whole)
    assert [step for step, _ in read_scalars(tmp_path / "events")["step/loss"]] == [1, 10]


def test_a_checkpoint_of_another_folder_can_be_named(tmp_path: Path, whole: dict) -> None:
    task = SmallTask()
    task.after = at_call(5, send(signal.SIGTERM))
    make_trainer(tmp_path / "a", task).run()
    trainer = make_trainer(tmp_path / "b", SmallTask(), resume=str(tmp_path / "a" / "last.pth"))
    assert_same(final_state(trainer, trainer.run()), whole)


def test_what_cannot_be_gone_on_from_is_said(tmp_path: Path) -> None:
    make_trainer(tmp_path, SmallTask(), num_epochs=1).run()
    cases = [
        (
            {"settings": {"seed": 4, "width": 8}},
            r"last\.pth: .*other settings \(seed 3 → 4\).*--resume never",
        ),
        ({"settings": {"seed": 3}}, r"other settings \(width 8 → None\)"),
        ({"settings": {"seed": 5, "width": 9}}, r"seed 3 → 5, width 8 → 9"),
        ({"kind": "hq_voxceleb"}, "a checkpoint of 'training'"),
        ({"resume": str(tmp_path / "none.pth")}, r"none\.pth: there is no such file"),
        ({"resume": str(tmp_path / "history.json")}, "no checkpoint of facevox"),
    ]
    for changes, message in cases:
        before = (tmp_path / "last.pth").read_bytes()
        with pytest.raises(UserError, match=message):
            make_trainer(tmp_path, SmallTask(), **changes).run()  # type: ignore[arg-type]
        assert (tmp_path / "last.pth").read_bytes() == before
    weights = tmp_path / "weights.pth"
    torch.save(SmallTask().model.state_dict(), weights)
    with pytest.raises(UserError, match=r"weights\.pth: a checkpoint of 'something else'"):
        make_trainer(tmp_path, SmallTask(), resume=str(weights)).run()
    whole_file = (tmp_path / "last.pth").read_bytes()
    (tmp_path / "last.pth").write_bytes(whole_file[: len(whole_file) // 2])
    with pytest.raises(UserError, match=r"last\.pth: no checkpoint of facevox, or a damaged one"):
        make_trainer(tmp_path, SmallTask()).run()
    parts = load_checkpoint_of(whole_file, tmp_path) | {"format": 99}
    torch.save(parts, tmp_path / "last.pth")
    with pytest.raises(UserError, match="format 99; this program reads 1"):
        make_trainer(tmp_path, SmallTask()).run()


def load_checkpoint_of(content: bytes, folder: Path) -> dict[str, Any]:
    (folder / "copy.pth").write_bytes(content)
    return load_checkpoint(folder / "copy.pth")


def test_a_second_run_into_the_folder_is_refused_and_the_lock_does_not_stay(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with run_folder(folder), pytest.raises(UserError) as refusal, run_folder(folder):
        pass
    assert "\n" not in str(refusal.value)
    assert str(folder) in str(refusal.value)
    with pytest.raises(PowerCut), run_folder(folder):
        cut()
    with run_folder(folder):
        assert folder.is_dir()


@pytest.mark.parametrize(
    ("values", "is_highest", "expected"),
    [
        ([3.0, 2.0, 2.0, 4.0], False, 2),  # the first of two that are equal
        ([3.0, 2.0, 5.0, 4.0], True, 3),
        ([math.nan, 1.0, 2.0, 3.0], False, 2),
        ([1.0, math.nan, math.inf, 2.0], False, 1),
        ([math.nan] * 4, True, 4),  # nothing to go by: the latest, so that there is a model
    ],
)
def test_the_best_epoch_is_saved_when_it_was_the_best(
    tmp_path: Path, values: list[float], is_highest: bool, expected: int
) -> None:
    task = SmallTask()
    task.values, task.best_by, task.is_best_highest = values, "value", is_highest
    weights: list[dict[str, Tensor]] = []
    plain = task.validate

    def validate(epoch: int) -> dict[str, float]:
        weights.append(copy_of(task.model))
        return plain(epoch)

    task.validate = validate  # type: ignore[method-assign]
    result = make_trainer(tmp_path, task, save_interval=2).run()
    assert result.best_epoch == expected
    assert_same([state for is_best, state in task.saved if is_best][-1], weights[expected - 1])
    # Epoch 2 by the interval and the last one, whether or not these were the best too.
    lasts = [state for is_best, state in task.saved if not is_best]
    assert_same(lasts, [weights[1], weights[3]])
    again = make_trainer(tmp_path, SmallTask())
    assert again.run().best_epoch == expected


def test_patience_ends_a_run_that_gets_no_better_and_stays_ended(tmp_path: Path) -> None:
    task = SmallTask()
    task.values, task.best_by = [5.0, 1.0, 2.0, 3.0, 4.0, 0.0], "value"
    result = make_trainer(tmp_path, task, num_epochs=6, patience=2).run()
    assert (result.status, result.best_epoch, len(result.history)) == (DONE, 2, 4)
    assert "no better value for 2 epochs" in result.message
    task = SmallTask()
    task.values, task.best_by = [0.0] * 6, "value"
    result = make_trainer(tmp_path, task, num_epochs=6, patience=2).run()
    assert (result.status, task.rates, len(result.history)) == (DONE, [], 4)


def test_checkpoints_by_time_are_written_when_the_time_has_come(tmp_path: Path) -> None:
    task, seen = SmallTask(), []

    def look() -> None:
        seen.append((tmp_path / "last.pth").exists())

    task.after = look
    make_trainer(tmp_path, task, checkpoint_interval=Interval(seconds=1e-9)).run()
    assert seen == [False] + [True] * (NUM_STEPS - 1)
    seen.clear()
    make_trainer(tmp_path, task, resume="never", checkpoint_interval=Interval(seconds=1e9)).run()
    assert seen == [False] * NUM_STEPS


def test_a_finished_run_says_so_and_does_nothing(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    num_epochs = make_trainer(tmp_path, SmallTask()).run().history[-1]["epoch"]
    logged.clear()
    assert make_trainer(tmp_path, SmallTask()).run().num_new_steps == 0
    said = f"resuming from {tmp_path / 'last.pth'}: all {num_epochs} epochs are done already\n"
    assert said in logged.text


def test_a_run_begun_from_a_checkpoint_goes_on_from_its_own_with_the_same_command(
    tmp_path: Path, whole: dict[str, Any], logged: pytest.LogCaptureFixture
) -> None:
    first = SmallTask()
    first.before = at_call(3, send(signal.SIGTERM))
    assert make_trainer(tmp_path / "a", first).run().num_steps == 3
    named = str(tmp_path / "a" / "last.pth")
    second = SmallTask()
    second.before = at_call(4, send(signal.SIGTERM))
    assert make_trainer(tmp_path / "b", second, resume=named).run().num_steps == 7
    logged.clear()
    trainer = make_trainer(tmp_path / "b", SmallTask(), resume=named)
    result = trainer.run()
    assert f"resuming from {tmp_path / 'b' / 'last.pth'}: epoch 3, step 7" in logged.text
    assert result.num_new_steps == NUM_STEPS - 7
    assert_same(final_state(trainer, result), whole)
    # Another checkpoint is another beginning.
    other = SmallTask()
    other.before = at_call(2, send(signal.SIGTERM))
    make_trainer(tmp_path / "c", other).run()
    elsewhere = make_trainer(tmp_path / "b", SmallTask(), resume=str(tmp_path / "c" / "last.pth"))
    assert elsewhere.run().num_new_steps == NUM_STEPS - 2


def test_an_estimate_counts_steps_and_bytes_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = SmallTask()
    now_s = 100.0
    seconds = iter([40.0, 0.5, 1.0])  # the first step, which allocates and compiles, does not count

    def take_long() -> None:
        nonlocal now_s
        now_s += next(seconds, 0.0)

    task.before = take_long
    monkeypatch.setattr("facevox.training.trainer.time", SimpleNamespace(monotonic=lambda: now_s))
    trainer = make_trainer(tmp_path, task)
    estimate = trainer.estimate(num_steps=2)
    assert list(tmp_path.iterdir()) == []
    assert (estimate.num_epochs, estimate.num_steps) == (NUM_EPOCHS, NUM_STEPS)
    assert estimate.step_s == pytest.approx(0.75)
    trainer.run()
    # Both hold some text besides the numbers.
    assert estimate.checkpoint_bytes < (tmp_path / "last.pth").stat().st_size
    numbers = sum(tensor.nbytes for tensor in task.model.state_dict().values())
    assert estimate.weights_bytes == numbers
    assert estimate.checkpoint_bytes == numbers + 2 * sum(p.nbytes for p in task.model.parameters())
    assert f"{NUM_EPOCHS} epochs, {NUM_STEPS} steps of" in estimate.lines()[0]


@pytest.mark.parametrize(
    ("status", "code"),
    [(DONE, ExitCode.DONE), (STOPPED, ExitCode.STOPPED), (NOT_FINITE, ExitCode.SOME_FAILED)],
)
def test_how_a_training_ended_is_the_exit_code_of_its_program(status: str, code: ExitCode) -> None:
    result = TrainingResult(status=status, message="", history=[], best_epoch=0, num_steps=0, num_new_steps=0)
    assert result.exit_code == code


def test_weights_of_matrices_alone_decay() -> None:
    task = TrainingTask()
    task.model, task.weight_decay = SmallTask().model, 0.1
    norm, first, *_, last = task.model.children()
    decaying, others = task.parameter_groups()
    assert decaying == {"params": [first.weight, last.weight], "weight_decay": 0.1}
    assert others == {"params": [*norm.parameters(), first.bias, last.bias], "weight_decay": 0.0}


def lone_values(world: World, folder: str) -> list[list[float]]:
    """Each process finds other values; those of the first one count."""
    task = SmallTask()
    task.values = [[3.0, 1.0, 2.0, 5.0], [1.0, 2.0, 3.0, 0.0]][world.rank]
    task.best_by = "value"
    result = make_trainer(Path(folder), task, world=world).run()
    return [[row["value"] for row in result.history], [float(result.best_epoch)]]


def test_all_processes_know_the_same_best_epoch(tmp_path: Path) -> None:
    assert run_ranks(lone_values, 2, tmp_path, str(tmp_path)) == [[[3.0, 1.0, 2.0, 5.0], [2.0]]] * 2
