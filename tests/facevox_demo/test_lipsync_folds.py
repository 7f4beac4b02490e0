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
from numpy.typing import NDArray
from synthetic_takes import PLANTED_CALIBRATION, make_take, measure_planted

from facevox.errors import UserError
from facevox_demo import lipsync_folds
from facevox_demo.lipsync_folds import (
    ALONE,
    NETWORK,
    RIDGE,
    UNTRAINED,
    FoldEstimators,
    accuracy_difference,
    auc_difference,
    cross_validate,
    measure_fold,
    offsets_fold_by_fold,
    pool_seeds,
    real_takes,
)
from lipsync.clips.clip_files import write_clip
from lipsync.clips.features import ClipFeatures
from lipsync.network.evaluation import (
    SHIFTED,
    SWAPPED,
    SYNCED,
    Measurements,
    accuracy,
    calibration_examples,
)
from lipsync.network.split import deal_folds
from lipsync.network.takes import Take
from lipsync.network.task import LipSyncTask
from lipsync.settings import SMALL_SET_FILE, ModelSettings, Settings, TrainingSettings, load_settings
from lipsync.sync import posterior
from lipsync.sync.estimators import LoudnessEstimator
from lipsync.sync.offset import search_lags
from lipsync.sync.posterior import Example, SyncCalibration, fit_calibration

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = TrainingSettings(learning_rate=0.01, num_epochs=4, batch_size=4, device="cpu")
SMALL = ModelSettings(hidden_dim=8)


def measured(off_by: int = 0, noise: float = 0.02) -> Measurements:
    found = Measurements()
    measure_planted(found, off_by, noise)
    return found


@pytest.fixture
def coarse_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer sharpnesses and spreads to choose from: a fit takes a tenth of the time."""
    monkeypatch.setattr(posterior, "SHARPNESSES", posterior.SHARPNESSES[::6])
    monkeypatch.setattr(posterior, "SPREADS_MS", posterior.SPREADS_MS[::3])


@pytest.mark.usefixtures("coarse_fit")
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
        for search in (600.0, 1000.0):
            of_ridge = found[RIDGE].hits[search][25]
            assert set(measured.hits[search][25]) == {"s0", "s1", "s2", "s3"}
            assert {s: len(h) for s, h in measured.hits[search][25].items()} == {
                s: len(h) for s, h in of_ridge.items()
            }
        for kind in (SYNCED, SHIFTED, SWAPPED):
            speakers = [answer.speaker for answer in measured.answers[50, kind]]
            assert speakers == [answer.speaker for answer in found[RIDGE].answers[50, kind]]
            assert set(speakers) == {"s0", "s1", "s2", "s3"}
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
        ("grid_c.mpg", "carl", 40.0),  # recorded in a laboratory: whatever its z
    ]
    write_list(tmp_path, rows[3:])
    with pytest.raises(UserError, match="no clip whose offset is known"):
        real_takes(tmp_path, tmp_path)
    with pytest.raises(UserError, match="no list of clips"):
        real_takes(tmp_path / "none", tmp_path)


@pytest.fixture(scope="module")
def benchmark(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("benchmarks/lipsync")


def write_clips(folder: Path, noise: float = 0.1) -> None:
    """A list of four clips of four people, and their features."""
    rows = []
    for number in range(4):
        take = make_take(number, 320, noise=noise)
        clip = ClipFeatures(320, (0,), (take.track,), take.sound)
        write_clip(folder / f"{number}.npz", clip, {})
        rows.append((f"talking/{number}.mp4", f"person {number}", "0", "9"))
    write_list(folder, rows)


@pytest.mark.usefixtures("coarse_fit")
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
        for length in ("0.2", "0.28", "0.6", "1", "2", "5", "10"):
            for search in (600, 1000) if float(length) >= 1 else (600,):
                name = f"real: offset within 40 ms of ±{search}, {length} s, {estimator}"
                assert 0 <= by_name[name]["value"] <= 1
        title = "real, 2 s: AUC, in sync against"
        assert by_name[f"{title} {SWAPPED}, {estimator}"]["value"] > 0.8
        assert by_name[f"{title} {SHIFTED}, {estimator}"]["value"] > 0.8
        assert by_name[f"real, 2 s: shifted: right offset reported, {estimator}"]["value"] > 0.5
        assert by_name[f"real, 2 s: calibration error, {estimator}"]["value"] < 0.3
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
        figure["name"].partition(" (")[0].removeprefix("variants: offset within 40 ms of ±600, "): figure[
            "value"
        ]
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
            for length in ("25", "50", "125"):
                by_speaker = [
                    own for fold in kept for own in fold["hits"][estimator]["600.0"][length].values()
                ]
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
    assert settings["shipped"].model == lipsync_folds.RECIPE_MODEL
    assert settings["landmarks"].model.visual_frontend == "lip_landmarks"
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


# --- calibrations ----------------------------------------------------------------------------------------


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[list[Example]]:
    """The examples that calibrations are fitted on from now on, of one after another."""
    calls: list[list[Example]] = []

    def noted(examples: Sequence[Example], lags: NDArray[np.int64]) -> SyncCalibration:
        calls.append(list(examples))
        return PLANTED_CALIBRATION

    monkeypatch.setattr(lipsync_folds, "fit_calibration", noted)
    return calls


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fitted for a fold; its one estimator is the untrained one."""

    def fit_fold(*_: Any) -> FoldEstimators:
        return FoldEstimators({UNTRAINED: LoudnessEstimator()})

    monkeypatch.setattr(lipsync_folds, "fit_fold", fit_fold)


@pytest.mark.usefixtures("untrained")
def test_each_fold_is_calibrated_on_all_windows_of_the_others(fits: list[list[Example]]) -> None:
    takes = [make_take(seed, 300, speaker=f"s{seed}", offset_rows=3 * seed) for seed in range(6)]
    folds = deal_folds(takes, 3)
    found = cross_validate(takes, folds)
    assert [{example.person for example in examples} for examples in fits] == [
        {speaker for other in folds if other is not fold for speaker in other} for fold in folds
    ]
    for examples in fits:
        # Of each of the four people 5 windows of 2 s, 2 of 5 s and 1 of 10 s, of three kinds.
        assert len(examples) == 4 * (5 + 2 + 1) * 3
        assert sum(example.lag is None for example in examples) == 4 * 8
        assert sum(example.lag == 0 for example in examples) == 4 * 8
    assert {answer.speaker for answer in found[UNTRAINED].answers[50, SYNCED]} == {f"s{k}" for k in range(6)}
    assert not any(found[NETWORK].answers.values())


@pytest.mark.usefixtures("untrained")
def test_fold_of_one_speaker_borrows_a_sound_to_swap(fits: list[list[Example]]) -> None:
    """The lender's own windows do not count for the fold."""
    takes = [make_take(seed, 200, speaker=f"s{seed}") for seed in range(3)]
    found = cross_validate(takes, [["s0"], ["s1"], ["s2"]])
    for number, examples in enumerate(fits):
        others = {f"s{k}" for k in range(3)} - {f"s{number}"}
        assert {example.person for example in examples} == others
        assert {example.person for example in examples if example.lag is None} == others
    swapped = [answer.speaker for answer in found[UNTRAINED].answers[50, SWAPPED]]
    assert set(swapped) == {"s0", "s1", "s2"}


def test_windows_of_a_fold_are_told_by_the_calibration_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    takes = [make_take(seed, 300, speaker=f"s{seed}", noise=1.0) for seed in range(4)]
    folds = [["s0", "s1"], ["s2", "s3"]]
    examples = calibration_examples(takes[2:], LoudnessEstimator(), 0)
    given: list[SyncCalibration | None] = []
    measure_take = lipsync_folds.measure_take

    def noted(*args: Any) -> None:
        given.append(args[4])
        measure_take(*args)

    monkeypatch.setattr(lipsync_folds, "measure_take", noted)
    found = {UNTRAINED: Measurements()}
    estimators = {UNTRAINED: LoudnessEstimator()}
    others = [FoldEstimators({}, {UNTRAINED: examples[:20]}), FoldEstimators({}, {UNTRAINED: examples[20:]})]
    measure_fold(found, takes, folds, 0, estimators, others, 0)
    assert given == [fit_calibration(examples, search_lags())] * 2
    assert {answer.speaker for answer in found[UNTRAINED].answers[50, SWAPPED]} == {"s0", "s1"}
    measure_fold(found, takes, folds, 1, estimators, [], 0)
    assert given[2:] == [None, None]
    assert {answer.speaker for answer in found[UNTRAINED].answers[50, SWAPPED]} == {"s0", "s1"}
    assert set(found[UNTRAINED].hits[600.0][50]) == {"s0", "s1", "s2", "s3"}


# --- folds and differences -------------------------------------------------------------------------------


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
    for search in (600.0, 1000.0):
        difference = accuracy_difference(right, wrong, 50, search)
        assert (difference.value, difference.low, difference.high) == (1.0, 1.0, 1.0)
    # All are wrong in both ways: found nowhere near.
    assert accuracy_difference(wrong, measured(off_by=-30), 50).value == 0.0


def test_difference_of_areas_is_paired() -> None:
    right, noisy = measured(), measured(noise=1000.0)
    for kind in (SHIFTED, SWAPPED):
        same = auc_difference(right, right, 50, kind)
        assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
        better = auc_difference(right, noisy, 50, kind)
        assert 0.25 < better.value < 0.75
        assert better.value == -auc_difference(noisy, right, 50, kind).value


def test_hits_of_seeds_are_pooled_by_search_window_and_speaker() -> None:
    right, wrong = measured(), measured(off_by=30)
    pooled = pool_seeds([{NETWORK: right}, {NETWORK: wrong}, {NETWORK: wrong}])[NETWORK]
    for search in (600.0, 1000.0):
        share = accuracy(pooled, 50, search)
        assert share.value == pytest.approx(1 / 3)
        assert share.num == 3 * accuracy(right, 50, search).num
        assert share.num_groups == 4
    assert len(right.hits[600.0][50]["speaker0"]) == 7  # those that are pooled stay as they are
