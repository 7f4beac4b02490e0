"""People, encoders and trainings small enough that a step takes milliseconds."""

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from facevox.errors import UserError
from facevox.files import write_image
from lc_pytorch.datasets.base import PairDataset
from lc_pytorch.models.face_voice import FaceVoiceModel

IMAGE_SIZE_PX = 32
RATE_HZ = 4000
DURATION_S = 0.1
# Numbers of a history row that depend on the machine, not on the model.
MACHINE_VALUES = ("items_per_s", "data_wait_share")


def vit_config(dropout: float = 0.1) -> Any:
    from transformers import ViTConfig

    return ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=IMAGE_SIZE_PX,
        patch_size=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )


def wav2vec2_config(dropout: float = 0.1, norm: str = "layer") -> Any:
    """A configuration; masking and layer drop stay as transformers has them: loading must switch them off."""
    from transformers import Wav2Vec2Config

    return Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8, 8),
        conv_kernel=(10, 8),
        conv_stride=(8, 5),
        feat_extract_norm=norm,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        hidden_dropout=dropout,
        attention_dropout=dropout,
        activation_dropout=dropout,
        feat_proj_dropout=dropout,
    )


def make_model(dropout: float = 0.1, norm: str = "layer", seed: int = 0, **options: Any) -> FaceVoiceModel:
    """Random weights of a fixed seed; in training mode, as a new model is."""
    from lc_pytorch.models.encoders import build_encoder

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        face, voice = (
            build_encoder(config.to_diff_dict() | {"model_type": config.model_type})
            for config in (vit_config(dropout), wav2vec2_config(dropout, norm))
        )
        return FaceVoiceModel(8, face_model=face, voice_model=voice, **options)


def write_encoders(folder: Path, dropout: float = 0.1) -> tuple[Path, Path]:
    """A ViT and a Wav2Vec2 in transformers' format, with a description of their inputs."""
    from transformers import ViTImageProcessorPil, ViTModel, Wav2Vec2FeatureExtractor, Wav2Vec2Model
    from transformers.utils import logging

    logging.disable_progress_bar()
    vit, wav2vec2 = folder / "vit", folder / "wav2vec2"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ViTModel(vit_config(dropout), add_pooling_layer=False).save_pretrained(vit)
        Wav2Vec2Model(wav2vec2_config(dropout)).save_pretrained(wav2vec2)
    ViTImageProcessorPil(size={"height": IMAGE_SIZE_PX, "width": IMAGE_SIZE_PX}).save_pretrained(vit)
    Wav2Vec2FeatureExtractor(feature_size=1, sampling_rate=RATE_HZ, do_normalize=True).save_pretrained(
        wav2vec2
    )
    return vit, wav2vec2


def write_people(folder: Path, num_people: int = 10, clips: int = 2) -> Path:
    """`<person>/faces/<clip>.jpg` and `<person>/voices/<clip>.wav`: a colour and a tone for each person.

    Returns the list of pairs.
    """
    lines = []
    for person in range(num_people):
        rng = np.random.default_rng(person)
        colour, turn = rng.integers(0, 256, 3), rng.uniform(0.05, 1.5)
        for clip in range(clips):
            face = folder / f"p{person:02}" / "faces" / f"{clip}.jpg"
            voice = folder / f"p{person:02}" / "voices" / f"{clip}.wav"
            voice.parent.mkdir(parents=True, exist_ok=True)
            picture = colour + rng.integers(-15, 16, (36, 34, 3))
            write_image(face, np.clip(picture, 0, 255).astype(np.uint8))
            sound = 0.3 * np.sin(turn * np.arange(700)) + 0.02 * rng.standard_normal(700)
            soundfile.write(voice, sound, RATE_HZ)
            lines.append(f"{face}\t{voice}\n")
    listing = folder / "pairs.txt"
    listing.write_text("".join(lines), encoding="utf-8")
    return listing


def options_for(listing: Path, encoders: Sequence[Path], save_dir: Path, **changes: object) -> list[str]:
    """Arguments of train_face_voice_from_matched_file.py; `changes` replaces or adds, True is a bare flag."""
    options: dict[str, object] = {
        "matched_file": listing,
        "save_dir": save_dir,
        "face_model": encoders[0],
        "voice_model": encoders[1],
        "audio_duration_sec": DURATION_S,
        "target_sr": RATE_HZ,
        "embedding_dim": 8,
        "batch_size": 4,
        "num_epochs": 3,
        "learning_rate": 3e-3,
        "num_workers": 0,
        "device": "cpu",
        "checkpoint_interval": 1,
    }
    options |= changes
    words: list[str] = []
    for name, value in options.items():
        if value is None:
            continue
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words


class MemoryPairs(PairDataset):
    """Random pictures and sounds, a little different every epoch; some items may be bad."""

    second: ClassVar[str] = "voice"

    def __init__(self, num_items: int = 12, num_people: int = 8, *, bad: Sequence[int] = ()) -> None:
        super().__init__([f"p{item % num_people}" for item in range(num_items)])
        self.bad = frozenset(bad)
        self.asked: list[tuple[int, int | None]] = []

    def load(self, index: int, epoch: int | None) -> dict[str, Tensor]:
        self.asked.append((index, epoch))
        if index in self.bad:
            raise UserError(f"item {index}: no picture")
        rng = np.random.default_rng([index, 0 if epoch is None else epoch + 1])
        face = rng.standard_normal((3, IMAGE_SIZE_PX, IMAGE_SIZE_PX)).astype(np.float32)
        sound = rng.standard_normal(400).astype(np.float32)
        person = int(self.identity_numbers[index])
        face += np.sin(np.arange(IMAGE_SIZE_PX) * (person + 1)).astype(np.float32)
        sound += np.sin(np.arange(400) * 0.1 * (person + 1)).astype(np.float32)
        return {"face": torch.from_numpy(face), "voice": torch.from_numpy(sound)}

    def describe(self, index: int, epoch: int | None = None) -> str:
        return f"picture {index} with sound {index}"


def plain_rows(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a history without the values that depend on the machine's speed."""
    return [{name: value for name, value in row.items() if name not in MACHINE_VALUES} for row in history]


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def assert_same(found: Any, expected: Any, where: str = "") -> None:
    """Asserts that both are equal to the bit: tensors, numbers, and lists and dicts of them."""
    if isinstance(expected, Tensor):
        assert isinstance(found, Tensor), where
        assert found.dtype == expected.dtype, where
        assert torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert list(found) == list(expected), where
        for name in expected:
            assert_same(found[name], expected[name], f"{where}/{name}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for place, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{where}/{place}")
    else:
        assert found == expected, where


def next_draws() -> tuple[float, float, float]:
    """One number of each global generator, which this changes."""
    return random.random(), float(np.random.random()), float(torch.rand(()))  # noqa: NPY002


def read_scalars(events_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by tag, as TensorBoard shows them; without importing TensorFlow."""
    # With a module of this name tensorboard takes its own stand-in for TensorFlow.
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(events_dir), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }
