"""Checkpoints and states of trainings that are damaged or lack something."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import assert_same
from torch import Tensor, nn
from torch.utils.data import Dataset

from facevox.errors import UserError
from facevox.training.batches import EpochBatches, make_loader
from facevox.training.checkpoint import load_checkpoint, save_checkpoint
from facevox.training.distributed import World
from facevox.training.schedule import Interval
from facevox.training.trainer import Trainer, TrainerConfig, TrainingTask

CPU = torch.device("cpu")
CONTENT = {"model": {"first": torch.arange(300.0), "second": torch.ones(3, 4)}, "step": 7}


def test_a_flipped_bit_in_any_record_is_found(tmp_path: Path) -> None:
    whole, file = tmp_path / "whole.pth", tmp_path / "last.pth"
    save_checkpoint(whole, CONTENT)
    with zipfile.ZipFile(whole) as archive:
        infos = archive.infolist()
        positions = {info.filename: whole.read_bytes().index(archive.read(info)) for info in infos}
    assert len(positions) >= 5
    for name, position in positions.items():
        data = bytearray(whole.read_bytes())
        data[position] ^= 1
        file.write_bytes(data)
        with pytest.raises(UserError) as refusal:
            load_checkpoint(file)
        assert str(refusal.value).startswith(f"{file}: ")
        assert name in str(refusal.value) or "damaged" in str(refusal.value)
        assert "\n" not in str(refusal.value)
    assert_same(load_checkpoint(whole), CONTENT)


def test_packed_records_are_refused_unread(tmp_path: Path) -> None:
    file, packed = tmp_path / "whole.pth", tmp_path / "packed.pth"
    save_checkpoint(file, CONTENT)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(file) as source, zipfile.ZipFile(packed, "w", method) as target:
            for name in source.namelist():
                target.writestr(name, source.read(name))
        with pytest.raises(UserError, match=r"packed\.pth: its record .*packed, which torch writes none of"):
            load_checkpoint(packed)


def test_the_format_of_old_torch_is_read(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert_same(load_checkpoint(tmp_path / "old.pth"), CONTENT)


class Items(Dataset[Tensor]):
    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        return torch.full((4,), float(key[1]))


class Net(TrainingTask):
    """A net with a weight that no loss depends on."""

    best_by = "train_loss"

    def __init__(self) -> None:
        self.model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
        self.model.register_parameter("unused", nn.Parameter(torch.zeros(2)))

    def backward(self, batch: Tensor) -> Tensor:
        loss = self.model(batch).square().mean()
        loss.backward()
        return loss.detach()


def trainer(folder: Path, num_epochs: int = 3) -> Trainer:
    batches = EpochBatches(10, 4, seed=0)
    config = TrainerConfig(
        save_dir=folder,
        num_epochs=num_epochs,
        learning_rate=0.01,
        warmup=0.0,
        clip_norm=0.0,
        checkpoint_interval=Interval(steps=100),
        save_interval=100,
    )
    loader = make_loader(Items(), batches, num_workers=0, device=CPU)
    return Trainer(Net(), batches, loader, config, World(device=CPU))


def without(*path: Any) -> Callable[[dict[str, Any]], None]:
    """A change that removes an entry of the state."""

    def remove(state: dict[str, Any]) -> None:
        for key in path[:-1]:
            state = state[key]
        del state[path[-1]]

    return remove


def with_value(value: object, *path: Any) -> Callable[[dict[str, Any]], None]:
    """A change that puts something else in the place of an entry of the state."""

    def change(state: dict[str, Any]) -> None:
        for key in path[:-1]:
            state = state[key]
        state[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        *(without(name) for name in ("model", "optimizer", "position", "history", "random", "settings")),
        *(without(name) for name in ("num_batches", "num_steps")),
        *(with_value(value, "num_steps") for value in (3, "4", None)),
        *(with_value(value, "num_batches") for value in (0, -1, 3, "2", None, 2.5)),
        *(
            with_value(value, "history")
            for value in ([], [{}], 7, [1, 2], [{"a": "x"}] * 2, [{}, {"a": None}])
        ),
        *(with_value(value, "position", "loss_sum") for value in ([], "x", None)),
        *(with_value(value, "position", "best") for value in ([], "")),
        *(with_value(value, "position", "seconds") for value in (float("nan"), 10**400)),
        *(with_value(value, "random") for value in (7, [], [{}], [None], ["x"])),
        *(with_value(value, "position") for value in ({}, {"epoch": 2, "extra": 1}, 7, None)),
        *(with_value(value, "position", "step") for value in (3, -4, "4", None)),
        *(with_value(value, "position", "epoch") for value in (0, 1, "2")),
        *(with_value(value, "position", "batch") for value in (1, -1, 7)),
        *(with_value(value, "optimizer") for value in ({}, 7, {"state": {}, "param_groups": []})),
        *(with_value(value, "optimizer", "state") for value in ({}, 7)),
        without("optimizer", "state", 0),
        without("optimizer", "state", 1, "exp_avg"),
        without("optimizer", "state", 1, "step"),
        with_value(torch.zeros(5), "optimizer", "state", 1, "exp_avg_sq"),
        *(with_value(value, "settings") for value in (7, None)),
        *(with_value(value, "model") for value in (7, {}, {"0.weight": 3})),
    ],
)
def test_a_state_that_lacks_something_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    trainer(tmp_path, num_epochs=2).run()
    file = tmp_path / "last.pth"
    state = load_checkpoint(file)
    change(state)
    save_checkpoint(file, state)
    before = file.read_bytes()
    with pytest.raises(UserError) as refusal:
        trainer(tmp_path).run()
    assert str(refusal.value).startswith(f"{file}: ")
    assert "\n" not in str(refusal.value)
    assert file.read_bytes() == before


def test_a_whole_state_and_one_of_an_older_version_are_taken(tmp_path: Path) -> None:
    trainer(tmp_path, num_epochs=2).run()
    state = load_checkpoint(tmp_path / "last.pth")
    assert state["num_optimized"] == 4
    del state["num_optimized"]
    save_checkpoint(tmp_path / "last.pth", state)
    assert trainer(tmp_path).run().num_new_steps == 2
    state = load_checkpoint(tmp_path / "last.pth")
    assert state["num_optimized"] == 4
    assert trainer(tmp_path, num_epochs=4).run().num_new_steps == 2
