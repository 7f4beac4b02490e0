"""HQ training on two nodes by `sbatch slurm/train_hq.sbatch`: whatever ends it, it ends as if nothing had."""

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from real_slurm import wait_until
from small_training import assert_same, plain_rows

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
NUM_EPOCHS = 80
TWO_NODES = ("--nodes=2", "--cpus-per-task=2", "--mem-per-cpu=1G", "--time=10")


class Training:
    """One training, submitted as a user would."""

    def __init__(self, jobs: Any, hq: Path, vit: Path, save_dir: Path) -> None:
        self.jobs, self.save_dir = jobs, save_dir
        self.arguments = (
            *(
                "--face_model",
                str(vit),
                "--embedding_dim",
                "8",
                "--batch_size",
                "2",
                "--num_epochs",
                str(NUM_EPOCHS),
            ),
            *(
                "--num_workers",
                "0",
                "--device",
                "cpu",
                "--checkpoint_interval",
                "5",
                "--save_interval",
                "1000",
            ),
        )
        self.variables = {"DATA_DIR": str(hq), "SAVE_DIR": str(save_dir), "DATASET_TYPE": "both"}

    def submit(self, *options: str) -> str:
        return self.jobs.submit(
            "slurm/train_hq.sbatch", *self.arguments, options=(*TWO_NODES, *options), **self.variables
        )

    def wait_for_steps(self, job: str) -> None:
        """Until some epochs of this start are done, so that what comes next comes in the middle."""
        history = self.save_dir / "history.json"
        before = history.stat().st_mtime_ns if history.exists() else 0
        num_epochs = len(json.loads(history.read_text())) if before else 0
        wait_until(
            lambda: history.exists() and len(json.loads(history.read_text())) >= num_epochs + 3,
            f"three more epochs\n{self.jobs.log(job)}",
            120,
        )

    def result(self) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
        rows = plain_rows(json.loads((self.save_dir / "history.json").read_text()))
        return rows, torch.load(self.save_dir / "full_model.pth", weights_only=True)


@pytest.fixture(scope="module")
def uninterrupted(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {}


@pytest.fixture
def reference(uninterrupted: dict[str, Any], jobs: Any, hq: Path, vit: Path, tmp_path: Path) -> Any:
    """Rows and weights of the run that nobody ends; done once."""
    if not uninterrupted:
        training = Training(jobs, hq, vit, tmp_path / "reference")
        start_s = time.monotonic()
        job = training.submit()
        jobs.wait(job)
        uninterrupted["seconds"] = time.monotonic() - start_s
        uninterrupted["result"] = training.result()
        assert "is queued again" not in jobs.log(job)
    return uninterrupted["result"]


def check(training: Training, job: str, reference: Any, *, num_starts: int) -> None:
    """The run went on where it was, and came out as the one that nobody ended."""
    log = training.jobs.log(job)
    assert len(re.findall("resuming from .*last.pth", log)) == num_starts - 1, log
    rows, weights = training.result()
    assert [row["epoch"] for row in rows] == list(range(1, NUM_EPOCHS + 1))
    assert rows == reference[0]
    assert_same(weights, reference[1])


def test_signal_in_mid_epoch(jobs: Any, hq: Path, vit: Path, tmp_path: Path, reference: Any) -> None:
    training = Training(jobs, hq, vit, tmp_path / "run")
    job = training.submit()
    training.wait_for_steps(job)
    jobs.slurm.ask("scancel", "--signal=USR2", job)
    jobs.wait(job)
    check(training, job, reference, num_starts=2)
    log = jobs.log(job)
    assert re.search(r"stopped by SIGUSR2 after step \d+ of", log)
    assert log.count("is queued again") == 1


def test_requeued_by_the_administrator(
    jobs: Any, hq: Path, vit: Path, tmp_path: Path, reference: Any
) -> None:
    training = Training(jobs, hq, vit, tmp_path / "run")
    job = training.submit()
    training.wait_for_steps(job)
    jobs.slurm.ask("scontrol", "requeue", job)
    jobs.wait(job)
    check(training, job, reference, num_starts=2)
    # SLURM did it: the script did not ask for it a second time.
    assert "is queued again" not in jobs.log(job)


def test_time_limit(
    jobs: Any, hq: Path, vit: Path, tmp_path: Path, reference: Any, uninterrupted: dict[str, Any]
) -> None:
    training = Training(jobs, hq, vit, tmp_path / "run")
    # The shortest limit that SLURM knows is a minute; the signal comes when most of the work is done.
    lead_s = 60 - round(min(max(0.6 * uninterrupted["seconds"], 8), 45))
    job = training.submit("--time=1", f"--signal=B:USR2@{lead_s}")
    jobs.wait(job)
    log = jobs.log(job)
    num_starts = 1 + log.count("is queued again")
    assert num_starts > 1, log
    check(training, job, reference, num_starts=num_starts)
    assert "DUE TO TIME LIMIT" not in log


def test_killed_slurmd_of_a_node(jobs: Any, hq: Path, vit: Path, tmp_path: Path, reference: Any) -> None:
    training = Training(jobs, hq, vit, tmp_path / "run")
    job = training.submit()
    training.wait_for_steps(job)
    first, second = jobs.slurm.nodes
    jobs.slurm.kill_node(second)
    # It takes SLURM a while to miss the node; the training must not be over by then.
    jobs.slurm.signal_work("train_hq_voxceleb.py", signal.SIGSTOP, SLURMD_NODENAME=first)
    wait_until(lambda: jobs.slurm.state(job) != "RUNNING", f"requeue {jobs.log(job)}", 90)
    assert jobs.slurm.state(job) in ("PENDING", "COMPLETING")
    jobs.slurm.signal_work("train_hq_voxceleb.py", signal.SIGCONT, SLURMD_NODENAME=first)
    jobs.slurm.start_node(second)
    jobs.wait(job)
    check(training, job, reference, num_starts=2)


def test_node_that_dies_with_all_its_work(
    jobs: Any, hq: Path, vit: Path, tmp_path: Path, reference: Any
) -> None:
    training = Training(jobs, hq, vit, tmp_path / "run")
    job = training.submit()
    training.wait_for_steps(job)
    node = jobs.slurm.nodes[1]
    jobs.slurm.kill_node(node, with_its_work=True)
    # Either the script finds out, or SLURM misses the node before it: the job goes on in both cases.
    wait_until(
        lambda: "a node was lost" in jobs.log(job) or jobs.slurm.state(job) != "RUNNING",
        f"requeue {jobs.log(job)}",
        120,
    )
    assert jobs.slurm.state(job) != "FAILED", jobs.log(job)
    jobs.slurm.start_node(node)
    jobs.wait(job)
    check(training, job, reference, num_starts=2)


def test_cancelled_job_stays_cancelled(jobs: Any, hq: Path, vit: Path, tmp_path: Path) -> None:
    training = Training(jobs, hq, vit, tmp_path / "run")
    job = training.submit()
    training.wait_for_steps(job)
    jobs.slurm.ask("scancel", job)
    jobs.wait(job, "CANCELLED")
    assert (training.save_dir / "last.pth").is_file()
    assert "is queued again" not in jobs.log(job)
