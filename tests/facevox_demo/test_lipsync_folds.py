"""Leaving speakers out: who is fitted on whom, on takes of numbers, example people and real ones."""

import csv
import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from synthetic_takes import make_take, measure_planted

from facevox.errors import UserError
from facevox_demo import lipsync_folds
from facevox_demo.lipsync_folds import (
    ALONE,
    NETWORK,
    RIDGE,
    UNTRAINED,
    FoldMeasurements,
    accuracy_difference,
    add_examples,
    auc_difference,
    calibrated,
    calibrated_as_trained,
    calibration_error,
    clip_in_sync,
    cross_validate,
    deal_folds,
    offsets_fold_by_fold,
    real_takes,
)
from lipsync.clips.clip_files import write_clip
from lipsync.clips.features import ClipFeatures
from lipsync.network.evaluation import KINDS, accuracy, auc, probabilities_by
from lipsync.network.takes import Take
from lipsync.network.task import LipSyncTask
from lipsync.settings import SMALL_SET_FILE, ModelSettings, Settings, TrainingSettings, load_settings
from lipsync.sync.calibration import SyncCalibration
from lipsync.sync.estimators import LoudnessEstimator

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = TrainingSettings(learning_rate=0.01, num_epochs=4, batch_size=4, device="cpu")
SMALL = ModelSettings(hidden_dim=8)


def measured(off_by: int = 0, noise: float = 0.02) -> FoldMeasurements:
    found = FoldMeasurements()
    measure_planted(found, off_by, noise)
    return found


def test_nobody_is_measured_who_was_fitted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    takes = [make_take(seed, 160, speaker=f"s{seed // 2}") for seed in range(8)]
    fitted: list[set[str]] = []
    train_fold = lipsync_folds.train_fold

    def noted(learned: Sequence[Take], model: ModelSettings, training: TrainingSettings) -> torch.nn.Module:
        fitted.append({take.speaker for take in learned})
        return train_fold(learned, model, training)

    monkeypatch.setattr(lipsync_folds, "train_fold", noted)
    folds = deal_folds(takes, 2)
    found = cross_validate(takes, folds, SMALL, QUICK)
    assert [sorted(names) for names in fitted] == [sorted(folds[1]), sorted(folds[0])]
    assert list(found) == [NETWORK, ALONE, RIDGE, UNTRAINED]
    for measured in found.values():
        assert set(measured.hits[25]) == {"s0", "s1", "s2", "s3"}
        assert {s: len(h) for s, h in measured.hits[25].items()} == {
            s: len(h) for s, h in found[RIDGE].hits[25].items()
        }
    assert accuracy(found[NETWORK], 50).value > 0.9


@pytest.mark.slow
def test_folds_that_are_kept_are_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    takes = [make_take(seed, 160, speaker=f"s{seed}", noise=1.5) for seed in range(4)]
    folds = deal_folds(takes, 2)
    settings = Settings(model=SMALL, training=QUICK)
    measure_fold, done = lipsync_folds.measure_fold, []

    def stopped_at_the_second(*args: Any) -> None:
        done.append(args[3])
        if len(done) == 2:
            raise KeyboardInterrupt
        measure_fold(*args)

    monkeypatch.setattr(lipsync_folds, "measure_fold", stopped_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        offsets_fold_by_fold(takes, folds, settings, tmp_path / "kept")
    found = offsets_fold_by_fold(takes, folds, settings, tmp_path / "kept")
    assert done == [0, 1, 1]
    offsets_fold_by_fold(takes, folds, settings, tmp_path / "kept")
    assert done == [0, 1, 1]
    whole = cross_validate(takes, folds, SMALL, QUICK)
    assert done == [0, 1, 1, 0, 1]
    assert {name: own.hits for name, own in found.items()} == {name: own.hits for name, own in whole.items()}
    assert 0 < accuracy(found[NETWORK], 5).value < 1  # or all would be equal whatever was done
    # Another network, other speakers: nothing of what was kept is theirs.
    offsets_fold_by_fold(
        takes, folds, Settings(model=ModelSettings(hidden_dim=16), training=QUICK), tmp_path / "kept"
    )
    offsets_fold_by_fold(takes[:3], folds, Settings(model=SMALL, training=QUICK), tmp_path / "kept")
    assert done[5:] == [0, 1, 0, 1]


def test_half_a_training_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop signal ends a training in good order after a step; its network is as good as none."""
    takes = [make_take(seed, 160) for seed in range(4)]
    backward = LipSyncTask.backward

    def stopped(self: LipSyncTask, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.num_epochs_done == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return backward(self, batch)

    monkeypatch.setattr(LipSyncTask, "backward", stopped)
    with pytest.raises(KeyboardInterrupt):
        offsets_fold_by_fold(takes, deal_folds(takes, 2), Settings(model=SMALL, training=QUICK), tmp_path)
    assert list(tmp_path.iterdir()) == []


def write_list(folder: Path, rows: Sequence[tuple[str, str, str, str]]) -> None:
    with (folder / "MANIFEST.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "identity", "est_offset_ms", "est_offset_z"])
        table.writerows(rows)


def test_only_clips_of_known_offset_are_used(tmp_path: Path) -> None:
    rows = [
        ("talking/a.mp4", "anna", "-120", "4.0"),
        ("talking/b.mp4", "bob", "40", "3.9"),
        ("talking/grid_c.mpg", "carl", "40", "2.9"),
        ("talking/d.mp4", "several", "", ""),
        ("faces/e.jpg", "eve", "", ""),
    ]
    write_list(tmp_path, rows)
    for number, (name, *_) in enumerate(rows):
        take = make_take(number, 40)
        clip = ClipFeatures(40, (0,), (take.track,), take.sound)
        write_clip(tmp_path / f"{Path(name).stem}.npz", clip, {})
    takes = real_takes(tmp_path, tmp_path)
    assert [(take.name, take.speaker, take.offset_ms) for take in takes] == [
        ("a.mp4", "anna", -120.0),
        ("grid_c.mpg", "carl", 0.0),
    ]
    write_list(tmp_path, rows[3:])
    with pytest.raises(UserError, match="no clip whose offset is known"):
        real_takes(tmp_path, tmp_path)
    with pytest.raises(UserError, match="no list of clips"):
        real_takes(tmp_path / "none", tmp_path)


@pytest.fixture(scope="module")
def benchmark(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("benchmarks/lipsync_accuracy")


def write_clips(folder: Path, noise: float = 0.1) -> None:
    """A list of four clips of four people, and their features."""
    rows = []
    for number in range(4):
        take = make_take(number, 320, noise=noise)
        clip = ClipFeatures(320, (0,), (take.track,), take.sound)
        write_clip(folder / f"{number}.npz", clip, {})
        rows.append((f"talking/{number}.mp4", f"person {number}", "0", "9"))
    write_list(folder, rows)


def test_benchmark_compares_with_ridge_and_untrained(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The part "real" on clips of numbers, from the list of clips to the table."""
    write_clips(tmp_path)
    monkeypatch.setenv("FACEVOX_TEST_DATA", str(tmp_path))
    monkeypatch.setattr(lipsync_folds, "RECIPE", QUICK)
    options = ["--parts", "real", "--folds", "2", "--num_epochs", "3", "--features_dir", str(tmp_path)]
    code = benchmark.main([*options, "--json", str(tmp_path / "figures.json")])
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    by_name = {figure["name"].partition(" (")[0]: figure for figure in figures}
    for estimator in (NETWORK, ALONE, RIDGE, UNTRAINED):
        for length in ("0.2", "0.4", "0.6", "1", "2", "5"):
            assert 0 <= by_name[f"real: offset within a frame, {length} s, {estimator}"]["value"] <= 1
        assert by_name[f"real: AUC, swapped sound, 2 s, {estimator}"]["value"] > 0.8
    differences = [
        figure for name, figure in by_name.items() if "less ridge" in name and figure["bar"] is not None
    ]
    assert len(differences) == 2
    assert code == int(any(figure["value"] < 0 for figure in differences))
    assert "network less ridge" in capsys.readouterr().out


@pytest.mark.slow
def test_variants_are_held_against_the_shipped_settings(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shares and differences are those of the kept hits, and a second run trains nothing."""
    write_clips(tmp_path, noise=3.0)
    monkeypatch.setenv("FACEVOX_TEST_DATA", str(tmp_path))
    options = ["--parts", "variants", "--folds", "2", "--num_epochs", "2", "--features_dir", str(tmp_path)]
    options += ["--results_dir", str(tmp_path / "kept"), "--json", str(tmp_path / "figures.json")]
    options += ["--variants", "transformer", "--seeds", "0", "3"]
    assert benchmark.main(options) == 0
    figures = {
        figure["name"].partition(" (")[0].removeprefix("variants: offset within a frame, "): figure["value"]
        for figure in json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    }
    hits: dict[str, list[bool]] = {}
    for name in ("shipped", "transformer"):
        files = sorted((tmp_path / "kept" / name).glob("*/*"))
        assert [f"{file.parent.name}/{file.name}" for file in files] == [
            f"seed_{seed}/fold_{fold}_of_2.json" for seed in (0, 3) for fold in (1, 2)
        ]
        kept = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        for row, estimator in ((name, NETWORK), (f"{name} alone", ALONE), (RIDGE, RIDGE)):
            for length in ("50", "125"):
                by_speaker = [own for fold in kept for own in fold["hits"][estimator][length].values()]
                hits[f"{int(length) / 25:g} s, {row}"] = [hit for own in by_speaker for hit in own]
    expected = {key: np.mean(own) for key, own in hits.items()}
    for key in list(expected):
        length, _, row = key.partition(", ")
        if row != "shipped":
            expected[f"{key} less shipped"] = expected[key] - expected[f"{length}, shipped"]
    assert figures == pytest.approx(expected)
    assert len(set(expected.values())) > 4

    def trained_again(*args: Any) -> None:
        raise AssertionError("a kept fold is trained again")

    monkeypatch.setattr(lipsync_folds, "train_fold", trained_again)
    first = (tmp_path / "figures.json").read_bytes()
    assert benchmark.main(options) == 0
    assert (tmp_path / "figures.json").read_bytes() == first


def test_variants_differ_from_the_shipped_settings(benchmark: ModuleType) -> None:
    settings = {name: benchmark.variant_settings(name, 0) for name in benchmark.VARIANTS}
    assert settings["shipped"] == load_settings(SMALL_SET_FILE)
    assert settings["shipped"].training == lipsync_folds.RECIPE
    assert settings["shipped"].model == ModelSettings()
    assert len({repr(value) for value in settings.values()}) == len(settings)
    assert benchmark.variant_settings("mouth_cnn", 0, 3).training.num_epochs == 3
    assert benchmark.variant_settings("shipped", 7).training.seed == 7
    assert "variants" not in benchmark.get_args_parser().parse_args([]).parts


@pytest.mark.parametrize("part", ["real", "variants"])
def test_benchmark_without_real_clips_says_so(
    benchmark: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    part: str,
) -> None:
    monkeypatch.setenv("FACEVOX_TEST_DATA", str(tmp_path))
    assert benchmark.main(["--parts", part]) == 0
    assert "no real clips ($FACEVOX_TEST_DATA): their figures are left out" in capsys.readouterr().out


@pytest.mark.slow
def test_example_people_held_out_are_found(example_videos: Path, tmp_path: Path) -> None:
    """Eight made-up people: offset within a frame on nearly all windows of 0.6 s."""
    from lipsync import data_processing
    from lipsync.network.takes import list_clips, load_takes

    paths = {"videos_dir": example_videos, "audios_dir": tmp_path / "none", "processed_dir": tmp_path / "out"}
    options = [part for key, path in paths.items() for part in ("--set", f"paths.{key}={path}")]
    assert data_processing.main([*options, "--set", "data.min_duration_s=0.5", "--workers", "2"]) == 0
    takes = list(load_takes(list_clips(tmp_path / "out")))
    training = TrainingSettings(learning_rate=3e-3, num_epochs=60, batch_size=8, device="cpu")
    network = lipsync_folds.train_fold(takes[:12], ModelSettings(), training)
    estimator = lipsync_folds.NetworkEstimator(network)
    lags = np.arange(-40, 41)
    errors = []
    for take in takes[12:]:
        curve = np.nanmean(estimator.similarities(take.track, take.sound, lags)[11:-11], axis=0)
        errors.append(abs(int(lags[np.argmax(curve)])))
    assert np.median(errors) <= 4


def test_each_speaker_is_scored_by_the_calibration_of_the_others() -> None:
    found = measured()
    folds = [["speaker0"], ["speaker1", "speaker2", "speaker3"]]
    likely = calibrated(found, folds)
    rows = [
        (features, kind == KINDS[0])
        for (_, kind), entries in found.features.items()
        for speaker, features in entries
        if speaker == "speaker0" and kind != KINDS[2]
    ]
    own = SyncCalibration.fit(np.stack([row for row, _ in rows]), np.array([label for _, label in rows]))
    expected = dict.fromkeys(("speaker1", "speaker2", "speaker3"))
    by_hand = probabilities_by(found, own)
    for one, other in zip(likely[50, KINDS[0]], by_hand[50, KINDS[0]], strict=True):
        if one[0] in expected:
            assert one == other


@pytest.mark.parametrize("offset_rows", [0, 9, -14])
def test_sound_of_a_clip_in_sync_is_moved_by_the_known_offset(offset_rows: int) -> None:
    take = make_take(0, 100, start=5, offset_rows=offset_rows)
    clip = clip_in_sync(take)
    for frame in range(10, 90):
        row = 4 * (5 + frame)
        np.testing.assert_array_equal(clip.sound.log_mel[row], take.sound.log_mel[row - take.lag])
        np.testing.assert_array_equal(clip.sound.mfcc[row], take.sound.mfcc[row - take.lag])
    assert clip.num_frames == 105


def test_calibration_as_trained_is_fitted_on_the_examples_of_other_folds() -> None:
    found = measured()
    takes = [make_take(seed, 400) for seed in range(4)]
    folds = [["speaker0", "speaker1"], ["speaker2", "speaker3"]]
    for number, part in enumerate((takes[:2], takes[2:])):
        add_examples(found, number, part, takes[0], LoudnessEstimator())
    likely = calibrated_as_trained(found, folds)
    features, labels = zip(*found.examples[1], strict=True)
    expected = probabilities_by(found, SyncCalibration.fit(np.stack(features), np.array(labels)))
    for kind in KINDS:
        first = [row for row in expected[50, kind] if row[0] in folds[0]]
        assert [row for row in likely[50, kind] if row[0] in folds[0]] == first
        assert len(likely[50, kind]) == len(found.features[50, kind])


def test_fold_of_one_take_borrows_a_sound_to_swap() -> None:
    found, takes = FoldMeasurements(), [make_take(seed, 300) for seed in range(2)]
    add_examples(found, 0, takes[:1], takes[1], LoudnessEstimator())
    assert {label for _, label in found.examples[0]} == {True, False}


def test_folds_hold_every_speaker_once_and_are_about_even() -> None:
    takes = [make_take(seed, 50 * (1 + seed % 3), speaker=f"s{seed // 2}") for seed in range(14)]
    folds = deal_folds(takes, 3)
    assert sorted(name for fold in folds for name in fold) == [f"s{k}" for k in range(7)]
    sizes = [sum(len(t.track) for t in takes if t.speaker in fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 250
    with pytest.raises(UserError, match="2 to 7 are possible"):
        deal_folds(takes, 8)


def test_difference_is_paired() -> None:
    right, wrong = measured(), measured(off_by=30)
    difference = accuracy_difference(right, wrong, 50)
    assert (difference.value, difference.low, difference.high) == (1.0, 1.0, 1.0)
    likely = calibrated(right, [["speaker0"], ["speaker1", "speaker2", "speaker3"]])
    assert auc_difference(likely, likely, 50, KINDS[1]).value == 0.0


def test_planted_clips_are_told_from_shifted_and_swapped_ones() -> None:
    found = measured()
    likely = calibrated(found, [["speaker0", "speaker1"], ["speaker2", "speaker3"]])
    for kind in KINDS[1:]:
        assert auc(likely, 50, kind).value == 1.0
    assert calibration_error(likely, 50).value < 0.1


def test_noise_is_chance() -> None:
    found = measured(noise=1000.0)
    likely = calibrated(found, [["speaker0", "speaker1"], ["speaker2", "speaker3"]])
    assert 0.25 < auc(likely, 50, KINDS[1]).value < 0.75
