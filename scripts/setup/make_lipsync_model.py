"""Train the lip-sync model that comes with the package, measure it on people left out, and write its card.

    python scripts/setup/make_lipsync_model.py --data_dir /data/samples
    python scripts/setup/make_lipsync_model.py --data_dir samples --clips 'grid_*' --output_dir runs/grid

Reads MANIFEST.csv of the data folder (file, identity, est_offset_ms, est_offset_z, may_train, licence) and
its talking clips, trains on those that are clean to use (may_train = yes; --clips: on those alone whose names
fit); writes model.npz, clips.npz (their features) and MODEL_CARD.md. The people of the other clips measure
it; the four numbers of its calibration are fitted on them too, and measured on other people than they were
fitted on.
Ten minutes on two cores. Nothing is trained on that is not named in the card.
Exit codes: 0 done, 2 bad usage or input, 75 stopped by a signal.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facevox import cli
from facevox.errors import ExitCode, UserError
from facevox.files import scratch_folder, write_arrays
from facevox.model_card import CARD_FILE, bullets, table, write_card
from lipsync.clips.clock import FRAME_HZ
from lipsync.settings import ModelSettings, TrainingSettings

if TYPE_CHECKING:
    from lipsync.network.evaluation import Measurements
    from lipsync.network.takes import Take
    from lipsync.sync.estimators import SyncEstimator
    from lipsync.sync.posterior import Example, SyncCalibration

REPOSITORY = Path(__file__).resolve().parents[2]
# Differently made networks make different errors; of each kind two, from different weights.
KINDS = (
    ModelSettings(visual_frontend="lip_distances", sound_bands=20, temporal="none", dropout=0.2),
    ModelSettings(visual_frontend="lip_landmarks", temporal="none", dropout=0.2),
)
SEEDS = (0, 1)
NUM_STEPS = 450
BATCH_SIZE, LEARNING_RATE = 16, 0.003
RIDGE_SHARE = 0.25  # of 0 to 0.8: flat from 0.1 to 0.5
NUM_FOLDS = 6  # of people, for the calibration that is measured
GRID = (
    "GRID corpus: M. Cooke, J. Barker, S. Cunningham and X. Shao (2006), An audio-visual corpus for speech "
    "perception and automatic speech recognition, JASA 120(5); licence CC BY 4.0; laboratory recordings made "
    "for research; used as they are, cut into features"
)
WHITE_HOUSE = (
    "address of the President of the United States, believed from its setting to be a recording of the White "
    "House, and so a work of the US federal government, in the public domain in the US; the collection that "
    "it came in names no source"
)


@dataclass(frozen=True)
class Clip:
    """A clip of the list: file name, person, licence of its collection, whether it may be trained on."""

    name: str
    person: str
    licence: str
    may_train: bool


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = cli.make_parser(__doc__, "python scripts/setup/make_lipsync_model.py --clips 'grid_*'")
    add = parser.add_argument
    add(
        "--data_dir",
        type=Path,
        metavar="DIR",
        help="with MANIFEST.csv and talking/ (default: $FACEVOX_TEST_DATA, ../shared/data without it)",
    )
    add(
        "--clips",
        nargs="+",
        metavar="PATTERN",
        help="names of the clips to train on, of those with may_train = yes (default: all of these)",
    )
    add("--features_dir", type=Path, metavar="DIR", help="keep the clips' features there (default: none)")
    add("--output_dir", type=Path, metavar="DIR", help="of model.npz and the card (default: lipsync/shipped)")
    return parser


def read_clips(data_dir: Path) -> dict[str, Clip]:
    """The talking clips of the list, by file name.

    Raises:
        UserError: There is no such list, or it lacks a column.
    """
    from facevox_demo.lipsync_folds import LIST_FILE, talking_clips

    try:
        clips = [
            Clip(Path(row["file"]).name, row["identity"], row["licence"], row["may_train"] == "yes")
            for row in talking_clips(data_dir)
        ]
    except KeyError as error:
        raise UserError(f"{data_dir / LIST_FILE}: no column {error}") from None
    return {clip.name: clip for clip in clips}


def train_estimator(takes: Sequence[Take]) -> SyncEstimator:
    """The ensemble, fitted on takes."""
    import torch

    from facevox_demo.lipsync_folds import train_fold
    from lipsync.network.task import fit_ridge
    from lipsync.network.windows import SegmentDataset
    from lipsync.shipped.model import ShippedEstimator, SmallNetwork

    networks = []
    for kind in KINDS:
        # An epoch draws about as many segments as cover the clips once.
        num_segments = len(SegmentDataset(takes, kind.visual_frontend, 0))
        batch_size = min(BATCH_SIZE, num_segments)
        num_epochs = -(-NUM_STEPS // max(num_segments // batch_size, 1))
        for seed in SEEDS:
            training = TrainingSettings(
                batch_size=batch_size,
                learning_rate=LEARNING_RATE,
                num_epochs=num_epochs,
                seed=seed,
                device="cpu",
            )
            network = train_fold(takes, kind, training)
            weights = {name: value.detach().numpy() for name, value in network.state_dict().items()}
            networks.append(SmallNetwork(network.config.to_plain(), weights))
            print(f"network {len(networks)} of {len(KINDS) * len(SEEDS)}: {num_epochs} epochs", flush=True)
    ridge = fit_ridge(takes)
    assert ridge is not None, "the default sound features have enough bands"
    assert torch.get_num_threads() == 1, "set by main"
    return ShippedEstimator(tuple(networks), ridge, RIDGE_SHARE)


def measure_left_out(
    estimators: Mapping[str, SyncEstimator], takes: Sequence[Take]
) -> tuple[dict[str, Measurements], dict[str, SyncCalibration]]:
    """Measurements on people left out, and the calibrations fitted on all of them.

    Each person is measured with a calibration that was fitted on the others.
    """
    from lipsync.network.evaluation import Measurements, calibration_examples, foreign_of, measure_take
    from lipsync.network.split import deal_folds
    from lipsync.sync.offset import search_lags
    from lipsync.sync.posterior import fit_calibration

    folds = deal_folds(takes, min(NUM_FOLDS, len({take.speaker for take in takes})))
    measured, calibrations = {}, {}
    for name, estimator in estimators.items():
        examples: list[Example] = calibration_examples(takes, estimator, seed=0)
        calibrations[name] = fit_calibration(examples, search_lags())
        measured[name] = Measurements()
        rng = np.random.default_rng(1)
        for fold in folds:
            others = [example for example in examples if example.person not in fold]
            calibration = fit_calibration(others, search_lags())
            for number, take in enumerate(takes):
                if take.speaker in fold:
                    measure_take(measured[name], take, foreign_of(takes, number), estimator, calibration, rng)
        print(f"{name}: {calibrations[name]}", flush=True)
    return measured, calibrations


def write_model(
    path: Path, estimator: SyncEstimator, calibration: SyncCalibration, clips: Sequence[str]
) -> None:
    """Writes model.npz, as `lipsync.shipped.model` reads it."""
    from lipsync.shipped.model import FORMAT, ShippedEstimator

    assert isinstance(estimator, ShippedEstimator)
    description = {
        "format": FORMAT,
        "networks": [dict(network.sizes) for network in estimator.networks],
        "ridge_share": estimator.ridge_share,
        "calibration": calibration.to_plain(),
        "clips": list(clips),
    }
    arrays = {
        f"{number}.{name}": np.asarray(value, np.float32)
        for number, network in enumerate(estimator.networks)
        for name, value in network.weights.items()
    }
    arrays["ridge.weights"] = estimator.ridge.weights.astype(np.float32)
    arrays["ridge.variances"] = estimator.ridge.variances.astype(np.float32)
    text = np.frombuffer(json.dumps(description, sort_keys=True).encode("ascii"), np.uint8)
    write_arrays(path, {"description": text, **arrays})


def write_shipped_card(
    path: Path,
    trained: Sequence[Take],
    clips: Mapping[str, Clip],
    left_out: Sequence[Take],
    measured: Mapping[str, Measurements],
) -> None:
    """Writes the card: clips with author, licence and origin; people; scores on people left out."""
    from lipsync.network.model_card import score_tables

    seconds = sum(len(take.track) for take in trained) / FRAME_HZ
    rows = []
    for name in dict.fromkeys(take.name for take in trained):
        is_grid = name.startswith("grid_")
        length_s = sum(len(take.track) for take in trained if take.name == name) / FRAME_HZ
        rows.append(
            (
                name,
                f"{length_s:.1f} s",
                clips[name].person if not is_grid or name.startswith("grid_s1") else "not named",
                GRID if is_grid else WHITE_HOUSE,
                clips[name].licence,
            )
        )
    num_people = len({take.speaker for take in trained})
    left_s = sum(len(take.track) for take in left_out) / FRAME_HZ
    num_left = len({take.speaker for take in left_out})
    write_card(
        path,
        "Lip-sync: the model that comes with the package",
        {
            "Model": [
                bullets(
                    [
                        f"{len(KINDS) * len(SEEDS)} networks of convolutions over lips and sound, of "
                        f"{len(KINDS)} kinds, and one ridge regression; their similarities are added",
                        "inputs: 40 lip points of FaceMesh, 25 a second, and 40 log-mel bands, 100 a second",
                        "it runs in NumPy; made by `python scripts/setup/make_lipsync_model.py`",
                    ]
                )
            ],
            "Trained on": [
                f"{len(rows)} clips, {seconds:.0f} s, of at most {num_people} people (the GRID corpus names "
                "no speaker for four of its clips). Nothing else was trained on.",
                table(
                    ["clip", "length", "person", "origin, author and licence", "licence of its collection"],
                    rows,
                ),
            ],
            "People left out": [
                f"{left_s / 60:.1f} minutes of {num_left} other people, none of whom was trained on. Four "
                "numbers (how sharp similarities are, and how evidence becomes a probability) were fitted on "
                "them; each person was measured with numbers fitted on others.",
                *score_tables(measured),
            ],
            "Use": [_USE],
        },
    )


_USE = """\
For telling whether lips and speech fit, and by how much they are shifted, in videos whose people agree to it.
It neither recognises people nor proves that a video is genuine: a dubbed or generated clip may be in sync. It
has heard English alone while it was trained; one clip of the people left out is German. A model that is
fitted to one's own recordings does better."""


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, measures and writes; returns the exit code."""
    args = get_args_parser().parse_args(argv)
    import torch

    from facevox_demo.lipsync_folds import real_takes, sample_data_dir
    from lipsync.shipped.clips import write_shipped_takes
    from lipsync.sync.estimators import LoudnessEstimator

    torch.set_num_threads(1)  # networks this small are fastest on one thread
    data_dir = args.data_dir or sample_data_dir()
    clips = read_clips(data_dir)
    patterns = args.clips or ["*"]
    chosen = {
        name
        for name, clip in clips.items()
        if clip.may_train and any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    }
    if not chosen:
        raise UserError(f"--clips {' '.join(patterns)}: no clip with may_train = yes has such a name")
    with scratch_folder() as folder:
        takes = real_takes(data_dir, args.features_dir or folder)
    trained = [take for take in takes if take.name in chosen]
    familiar = {take.speaker for take in takes if clips[take.name].may_train}
    # One face of two that talk in turns listens half of the time.
    left_out = [take for take in takes if take.speaker not in familiar and "people" not in take.speaker]
    estimators: dict[str, SyncEstimator] = {"shipped": train_estimator(trained)}
    grid = [take for take in trained if take.name.startswith("grid_")]
    if 0 < len(grid) < len(trained):
        estimators["trained on GRID alone"] = train_estimator(grid)
    estimators["untrained"] = LoudnessEstimator()
    measured, calibrations = measure_left_out(estimators, left_out)
    output_dir = args.output_dir or REPOSITORY / "lipsync" / "shipped"
    output_dir.mkdir(parents=True, exist_ok=True)
    write_model(output_dir / "model.npz", estimators["shipped"], calibrations["shipped"], sorted(chosen))
    write_shipped_takes(output_dir / "clips.npz", trained)
    write_shipped_card(output_dir / CARD_FILE, trained, clips, left_out, measured)
    print(f"{output_dir / 'model.npz'}: {(output_dir / 'model.npz').stat().st_size / 1e6:.2f} MB")
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(cli.run(main))
