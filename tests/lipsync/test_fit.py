"""A model fitted to a folder without labels: offsets found, the unfit left out, nothing done twice."""

import csv
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_takes import make_take
from talking_clips import make_talking

from facevox import cli
from facevox.training.distributed import World
from lipsync import fit
from lipsync.network import fitting
from lipsync.network.estimator import load_method
from lipsync.network.takes import Take
from lipsync.settings import Settings
from lipsync.sync.estimators import UNTRAINED_CALIBRATION, LoudnessEstimator
from lipsync.sync.methods import Method

pytestmark = pytest.mark.usefixtures("one_thread")
REPOSITORY = Path(__file__).parents[2]
WORLD = World(device=torch.device("cpu"))
DUBBED, JUMPING = "person 3", "person 7"


@pytest.fixture(scope="module")
def small() -> Iterator[pytest.MonkeyPatch]:
    """Few steps, a short list of people, and no model of real lips: these are numbers."""
    monkeypatch = pytest.MonkeyPatch()
    start = Method("shipped: of the test", LoudnessEstimator(), UNTRAINED_CALIBRATION)
    monkeypatch.setattr(fitting, "load_shipped", lambda: start)
    monkeypatch.setattr(fitting, "load_shipped_takes", lambda: ())
    for name, value in (("NUM_STEPS", 16), ("MIN_EPOCHS", 1), ("MIN_PEOPLE", 6), ("MIN_SECONDS", 30.0)):
        monkeypatch.setattr(fitting, name, value)
    yield monkeypatch
    monkeypatch.undo()


@pytest.fixture(scope="module")
def fitted(
    small: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, fitting.FitResult]:
    """The folder of a run, and its result."""
    save_dir = tmp_path_factory.mktemp("fitted")
    return save_dir, fitting.fit_folder(hidden(folder()), save_dir, Settings(), WORLD)


def folder(num_people: int = 8) -> list[Take]:
    """Takes of people off by -240 to 200 ms; one has the sound of another, and one jumps by 300 ms."""
    takes = []
    for person in range(num_people):
        take = make_take(person, 320, speaker=f"person {person}", offset_rows=-24 + 6 * person)
        if take.speaker == DUBBED:
            take = replace(take, sound=make_take(50, 320).sound)
        if take.speaker == JUMPING:
            late = make_take(person, 320, speaker=take.speaker, offset_rows=-24 + 6 * person + 30).sound
            half = len(late.log_mel) // 2
            levels = np.concatenate([take.sound.log_mel[:half], late.log_mel[half:]])
            take = replace(take, sound=replace(take.sound, log_mel=levels))
        takes.append(replace(take, name=f"{take.speaker}.mp4"))
    return takes


def hidden(takes: Sequence[Take]) -> list[Take]:
    """The takes as a user has them: nobody has told by how much they are off."""
    return [replace(take, offset_ms=0.0) for take in takes]


def test_offsets_are_found_and_what_does_not_fit_is_left_out_and_named(
    fitted: tuple[Path, fitting.FitResult],
) -> None:
    takes, (tmp_path, result) = folder(), fitted
    assert result.model_file == tmp_path / "best_model.pth", result.message
    found = {one.take.speaker: one for one in result.found}
    for take in takes:
        one = found[take.speaker]
        if take.speaker in (DUBBED, JUMPING):
            assert one.reason
        else:
            assert one.take.offset_ms == pytest.approx(take.offset_ms, abs=20), one.reason
    jumping = next(take for take in takes if take.speaker == JUMPING)
    assert "jumps" in fitting.find_take_offset(jumping, LoudnessEstimator(), UNTRAINED_CALIBRATION).reason
    method = load_method(result.model_file)
    new = make_take(30, 250, speaker="new", offset_rows=11)
    assert fitting.find_take_offset(
        new, method.estimator, method.calibration
    ).take.offset_ms == pytest.approx(110, abs=20)
    with (tmp_path / "clips.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["person"]: row for row in csv.DictReader(file)}
    assert (rows[DUBBED]["used"], rows["person 0"]["used"]) == ("no", "yes")
    assert float(rows["person 0"]["offset_ms"]) == pytest.approx(-240, abs=20)
    card = (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "fitted" in card
    assert f"{JUMPING}.mp4" in card


def test_same_command_again_trains_nothing(
    fitted: tuple[Path, fitting.FitResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "make_trainer", lambda *_, **__: pytest.fail("trained again"))
    again = fitting.fit_folder(hidden(folder()), fitted[0], Settings(), WORLD)
    assert again.message == fitted[1].message


@pytest.mark.slow
def test_stopped_training_is_no_model(
    small: pytest.MonkeyPatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, done = fitting._train, []

    def stopped_at_the_second(*args: object) -> object:
        done.append(args[4])
        if len(done) == 2:
            raise KeyboardInterrupt
        return train(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(fitting, "_train", stopped_at_the_second)
    takes = hidden(folder())
    with pytest.raises(KeyboardInterrupt):
        fitting.fit_folder(takes, tmp_path, Settings(), WORLD)
    assert not (tmp_path / "best_model.pth").exists()
    assert fitting.fit_folder(takes, tmp_path, Settings(), WORLD).model_file is not None
    assert done[2:] == ["fold 1 of 3", "fold 2 of 3", "fold 3 of 3", "all clips"]


def test_model_that_is_no_better_is_not_written(
    fitted: tuple[Path, fitting.FitResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = fitting._compare

    def reversed_results(*args: object) -> dict[str, object]:
        results = compare(*args)  # type: ignore[arg-type]
        for by_speaker in results["fitted"].hits[600.0].values():
            for hits in by_speaker.values():
                hits[:] = [False] * len(hits)
        return dict(results)

    monkeypatch.setattr(fitting, "_compare", reversed_results)
    (fitted[0] / "best_model.pth").unlink(missing_ok=True)
    result = fitting.fit_folder(hidden(folder()), fitted[0], Settings(), WORLD)
    assert result.model_file is None
    assert "nothing is gained" in result.message
    assert not (fitted[0] / "best_model.pth").exists()


def test_too_few_people_are_told_with_their_number(small: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(fitting.TooSmallError, match=r"4 people and 51 s .* under 6 people or 30 s"):
        fitting.fit_folder(
            hidden([take for take in folder(5) if take.speaker != DUBBED]), tmp_path, Settings(), WORLD
        )


def test_program_says_that_a_folder_is_too_small(
    load_script, tmp_path_factory, tmp_path: Path, capsys
) -> None:
    videos = make_talking(load_script, tmp_path_factory)[0].parents[1]
    code = cli.run(fit.main, ["--videos", str(videos), "--save_dir", str(tmp_path), "--workers", "1"])
    assert code == 1
    assert "nothing is gained; use the model that comes with the package" in capsys.readouterr().out
    assert (tmp_path / "clips.csv").is_file()
    assert not (tmp_path / "best_model.pth").exists()


@pytest.mark.slow
def test_program_started_by_its_path_gives_the_reason(
    load_script, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    videos = make_talking(load_script, tmp_path_factory)[0].parents[1]
    command = [sys.executable, "lipsync/fit.py", "--videos", str(videos), "--save_dir", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nothing is gained; use the model that comes with the package" in done.stdout + done.stderr


def test_folder_without_videos_is_one_line_with_its_option(tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    command = ["--videos", str(tmp_path / "empty"), "--save_dir", str(tmp_path / "out")]
    assert cli.run(fit.main, command) == 2
    assert "--videos: nothing below" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
