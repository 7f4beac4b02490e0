"""The training of two towers, whatever goes with the faces, and the folder that it leaves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from facevox.errors import ExitCode, UserError
from facevox.files import replacing
from facevox.training import distributed
from facevox.training.distributed import World
from facevox.training.history import write_curves
from facevox.training.run_folder import run_folder
from facevox.training.seeding import seed_everything
from facevox.training.trainer import DONE, LAST_FILE, Estimate, TrainingResult
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
# What an evaluation of the model leaves in its folder.
RESULTS = ("evaluation_results.json", "roc.png", "rank_cdf.png", "gallery.png")
# Files of a validation: starting workers each time takes longer than reading so few of them.
SMALL_VALIDATION = 1000
NO_VALIDATION = "fewer than two people are kept for validation: the best model is known by its training loss"


def _find_split(config: TrainConfig, identities: Sequence[str], draw: Callable[[], Split]) -> Split:
    """The split of `save_dir`, drawn and written where there is none yet, checked where there is one.

    Raises:
        UserError: The one that lies there is of other people or other settings.
    """
    file = config.save_dir / SPLIT_FILE
    if config.dry_run:
        return _split_there(file, config, identities) or draw()

    def make() -> None:
        if _split_there(file, config, identities):
            return
        # Weights of a former run beside a new split would be tested on people that they were trained on.
        for name in (CONFIG_FILE, *WEIGHT_FILES.values(), *RESULTS):
            (config.save_dir / name).unlink(missing_ok=True)
        write_split(file, draw())

    distributed.on_main(make)
    return load_split(file)


def _split_there(file: Path, config: TrainConfig, identities: Sequence[str]) -> Split | None:
    """The split that the run must keep to; None: one is to be drawn."""
    if config.resume == "never" or not file.is_file():
        return None
    asked = {name: getattr(config, name, None) for name in ("test_size", "val_size", "seed")}
    there = load_split(file)
    faults = check_split(there, identities, **asked)
    if faults and there.seed is not None and not (config.save_dir / LAST_FILE).exists():
        return None  # that one was drawn for a run that came to no checkpoint
    if faults:
        raise UserError(
            f"{file}: does not fit this run: {'; '.join(faults)}; give another --save_dir, or "
            "--resume never to begin anew"
        )
    return there


class TrainingSource(Protocol):
    """What is trained on, and the model for it: all in which faces with sound and faces with mels differ.

    Attributes:
        kind: Of the model, as in config.json.
        identities: The people.
        fingerprint: Plain values that tell these files from others, for a run that goes on.
    """

    kind: str
    identities: Sequence[str]
    fingerprint: dict[str, Any]

    def draw_split(self) -> Split:
        """The parts into which the people come where no run has split them yet."""

    def items_of(self, split: Split) -> Mapping[Part, Sequence[Any]]:
        """The items of each part; each has an `identity`."""

    def make_transform(self, image_size: int | None = None) -> ImageTransform:
        """What the face model wants; `image_size` (pixels) in place of its own."""

    def make_model(self) -> TwoTowerModel:
        """Fresh, on the CPU."""

    def make_train_set(self, items: Sequence[Any], transform: ImageTransform) -> PairDataset:
        """The data set of the training part."""

    def list_media(self, items: Sequence[Any], transform: ImageTransform) -> tuple[MediaFiles, MediaFiles]:
        """The files of the validation part: faces, and what goes with them."""

    def describe(self, items: Mapping[Part, Sequence[Any]]) -> dict[str, Any]:
        """What the inputs are, for config.json."""

    def facts(self, data: dict[str, Any]) -> list[str]:
        """What the user should know before hours go by, of what config.json has as `data`."""


def run_training(config: TrainConfig, train: Callable[[World], TrainingResult | Estimate]) -> ExitCode:
    """Joins the other processes and trains in the folder of the run; returns the exit code."""
    world = distributed.init(config.device)
    try:
        with nullcontext() if config.dry_run else run_folder(config.save_dir):
            return train(world).exit_code
    finally:
        distributed.cleanup()


def train_two_towers(
    make_source: Callable[[], TrainingSource], config: TrainConfig, world: World
) -> TrainingResult | Estimate:
    """Splits the people, trains, and leaves everything in `config.save_dir`; inside `run_folder`.

    Args:
        make_source: Gives what is trained on, the same on every process.
        config: The settings.
        world: This process among all.

    Returns:
        How it ended; with `dry_run`, what it would take.

    Raises:
        UserError: Weights are missing, too few people, or the folder belongs to another run.
    """
    chosen, said = choose_picture_transforms(config.picture_transforms, world.device)
    config = replace(config, picture_transforms=chosen)
    source = make_source()
    transform = source.make_transform()
    split = _find_split(config, source.identities, source.draw_split)
    items = source.items_of(split)
    seed_everything(config.seed)  # the same on all processes: they must begin with the same projections
    model = source.make_model()
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
    here = ("save_dir", "device")  # of this run, and not of the model
    training = {name: _plain(value) for name, value in vars(config).items() if name not in here}

    def save(is_best: bool) -> None:
        save_config(config.save_dir, model, kind=source.kind, data=data, training=training)
        save_weights(config.save_dir, model, which="best" if is_best else "last")

    if world.is_main:
        logger.info("\n".join([*source.facts(data), *([NO_VALIDATION] if validate is None else []), said]))
        if not config.dry_run:
            _bring_best_model(config)
    result = train_contrastive(
        model,
        train_set,
        config,
        world,
        kind=source.kind,
        validate=validate,
        save=save,
        settings={"split": split.hash} | source.fingerprint,
    )
    if world.is_main:
        _report(result, config)
    return result


def _make_validation(
    source: TrainingSource,
    items: Sequence[Any],
    transform: ImageTransform,
    config: TrainConfig,
    world: World,
) -> Callable[[TwoTowerModel], dict[str, float]] | None:
    """What scores the model after an epoch; None where there are too few people for it."""
    if len({item.identity for item in items}) < 2:  # one person alone can be mistaken for nobody
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
    """Says how it ended, and writes curves and card."""
    if isinstance(result, Estimate):
        logger.info("\n".join(result.lines()))
        return
    if result.status == DONE and result.num_new_steps:
        for name in RESULTS:  # they are those of other weights
            (config.save_dir / name).unlink(missing_ok=True)
    if result.history:
        write_curves(config.save_dir, result.history, result.best_epoch)
        write_model_card(config.save_dir)
    logger.info(result.message)


def _bring_best_model(config: TrainConfig) -> None:
    """Copies what lies beside a checkpoint of another folder: the best epoch may have been before it."""
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
