"""The network (with its ridge), the network alone, the ridge and the untrained estimator on new speakers.

Network with ridge is what training leaves in a checkpoint. The speakers are dealt into k folds; for each
fold network and ridge are fitted on all other speakers, and all four are measured on those of the fold, on
windows without overlap (`lipsync.network.evaluation`).
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from facevox.errors import UserError
from facevox.files import read_json, write_json
from facevox.training.distributed import World
from facevox.training.trainer import DONE, STOPPED
from lipsync.clips.clip_files import load_clip, write_clip
from lipsync.clips.features import extract_clip
from lipsync.network.estimator import NetworkEstimator
from lipsync.network.evaluation import Measurements, add_examples, foreign_of, measure_take
from lipsync.network.model import LipSyncNetwork
from lipsync.network.takes import Take, takes_of
from lipsync.network.task import fit_ridge, make_network, make_trainer
from lipsync.settings import SMALL_SET_FILE, ModelSettings, Settings, TrainingSettings, load_settings
from lipsync.sync.estimators import LoudnessEstimator, RidgeEstimator, SyncEstimator

NETWORK, ALONE, RIDGE, UNTRAINED = ESTIMATORS = ("network", "network alone", "ridge", "untrained")
RECIPE = load_settings(SMALL_SET_FILE).training  # what users of small sets train with
MIN_Z = 4.0  # of a known offset, to be taken for known
LAB_PREFIX = "grid_"  # recorded in a laboratory: offset 0
MOUTH_PX = 96


def real_takes(data_dir: Path, features_dir: Path) -> list[Take]:
    """The real clips whose offset is known: lab clips, and those estimated with z of at least MIN_Z.

    Where two people are seen at once, that face is taken that follows the sound best at the known offset:
    who speaks is not what is measured, and it is the same face for every estimator.

    Args:
        data_dir: With MANIFEST.csv (file, identity, est_offset_ms, est_offset_z) and its talking clips.
        features_dir: Where their features are kept, one file a clip; those that are missing are made.

    Raises:
        UserError: No manifest, or no clip in it.
    """
    manifest = data_dir / "MANIFEST.csv"
    try:
        with manifest.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["file"].startswith("talking/")]
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{manifest}: no list of clips ({error})") from None
    takes = []
    for row in rows:
        video = data_dir / row["file"]
        is_lab = video.name.startswith(LAB_PREFIX)
        if not is_lab and float(row["est_offset_z"] or 0) < MIN_Z:
            continue
        kept = features_dir / f"{video.stem}.npz"
        if not kept.exists():
            features_dir.mkdir(parents=True, exist_ok=True)
            write_clip(kept, extract_clip(video), {"video": video.name, "speaker": row["identity"]})
        offset_ms = 0.0 if is_lab else float(row["est_offset_ms"])
        takes += takes_of(load_clip(kept)[0], video.name, row["identity"], offset_ms)
    if not takes:
        raise UserError(f"{manifest}: not one clip whose offset is known")
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
    with tempfile.TemporaryDirectory(prefix="facevox-") as folder:
        trainer = make_trainer(
            network,
            None,
            takes,
            (),
            training,
            World(device=torch.device("cpu")),
            run_dir=Path(folder),
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
    """All four on the same windows, each speaker held out once.

    Args:
        takes: With known offsets, which the fits use as well.
        folds: Speakers, from `deal_folds`.
        model: Of the network (None: the shipped configuration).
        training: How it is trained (by default as small.yaml says).
    """
    found = {name: Measurements() for name in ESTIMATORS}
    for number in range(len(folds)):
        measure_fold(found, takes, folds, number, model or ModelSettings(), training)
    return found


def measure_fold(
    found: dict[str, Measurements],
    takes: Sequence[Take],
    folds: Sequence[Sequence[str]],
    number: int,
    model: ModelSettings,
    training: TrainingSettings,
) -> None:
    """Adds what all four find on the speakers of fold `number`, fitted on everybody else."""
    learned = [take for take in takes if take.speaker not in folds[number]]
    held_out = [take for take in takes if take.speaker in folds[number]]
    network, ridge = train_fold(learned, model, training), fit_ridge(learned)
    if ridge is None:
        raise UserError(f"the ridge wants {RidgeEstimator.NUM_BANDS} mel bands (audio.num_mels)")
    estimators: dict[str, SyncEstimator] = {
        NETWORK: NetworkEstimator(network, ridge),
        ALONE: NetworkEstimator(network),
        RIDGE: ridge,
        UNTRAINED: LoudnessEstimator(),
    }
    for name, estimator in estimators.items():
        rng = np.random.default_rng([training.seed, number])  # the same windows for each
        for place, take in enumerate(held_out):
            # A fold of one speaker has to borrow the foreign sound from others.
            foreign = foreign_of(held_out, place) or foreign_of([take, *learned], 0)
            measure_take(found[name], take, foreign, estimator, rng)
        add_examples(found[name], number, held_out, learned[0], estimator)


def offsets_fold_by_fold(
    takes: Sequence[Take], folds: Sequence[Sequence[str]], settings: Settings, kept_dir: Path
) -> dict[str, Measurements]:
    """The `hits` of `cross_validate`, kept after each fold: what an earlier call kept is not done again.

    A fold is known again by clips, speakers and settings, not by the program: after a change of the program
    take a fresh folder.

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
        kept = read_json(file) if file.exists() else {}
        if kept.get("made_of") != made_of:
            found = {name: Measurements() for name in ESTIMATORS}
            measure_fold(found, takes, folds, number, settings.model, settings.training)
            kept = {"made_of": made_of, "hits": {name: measured.hits for name, measured in found.items()}}
            write_json(file, kept)
        for name, measured in whole.items():
            for length, hits in kept["hits"][name].items():  # in JSON the lengths are text
                measured.hits[int(length)].update(hits)
    return whole


def pool_seeds(by_seed: Sequence[dict[str, Measurements]]) -> dict[str, Measurements]:
    """The `hits` of the same windows under several seeds as one: a mean is over windows and seeds."""
    pooled = {name: Measurements() for name in ESTIMATORS}
    for found in by_seed:
        for name, measured in found.items():
            for length, by_speaker in measured.hits.items():
                for speaker, hits in by_speaker.items():
                    pooled[name].hits[length].setdefault(speaker, []).extend(hits)
    return pooled
