"""train.py from clips to a model: what it writes, resuming, signals, and what it refuses."""

import json
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gloo_processes import run_ranks
from synthetic_takes import make_take

from facevox import cli
from facevox.errors import ExitCode, UserError
from facevox.manifest import make_header, write_manifest
from facevox.training.checkpoint import load_checkpoint
from facevox.training.distributed import World
from lipsync import train
from lipsync.clips.clip_files import write_clip
from lipsync.clips.clock import CLOCK
from lipsync.clips.features import ClipFeatures
from lipsync.network import run as training_run
from lipsync.network import task as training
from lipsync.network.estimator import NetworkEstimator, load_method, load_model
from lipsync.network.evaluation import SHIFTED, SWAPPED, SYNCED, accuracy, answer_measures
from lipsync.network.run import calibrate, measure_all, run_training
from lipsync.network.split import PARTS, split_clips
from lipsync.network.takes import ClipEntry, list_clips, load_takes
from lipsync.network.task import fit_ridge
from lipsync.settings import SMALL_SET_FILE, load_settings
from lipsync.sync.estimators import UNTRAINED_CALIBRATION, LoudnessEstimator

pytestmark = pytest.mark.usefixtures("one_thread")
NUM_CLIPS = 12


def write_processed(
    folder: Path, num_clips: int = NUM_CLIPS, *, num_speakers: int = 10, clock: int = CLOCK
) -> Path:
    """A folder as data_processing.py leaves it; lips follow the voice. A name in Korean, one with a space."""
    records = []
    for number in range(num_clips):
        take = make_take(number, 120, mouth_px=32, noise=0.05)
        speaker = f"화자 {number % num_speakers}" if num_speakers else ""
        name = f"{speaker or 'clip'}/{number}.mp4"
        file = folder / f"{number}.npz"
        folder.mkdir(parents=True, exist_ok=True)
        clip = ClipFeatures(len(take.track), (0,), (take.track,), take.sound)
        source = {"video": name, "audio": "", "speaker": speaker, "clock": str(clock)}
        write_clip(file, clip, source)
        records.append(
            {
                "item": name,
                "status": "done",
                "reason": "",
                "outputs": [[file.name, file.stat().st_size]],
                "rows": [{"clip_file": file.name, "speaker": speaker}],
                "seconds": 0.0,
                "fingerprint": [0, 0],
                "at": 0.0,
            }
        )
    header = make_header(
        program="data_processing",
        settings={},
        table="manifest.csv",
        columns=("video", "clip_file", "speaker"),
        item_column="video",
        overwrite=False,
    )
    (folder / "manifests").mkdir()
    write_manifest(folder / "manifests" / "data_processing.jsonl", header, records)
    return folder


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_processed(tmp_path_factory.mktemp("lipsync") / "processed clips")


def run(processed: Path, folder: Path, *more: str, resume: str = "auto", num_epochs: int = 6) -> int:
    settings = {
        "paths.processed_dir": processed,
        "paths.checkpoint_dir": folder / "checkpoints",
        "paths.log_dir": folder / "logs",
        "model.hidden_dim": 16,
        "training.num_epochs": num_epochs,
        "training.learning_rate": 0.01,
        "training.batch_size": 4,
        "training.checkpoint_interval": 4,
        "training.device": "cpu",
        "training.offsets": "zero",  # these are numbers; the model of the package knows real lips
    }
    arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    arguments += [part for text in more for part in ("--set", text)]
    return cli.run(train.main, [*arguments, "--resume", resume])


@pytest.fixture(scope="module")
def trained(processed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody ended."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    assert run(processed, folder, num_epochs=8) == 0
    torch.set_num_threads(threads)
    return folder


def test_run_leaves_models_curves_card_and_events(trained: Path) -> None:
    folder = trained / "checkpoints"
    names = {path.name for path in folder.iterdir()}
    epochs = {f"epoch_{number:04d}.pth" for number in (4, 8)}
    assert {"best_model.pth", "last.pth", "history.json", "curves.png", "split.json"} | epochs <= names
    assert list((trained / "logs").glob("events.out.tfevents.*"))
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    assert len(history) == 8
    log = (folder / "log.txt").read_text(encoding="utf-8")
    assert [f"epoch {number} of 8: " in log for number in range(10)] == [False, *[True] * 8, False]
    assert " - lipsync.network.run - INFO - done: 8 epochs" in log
    assert history[-1]["val_loss"] < history[0]["val_loss"]
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    split = json.loads((folder / "split.json").read_text(encoding="utf-8"))
    assert [len(split[part]) for part in PARTS] == [9, 2, 1]
    assert re.search(r"\| offset within 40 ms of ±600 ms, 2 s \| [\d.()-]+.* \| 1 \|", card), card
    # What is told: by the model and the untrained estimator, not by the parts of the model.
    heads = re.search(r"\n\|  \| network \| network alone \| ridge \| untrained \| windows \|\n", card)
    assert heads, card
    assert re.search(r"\n\| shifted: right offset reported, 2 s \| [\d.]+ \|  \|  \| [\d.]+ \| 1 \|\n", card)


def test_parts_share_no_speaker_and_the_model_finds_offsets_of_new_ones(
    trained: Path, processed: Path
) -> None:
    split = split_clips(list_clips(processed), (8, 1, 1), 0)
    speakers = [{entry.speaker for entry in getattr(split, part)} for part in PARTS]
    assert not speakers[0] & speakers[1]
    assert not speakers[0] & speakers[2]
    assert not speakers[1] & speakers[2]
    method = load_method(trained / "checkpoints" / "best_model.pth")
    assert method.notes == ()
    takes = list(load_takes([*split.validation, *split.test]))
    found = measure_all({"network": method.estimator}, {"network": method.calibration}, takes, 0)
    assert accuracy(found["network"], 25).value >= 0.9
    measures = answer_measures(found["network"], 50)
    assert measures[f"AUC, in sync against {SHIFTED}"].value > 0.9
    assert measures[f"AUC, in sync against {SWAPPED}"].value > 0.8


def test_every_epochs_model_is_calibrated(trained: Path) -> None:
    for file in (trained / "checkpoints").glob("epoch_*.pth"):
        assert load_model(file).calibration is not None


def test_calibration_is_that_of_the_validation_clips(trained: Path, processed: Path) -> None:
    model = load_model(trained / "checkpoints" / "best_model.pth")
    split = split_clips(list_clips(processed), (8, 1, 1), 0)
    assert model.calibration == calibrate(model.estimator, list(load_takes(split.validation)))
    assert model.calibration != calibrate(model.estimator, list(load_takes(split.train)))


@pytest.mark.resume
def test_resumed_run_equals_an_uninterrupted_one(
    trained: Path, processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(1, 1000))
    task_after = training.LipSyncTask.after_step

    def stop_at_step_5(task: training.LipSyncTask) -> None:
        task_after(task)
        if next(steps) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(training.LipSyncTask, "after_step", stop_at_step_5)
    assert run(processed, tmp_path, num_epochs=8) == 75
    assert run(processed, tmp_path, num_epochs=8) == 0
    one, other = (
        load_checkpoint(folder / "checkpoints" / "best_model.pth") for folder in (trained, tmp_path)
    )
    assert one["model"].keys() == other["model"].keys()
    for name, value in one["model"].items():
        torch.testing.assert_close(other["model"][name], value, rtol=0, atol=0)
    assert one["calibration"] == other["calibration"]


def test_finished_run_is_left_as_it_is(
    trained: Path, processed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "checkpoints" / "best_model.pth").read_bytes()
    assert run(processed, trained, num_epochs=8) == 0
    assert (trained / "checkpoints" / "best_model.pth").read_bytes() == before
    assert "done: 8 epochs" in capsys.readouterr().out


def train_together(world: World, processed: str, folder: str) -> tuple[int, list[dict[str, float]]]:
    """One rank of a training of six epochs."""
    overrides = [
        f"paths.processed_dir={processed}",
        f"paths.checkpoint_dir={folder}/checkpoints",
        f"paths.log_dir={folder}/logs",
        "model.hidden_dim=16",
        "training.num_epochs=6",
        "training.learning_rate=0.01",
        "training.batch_size=2",
        "training.offsets=zero",
    ]
    result = run_training(load_settings(overrides=overrides), world)
    return int(result.exit_code), json.loads(
        (Path(folder) / "checkpoints" / "history.json").read_text(encoding="utf-8")
    )


@pytest.mark.slow
def test_two_processes_train_one_model_on_halves_of_each_batch(processed: Path, tmp_path: Path) -> None:
    (code, rows), (other_code, _) = run_ranks(train_together, 2, tmp_path, str(processed), str(tmp_path))
    assert (code, other_code) == (ExitCode.DONE, ExitCode.DONE)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["step"] == 6 * (18 // 4)  # two segments a clip
    assert rows[-1]["val_loss"] < rows[0]["val_loss"]
    model = load_model(tmp_path / "checkpoints" / "best_model.pth")
    assert model.calibration is not None
    assert len(load_checkpoint(tmp_path / "checkpoints" / "last.pth")["random"]) == 2


def test_dry_run_counts_estimates_and_writes_nothing(
    processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"paths.processed_dir": processed, "paths.checkpoint_dir": tmp_path / "checkpoints"}
    settings |= {"paths.log_dir": tmp_path / "logs", "training.batch_size": 4}
    arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    assert cli.run(train.main, [*arguments, "--dry_run"]) == 0
    assert list(tmp_path.iterdir()) == []
    shown = capsys.readouterr().out
    assert "clips: 9 train, 2 validation, 1 test" in shown
    assert "100 epochs, " in shown


def test_other_settings_or_clips_are_refused_and_never_begins_anew(
    trained: Path, processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(processed, trained, "training.weight_decay=0.5", num_epochs=8) == 2
    assert "weight_decay 0.05 → 0.5" in capsys.readouterr().err
    fewer = write_processed(tmp_path / "fewer", 10)
    assert run(fewer, trained, num_epochs=8) == 2
    assert "on other clips or another split" in capsys.readouterr().err
    assert run(fewer, tmp_path / "run", num_epochs=1) == 0
    assert run(processed, tmp_path / "run", num_epochs=1, resume="never") == 0


@pytest.mark.parametrize("temporal", ["lstm", pytest.param("transformer", marks=pytest.mark.slow)])
def test_mouth_cnn_trains(processed: Path, tmp_path: Path, temporal: str) -> None:
    settings = ("model.visual_frontend=mouth_cnn", f"model.temporal={temporal}", "data.mouth_crop_px=32")
    assert run(processed, tmp_path, *settings, num_epochs=1) == 0
    estimator = load_method(tmp_path / "checkpoints" / "best_model.pth").estimator
    take = make_take(50, 60, mouth_px=32)
    assert np.isfinite(estimator.similarities(take.track, take.sound, np.arange(-3, 4))[5:-5]).all()
    with pytest.raises(UserError, match=r"crops of 32 pixels, here they have 48: give the same data\.mouth"):
        estimator.similarities(make_take(50, 60, mouth_px=48).track, take.sound, np.arange(-3, 4))


def test_network_of_small_sets_trains(processed: Path, tmp_path: Path) -> None:
    """Six distances against means of bands, convolutions alone: found in 1 s of new people."""
    small = load_settings(SMALL_SET_FILE).model
    names = ("visual_frontend", "temporal", "sound_bands")
    assert [getattr(small, name) for name in names] == ["lip_distances", "none", 20]
    kind = [f"model.{name}={getattr(small, name)}" for name in names]
    assert run(processed, tmp_path, *kind, num_epochs=12) == 0
    model = load_model(tmp_path / "checkpoints" / "best_model.pth")
    config = model.network.config
    assert [getattr(config, name) for name in names] == ["lip_distances", "none", 20]
    assert (config.num_mels, config.num_sound_values) == (40, 53)
    assert model.calibration is not None
    takes = [make_take(number, 150, noise=0.05) for number in range(50, 56)]
    alone = NetworkEstimator(model.network)
    assert accuracy(measure_all({"alone": alone}, {}, takes, 0)["alone"], 25).value > 0.7
    card = (tmp_path / "checkpoints" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "- sound_bands: 20\n" in card


def test_clips_of_an_earlier_version_are_said_to_be_so_and_so_is_their_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = write_processed(tmp_path / "earlier", clock=CLOCK - 1)
    assert run(earlier, tmp_path, num_epochs=1) == 0
    assert "processed by an earlier version" in capsys.readouterr().out
    file = tmp_path / "checkpoints" / "best_model.pth"
    (note,) = load_method(file).notes
    assert "up to 40 ms late" in note
    write_processed(tmp_path / "again", clock=CLOCK)
    assert run(tmp_path / "again", tmp_path, num_epochs=1, resume="never") == 0
    assert "processed by an earlier version" not in capsys.readouterr().out
    assert load_method(file).notes == ()


def test_more_groups_of_bands_than_bands_are_refused(
    processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(processed, tmp_path, "model.sound_bands=41") == 2
    assert "model.sound_bands: 41 groups of audio.num_mels = 40 bands" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_trained_on_is_one_line(
    processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, text in (
        ((tmp_path / "none", tmp_path / "run"), "no such folder; run data_processing.py first"),
        (
            (write_processed(tmp_path / "two", 2), tmp_path / "run"),
            "2 clips of 2 speakers or videos: too few",
        ),
    ):
        assert run(*arguments) == 2
        error = capsys.readouterr().err
        assert text in error
        assert error.count("\n") == 1
    for setting in ("audio.num_mels=64", "data.mouth_crop_px=48"):
        assert run(processed, tmp_path / setting, setting, "model.visual_frontend=mouth_cnn") == 2
        assert (
            f"run data_processing.py again or give its {setting.partition('=')[0]}" in capsys.readouterr().err
        )
    assert run(processed, tmp_path / "run", "training.split=[8,0,1]") == 2
    assert "validation (the second share) is 0" in capsys.readouterr().err


@pytest.mark.slow
def test_run_by_librosa_is_recorded_and_may_continue_one_by_numpy(processed: Path, tmp_path: Path) -> None:
    assert run(processed, tmp_path, num_epochs=1) == 0
    assert run(processed, tmp_path, "audio.features=librosa", num_epochs=2) == 0
    folder = tmp_path / "checkpoints"
    assert len(json.loads((folder / "history.json").read_text(encoding="utf-8"))) == 2
    assert "- sound features: librosa" in (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    models = [load_model(folder / f"epoch_000{number}.pth") for number in (1, 2)]
    assert [model.settings["features"] for model in models] == ["numpy", "librosa"]


def entries(num: int, num_speakers: int) -> list[ClipEntry]:
    return [
        ClipEntry(f"v{k}", Path(f"v{k}.npz"), f"s{k % num_speakers}" if num_speakers else "")
        for k in range(num)
    ]


@pytest.mark.parametrize("num_speakers", [0, 25])
def test_split_has_about_the_asked_shares(num_speakers: int) -> None:
    split = split_clips(entries(200, num_speakers), (8, 1, 1), 0)
    assert [len(getattr(split, part)) for part in PARTS] == pytest.approx([160, 20, 20], abs=8)
    assert split == split_clips(entries(200, num_speakers)[::-1], (8, 1, 1), 0)
    assert split.hash != split_clips(entries(200, num_speakers), (8, 1, 1), 1).hash
    names = [entry.name for part in PARTS for entry in getattr(split, part)]
    assert sorted(names) == sorted(f"v{k}" for k in range(200))


def test_validation_has_at_least_two_clips() -> None:
    split = split_clips(entries(5, 0), (8, 1, 1), 0)
    assert [len(getattr(split, part)) for part in PARTS] == [2, 2, 1]
    with pytest.raises(UserError, match="too few"):
        split_clips(entries(3, 1), (8, 1, 1), 0)


def test_ridge_is_fitted_on_a_part_of_many_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    takes = [make_take(seed, 100) for seed in range(4)]
    monkeypatch.setattr(training, "MAX_RIDGE_FRAMES", 200)
    some, half = fit_ridge(takes), fit_ridge(takes[::2])
    assert some is not None
    assert half is not None
    np.testing.assert_array_equal(some.weights, half.weights)
    few_bands = replace(
        takes[0], sound=type(takes[0].sound)(takes[0].sound.log_mel[:, :8], takes[0].sound.mfcc)
    )
    assert fit_ridge([few_bands]) is None


def test_estimators_are_measured_on_the_same_windows() -> None:
    takes = [make_take(seed, 250) for seed in range(3)]
    calibrations = {"one": UNTRAINED_CALIBRATION, "same": UNTRAINED_CALIBRATION, "without": None}
    names = [*calibrations, "not named"]
    found = measure_all(dict.fromkeys(names, LoudnessEstimator()), calibrations, takes, 0)
    for name in names:
        assert found[name].hits == found["one"].hits
    for key, answers in found["one"].answers.items():
        # Not equal where there is no error: repr, as nan is nothing's equal.
        assert repr(answers) == repr(found["same"].answers[key])
        assert found["without"].answers[key] == found["not named"].answers[key] == []
    assert len(found["one"].answers[50, SYNCED]) == 3 * 4
    other = measure_all({"one": LoudnessEstimator()}, calibrations, takes, 1)
    assert repr(other["one"].answers[50, SYNCED]) == repr(found["one"].answers[50, SYNCED])
    assert repr(other["one"].answers[50, SHIFTED]) != repr(found["one"].answers[50, SHIFTED])


def test_second_run_into_the_folder_is_refused_and_the_first_goes_on(
    processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trainer, codes = training_run.make_trainer, []

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        codes.append(run(processed, tmp_path, num_epochs=1))
        return make_trainer(*arguments, **options)

    monkeypatch.setattr(training_run, "make_trainer", meanwhile)
    assert run(processed, tmp_path, num_epochs=1) == 0
    assert codes == [2]
    said = capsys.readouterr().err
    assert f"{tmp_path / 'checkpoints'}: another run is writing there" in said
    assert said.count("error:") == 1
    assert len(json.loads((tmp_path / "checkpoints/history.json").read_text(encoding="utf-8"))) == 1


@pytest.mark.parametrize(
    ("setting", "folder"),
    [
        ("paths.checkpoint_dir", "below a file"),
        ("paths.checkpoint_dir", "/proc/none"),
        ("paths.checkpoint_dir", "full"),
        ("paths.log_dir", "below a file"),
        ("paths.log_dir", "/proc/none"),
    ],
)
def test_folder_that_cannot_be_written_is_one_line(
    processed: Path,
    tmp_path: Path,
    fill_disk: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
    setting: str,
    folder: str,
) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    places = {"below a file": tmp_path / "file" / "out", "full": tmp_path / "out"}
    output = places.get(folder, Path(folder))
    if folder == "full":
        fill_disk(output)
    assert run(processed, tmp_path, f"{setting}={output}", num_epochs=1) == 2
    error = capsys.readouterr().err
    assert error.count("error:") == 1
    assert "fault of facevox" not in error
    assert ("No space left on device" if folder == "full" else str(output)) in error


@pytest.mark.parametrize("part", PARTS)
def test_a_damaged_clip_of_any_part_is_named_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    folder = write_processed(tmp_path / "processed")
    settings = load_settings(None, [])
    split = split_clips(list_clips(folder), settings.training.split, settings.training.seed)
    file = getattr(split, part)[-1].file
    data = bytearray(file.read_bytes())
    start = data.index(b"mouths.npy") + 200  # in the middle of what zlib unpacks
    data[start : start + 2000] = bytes(2000)
    file.write_bytes(data)
    assert run(folder, tmp_path) == 2
    error = capsys.readouterr().err
    assert f"{file}: not a clip of data_processing.py" in error
    assert "make it again" in error
    assert not list((tmp_path / "checkpoints").glob("*.pth"))
