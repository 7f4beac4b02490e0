"""Training on HQ VoxCeleb: masked faces with mel spectrograms, on the engine of face-voice training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from facevox.errors import UserError
from facevox.training.distributed import World
from facevox.training.seeding import seed_everything
from facevox.training.trainer import Estimate, TrainingResult
from lc_pytorch.datasets.device_transforms import choose_picture_transforms, transform_of_training
from lc_pytorch.datasets.splits import Part, Split
from lc_pytorch.datasets.transforms import create_data_transforms
from lc_pytorch.evaluation.options import PassOptions
from lc_pytorch.hq.dataset import (
    HQPerson,
    HQVoxCelebDataset,
    load_people,
    measure_mels,
)
from lc_pytorch.hq.options import HQConfig
from lc_pytorch.hq.readers import media_of_people
from lc_pytorch.models.hq import HQVoxCelebModel
from lc_pytorch.training.run import SPLIT_FILE, find_split, finish_training
from lc_pytorch.training.validation import make_validation

KIND = "hq_voxceleb"
SMALL_VALIDATION = 100  # people


def train_hq_voxceleb(config: HQConfig, world: World) -> TrainingResult | Estimate:
    """Trains, and leaves everything in `config.save_dir`; inside `model_folder`.

    Raises:
        UserError: No split (the message names the program that makes one), nobody to train on, weights that
            are missing, or a folder that belongs to another run.
    """
    chosen, said = choose_picture_transforms(config.picture_transforms, world.device)
    config = replace(config, picture_transforms=chosen)
    parts, notes = load_people(
        config.split_json_path, config.dataset_type, converted_dir=config.converted_dir
    )
    mels, found = measure_mels(parts["train"], config.audio_duration_sec, config.num_mels)
    transform, _ = create_data_transforms(config.face_model)
    split = find_split(config, _names(parts), lambda: _as_split(parts))
    if split.hash != _as_split(parts).hash:
        raise UserError(
            f"{config.save_dir / SPLIT_FILE}: {config.split_json_path} puts people into other parts than "
            "the run there; give another --save_dir, or --resume never to begin anew"
        )
    seed_everything(config.seed)  # the same on all processes: they must begin with the same projections
    model = HQVoxCelebModel(
        config.embedding_dim,
        pretrained=not config.from_scratch,
        face_model=config.face_model,
        num_mels=mels.num_mels,
        num_frames=mels.num_frames,
        mel_pooling=config.mel_pooling,
        temperature=config.temperature,
        learnable_temperature=config.learnable_temperature,
    )
    if transform.image_size != model.image_size:
        transform, _ = create_data_transforms(config.face_model, image_size=model.image_size)
    train_set = HQVoxCelebDataset(
        parts["train"], transform_of_training(transform, chosen), mels, seed=config.seed
    )
    validate = None
    if len(parts["val"]) > 1:
        # Starting workers for each validation takes longer than reading a few hundred files.
        num_workers = config.num_workers if len(parts["val"]) > SMALL_VALIDATION else 0
        options = PassOptions(
            batch_size=config.batch_size,
            num_workers=num_workers,
            precision=config.precision,
            is_shown=False,
        )
        validate = make_validation(*media_of_people(parts["val"], transform, mels), options, world.device)
    data = {
        "image_size": transform.image_size,
        "image_mean": list(transform.image_mean),
        "image_std": list(transform.image_std),
        "resample": transform.resample,
        **mels.as_config(),
        "num_people": {name: len(people) for name, people in parts.items()},
        "num_files": {
            name: sum(len(person.faces) + len(person.mels) for person in people)
            for name, people in parts.items()
        },
        "split_hash": split.hash,
    }
    if world.is_main:
        people = ", ".join(f"{name} {len(who)}" for name, who in parts.items())
        print("\n".join([*notes, *found, f"people: {people} ({config.dataset_type})", said]))
        if validate is None:
            print(
                f"{len(parts['val'])} people for validation: none is done, and the best model is known by "
                "its training loss"
            )
    return finish_training(
        model,
        train_set,
        config,
        world,
        kind=KIND,
        validate=validate,
        data=data,
        settings={"split": split.hash, "files": sum(data["num_files"].values()), "mels": str(mels)},
    )


def _names(parts: Mapping[Part, Sequence[HQPerson]]) -> list[str]:
    return [person.identity for people in parts.values() for person in people]


def _as_split(parts: Mapping[Part, Sequence[HQPerson]]) -> Split:
    """The people that are really used, as the model's own split.json keeps them."""
    names = {part: tuple(person.identity for person in people) for part, people in parts.items()}
    return Split(train=names["train"], val=names["val"], test=names["test"])
