"""A training and the folder that it leaves: what all trainings of two towers have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from facevox.errors import UserError
from facevox.files import replacing
from facevox.training import distributed
from facevox.training.distributed import World
from facevox.training.history import write_curves
from facevox.training.run_folder import run_folder
from facevox.training.trainer import DONE, LAST_FILE, Estimate, TrainingResult
from lc_pytorch.datasets.base import PairDataset
from lc_pytorch.datasets.splits import Split, check_split, load_split, write_split
from lc_pytorch.evaluation.model_card import write_model_card
from lc_pytorch.models.face_voice import TwoTowerModel
from lc_pytorch.models.store import CONFIG_FILE, WEIGHT_FILES, save_config, save_weights
from lc_pytorch.training.options import TrainConfig
from lc_pytorch.training.task import train_contrastive

SPLIT_FILE = "split.json"
# What an evaluation of the model leaves in its folder.
RESULTS = ("evaluation_results.json", "roc.png", "rank_cdf.png", "gallery.png")


def find_split(config: TrainConfig, identities: Sequence[str], draw: Callable[[], Split]) -> Split:
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


def model_folder(config: TrainConfig) -> AbstractContextManager[None]:
    """The folder of the run, held against others; with `dry_run` nothing is made."""
    return nullcontext() if config.dry_run else run_folder(config.save_dir)


def finish_training(
    model: TwoTowerModel,
    train_set: PairDataset,
    config: TrainConfig,
    world: World,
    *,
    kind: str,
    validate: Callable[[TwoTowerModel], dict[str, float]] | None,
    data: dict[str, Any],
    settings: dict[str, Any],
) -> TrainingResult | Estimate:
    """Runs the engine and writes the model's folder around it: what all two-tower trainings have in common.

    Args:
        model: Freshly built.
        train_set: Its items.
        config: The settings.
        world: This process among all.
        kind: Of the model, as in config.json.
        validate: See `ContrastiveTask`.
        data: For config.json: what the inputs are.
        settings: See `train_contrastive`.

    Returns:
        How it ended; with `dry_run`, what it would take.
    """
    here = ("save_dir", "device")  # of this run, and not of the model
    training = {name: _plain(value) for name, value in vars(config).items() if name not in here}

    def save(is_best: bool) -> None:
        save_config(config.save_dir, model, kind=kind, data=data, training=training)
        save_weights(config.save_dir, model, which="best" if is_best else "last")

    if world.is_main and not config.dry_run:
        _bring_best_model(config)
    result = train_contrastive(
        model, train_set, config, world, kind=kind, validate=validate, save=save, settings=settings
    )
    if isinstance(result, Estimate):
        if world.is_main:
            print("\n".join(result.lines()))
        return result
    if world.is_main:
        if result.status == DONE and result.num_new_steps:
            for name in RESULTS:  # they are those of other weights
                (config.save_dir / name).unlink(missing_ok=True)
        if result.history:
            write_curves(config.save_dir, result.history, result.best_epoch)
            write_model_card(config.save_dir)
        print(result.message)
    return result


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


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())  # a later program may be started elsewhere
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
