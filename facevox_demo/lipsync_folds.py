"""The network (with its ridge), the network alone, the ridge and the untrained estimator on new speakers.

Network with ridge is what training leaves in a checkpoint. The speakers are dealt into k folds; for each
fold network and ridge are fitted on all other speakers, and all four are measured on those of the fold, on
windows without overlap (`lipsync.network.evaluation`).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from facevox.calibration import expected_calibration_error
from facevox.errors import UserError
from facevox.files import read_json, scratch_folder, write_json
from facevox.intervals import Measure, bootstrap_over_groups
from facevox.spreadsheets import TableReader
from facevox.training.distributed import World
from facevox.training.trainer import DONE, STOPPED
from lipsync.clips.clip_files import load_clip, write_clip
from lipsync.clips.features import ClipFeatures, extract_clip
from lipsync.network.estimator import NetworkEstimator
from lipsync.network.evaluation import (
    KINDS,
    Measurements,
    Probabilities,
    area_by_draw,
    foreign_of,
    mean_over_speakers,
    measure_take,
    probabilities_by,
    with_owners,
)
from lipsync.network.model import LipSyncNetwork
from lipsync.network.takes import Take, takes_of
from lipsync.network.task import fit_ridge, make_network, make_trainer
from lipsync.settings import SMALL_SET_FILE, ModelSettings, Settings, TrainingSettings, load_settings
from lipsync.sync.calibration import SyncCalibration, calibration_examples
from lipsync.sync.estimators import LoudnessEstimator, RidgeEstimator, SyncEstimator

if TYPE_CHECKING:
    from numpy.typing import NDArray

NETWORK, ALONE, RIDGE, UNTRAINED = ESTIMATORS = ("network", "network alone", "ridge", "untrained")
RECIPE = load_settings(SMALL_SET_FILE).training  # what users of small sets train with
MIN_Z = 4.0  # of a known offset, to be taken for known
LAB_PREFIX = "grid_"  # recorded in a laboratory: offset 0
MOUTH_PX = 96
NUM_BINS = 10  # of the calibration error: there are a hundred windows


@dataclass
class FoldMeasurements(Measurements):
    """Measurements, and the examples that calibrations are fitted on.

    Attributes:
        examples: By fold: (features, is in sync) of the windows that training would calibrate on.
    """

    examples: dict[int, list[tuple[NDArray[np.float64], bool]]] = field(default_factory=dict)


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
    manifest = data_dir / "MANIFEST.csv"
    try:
        with manifest.open(encoding="utf-8", newline="") as file:
            rows = [row for row in TableReader(file) if row["file"].startswith("talking/")]
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{manifest}: no list of clips ({error})") from None
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
        offset_ms = 0.0 if is_lab else float(row["est_offset_ms"])
        takes += takes_of(load_clip(features_file)[0], video.name, row["identity"], offset_ms)
    if not takes:
        raise UserError(f"{manifest}: no clip whose offset is known")
    return takes


def deal_folds(takes: Sequence[Take], num_folds: int) -> list[list[str]]:
    """The speakers in `num_folds` groups of about the same number of frames each.

    Raises:
        UserError: Fewer than two folds, or more than speakers.
    """
    frames: dict[str, int] = {}
    for take in takes:
        frames[take.speaker] = frames.get(take.speaker, 0) + len(take.track)
    if not 2 <= num_folds <= len(frames):
        raise UserError(f"{num_folds} folds of {len(frames)} speakers: 2 to {len(frames)} are possible")
    folds: list[list[str]] = [[] for _ in range(num_folds)]
    sizes = [0] * num_folds
    for speaker in sorted(frames, key=lambda name: (-frames[name], name)):
        # The smallest fold; of equal ones that with fewest speakers.
        number = min(range(num_folds), key=lambda k: (sizes[k], len(folds[k])))
        folds[number].append(speaker)
        sizes[number] += frames[speaker]
    return folds


def train_fold(takes: Sequence[Take], model: ModelSettings, training: TrainingSettings) -> LipSyncNetwork:
    """A network fitted on takes, after the last epoch.

    Raises:
        UserError: Nothing long enough to train on, or a loss that was not finite.
        KeyboardInterrupt: A stop signal came: half a training is none to measure.
    """
    first = takes[0].sound
    num_values = first.log_mel.shape[1] + first.mfcc.shape[1]
    network = make_network(model, num_values, MOUTH_PX, training.seed)
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
) -> dict[str, FoldMeasurements]:
    """All four on the same windows, each speaker held out once.

    Args:
        takes: With known offsets, which the fits also use.
        folds: Speakers, from `deal_folds`.
        model: Of the network (None: the shipped configuration).
        training: Its training settings (by default those of small.yaml).
    """
    measurements = {name: FoldMeasurements() for name in ESTIMATORS}
    for number in range(len(folds)):
        measure_fold(measurements, takes, folds, number, model or ModelSettings(), training)
    return measurements


def measure_fold(
    measurements: dict[str, FoldMeasurements],
    takes: Sequence[Take],
    folds: Sequence[Sequence[str]],
    number: int,
    model: ModelSettings,
    training: TrainingSettings,
) -> None:
    """Adds the results of all four on the speakers of fold `number`, fitted on everybody else."""
    learned = [take for take in takes if take.speaker not in folds[number]]
    held_out = [take for take in takes if take.speaker in folds[number]]
    network, ridge = train_fold(learned, model, training), fit_ridge(learned)
    if ridge is None:
        raise UserError(f"the ridge needs {RidgeEstimator.NUM_BANDS} mel bands (audio.num_mels)")
    estimators: dict[str, SyncEstimator] = {
        NETWORK: NetworkEstimator(network, ridge),
        ALONE: NetworkEstimator(network),
        RIDGE: ridge,
        UNTRAINED: LoudnessEstimator(),
    }
    for name, estimator in estimators.items():
        rng = np.random.default_rng([training.seed, number])  # the same windows for each
        for index, take in enumerate(held_out):
            # A fold of one speaker has to borrow the foreign sound from others.
            foreign = foreign_of(held_out, index) or foreign_of([take, *learned], 0)
            measure_take(measurements[name], take, foreign, estimator, rng)
        add_examples(measurements[name], number, held_out, learned[0], estimator)


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
            measurements = {name: FoldMeasurements() for name in ESTIMATORS}
            measure_fold(measurements, takes, folds, number, settings.model, settings.training)
            results = {
                "made_of": made_of,
                "hits": {name: measured.hits for name, measured in measurements.items()},
            }
            write_json(file, results)
        for name, measured in whole.items():
            for length, hits in results["hits"][name].items():  # in JSON the lengths are text
                measured.hits[int(length)].update(hits)
    return whole


def pool_seeds(by_seed: Sequence[dict[str, Measurements]]) -> dict[str, Measurements]:
    """The `hits` of the same windows under several seeds as one: a mean is over windows and seeds."""
    pooled = {name: Measurements() for name in ESTIMATORS}
    for measurements in by_seed:
        for name, measured in measurements.items():
            for length, by_speaker in measured.hits.items():
                for speaker, hits in by_speaker.items():
                    pooled[name].hits[length].setdefault(speaker, []).extend(hits)
    return pooled


def add_examples(
    measured: FoldMeasurements, fold: int, takes: Sequence[Take], lender: Take, estimator: SyncEstimator
) -> None:
    """Adds the calibration examples of a fold, made as training makes them of its validation clips.

    Args:
        measured: Gets the examples.
        fold: Its number.
        takes: Of the fold.
        lender: Lends its sound to swap where the fold has one take alone.
        estimator: Not fitted on `takes`.
    """
    clips = [clip_in_sync(take) for take in (takes if len(takes) > 1 else [*takes, lender])]
    measured.examples[fold] = list(calibration_examples(clips, estimator, seed=fold))


def clip_in_sync(take: Take) -> ClipFeatures:
    """A clip of one face whose sound is moved by its known offset, in whole rows."""
    rows = np.arange(len(take.sound.log_mel)) - take.lag
    exists = (rows >= 0) & (rows < len(rows))
    # Rows before the recording repeat its first row: less than half a second.
    rows = np.clip(rows[: len(rows) if take.lag >= 0 else int(exists.sum())], 0, len(rows) - 1)
    sound = replace(take.sound, log_mel=take.sound.log_mel[rows], mfcc=take.sound.mfcc[rows])
    return ClipFeatures(take.track.start + len(take.track), (0,), (take.track,), sound)


def accuracy_difference(one: Measurements, other: Measurements, length: int) -> Measure:
    """Accuracy of `one` minus that of `other` on the same windows."""
    return mean_over_speakers(
        {
            speaker: [
                int(hit) - int(other_hit)
                for hit, other_hit in zip(hits, other.hits[length][speaker], strict=True)
            ]
            for speaker, hits in one.hits[length].items()
        }
    )


def calibrated(measured: Measurements, folds: Sequence[Sequence[str]]) -> Probabilities:
    """Probabilities of being in sync, each by a calibration fitted on the speakers of the other folds."""
    fitted = []
    for fold in folds:
        rows = [
            (features, kind == KINDS[0])
            for (_, kind), entries in measured.features.items()
            for speaker, features in entries
            if speaker not in fold and kind != KINDS[2]
        ]
        features, labels = zip(*rows, strict=True)
        fitted.append(SyncCalibration.fit(np.stack(features), np.array(labels)))
    number_of = {speaker: number for number, fold in enumerate(folds) for speaker in fold}
    return {
        key: [
            (speaker, float(fitted[number_of[speaker]].probabilities(features[None])[0]))
            for speaker, features in entries
        ]
        for key, entries in measured.features.items()
    }


def calibrated_as_trained(measured: FoldMeasurements, folds: Sequence[Sequence[str]]) -> Probabilities:
    """Like `calibrated`, but fitted as in training: on the examples of `add_examples` of the other folds."""
    likely: dict[tuple[int, str], list[tuple[str, float]]] = {key: [] for key in measured.features}
    for number, fold in enumerate(folds):
        rows = [row for other, examples in measured.examples.items() if other != number for row in examples]
        features, labels = zip(*rows, strict=True)
        fitted = SyncCalibration.fit(np.stack(features), np.array(labels))
        for key, entries in probabilities_by(measured, fitted).items():
            likely[key] += [(speaker, value) for speaker, value in entries if speaker in fold]
    return likely


def auc_difference(one: Probabilities, other: Probabilities, length: int, kind: str) -> Measure:
    """AUC of `one` minus that of `other`, on the same windows and the same draws of speakers."""
    speakers = sorted({speaker for speaker, _ in one[length, kind]})
    first, second = (area_by_draw(likely, length, kind, speakers) for likely in (one, other))
    return bootstrap_over_groups(
        lambda times_DG: first(times_DG) - second(times_DG), len(speakers), num=len(one[length, kind])
    )


def calibration_error(likely: Probabilities, length: int) -> Measure:
    """ECE on as many windows in sync as out of sync, these shifted by 7+ frames and swapped in turns."""
    in_sync = likely[length, KINDS[0]]
    chosen = [*in_sync, *(row for turn in (0, 1) for row in likely[length, KINDS[1 + 2 * turn]][turn::2])]
    speakers = sorted({speaker for speaker, _ in chosen})
    probabilities, owners = with_owners(chosen, speakers)
    is_sync = np.arange(len(chosen)) < len(in_sync)
    return bootstrap_over_groups(
        lambda times_DG: expected_calibration_error(probabilities, is_sync, NUM_BINS, times_DG[:, owners]),
        len(speakers),
        num=len(chosen),
    )
