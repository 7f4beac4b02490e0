"""The recipe of every two-tower training: split, model, training, and the files in the folder of the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from facevox.errors import ExitCode, UserError
from facevox.files import replacing
from facevox.training import distributed
from facevox.training.checkpoint import LAST_FILE
from facevox.training.distributed import World
from facevox.training.history import write_curves
from facevox.training.run_folder import run_folder
from facevox.training.seeding import seed_everything
from facevox.training.trainer import DONE, Estimate, TrainingResult
from lc_pytorch.datasets.base import PairDataset
from lc_pytorch.datasets.device_transforms import choose_picture_transforms, transform_of_training
from lc_pytorch.datasets.splits import Part, Split, check_split, load_split, write_split
from lc_pytorch.datasets.transforms import ImageTransform
from lc_pytorch.evaluation.model_card import write_model_card
from lc_pytorch.evaluation.options import PassOptions
from lc_pytorch.evaluation.readers import MediaFiles
from lc_pytorch.models.face_voice import TwoTowerModel
from lc_pytorch.models.store import CONFIG_FILE, WEIGHT_FILES, save_config, save_weights
from lc_pytorch.training.options import TrainConfig
from lc_pytorch.training.task import train_contrastive
from lc_pytorch.training.validation import make_validation

logger = logging.getLogger(__name__)
SPLIT_FILE = "split.json"
# What an evaluation of the model writes into its folder.
RESULTS = ("evaluation_results.json", "roc.png", "rank_cdf.png", "gallery.png")
# Files of a validation: starting workers in each epoch takes longer than reading this many.
SMALL_VALIDATION = 1000
NO_VALIDATION = "fewer than two people are kept for validation: the best model is known by its training loss"


class _HasIdentity(Protocol):
    @property
    def identity(self) -> str: ...


ItemT = TypeVar("ItemT", bound=_HasIdentity)


def _find_split(config: TrainConfig, identities: Sequence[str], draw: Callable[[], Split]) -> Split:
    """The split of `save_dir`, drawn and written where there is none yet, checked where there is one.

    Raises:
        UserError: The existing one is of other people or other settings.
    """
    file = config.save_dir / SPLIT_FILE
    if config.dry_run:
        return _usable_split(file, config, identities) or draw()

    def make() -> None:
        if _usable_split(file, config, identities):
            return
        # Weights of a former run next to a new split would be tested on people that they were trained on.
        for name in (CONFIG_FILE, *WEIGHT_FILES.values(), *RESULTS):
            (config.save_dir / name).unlink(missing_ok=True)
        write_split(file, draw())

    distributed.on_main(make)
    return load_split(file)


def _usable_split(file: Path, config: TrainConfig, identities: Sequence[str]) -> Split | None:
    """The existing split that the run must keep to; None: one is to be drawn."""
    if config.resume == "never" or not file.is_file():
        return None
    settings = {name: getattr(config, name, None) for name in ("test_size", "val_size", "seed")}
    split = load_split(file)
    faults = check_split(split, identities, **settings)
    # A split with a seed was drawn here, not given by the user; without a checkpoint nothing learnt from it.
    if faults and split.seed is not None and not (config.save_dir / LAST_FILE).exists():
        return None
    if faults:
        raise UserError(
            f"{file}: does not fit this run: {'; '.join(faults)}; give another --save_dir, or "
            "--resume never to start from scratch"
        )
    return split


class TrainingSource(Protocol[ItemT]):
    """Data and model of a training: all in which faces with sound and faces with mels differ.

    Attributes:
        kind: Of the model, as in config.json.
        identities: The people.
        fingerprint: Plain values that distinguish these files from others, for a run that resumes.
    """

    kind: str
    identities: Sequence[str]
    fingerprint: Mapping[str, object]

    def draw_split(self) -> Split:
        """A split of the people, for a folder that has none yet."""

    def items_of(self, split: Split) -> Mapping[Part, Sequence[ItemT]]:
        """The items of each part."""

    def make_transform(self, image_size: int | None = None) -> ImageTransform:
        """The picture transform that the face model expects; `image_size` (pixels) instead of its own."""

    def make_model(self) -> TwoTowerModel:
        """A fresh model, on the CPU."""

    def make_train_set(self, items: Sequence[ItemT], transform: ImageTransform) -> PairDataset:
        """The data set of the training part."""

    def list_media(self, items: Sequence[ItemT], transform: ImageTransform) -> tuple[MediaFiles, MediaFiles]:
        """The files of the validation part: faces, and what goes with them."""

    def describe(self, items: Mapping[Part, Sequence[ItemT]]) -> dict[str, object]:
        """The facts about the inputs for config.json."""

    def facts(self, items: Mapping[Part, Sequence[ItemT]], split: Split) -> list[str]:
        """Lines about the data that the user should read before hours go by."""


def run_training(config: TrainConfig, train: Callable[[World], TrainingResult | Estimate]) -> ExitCode:
    """Joins the other processes and trains in the folder of the run; returns the exit code."""
    world = distributed.init(config.device)
    try:
        with nullcontext() if config.dry_run else run_folder(config.save_dir):
            return train(world).exit_code
    finally:
        distributed.cleanup()


def train_two_towers(
    make_source: Callable[[], TrainingSource[ItemT]], config: TrainConfig, world: World
) -> TrainingResult | Estimate:
    """Splits the people, trains, and writes everything into `config.save_dir`; called inside `run_folder`.

    Args:
        make_source: Returns data and model, the same on every process.
        config: The settings.
        world: This process's rank and device.

    Returns:
        How it ended; with `dry_run`, what it would take.

    Raises:
        UserError: Weights are missing, too few people, or the folder belongs to another run.
    """
    chosen, message = choose_picture_transforms(config.picture_transforms, world.device)
    config = replace(config, picture_transforms=chosen)
    source = make_source()
    transform = source.make_transform()
    split = _find_split(config, source.identities, source.draw_split)
    items = source.items_of(split)
    seed_everything(config.seed)  # the same on all processes: they must begin with the same projections
    model = source.make_model()
    # A model from scratch, or a folder of weights, may take pictures of another size than its processor says.
    if transform.image_size != model.image_size:
        transform = source.make_transform(model.image_size)
    train_set = source.make_train_set(items["train"], transform_of_training(transform, chosen))
    validate = _make_validation(source, items["val"], transform, config, world)
    data = {
        "image_size": transform.image_size,
        "image_mean": list(transform.image_mean),
        "image_std": list(transform.image_std),
        "resample": transform.resample,
        **source.describe(items),
        "num_people": {name: len(people) for name, people in split.parts.items()},
        "split_hash": split.hash,
    }
    of_run = ("save_dir", "device")  # no properties of the model
    training = {name: _plain(value) for name, value in vars(config).items() if name not in of_run}

    def save(is_best: bool) -> None:
        save_config(config.save_dir, model, kind=source.kind, data=data, training=training)
        save_weights(config.save_dir, model, which="best" if is_best else "last")

    if world.is_main:
        facts = [*source.facts(items, split), *([NO_VALIDATION] if validate is None else []), message]
        for line in facts:
            logger.info(line)
        if not config.dry_run:
            _copy_best_model(config)
    result = train_contrastive(
        model,
        train_set,
        config,
        world,
        kind=source.kind,
        validate=validate,
        save=save,
        settings={"split": split.hash, **source.fingerprint},
    )
    if world.is_main:
        _report(result, config)
    return result


def _make_validation(
    source: TrainingSource[ItemT],
    items: Sequence[ItemT],
    transform: ImageTransform,
    config: TrainConfig,
    world: World,
) -> Callable[[TwoTowerModel], dict[str, float]] | None:
    """The function that scores the model after an epoch; None where there are too few people for it."""
    if len({item.identity for item in items}) < 2:  # with one person alone there is nobody to confuse
        return None
    faces, others = source.list_media(items, transform)
    is_small = len(faces.files) + len(others.files) <= SMALL_VALIDATION
    options = PassOptions(
        batch_size=config.batch_size,
        num_workers=0 if is_small else config.num_workers,
        precision=config.precision,
    )
    return make_validation(faces, others, options, world.device)


def _report(result: TrainingResult | Estimate, config: TrainConfig) -> None:
    """Logs how the training ended, and writes curves and card."""
    if isinstance(result, Estimate):
        for line in result.lines():
            logger.info(line)
        return
    if result.status == DONE and result.num_new_steps:
        for name in RESULTS:  # of the former weights
            (config.save_dir / name).unlink(missing_ok=True)
    if result.history:
        write_curves(config.save_dir, result.history, result.best_epoch)
        write_model_card(config.save_dir)
    logger.info(result.message)


def _copy_best_model(config: TrainConfig) -> None:
    """Copies the best model next to a checkpoint of another folder: its epoch may have been before that."""
    checkpoint = Path(config.resume)
    if config.resume in ("auto", "never") or not checkpoint.is_file():
        return
    for name in (WEIGHT_FILES["best"], CONFIG_FILE):
        source, target = checkpoint.parent / name, config.save_dir / name
        if source.is_file() and not target.exists():
            with replacing(target) as file:
                file.write(source.read_bytes())


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value.absolute())  # a later program may be started elsewhere
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
