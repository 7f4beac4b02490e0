"""Checkpoints: whole or not at all, weights only, refused when they are another model's."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import assert_same, copy_of
from torch import nn

from facevox.errors import UserError
from facevox.training.checkpoint import load_checkpoint, load_weights, save_checkpoint

CONTENT = {"model": {"w": torch.arange(3.0)}, "step": 7, "rows": [{"loss": 0.5}], "name": "x", "none": None}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a b 한글.pth", CONTENT)
    assert_same(load_checkpoint(tmp_path / "a b 한글.pth"), CONTENT)
    assert [file.name for file in tmp_path.iterdir()] == ["a b 한글.pth"]


def test_a_write_that_fails_leaves_the_former_file(tmp_path: Path) -> None:
    file = tmp_path / "last.pth"
    save_checkpoint(file, CONTENT)
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        save_checkpoint(file, {"model": torch.zeros(9), "bad": lambda: None})
    assert_same(load_checkpoint(file), CONTENT)
    assert list(tmp_path.iterdir()) == [file]


class Bomb:
    """Runs a command when it is unpickled by a reader that lets it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("is_zip", [True, False])
def test_code_in_a_file_is_not_run(tmp_path: Path, is_zip: bool) -> None:
    file, trace = tmp_path / "x.pth", tmp_path / "it ran"
    content = {"model": Bomb(trace)}
    if is_zip:
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="no checkpoint of facevox, or a damaged one") as refusal:
        load_checkpoint(file)
    assert not trace.exists()
    assert "weights_only" not in str(refusal.value)  # torch advises to switch the protection off
    assert "\n" not in str(refusal.value)
    torch.load(file, weights_only=False) if is_zip else pickle.loads(file.read_bytes())
    assert trace.exists()  # it would have run


def damaged(file: Path, kind: str) -> None:
    torch.save(dict(CONTENT), file)
    whole = file.read_bytes()
    contents = {
        "text": b"hello\n",
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "zeros": bytes(len(whole)),
        "without its end": whole[:-30],
        "zip": b"PK\x03\x04" + bytes(60),
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n",
    }
    file.write_bytes(contents[kind])


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("text", "a text ('hello'), no weights"),
        ("empty", "empty (0 bytes)"),
        ("half", "cut off"),
        ("zeros", "zero bytes where it should begin"),
        ("without its end", "cut off"),
        ("zip", "cut off"),
        ("pointer", "a Git LFS pointer, not the file itself: run git lfs pull"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, kind: str, text: str) -> None:
    file = tmp_path / "best_model.pth"
    damaged(file, kind)
    with pytest.raises(UserError) as refusal:
        load_checkpoint(file)
    assert str(refusal.value).startswith(f"{file}: no checkpoint of facevox, or a damaged one ({text}")
    assert "\n" not in str(refusal.value)


def test_missing_files_folders_and_other_contents_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"last\.pth: there is no such file"):
        load_checkpoint(tmp_path / "last.pth")
    with pytest.raises(UserError, match="no checkpoint of facevox"):
        load_checkpoint(tmp_path)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds a list"):
        load_checkpoint(tmp_path / "list.pth")


def test_a_numpy_number_inside_is_an_error_at_reading_and_not_run_as_code(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.pth", {"value": np.float64(1)})
    with pytest.raises(UserError, match="no checkpoint of facevox"):
        load_checkpoint(tmp_path / "x.pth")


def make_net(width: int = 3) -> nn.Module:
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def test_weights_and_buffers_are_put_in() -> None:
    source, target = make_net(), make_net()
    for value in source.state_dict().values():
        value += 1
    load_weights(target, source.state_dict(), "x.pth")
    assert_same(target.state_dict(), source.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("0.bias"),
            r"1 of this one's are missing, 0 are unknown to it, such as 0\.bias",
        ),
        (
            lambda state: state.update(other=torch.zeros(1)),
            "0 of this one's are missing, 1 are unknown .*other",
        ),
        (
            lambda state: state.update({"0.bias": torch.zeros(4)}),
            r"0\.bias is \(4,\), this model's is \(3,\)",
        ),
        (lambda state: state.update({"0.bias": torch.zeros(3, 1)}), "of another size"),
        (lambda state: state.update({"0.bias": 5}), "it holds no weights"),
    ],
)
def test_weights_of_another_model_are_refused_and_change_nothing(change, message: str) -> None:  # type: ignore[no-untyped-def]
    net, state = make_net(), {name: value + 1 for name, value in make_net().state_dict().items()}
    before = copy_of(net)
    change(state)
    with pytest.raises(UserError, match=f"x.pth: .*{message}"):
        load_weights(net, state, "x.pth")
    assert_same(copy_of(net), before)


@pytest.mark.parametrize("state", [None, [torch.zeros(1)], {"a": {"b": torch.zeros(1)}}])
def test_something_else_than_weights_is_refused(state: object) -> None:
    with pytest.raises(UserError, match="it holds no weights"):
        load_weights(make_net(), state, "x.pth")
