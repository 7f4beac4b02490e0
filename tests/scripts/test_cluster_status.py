"""status.py: states, progress and logs of jobs, whatever became of them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from facevox import cli
from facevox.cluster.progress import count_items, progress_text, statuses
from facevox.cluster.records import Record, new_folder
from facevox.files import write_json
from facevox.manifest import ManifestWriter, make_header, manifest_file, started_record


@pytest.fixture
def status(load_script: Any) -> ModuleType:
    return load_script("cluster/status")


OTHER_KEYS = {"reason": "", "outputs": [], "rows": [], "fingerprint": 0}


def make_record(log_dir: Path, **changes: Any) -> Record:
    values: dict[str, Any] = {
        "job": "extract_faces", "arguments": [], "cluster": "local", "root": log_dir.parent,
        "output_dir": "out",
    }  # fmt: skip
    record = Record(folder=new_folder(log_dir, "extract_faces"), **(values | changes))
    record.write()
    return record


def say(record: Record, shard: int, state: str, num_starts: int = 1) -> None:
    write_json(record.state_file(shard), {"state": state, "exit_code": 0, "num_starts": num_starts})


def write_shard(folder: Path, shard: int, items: dict[str, str], total: int) -> None:
    header = make_header("extract_faces", {}, "faces.csv", ["video"], "video")
    with ManifestWriter(manifest_file(folder, "extract_faces", shard, 2), header, 0) as writer:
        writer.append(started_record([str(number) for number in range(total)]))
        for at, (name, state) in enumerate(items.items()):
            writer.append({"item": name, "status": state, "at": at, **OTHER_KEYS})


def fake_squeue(folder: Path, monkeypatch: pytest.MonkeyPatch, lines: str, code: int = 0) -> None:
    (folder / "answer").write_text(lines)
    tool = folder / "bin" / "squeue"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\ncat '{folder}/answer'\nexit {code}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")


def test_items_of_all_shards_are_counted_by_their_newest_line(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, {"a": "done", "b": "failed"}, 5)
    write_shard(tmp_path, 1, {"b": "failed", "c": "done", "d": "done"}, 5)
    with manifest_file(tmp_path, "extract_faces", 1, 2).open("a") as file:
        file.write(json.dumps({"item": "b", "status": "done", "at": 9, **OTHER_KEYS}) + '\n{"item": "half')
    assert count_items(tmp_path, "extract_faces") == ({"done": 4, "failed": 0}, 5)


def test_states_come_from_the_jobs_and_from_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"77_{shard}" for shard in range(5)]
    record = make_record(tmp_path / "logs", cluster="slurm", shards=5, job_ids=ids)
    for shard, state in {0: "done", 1: "failed", 2: "running", 3: "requeued"}.items():
        say(record, shard, state)
    fake_squeue(tmp_path, monkeypatch, "77_2|RUNNING|None\n77_3|PENDING|BeginTime\n5_1|RUNNING|None\n")
    (found,) = statuses([record])
    assert found.states == ["done", "failed", "running", "pending (BeginTime)", "gone"]
    assert found.state_text == "1 done, 1 failed, 1 running, 1 pending (BeginTime), 1 gone"
    assert found.log_file.name == "77_1_0_log.err"


def test_slurm_that_does_not_answer_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = make_record(tmp_path / "logs", cluster="slurm", job_ids=["7"])
    fake_squeue(tmp_path, monkeypatch, "", code=1)
    assert statuses([record])[0].states == ["waiting (SLURM does not answer)"]


def test_local_job_whose_process_is_gone_is_gone(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    records = [make_record(tmp_path / "logs", job_ids=[str(pid)]) for pid in (ended.pid, os.getpid())]
    for record in records:
        say(record, 0, "running")
    assert [one.states for one in statuses(records)] == [["gone"], ["running"]]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"epoch": 3, "train_loss": 0.5}], "epoch 3/50, loss 0.5"),
        ([{"epoch": 3, "loss": 0.25}], "epoch 3/50, loss 0.25"),
        ([{"epoch": 3, "train_loss": None}], "epoch 3/50, loss nan"),
        ([], "cannot be read"),
        ({"epoch": 3}, "cannot be read"),
    ],
)
def test_progress_of_a_training_is_its_last_epoch(tmp_path: Path, content: Any, text: str) -> None:
    record = make_record(tmp_path / "logs", job="train_hq", num_epochs=50)
    assert progress_text(record) == ""
    write_json(tmp_path / "out" / "history.json", content)
    assert text in progress_text(record)


def test_program_shows_lines_or_json_and_fails_where_a_job_did(
    status: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "logs"
    first, second = (make_record(logs, job_ids=["999999999"], shards=1) for _ in range(2))
    say(first, 0, "done", num_starts=3)
    say(second, 0, "some failed")
    write_shard(tmp_path / "out", 0, {"a": "done", "b": "failed"}, 4)
    assert cli.run(status.main, ["--log_dir", str(logs)]) == 0
    shown = capsys.readouterr().out
    assert "done, started 3 times" in shown
    assert "extract_faces 2/4, 1 failed" in shown
    assert "999999999_0_log.err" in shown
    say(second, 0, "failed")
    assert cli.run(status.main, ["--log_dir", str(logs), "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert sorted(row["states"][0] for row in rows) == ["done", "failed"]
    assert cli.run(status.main, ["--log_dir", str(logs), "--last", "1", "--json"]) in (0, 1)
    assert len(json.loads(capsys.readouterr().out)) == 1


def test_missing_folder_is_one_line(
    status: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(status.main, ["--log_dir", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
