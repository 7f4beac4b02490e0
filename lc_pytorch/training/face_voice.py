"""Training of faces with voices, from a list of pairs to a folder with a model.

Two programs use it; they differ only in how they list their pairs.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

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
        self.fingerprint: Mapping[str, object] = {"pairs": _fingerprint(pairs.pairs)}

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

    def describe(self, items: Mapping[Part, Sequence[FilePair]]) -> dict[str, object]:
        return {
            "target_sr": self._config.target_sr,
            "audio_duration_sec": self._config.audio_duration_sec,
            "do_normalize": bool(self._processor.do_normalize),
            "num_pairs": {part: len(pairs) for part, pairs in items.items()},
            "identities_by": self._pairs.rule,
        }

    def facts(self, items: Mapping[Part, Sequence[FilePair]], split: Split) -> list[str]:
        pairs, num_train = self._pairs, len(items["train"])
        counts = (f"{part} {len(split.parts[part])} ({len(items[part])})" for part in items)
        lines = [
            f"{len(pairs.pairs)} pairs of {pairs.num_identities} people, by {pairs.rule}",
            "people (pairs): " + ", ".join(counts),
            *pairs.warnings,
        ]
        if num_train < RECOMMENDED_PAIRS:
            lines.append(
                f"only {num_train} training pairs: enough to try the programs; a model that means "
                f"something takes far more than {RECOMMENDED_PAIRS}"
            )
        return lines


def run_face_voice_training(list_pairs: Callable[[], PairList], args: argparse.Namespace) -> int:
    """Reads the list of pairs, joins the other processes and trains: all that follows the parsing of options.

    Args:
        list_pairs: Returns the pairs.
        args: The options that both programs have.

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
    """Number and hash of the pairs, short enough for a message: another list has another fingerprint.

    Names of files without their folders, so that data that was moved is still the same list.
    """
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(
            f"{pair.identity}\0{pair.face.name}\0{pair.voice.name}\n".encode("utf-8", "surrogateescape")
        )
    return f"{len(pairs)} pairs ({digest.hexdigest()[:8]})"
