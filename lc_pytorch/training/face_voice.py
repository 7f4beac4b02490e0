"""Training of faces with voices, from a list of pairs to a folder with a model.

Two programs use it; they differ in where their pairs come from.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from facevox import cli
from facevox.training import distributed
from facevox.training.distributed import World
from facevox.training.seeding import seed_everything
from facevox.training.trainer import Estimate, TrainingResult
from lc_pytorch.datasets.device_transforms import choose_picture_transforms, transform_of_training
from lc_pytorch.datasets.face_voice import FaceVoiceDataset
from lc_pytorch.datasets.pairs import FilePair, PairList
from lc_pytorch.datasets.splits import (
    Split,
    select_items,
    split_identities,
)
from lc_pytorch.datasets.transforms import ImageTransform, create_data_transforms
from lc_pytorch.evaluation.options import PassOptions
from lc_pytorch.evaluation.readers import FaceReader, VoiceReader, media_of_pairs
from lc_pytorch.models.face_voice import FaceVoiceModel, TwoTowerModel
from lc_pytorch.training.options import FaceVoiceConfig
from lc_pytorch.training.run import find_split, finish_training, model_folder
from lc_pytorch.training.validation import make_validation

KIND = "face_voice"
RECOMMENDED_PAIRS = 100
SMALL_VALIDATION = 500  # pairs


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
    world = distributed.init(config.device)
    try:
        with model_folder(config):
            return train_face_voice(pairs, config, world).exit_code
    finally:
        distributed.cleanup()


def train_face_voice(pairs: PairList, config: FaceVoiceConfig, world: World) -> TrainingResult | Estimate:
    """Splits the people, trains, and leaves everything in `config.save_dir`; inside `model_folder`.

    Args:
        pairs: The pairs, the same on every process.
        config: The settings.
        world: This process among all.

    Returns:
        How it ended; with `dry_run`, what it would take.

    Raises:
        UserError: Weights are missing, too few people, or the folder belongs to another run.
    """
    chosen, said = choose_picture_transforms(config.picture_transforms, world.device)
    config = replace(config, picture_transforms=chosen)
    transform, processor = create_data_transforms(config.face_model, config.voice_model)
    split = find_split(
        config,
        pairs.identities,
        lambda: split_identities(
            pairs.identities, test_size=config.test_size, val_size=config.val_size, seed=config.seed
        ),
    )
    seed_everything(config.seed)  # the same on all processes: they must begin with the same projections
    model = FaceVoiceModel(
        config.embedding_dim,
        face_model=config.face_model,
        voice_model=config.voice_model,
        pretrained=not config.from_scratch,
        temperature=config.temperature,
        learnable_temperature=config.learnable_temperature,
    )
    if transform.image_size != model.image_size:
        transform, processor = create_data_transforms(
            config.face_model, config.voice_model, image_size=model.image_size
        )
    part = {name: _part(pairs.pairs, split, name) for name in ("train", "val")}
    train_set = FaceVoiceDataset(
        part["train"],
        processor,
        transform_of_training(transform, chosen),
        audio_duration_sec=config.audio_duration_sec,
        target_sr=config.target_sr,
        voice_of=config.voice_of,
        seed=config.seed,
    )
    data = {
        "image_size": transform.image_size,
        "image_mean": list(transform.image_mean),
        "image_std": list(transform.image_std),
        "resample": transform.resample,
        "target_sr": config.target_sr,
        "audio_duration_sec": config.audio_duration_sec,
        "do_normalize": bool(processor.do_normalize),
        "num_pairs": {name: len(_part(pairs.pairs, split, name)) for name in split.parts},
        "num_people": {name: len(people) for name, people in split.parts.items()},
        "split_hash": split.hash,
        "identities_by": pairs.rule,
    }
    validate = _make_validation(part["val"], config, data, transform, world)
    if world.is_main:
        print("\n".join([*_facts(pairs, data, validate is not None), said]))
    return finish_training(
        model,
        train_set,
        config,
        world,
        kind=KIND,
        validate=validate,
        data=data,
        settings={"split": split.hash, "pairs": _fingerprint(pairs.pairs)},
    )


def _make_validation(
    pairs: Sequence[FilePair],
    config: FaceVoiceConfig,
    data: dict[str, Any],
    transform: ImageTransform,
    world: World,
) -> Callable[[TwoTowerModel], dict[str, float]] | None:
    """What scores the model after an epoch; None where there are too few people for it."""
    if len({pair.identity for pair in pairs}) < 2:  # one person alone can be mistaken for nobody
        return None
    readers = (
        FaceReader(transform),
        VoiceReader(config.audio_duration_sec, config.target_sr, data["do_normalize"]),
    )
    # Starting workers for each validation takes longer than reading a few hundred files.
    num_workers = config.num_workers if len(pairs) > SMALL_VALIDATION else 0
    options = PassOptions(
        batch_size=config.batch_size,
        num_workers=num_workers,
        precision=config.precision,
        is_shown=False,
    )
    return make_validation(*media_of_pairs(pairs, *readers), options, world.device)


def _part(pairs: Sequence[FilePair], split: Split, name: Any) -> list[FilePair]:
    return [pairs[row] for row in select_items(split, [pair.identity for pair in pairs], name)]


def _fingerprint(pairs: Sequence[FilePair]) -> str:
    """Tells another list of pairs, in words that a message can show."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(
            f"{pair.identity}\0{pair.face.name}\0{pair.voice.name}\n".encode("utf-8", "surrogateescape")
        )
    return f"{len(pairs)} pairs ({digest.hexdigest()[:8]})"


def _facts(pairs: PairList, data: dict[str, Any], has_validation: bool) -> list[str]:
    """What the user should know before hours go by."""
    people, num = data["num_people"], data["num_pairs"]
    lines = [
        f"{len(pairs.pairs)} pairs of {pairs.num_identities} people, by {pairs.rule}",
        "people (pairs): " + ", ".join(f"{name} {people[name]} ({num[name]})" for name in people),
        *pairs.warnings,
    ]
    if num["train"] < RECOMMENDED_PAIRS:
        lines.append(
            f"only {num['train']} training pairs: enough to try the programs; a model that means something "
            f"takes far more than {RECOMMENDED_PAIRS}"
        )
    if not has_validation:
        lines.append(
            "fewer than two people are kept for validation: the best model is known by its training loss"
        )
    return lines
