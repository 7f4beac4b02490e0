"""submit.py on a real SLURM: two nodes, preempted and requeued; what SLURM refuses; what waits for what."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from real_slurm import wait_until
from small_training import assert_same, plain_rows

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
NUM_EPOCHS = 60


def submit(jobs: Any, log_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    repository = Path(__file__).resolve().parents[2]
    return subprocess.run(
        [sys.executable, "scripts/cluster/submit.py", "--log_dir", str(log_dir), "--time", "10", *words],
        cwd=repository, env=jobs.environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def training(hq: Path, vit: Path, save_dir: Path) -> list[str]:
    return [
        *("--", "train_hq", "--split_json_path", str(hq / "split.json"), "--dataset_type", "both"),
        *("--face_model", str(vit), "--embedding_dim", "8", "--batch_size", "2", "--num_workers", "0"),
        *("--num_epochs", str(NUM_EPOCHS), "--device", "cpu", "--save_interval", "1000"),
        *("--save_dir", str(save_dir)),
    ]


def result(save_dir: Path) -> Any:
    rows = plain_rows(json.loads((save_dir / "history.json").read_text()))
    return rows, torch.load(save_dir / "full_model.pth", weights_only=True)


def job_number(answer: subprocess.CompletedProcess[str]) -> str:
    assert answer.returncode == 0, answer.stderr
    found = re.search(r"job (\d+)", answer.stdout)
    assert found, answer.stdout
    return found[1]


def test_training_on_two_nodes_is_requeued_by_submitit_and_ends_as_if_nothing_had_been(
    jobs: Any, hq: Path, vit: Path, tmp_path: Path, load_script: Any
) -> None:
    nodes = ("--nodes", "2", "--gpus", "0", "--cpus", "2", "--mem_gb", "4")
    whole, run = tmp_path / "whole", tmp_path / "run"
    first = job_number(submit(jobs, tmp_path / "logs", *nodes, *training(hq, vit, whole)))
    jobs.wait(first)

    second = job_number(submit(jobs, tmp_path / "logs", *nodes, *training(hq, vit, run)))
    after = submit(
        jobs, tmp_path / "logs", "--after", second, "--gpus", "0", "--",
        "evaluate_hq", "--model_dir", str(run), "--force_cpu",
    )  # fmt: skip
    history = run / "history.json"
    wait_until(lambda: history.exists() and len(json.loads(history.read_text())) > 2, "three epochs", 120)
    jobs.slurm.ask("scancel", "--signal=USR2", second)
    jobs.wait(second)
    jobs.wait(job_number(after))
    assert_same(result(run), result(whole))
    assert (run / "evaluation_results.json").is_file()
    logs = "\n".join(file.read_text() for file in (tmp_path / "logs").glob(f"*/{second}_0_log.*"))
    assert "resuming from" in logs
    (state,) = (json.loads(file.read_text()) for file in (tmp_path / "logs").glob("*-train_hq-*/state-0.json")
                if json.loads(file.read_text())["num_starts"] == 2)  # fmt: skip
    assert (state["state"], state["exit_code"]) == ("done", 0)


def test_failed_job_takes_what_waits_for_it_out_of_the_queue(jobs: Any, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    job = ("--", "create_hq_split", "--vox_dir", str(tmp_path))  # no HQ VoxCeleb
    first = submit(jobs, logs, *job)
    second = submit(jobs, logs, "--after", job_number(first), *job)
    wait_until(lambda: not jobs.slurm.ask("squeue", "--noheader"), "end", 90)
    assert jobs.states(job_number(first)) == {"FAILED"}
    assert jobs.states(job_number(second)) == {"CANCELLED"}
    status = subprocess.run(
        [sys.executable, "scripts/cluster/status.py", "--log_dir", str(logs)],
        cwd=Path(__file__).resolve().parents[2], env=jobs.environment, capture_output=True, text=True,
    )  # fmt: skip
    assert status.returncode == 1
    assert "failed" in status.stdout
    assert "gone" in status.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--partition", "fast"), "--partition fast: the partitions are: main spare"),
        (("--nodes", "9", "--gpus", "0"), "SLURM refuses this"),
        (("--gpus", "9"), "SLURM refuses this"),
        (("--mem_gb", "4000"), "SLURM refuses this"),
    ],
)
def test_what_slurm_would_refuse_is_refused_in_one_line(
    jobs: Any, hq: Path, vit: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    answer = submit(jobs, tmp_path / "logs", *words, *training(hq, vit, tmp_path / "run"))
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert said in answer.stderr
    assert not (tmp_path / "logs").exists()


def test_dry_run_shows_the_script_and_what_slurm_says(jobs: Any, hq: Path, vit: Path, tmp_path: Path) -> None:
    answer = submit(jobs, tmp_path / "logs", "--dry_run", *training(hq, vit, tmp_path / "run"))
    assert answer.returncode == 0, answer.stderr
    assert "#SBATCH --signal=USR2@300" in answer.stdout
    assert "#SBATCH --requeue" in answer.stdout
    assert "to start at" in answer.stdout
    assert not (tmp_path / "logs").exists()
