"""A model fitted to a folder of videos without labels: to these people, rooms and cameras.

Nobody says by how much the clips are off, which of them are dubbed, or who is in them twice; so

1. the model that comes with the package finds the offset of each clip as a whole;
2. the people are dealt into NUM_FOLDS folds; for each, a network is trained on the others with these offsets,
   together with the clips of the package, and finds the offsets of the fold's clips again;
3. clips whose offset does not stand out, or changes, are left out and named;
4. the windows of each fold, by the network that has not seen it, calibrate the model and say whether it does
   better than the one that comes with the package; where it does not, nothing is written;
5. the model is trained on all clips that are left.

Each training continues where it was stopped; one that is finished is not done again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from facevox.errors import UserError
from facevox.files import write_text
from facevox.model_card import CARD_FILE, bullets, table, write_card
from facevox.training.distributed import World, choose_device
from facevox.training.trainer import STOPPED
from lipsync.clips.clock import FRAME_HZ
from lipsync.network.estimator import SavedModel, load_model, save_model
from lipsync.network.evaluation import (
    Measurements,
    accuracy,
    calibration_examples,
    foreign_of,
    measure_take,
)
from lipsync.network.found_offsets import FoundOffset, find_take_offset
from lipsync.network.model_card import score_tables
from lipsync.network.split import deal_folds
from lipsync.network.takes import Take, list_clips, load_takes
from lipsync.network.task import BEST_FILE, fit_ridge, make_network, make_trainer
from lipsync.network.windows import SEGMENT_FRAMES
from lipsync.settings import SMALL_SET_FILE, Settings, load_settings
from lipsync.shipped.clips import load_shipped_takes
from lipsync.shipped.model import load_shipped
from lipsync.sync.estimators import SyncEstimator
from lipsync.sync.offset import search_lags
from lipsync.sync.posterior import Example, SyncCalibration, fit_calibration

logger = logging.getLogger(__name__)

# Below, the model of the package does as well (tried with folders of 4 to 21 people, half a minute to 4 1/2).
MIN_PEOPLE, MIN_SECONDS = 10, 90.0
NUM_FOLDS = 3
NUM_STEPS, MIN_EPOCHS = 450, 20
COMPARED_FRAMES = 50  # windows of 2 s decide whether anything was gained
CLIPS_TABLE = "clips.csv"


class TooSmallError(UserError):
    """The folder has too few people or seconds to gain anything by."""


def require_enough(found: Sequence[FoundOffset]) -> None:
    """Raises TooSmallError with people and seconds where there are too few whose offset stands out."""
    used = [one.take for one in found if one.is_used]
    people, seconds = len({take.speaker for take in used}), sum(len(take.track) for take in used) / FRAME_HZ
    if people < MIN_PEOPLE or seconds < MIN_SECONDS:
        raise TooSmallError(
            f"{people} people and {seconds:.0f} s of clips whose offset stands out: with under {MIN_PEOPLE} "
            f"people or {MIN_SECONDS:.0f} s nothing is gained; use the model that comes with the package, or "
            "add videos"
        )


@dataclass(frozen=True)
class FitResult:
    """Result of `fit_folder`.

    Attributes:
        model_file: The checkpoint; None: the model of the package does as well, nothing was written.
        found: All takes with their offsets.
        message: One line for people.
        results: Of the fitted model and the package's, on people left out, against the offsets found.
    """

    model_file: Path | None
    found: tuple[FoundOffset, ...]
    message: str
    results: Mapping[str, Measurements]


def fit_files(clips_dir: Path, save_dir: Path, settings: Settings) -> FitResult:
    """`fit_folder` of the clips that data_processing.py wrote, on the device of the settings."""
    takes = list(load_takes(list_clips(clips_dir), settings.audio.features))
    torch.set_num_threads(1)  # layers this small lose more by handing work to threads than they gain
    return fit_folder(takes, save_dir, settings, World(device=choose_device(settings.training.device, 0)))


def fit_folder(takes: Sequence[Take], save_dir: Path, settings: Settings, world: World) -> FitResult:
    """Fits a model to takes whose offsets nobody knows; see the module.

    Writes best_model.pth, MODEL_CARD.md and clips.csv into `save_dir`.

    Args:
        takes: Of any people; those of one speaker are never in two folds.
        save_dir: Also for what a stopped run continues from.
        settings: Their audio and training.seed count; the network is that of small.yaml.
        world: Device.

    Raises:
        TooSmallError: Too few people or seconds.
        UserError: Sound features of other sizes than those of the package's model.
        SystemExit: A stop signal came; its code is that of stopped runs.
    """
    shipped = load_shipped()
    offsets = [find_take_offset(take, shipped.estimator, shipped.calibration) for take in takes]
    write_clip_table(save_dir / CLIPS_TABLE, offsets)
    require_enough(offsets)
    used = [one.take for one in offsets if one.is_used]
    logger.info(f"{len(used)} of {len(offsets)} faces have an offset that stands out (see {CLIPS_TABLE})")
    folds = deal_folds(used, NUM_FOLDS)
    seed = settings.training.seed
    fold_of = {speaker: number for number, fold in enumerate(folds) for speaker in fold}
    estimators = []
    for number in range(NUM_FOLDS):
        learned = [take for take in used if fold_of[take.speaker] != number]
        name = f"fold {number + 1} of {NUM_FOLDS}"
        estimators.append(_train(learned, save_dir / "work", settings, world, name).estimator)
    for one in offsets:  # people of whom nothing stood out at first: no fold has seen them
        fold_of.setdefault(one.take.speaker, 0)
    offsets = [
        find_take_offset(one.take, estimators[fold_of[one.take.speaker]], shipped.calibration)
        for one in offsets
    ]
    write_clip_table(save_dir / CLIPS_TABLE, offsets)
    require_enough(offsets)
    used = [one.take for one in offsets if one.is_used]
    examples = _examples(used, fold_of, estimators, seed)
    calibration = fit_calibration([each for part in examples for each in part], search_lags())
    results = _compare(used, fold_of, estimators, examples, shipped.estimator, shipped.calibration, seed)
    fitted, former = (accuracy(results[name], COMPARED_FRAMES).value for name in ("fitted", "shipped"))
    gain = f"{fitted:.1%} of windows of 2 s, the model that comes with the package {former:.1%}"
    if not fitted >= former:
        message = f"people left out: right offset in {gain}; nothing is gained, no model is written"
        return FitResult(None, tuple(offsets), message, results)
    model = _train(used, save_dir / "work", settings, world, "all clips")
    save_model(save_dir / BEST_FILE, replace(model, calibration=calibration))
    _write_fit_card(save_dir / CARD_FILE, offsets, results)
    message = f"people left out: right offset in {gain}"
    return FitResult(save_dir / BEST_FILE, tuple(offsets), message, results)


def _train(takes: Sequence[Take], work_dir: Path, settings: Settings, world: World, name: str) -> SavedModel:
    """A network and a ridge fitted on takes and on the clips of the package; not done twice for the same."""
    together = [*takes, *load_shipped_takes()]
    recipe = load_settings(SMALL_SET_FILE)
    num_segments = sum(max(round(len(take.track) / SEGMENT_FRAMES), 1) for take in together)
    num_batches = max(num_segments // recipe.training.batch_size, 1)
    training = replace(
        recipe.training,
        num_epochs=max(-(-NUM_STEPS // num_batches), MIN_EPOCHS),
        seed=settings.training.seed,
        device=settings.training.device,
    )
    plain = [
        [take.name, take.track.track_id, take.track.start, len(take.track), take.lag] for take in together
    ]
    made_of = [plain, asdict(training), asdict(recipe.model), settings.audio.sizes()]
    key = hashlib.sha256(json.dumps(made_of).encode("ascii")).hexdigest()
    folder = work_dir / key[:16]
    file = folder / BEST_FILE
    notes = {
        "audio": settings.audio.sizes(),
        "clock": min(take.clock for take in takes),
        "fitted_on": key,
        "num_clips": len({take.name for take in takes}),
    }
    if file.is_file():
        return load_model(file, world.device)
    logger.info(f"{name}: {len(takes)} faces, {training.num_epochs} epochs")
    network = make_network(
        recipe.model,
        settings.audio.num_mels,
        settings.audio.num_mfcc,
        settings.data.mouth_crop_px,
        training.seed,
    )
    ridge = fit_ridge(together)
    trainer = make_trainer(
        network, ridge, together, (), training, world, run_dir=folder, save_dir=None, notes=notes
    )
    result = trainer.run()
    if result.status == STOPPED:
        logger.info(result.message)  # names the signal
        raise SystemExit(result.exit_code)
    if result.exit_code:
        raise UserError(f"{name}: training without its last epoch: {result.message}")
    model = SavedModel(network=network, ridge=ridge, calibration=None, settings=notes)
    save_model(file, model)
    return model


def _examples(
    takes: Sequence[Take], fold_of: dict[str, int], estimators: Sequence[SyncEstimator], seed: int
) -> list[list[Example]]:
    """Windows of the takes of each fold by the estimator that has not seen them."""
    return [
        calibration_examples([take for take in takes if fold_of[take.speaker] == number], estimator, seed)
        for number, estimator in enumerate(estimators)
    ]


def _compare(
    takes: Sequence[Take],
    fold_of: dict[str, int],
    estimators: Sequence[SyncEstimator],
    examples: Sequence[Sequence[Example]],
    shipped: SyncEstimator,
    shipped_calibration: SyncCalibration,
    seed: int,
) -> dict[str, Measurements]:
    """Both models on the same windows of people whom the fitted one has not seen; offsets are those found."""
    results = {"fitted": Measurements(), "shipped": Measurements()}
    calibrations = [
        fit_calibration(
            [each for other, part in enumerate(examples) if other != number for each in part], search_lags()
        )
        for number in range(len(estimators))
    ]
    for name, measured in results.items():
        rng = np.random.default_rng(seed)
        for number, take in enumerate(takes):
            fold = fold_of[take.speaker]
            is_fitted = name == "fitted"
            estimator = estimators[fold] if is_fitted else shipped
            calibration = calibrations[fold] if is_fitted else shipped_calibration
            measure_take(measured, take, foreign_of(takes, number), estimator, calibration, rng)
    return results


def write_clip_table(path: Path, found: Sequence[FoundOffset]) -> None:
    """Writes a row for each face: the offset that was found, or why it is left out."""
    rows: list[list[object]] = [
        [
            "clip",
            "person",
            "face",
            "seconds",
            "offset_ms",
            "offset_low_ms",
            "offset_high_ms",
            "used",
            "reason",
        ]
    ]
    for one in found:
        seconds = round(len(one.take.track) / FRAME_HZ, 2)
        numbers = [one.take.offset_ms, *one.interval_ms]
        cells = [round(number, 1) + 0.0 for number in numbers] if one.is_used else [""] * len(numbers)
        used = "yes" if one.is_used else "no"
        rows.append(
            [one.take.name, one.take.speaker, one.take.track.track_id, seconds, *cells, used, one.reason]
        )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def _write_fit_card(path: Path, found: Sequence[FoundOffset], results: dict[str, Measurements]) -> None:
    used = [one.take for one in found if one.is_used]
    seconds = sum(len(take.track) for take in used) / FRAME_HZ
    num_people = len({take.speaker for take in used})
    left_out = [one for one in found if not one.is_used]
    write_card(
        path,
        "Lip-sync: a model fitted to a folder of videos",
        {
            "Data": [
                bullets(
                    [
                        f"{len(used)} faces of {num_people} people (or videos, where no speaker is named), "
                        f"{seconds / 60:.1f} minutes, and the clips of the package's model",
                        "their offsets were found, not known: by the package's model first, then by networks "
                        "that were trained on other people of the folder",
                        f"{len(left_out)} faces left out: {CLIPS_TABLE} has the reasons",
                    ]
                )
            ],
            "People left out": [
                f"In {NUM_FOLDS} folds over people, against the offsets that were found for whole clips.",
                *score_tables(results),
            ],
            "Left out": [
                table(["clip", "reason"], [(one.take.name, one.reason) for one in left_out[:50]])
                if left_out
                else ""
            ],
        },
    )
