"""The network (with its ridge), the network alone, the ridge and the untrained estimator on new speakers.

Network with ridge is what training leaves in a checkpoint. The speakers are dealt into k folds; for each
fold network and ridge are fitted on all other speakers, and all four are measured on those of the fold, on
windows without overlap (`lipsync.network.evaluation`).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from facevox.errors import UserError
from facevox.files import read_json, scratch_folder, write_json
from facevox.intervals import Measure, bootstrap_over_groups
from facevox.spreadsheets import TableReader
from facevox.training.distributed import World
from facevox.training.trainer import DONE, STOPPED
from lipsync.clips.clip_files import load_clip, write_clip
from lipsync.clips.features import extract_clip
from lipsync.network.estimator import NetworkEstimator
from lipsync.network.evaluation import (
    SEARCH_MS,
    Measurements,
    area_by_draw,
    calibration_examples,
    foreign_of,
    mean_over_speakers,
    measure_take,
)
from lipsync.network.model import LipSyncNetwork
from lipsync.network.takes import Take, takes_of
from lipsync.network.task import fit_ridge, make_network, make_trainer
from lipsync.settings import SMALL_SET_FILE, ModelSettings, Settings, TrainingSettings, load_settings
from lipsync.sync.estimators import LoudnessEstimator, RidgeEstimator, SyncEstimator
from lipsync.sync.offset import search_lags
from lipsync.sync.posterior import Example, fit_calibration

NETWORK, ALONE, RIDGE, UNTRAINED = ESTIMATORS = ("network", "network alone", "ridge", "untrained")
_SMALL = load_settings(SMALL_SET_FILE)
RECIPE, RECIPE_MODEL = _SMALL.training, _SMALL.model  # what users of small sets train with
LIST_FILE, LIST_COLUMNS = "MANIFEST.csv", ("file", "identity", "est_offset_ms", "est_offset_z")
REPOSITORY = Path(__file__).resolve().parent.parent
MIN_Z = 4.0  # of a known offset, to be taken for known
LAB_PREFIX = "grid_"  # recorded in a laboratory: known whatever its z
MOUTH_PX = 96


@dataclass
class FoldEstimators:
    """The estimators of a fold, fitted on everybody else.

    Attributes:
        estimators: By name.
        examples: By name: windows of the fold's own speakers, to calibrate other folds on.
    """

    estimators: dict[str, SyncEstimator]
    examples: dict[str, list[Example]] = field(default_factory=dict)


def sample_data_dir() -> Path:
    """Folder of real sample data, which may be missing: $FACEVOX_TEST_DATA, or ../shared/data."""
    return Path(os.environ.get("FACEVOX_TEST_DATA", REPOSITORY.parent / "shared" / "data"))


def talking_clips(data_dir: Path) -> list[dict[str, str]]:
    """The rows of the talking clips in the list of sample data.

    Raises:
        UserError: There is no list, or it lacks a column.
    """
    manifest = data_dir / LIST_FILE
    try:
        with manifest.open(encoding="utf-8", newline="") as file:
            rows = [row for row in TableReader(file) if row["file"].startswith("talking/")]
            for row in rows:
                _ = [row[name] for name in LIST_COLUMNS]
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{manifest}: no list of clips ({error})") from None
    return rows


def real_takes(data_dir: Path, features_dir: Path) -> list[Take]:
    """The real clips whose offset is known: lab clips, and those estimated with z of at least MIN_Z.

    Where two people are visible at once, the face that follows the sound best at the known offset is used:
    finding the speaker is not measured here, and it is the same face for every estimator.

    Args:
        data_dir: With MANIFEST.csv (file, identity, est_offset_ms, est_offset_z) and its talking clips.
        features_dir: Folder of their features, one file a clip; missing ones are made.

    Raises:
        UserError: No manifest, or no clip in it.
    """
    rows = talking_clips(data_dir)
    takes = []
    for row in rows:
        video = data_dir / row["file"]
        is_lab = video.name.startswith(LAB_PREFIX)
        if not is_lab and float(row["est_offset_z"] or 0) < MIN_Z:
            continue
        features_file = features_dir / f"{video.stem}.npz"
        if not features_file.exists():
            features_dir.mkdir(parents=True, exist_ok=True)
            write_clip(features_file, extract_clip(video), {"video": video.name, "speaker": row["identity"]})
        offset_ms = float(row["est_offset_ms"] or 0)
        takes += takes_of(load_clip(features_file)[0], video.name, row["identity"], offset_ms)
    if not takes:
        raise UserError(f"{data_dir / LIST_FILE}: no clip whose offset is known")
    return takes


def train_fold(takes: Sequence[Take], model: ModelSettings, training: TrainingSettings) -> LipSyncNetwork:
    """A network fitted on takes, after the last epoch.

    Raises:
        UserError: Nothing long enough to train on, or a loss that was not finite.
        KeyboardInterrupt: A stop signal came: half a training is none to measure.
    """
    first = takes[0].sound
    network = make_network(model, first.log_mel.shape[1], first.mfcc.shape[1], MOUTH_PX, training.seed)
    with scratch_folder() as folder:
        trainer = make_trainer(
            network,
            None,
            takes,
            (),
            training,
            World(device=torch.device("cpu")),
            run_dir=folder,
            save_dir=None,
            notes={},
        )
        result = trainer.run()
    if result.status == STOPPED:
        raise KeyboardInterrupt
    if result.status != DONE:
        raise UserError(f"training without its last epoch: {result.message}")
    return network


def cross_validate(
    takes: Sequence[Take],
    folds: Sequence[Sequence[str]],
    model: ModelSettings | None = None,
    training: TrainingSettings = RECIPE,
) -> dict[str, Measurements]:
    """All four on the same windows, each speaker held out once; also of what is reported of the windows.

    The calibration of a fold is fitted on the windows of the other folds, each by the estimators that have
    not seen them.

    Args:
        takes: With known offsets, which the fits also use.
        folds: Speakers, from `lipsync.network.split.deal_folds`.
        model: Of the network (None: the shipped configuration).
        training: Its training settings (by default those of small.yaml).
    """
    fitted = []
    for number in range(len(folds)):
        fold = fit_fold(takes, folds, number, model or RECIPE_MODEL, training)
        held_out = [take for take in takes if take.speaker in folds[number]]
        # A fold of one speaker has to borrow a sound to swap.
        lent = [] if len({take.speaker for take in held_out}) > 1 else [_lender(takes, folds[number])]
        for name, estimator in fold.estimators.items():
            examples = calibration_examples([*held_out, *lent], estimator, training.seed)
            fold.examples[name] = [example for example in examples if example.person in folds[number]]
        fitted.append(fold)
    measurements = {name: Measurements() for name in ESTIMATORS}
    for number, fold in enumerate(fitted):
        others = [other for other in fitted if other is not fold]
        measure_fold(measurements, takes, folds, number, fold.estimators, others, training.seed)
    return measurements


def _lender(takes: Sequence[Take], fold: Sequence[str]) -> Take:
    return next(take for take in takes if take.speaker not in fold)


def fit_fold(
    takes: Sequence[Take],
    folds: Sequence[Sequence[str]],
    number: int,
    model: ModelSettings,
    training: TrainingSettings,
) -> FoldEstimators:
    """All four for the speakers of fold `number`, fitted on everybody else."""
    learned = [take for take in takes if take.speaker not in folds[number]]
    network, ridge = train_fold(learned, model, training), fit_ridge(learned)
    if ridge is None:
        raise UserError(f"the ridge needs {RidgeEstimator.NUM_BANDS} mel bands (audio.num_mels)")
    return FoldEstimators(
        {
            NETWORK: NetworkEstimator(network, ridge),
            ALONE: NetworkEstimator(network),
            RIDGE: ridge,
            UNTRAINED: LoudnessEstimator(),
        }
    )


def measure_fold(
    measurements: dict[str, Measurements],
    takes: Sequence[Take],
    folds: Sequence[Sequence[str]],
    number: int,
    estimators: Mapping[str, SyncEstimator],
    others: Sequence[FoldEstimators],
    seed: int,
) -> None:
    """Adds the results of all four on the speakers of fold `number`.

    Args:
        measurements: By name; are added to.
        takes: Of all folds.
        folds: Speakers.
        number: Of the fold.
        estimators: Fitted on everybody else.
        others: Whose examples the calibrations are fitted on; none: only where the best lag is, is measured.
        seed: Of the shifts.
    """
    learned = [take for take in takes if take.speaker not in folds[number]]
    held_out = [take for take in takes if take.speaker in folds[number]]
    for name, estimator in estimators.items():
        examples = [example for other in others for example in other.examples[name]]
        calibration = fit_calibration(examples, search_lags()) if examples else None
        rng = np.random.default_rng([seed, number])  # the same windows for each
        for index, take in enumerate(held_out):
            # A fold of one speaker has to borrow the foreign sound from others.
            foreign = foreign_of(held_out, index) or foreign_of([take, *learned], 0)
            measure_take(measurements[name], take, foreign, estimator, calibration, rng)


def offsets_fold_by_fold(
    takes: Sequence[Take], folds: Sequence[Sequence[str]], settings: Settings, kept_dir: Path
) -> dict[str, Measurements]:
    """The `hits` of `cross_validate`, kept after each fold: folds of an earlier call are not done again.

    A fold is recognised by clips, speakers and settings, not by the program: after a change of the program
    use a fresh folder.

    Args:
        takes: As for `cross_validate`.
        folds: As for `cross_validate`.
        settings: Their `model` and `training` count.
        kept_dir: One JSON file a fold is written there.

    Raises:
        UserError: A file in `kept_dir` cannot be read.
    """
    whole = {name: Measurements() for name in ESTIMATORS}
    training = asdict(settings.training) | {"split": list(settings.training.split)}
    for number, fold in enumerate(folds):
        made_of = {
            "clips": [
                [take.name, take.speaker, int(take.lag), len(take.track), len(take.sound.log_mel)]
                for take in takes
            ],
            "held_out": list(fold),
            "model": asdict(settings.model),
            "training": training,
        }
        file = kept_dir / f"fold_{number + 1}_of_{len(folds)}.json"
        results = read_json(file) if file.exists() else {}
        if results.get("made_of") != made_of:
            measurements = {name: Measurements() for name in ESTIMATORS}
            fold_fitted = fit_fold(takes, folds, number, settings.model, settings.training)
            measure_fold(
                measurements, takes, folds, number, fold_fitted.estimators, (), settings.training.seed
            )
            results = {
                "made_of": made_of,
                "hits": {name: measured.hits for name, measured in measurements.items()},
            }
            write_json(file, results)
        for name, measured in whole.items():
            for search, by_length in results["hits"][name].items():  # in JSON numbers as keys are text
                for length, hits in by_length.items():
                    measured.hits[float(search)][int(length)].update(hits)
    return whole


def pool_seeds(by_seed: Sequence[dict[str, Measurements]]) -> dict[str, Measurements]:
    """The `hits` of the same windows under several seeds as one: a mean is over windows and seeds."""
    pooled = {name: Measurements() for name in ESTIMATORS}
    for measurements in by_seed:
        for name, measured in measurements.items():
            for search, by_length in measured.hits.items():
                for length, by_speaker in by_length.items():
                    for speaker, hits in by_speaker.items():
                        pooled[name].hits[search][length].setdefault(speaker, []).extend(hits)
    return pooled


def accuracy_difference(
    one: Measurements, other: Measurements, length: int, search_ms: float = SEARCH_MS
) -> Measure:
    """Accuracy of `one` minus that of `other` on the same windows."""
    return mean_over_speakers(
        {
            speaker: [
                int(hit) - int(other_hit)
                for hit, other_hit in zip(hits, other.hits[search_ms][length][speaker], strict=True)
            ]
            for speaker, hits in one.hits[search_ms][length].items()
        }
    )


def auc_difference(one: Measurements, other: Measurements, length: int, kind: str) -> Measure:
    """AUC of `one` minus that of `other`, on the same windows and the same draws of speakers."""
    speakers = sorted({answer.speaker for answer in one.answers[length, kind]})
    first, second = (area_by_draw(measured, length, kind, speakers) for measured in (one, other))
    return bootstrap_over_groups(
        lambda times_DG: first(times_DG) - second(times_DG), len(speakers), num=len(one.answers[length, kind])
    )
