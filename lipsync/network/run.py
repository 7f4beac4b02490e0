"""Training by the settings: from clips to a folder with a model, its calibration and its card."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from facevox.errors import UserError, one_line
from facevox.files import read_json, write_json
from facevox.model_card import CARD_FILE
from facevox.training import distributed
from facevox.training.checkpoint import LAST_FILE
from facevox.training.distributed import World
from facevox.training.history import write_curves
from facevox.training.run_folder import run_folder
from facevox.training.trainer import STOPPED, Estimate, TrainingResult
from lipsync.clips.clock import CLOCK
from lipsync.clips.sounds import require_features
from lipsync.network.estimator import NetworkEstimator, load_model, save_model
from lipsync.network.evaluation import Measurements, calibration_examples, foreign_of, measure_take
from lipsync.network.found_offsets import with_found_offsets
from lipsync.network.model_card import write_model_card
from lipsync.network.split import PARTS, Split, split_clips
from lipsync.network.takes import Take, list_clips, load_takes
from lipsync.network.task import BEST_FILE, fit_ridge, make_network, make_trainer, notes_of
from lipsync.settings import Settings
from lipsync.sync.estimators import UNTRAINED_CALIBRATION, LoudnessEstimator, SyncEstimator
from lipsync.sync.inputs import MOUTH_CNN
from lipsync.sync.offset import search_lags
from lipsync.sync.posterior import SyncCalibration, fit_calibration

logger = logging.getLogger(__name__)
NETWORK, RIDGE, UNTRAINED = "network", "ridge", "untrained"
SPLIT_FILE = "split.json"
MAX_CALIBRATION_TAKES = 60  # more do not change probabilities visibly
RECOMMENDED_CLIPS = 100


def start_training(settings: Settings, resume: str, *, dry_run: bool) -> int:
    """Runs `run_training` on the device of this process; returns the exit code."""
    world = distributed.init(settings.training.device)
    if world.device.type == "cpu" and settings.model.visual_frontend != MOUTH_CNN:
        # Layers this small lose more by handing work to threads than they gain; next to other work they
        # would lose all of the gain.
        torch.set_num_threads(1)
    try:
        return run_training(settings, world, resume, dry_run=dry_run).exit_code
    finally:
        distributed.cleanup()


def run_training(
    settings: Settings, world: World, resume: str = "auto", *, dry_run: bool = False
) -> TrainingResult | Estimate:
    """Trains by the settings; returns the result, with `dry_run` an estimate of time and disk.

    Args:
        settings: All of them.
        world: Rank and device of this process.
        resume: As in `TrainerConfig`.
        dry_run: Try a few steps and print the estimate; write nothing.

    Raises:
        UserError: No clips, too few, another run in the folder, or one with other settings; no librosa.
    """
    require_features(settings.audio.features)
    split = split_clips(
        list_clips(Path(settings.paths.processed_dir)), settings.training.split, settings.training.seed
    )
    save_dir = Path(settings.paths.checkpoint_dir)
    with nullcontext() if dry_run else run_folder(save_dir, option="paths.checkpoint_dir"):
        if not dry_run:
            distributed.on_main(lambda: _keep_split(save_dir / SPLIT_FILE, settings, split, resume))
        features = settings.audio.features
        takes, validation = (list(load_takes(getattr(split, part), features)) for part in PARTS[:2])
        for _ in load_takes(split.test, features):
            pass  # a damaged clip is reported now, and not after the last epoch
        if not takes:
            raise UserError("the training clips hold no face")
        takes, validation = (
            known_offsets(part, settings, is_logged=world.is_main) for part in (takes, validation)
        )
        num_clips = len(split.train)
        clock = min(take.clock for take in [*takes, *validation])
        if world.is_main:
            counts = ", ".join(f"{len(getattr(split, part))} {part}" for part in PARTS)
            logger.info(
                f"clips: {counts}; {sum(len(take.track) for take in takes) / 1500:.1f} minutes to train on"
            )
            if num_clips < RECOMMENDED_CLIPS:
                logger.info(f"{num_clips} clips to train on; at least {RECOMMENDED_CLIPS} are recommended")
            if clock != CLOCK:
                logger.info(
                    "some clips were processed by an earlier version, with pictures up to 40 ms late: run "
                    "data_processing.py again; until then every answer of the model says so"
                )
        audio, mouth_px = settings.audio, settings.data.mouth_crop_px
        network = make_network(
            settings.model, audio.num_mels, audio.num_mfcc, mouth_px, settings.training.seed
        )
        trainer = make_trainer(
            network,
            fit_ridge(takes),
            takes,
            validation,
            settings.training,
            world,
            run_dir=save_dir,
            save_dir=save_dir,
            notes=notes_of(settings, split, clock),
            resume=resume,
            events_dir=Path(settings.paths.log_dir),
        )
        result = trainer.estimate() if dry_run else trainer.run()
        if isinstance(result, Estimate):
            if world.is_main:
                for line in result.lines():
                    logger.info(line)
        elif world.is_main:
            _finish(settings, split, takes, validation, result)
    return result


def known_offsets(takes: Sequence[Take], settings: Settings, *, is_logged: bool = True) -> list[Take]:
    """The takes with offsets by `training.offsets`."""
    if settings.training.offsets == "zero":
        return list(takes)
    return with_found_offsets(takes, is_logged=is_logged)


def _keep_split(file: Path, settings: Settings, split: Split, resume: str) -> None:
    """Writes the split; raises UserError where a run to resume had another one."""
    plain = {part: [entry.name for entry in getattr(split, part)] for part in PARTS}
    content = {**plain, "shares": list(settings.training.split), "seed": settings.training.seed}
    if file.is_file() and resume != "never" and read_json(file) != content:
        raise UserError(
            f"{file}: the run there was on other clips or another split; give another "
            "paths.checkpoint_dir, or --resume never to start from scratch"
        )
    write_json(file, content)


def _finish(
    settings: Settings,
    split: Split,
    takes: Sequence[Take],
    validation: Sequence[Take],
    result: TrainingResult,
) -> None:
    """Calibrates the written models, measures the best one on the test clips, writes curves and card."""
    save_dir = Path(settings.paths.checkpoint_dir)
    logger.info(result.message)
    card, last = save_dir / CARD_FILE, save_dir / LAST_FILE
    if not result.num_new_steps and _is_newer(card, last):
        logger.info(f"model: {save_dir / BEST_FILE}, nothing new to measure")
        return
    is_stopped = result.status == STOPPED  # somebody waits for the end: only the best model is calibrated
    later = [] if is_stopped else sorted(save_dir.glob("epoch_*.pth"))
    for file in [save_dir / BEST_FILE, *later]:
        if file.is_file():
            calibrate_file(file, validation, takes)
    if is_stopped or not result.history:
        return
    write_curves(save_dir, result.history, result.best_epoch)
    model = load_model(save_dir / BEST_FILE)
    estimators: dict[str, SyncEstimator] = {NETWORK: model.estimator}
    if model.ridge is not None:
        estimators |= {f"{NETWORK} alone": NetworkEstimator(model.network), RIDGE: model.ridge}
    estimators[UNTRAINED] = LoudnessEstimator()
    calibrations = {NETWORK: model.calibration, UNTRAINED: UNTRAINED_CALIBRATION}
    takes = known_offsets(list(load_takes(split.test, settings.audio.features)), settings)
    results = measure_all(estimators, calibrations, takes, settings.training.seed)
    notes = notes_of(settings, split)
    write_model_card(save_dir, settings, notes, result, results, model.calibration)
    logger.info(f"model: {save_dir / BEST_FILE}")


def _is_newer(file: Path, than: Path) -> bool:
    return file.is_file() and than.is_file() and file.stat().st_mtime_ns >= than.stat().st_mtime_ns


def calibrate_file(file: Path, validation: Sequence[Take], lenders: Sequence[Take]) -> None:
    """Adds a calibration, fitted on the takes held out, to a checkpoint without one.

    Where that is not possible (faces too short), the file stays as it is and a message has the reason.
    """
    model = load_model(file)
    if model.calibration is not None:
        return
    try:
        fitted = calibrate(model.estimator, validation, lenders)
    except ValueError as error:  # UserError is one
        logger.info(f"{file}: without a calibration of its score: {one_line(error)}")
        return
    save_model(file, replace(model, calibration=fitted))


def calibrate(
    estimator: SyncEstimator, takes: Sequence[Take], lenders: Sequence[Take] = ()
) -> SyncCalibration:
    """The calibration of an estimator on takes of known offset; `lenders` as in `calibration_examples`.

    Raises:
        ValueError: Too few, or all too short.
    """
    examples = calibration_examples(takes[:MAX_CALIBRATION_TAKES], estimator, seed=0, lenders=lenders)
    return fit_calibration(examples, search_lags())


def measure_all(
    estimators: Mapping[str, SyncEstimator],
    calibrations: Mapping[str, SyncCalibration | None],
    takes: Sequence[Take],
    seed: int,
) -> dict[str, Measurements]:
    """Measurements of each estimator on the same windows of takes that none of them was fitted on."""
    results = {}
    for name, estimator in estimators.items():
        rng = np.random.default_rng(seed)  # drawn again for each: the same windows
        results[name] = Measurements()
        for number, take in enumerate(takes):
            foreign = foreign_of(takes, number)
            measure_take(results[name], take, foreign, estimator, calibrations.get(name), rng)
    return results
