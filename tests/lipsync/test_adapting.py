"""--adapt: a model is fitted to the folder before it is scored, once for all shards and restarts."""

import csv
import json
import threading
from argparse import Namespace
from pathlib import Path

import pytest
from synthetic_takes import make_network
from talking_clips import make_talking

from facevox import cli
from facevox.errors import ExitCode, UserError
from facevox.files import write_json
from facevox.locks import OutputLock
from lipsync import adapting, fit, inference
from lipsync.adapting import Adapted, adapt
from lipsync.fit import FitOutcome
from lipsync.network.estimator import SavedModel, save_model
from lipsync.settings import Settings
from lipsync.sync.estimators import UNTRAINED_CALIBRATION

ARGS = Namespace(num_shards=2, shard_index=1, overwrite=True)


@pytest.fixture(scope="module")
def videos(load_script, tmp_path_factory) -> Path:
    return make_talking(load_script, tmp_path_factory)[0].parents[1]


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Namespace]:
    """The fits that were asked for; each writes a model of fresh weights."""
    asked: list[Namespace] = []

    def fit_videos(videos: Path, save_dir: Path, settings: Settings, args: Namespace) -> FitOutcome:
        asked.append(args)
        file = save_dir / "best_model.pth"
        notes = {"audio": settings.audio.sizes(), "clock": 2}
        save_model(
            file,
            SavedModel(
                network=make_network("lip_landmarks", "none"),
                ridge=None,
                calibration=UNTRAINED_CALIBRATION,
                settings=notes,
            ),
        )
        return FitOutcome(ExitCode.DONE, file, "people left out: right offset in 90.0%")

    monkeypatch.setattr(fit, "fit_videos", fit_videos)
    return asked


def test_model_is_fitted_once_over_all_videos(tmp_path: Path, fits: list[Namespace]) -> None:
    first = adapt(tmp_path / "videos", tmp_path / "out", Settings(), ARGS)
    assert first == Adapted(
        tmp_path / "out/adapted/best_model.pth",
        "the model was fitted to this folder; people left out: right offset in 90.0%",
    )
    assert adapt(tmp_path / "videos", tmp_path / "out", Settings(), ARGS) == first
    assert [(one.num_shards, one.shard_index, one.overwrite) for one in fits] == [(1, 0, False)]
    assert (ARGS.num_shards, ARGS.shard_index, ARGS.overwrite) == (2, 1, True)


def test_model_that_was_changed_or_is_gone_is_not_used(tmp_path: Path, fits: list[Namespace]) -> None:
    adapted = adapt(tmp_path / "videos", tmp_path, Settings(), ARGS)
    assert adapted.checkpoint is not None
    adapted.checkpoint.write_bytes(b"another")
    with pytest.raises(
        UserError, match=r"best_model.pth is another file .*; delete .*adapted.json to fit again"
    ):
        adapt(tmp_path / "videos", tmp_path, Settings(), ARGS)
    adapted.checkpoint.unlink()
    with pytest.raises(UserError, match=r"No such file .*; delete .*adapted.json to fit again"):
        adapt(tmp_path / "videos", tmp_path, Settings(), ARGS)
    for damage in ("[]", "{}", "not JSON", '{"checkpoint": 3, "sha256": "", "reason": ""}'):
        (tmp_path / "adapted/adapted.json").write_text(damage)
        with pytest.raises(UserError, match=r"delete .*adapted.json to fit again"):
            adapt(tmp_path / "videos", tmp_path, Settings(), ARGS)
    assert len(fits) == 1


def test_other_shards_wait_for_the_one_that_fits(
    tmp_path: Path, fits: list[Namespace], monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    caplog.set_level("INFO")
    waits = []
    (tmp_path / "adapted").mkdir()
    lock = OutputLock(tmp_path / "adapted/adapt.lock")
    lock.__enter__()

    def wait() -> None:  # the other shard is done after a while
        waits.append(1)
        if len(waits) == 2:
            write_json(
                tmp_path / "adapted/adapted.json", {"checkpoint": None, "sha256": "", "reason": "3 people"}
            )
            lock.__exit__(None, None, None)

    monkeypatch.setattr(adapting, "_wait", wait)
    adapted = adapt(tmp_path / "videos", tmp_path, Settings(), ARGS)
    assert adapted == Adapted(None, "no model was fitted to this folder: 3 people")
    assert (len(waits), fits) == (2, [])
    assert caplog.text.count("another shard fits the model; waiting for it") == 1


def test_stopped_fit_leaves_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "fit_videos", lambda *_: FitOutcome(ExitCode.STOPPED))
    with pytest.raises(SystemExit) as stopped:
        adapt(tmp_path / "videos", tmp_path, Settings(), ARGS)
    assert stopped.value.code == ExitCode.STOPPED
    assert [path.name for path in (tmp_path / "adapted").iterdir() if not path.name.startswith(".")] == []


def rows_of(output: Path) -> list[dict[str, str]]:
    with (output / "sync.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_names_the_fitted_model(videos: Path, tmp_path: Path, fits: list[Namespace]) -> None:
    command = ["--batch", str(videos), "--output_dir", str(tmp_path / "out"), "--adapt", "--workers", "0"]
    for _ in range(2):
        assert cli.run(inference.main, command) == ExitCode.DONE
    model = tmp_path / "out/adapted/best_model.pth"
    rows = rows_of(tmp_path / "out")
    assert rows
    for row in rows:
        assert row["method"].startswith("checkpoint: ")
        assert row["checkpoint"] == str(model)
        assert "the model was fitted to this folder; people left out" in row["warnings"]
        details = json.loads((tmp_path / "out" / row["json_file"]).read_text(encoding="utf-8"))
        assert details["checkpoint"] == str(model)
    assert len(fits) == 1


def test_folder_that_is_too_small_is_scored_by_the_model_of_the_package(
    videos: Path, tmp_path: Path, capsys
) -> None:
    """By the real fit: two videos are no ten people."""
    command = ["--batch", str(videos), "--output_dir", str(tmp_path / "out"), "--adapt", "--workers", "0"]
    assert cli.run(inference.main, command) == ExitCode.DONE
    rows = rows_of(tmp_path / "out")
    assert rows
    for row in rows:
        assert row["method"].startswith("shipped: ")
        assert row["checkpoint"] == ""
        assert "no model was fitted to this folder: " in row["warnings"]
        assert "people" in row["warnings"]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--video", "x.mp4", "--adapt"], "--adapt fits a model to a folder: give it as --batch DIR"),
        (["--batch", "FILE", "--adapt"], "--adapt fits a model to a folder: give it as --batch DIR"),
        (["--batch", "DIR", "--adapt", "--method", "shipped"], "--adapt makes its own model"),
        (["--batch", "DIR", "--adapt", "--checkpoint", "x.pth"], "--adapt makes its own model"),
    ],
)
def test_usage_is_checked(tmp_path: Path, options: list[str], fault: str, capsys) -> None:
    (tmp_path / "pairs.csv").write_text("video\nx.mp4\n")
    names = {"FILE": str(tmp_path / "pairs.csv"), "DIR": str(tmp_path)}
    assert cli.run(inference.main, [names.get(word, word) for word in options]) == ExitCode.USAGE
    assert fault in capsys.readouterr().err
    assert not (tmp_path / "adapted").exists()


def test_waiting_threads_do_not_fit_twice(tmp_path: Path, fits: list[Namespace], monkeypatch) -> None:
    """Several shards start at the same moment."""
    monkeypatch.setattr(adapting, "_wait", lambda: None)
    results: list[Adapted] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(adapt(tmp_path / "videos", tmp_path, Settings(), ARGS))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(set(results)) == 1
    assert len(fits) == 1
