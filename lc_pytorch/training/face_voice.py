"""Training of faces with voices, from a list of pairs to a folder with a model.

Two programs use it; they differ in where their pairs come from.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from facevox import cli
from facevox.training.distributed import World
from facevox.training.trainer import Estimate, TrainingResult
from lc_pytorch.datasets.face_voice import FaceVoiceDataset
from lc_pytorch.datasets.pairs import FilePair, PairList
from lc_pytorch.datasets.splits import Part, Split, select_items, split_identities
from lc_pytorch.datasets.transforms import ImageTransform, create_data_transforms
from lc_pytorch.evaluation.readers import FaceReader, MediaFiles, VoiceReader, media_of_pairs
from lc_pytorch.models.face_voice import FaceVoiceModel
from lc_pytorch.training.options import FaceVoiceConfig
from lc_pytorch.training.run import run_training, train_two_towers

KIND = "face_voice"
RECOMMENDED_PAIRS = 100


class _FaceVoiceSource:
    """Pairs of faces and voices, as `TrainingSource` describes it."""

    kind = KIND

    def __init__(self, pairs: PairList, config: FaceVoiceConfig) -> None:
        self._pairs, self._config = pairs, config
        self.identities: Sequence[str] = pairs.identities
        self.fingerprint: dict[str, Any] = {"pairs": _fingerprint(pairs.pairs)}

    def draw_split(self) -> Split:
        config = self._config
        return split_identities(
            self.identities, test_size=config.test_size, val_size=config.val_size, seed=config.seed
        )

    def items_of(self, split: Split) -> Mapping[Part, Sequence[FilePair]]:
        pairs = self._pairs.pairs
        parts: tuple[Part, ...] = get_args(Part)
        return {part: [pairs[row] for row in select_items(split, self.identities, part)] for part in parts}

    def make_transform(self, image_size: int | None = None) -> ImageTransform:
        config = self._config
        transform, self._processor = create_data_transforms(
            config.face_model, config.voice_model, image_size=image_size
        )
        return transform

    def make_model(self) -> FaceVoiceModel:
        config = self._config
        return FaceVoiceModel(
            config.embedding_dim,
            face_model=config.face_model,
            voice_model=config.voice_model,
            pretrained=not config.from_scratch,
            temperature=config.temperature,
            learnable_temperature=config.learnable_temperature,
        )

    def make_train_set(self, items: Sequence[FilePair], transform: ImageTransform) -> FaceVoiceDataset:
        config = self._config
        return FaceVoiceDataset(
            items,
            self._processor,
            transform,
            audio_duration_sec=config.audio_duration_sec,
            target_sr=config.target_sr,
            voice_of=config.voice_of,
            seed=config.seed,
        )

    def list_media(
        self, items: Sequence[FilePair], transform: ImageTransform
    ) -> tuple[MediaFiles, MediaFiles]:
        config = self._config
        is_normalised = bool(self._processor.do_normalize)
        voice_reader = VoiceReader(config.audio_duration_sec, config.target_sr, is_normalised)
        return media_of_pairs(items, FaceReader(transform), voice_reader)

    def describe(self, items: Mapping[Part, Sequence[FilePair]]) -> dict[str, Any]:
        return {
            "target_sr": self._config.target_sr,
            "audio_duration_sec": self._config.audio_duration_sec,
            "do_normalize": bool(self._processor.do_normalize),
            "num_pairs": {name: len(pairs) for name, pairs in items.items()},
            "identities_by": self._pairs.rule,
        }

    def facts(self, data: dict[str, Any]) -> list[str]:
        people, num, pairs = data["num_people"], data["num_pairs"], self._pairs
        lines = [
            f"{len(pairs.pairs)} pairs of {pairs.num_identities} people, by {pairs.rule}",
            "people (pairs): " + ", ".join(f"{name} {people[name]} ({num[name]})" for name in people),
            *pairs.warnings,
        ]
        if num["train"] < RECOMMENDED_PAIRS:
            lines.append(
                f"only {num['train']} training pairs: enough to try the programs; a model that means "
                f"something takes far more than {RECOMMENDED_PAIRS}"
            )
        return lines


def run_face_voice_training(list_pairs: Callable[[], PairList], args: argparse.Namespace) -> int:
    """What both programs do after parsing: reads the list, joins the other processes, trains.

    Args:
        list_pairs: Gives the pairs.
        args: Their common options.

    Returns:
        The exit code.
    """
    config = cli.build(FaceVoiceConfig, args)
    pairs = list_pairs()
    return run_training(config, lambda world: train_face_voice(pairs, config, world))


def train_face_voice(pairs: PairList, config: FaceVoiceConfig, world: World) -> TrainingResult | Estimate:
    """Trains on pairs, the same on every process; see `train_two_towers`."""
    return train_two_towers(lambda: _FaceVoiceSource(pairs, config), config, world)


def _fingerprint(pairs: Sequence[FilePair]) -> str:
    """Tells another list of pairs, in words that a message can show."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(
            f"{pair.identity}\0{pair.face.name}\0{pair.voice.name}\n".encode("utf-8", "surrogateescape")
        )
    return f"{len(pairs)} pairs ({digest.hexdigest()[:8]})"
