"""Archives of arrays and weights with damaged bytes: each is read, or refused in one line with its name."""

import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_takes import make_take

from emotion.classifier.train_state import TrainState, load_state, save_state
from facevox.errors import UserError
from facevox.training.checkpoint import load_checkpoint, save_checkpoint
from lipsync.clips.clip_files import load_clip, write_clip
from lipsync.clips.features import ClipFeatures

NUM_MUTATIONS = 80


def make_clip_file(path: Path) -> None:
    take = make_take(0, 20, mouth_px=8, noise=0.05)
    clip = ClipFeatures(len(take.track), (0,), (take.track,), take.sound)
    write_clip(path, clip, {"video": "x.mp4", "audio": "", "speaker": "x"})


def make_state(path: Path) -> None:
    save_state(path, TrainState({"position": {"step": 3}}, {"network:a/b": np.ones((30, 4), np.float32)}))


def make_checkpoint(path: Path) -> None:
    save_checkpoint(path, {"model": {"a": torch.ones(50, 4), "b": torch.zeros(3)}, "step": 3})


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes cut off, or with some of them changed, zeroed, exchanged or repeated."""
    size, start = rng.choice([1, 1, 16, 256]), rng.randrange(len(data))
    other = rng.randrange(len(data))
    changes: list[Callable[[], bytes]] = [
        lambda: data[:start],
        lambda: data[:start] + rng.randbytes(size) + data[start + size :],
        lambda: data[:start] + bytes(size) + data[start + size :],
        lambda: data[:start] + data[other : other + size] + data[start + size :],
        lambda: data[:start] + data[other : other + size] + data[start:],
    ]
    return rng.choice(changes)()


@pytest.mark.parametrize(
    ("make", "read", "suffix"),
    [
        (make_clip_file, load_clip, ".npz"),
        (make_state, load_state, ".npz"),
        (make_checkpoint, load_checkpoint, ".pth"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of torch and zipfile
def test_damaged_bytes(
    tmp_path: Path, make: Callable[[Path], None], read: Callable[[Path], object], suffix: str
) -> None:
    whole, file, rng = tmp_path / f"whole{suffix}", tmp_path / f"x{suffix}", random.Random(0)
    make(whole)
    messages = []
    for _ in range(NUM_MUTATIONS):
        file.write_bytes(mutated(whole.read_bytes(), rng))
        try:
            read(file)
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > NUM_MUTATIONS // 2
    for message in messages:
        assert message.startswith(f"{file}: ")
        assert "\n" not in message


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(("make", "read"), [(make_clip_file, load_clip), (make_state, load_state)])
def test_damage_in_packed_members(
    tmp_path: Path, make: Callable[[Path], None], read: Callable[[Path], object], method: int
) -> None:
    whole, file = tmp_path / "whole.npz", tmp_path / "x.npz"
    make(whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(file, "w", method) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
        info = target.infolist()[-1]
    data = bytearray(file.read_bytes())
    start = info.header_offset + 30 + len(info.filename)
    data[start + 4 : start + info.compress_size] = b"\xff" * (info.compress_size - 4)
    file.write_bytes(data)
    with pytest.raises(UserError) as refusal:
        read(file)
    assert str(refusal.value).startswith(f"{file}: ")
