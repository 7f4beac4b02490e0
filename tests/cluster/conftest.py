"""One real SLURM for all tests of this folder, and example data small enough to train on twice a minute."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from real_slurm import RealSlurm, start_or_skip, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
UNFINISHED = ("", "PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED")


@dataclass
class Jobs:
    """Submits scripts of slurm/ and looks after them."""

    slurm: RealSlurm
    logs: Path

    def submit(self, script: str, *arguments: str, options: tuple[str, ...] = (), **variables: str) -> str:
        """Submits from the repository's root; returns the job's number."""
        self.logs.mkdir(exist_ok=True)
        answer = subprocess.run(
            ["sbatch", "--parsable", f"--output={self.logs}/%x-%j.out", *options, script, *arguments],
            cwd=REPOSITORY,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.strip()

    @property
    def environment(self) -> dict[str, str]:
        """Environment of the cluster, with this interpreter, one thread, and few processes."""
        return self.slurm.environment | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}

    def log(self, job: str = "") -> str:
        """Output of the job so far, in all its starts; of all jobs without a number."""
        return "\n".join(
            file.read_text(errors="replace")
            for file in sorted(self.logs.glob(f"*-{job}*.out" if job else "*.out"))
        )

    def wait(self, job: str, state: str = "COMPLETED", seconds: float = 240) -> None:
        """Waits for the job's end, requeues included; fails with its log where it ended otherwise."""
        last: set[str] = set()

        def is_over() -> bool:
            # Asked once: scontrol may fail for a moment, and says nothing then.
            found = self.states(job)
            last.clear()
            last.update(found)
            return bool(found) and not found & set(UNFINISHED)

        with contextlib.suppress(TimeoutError):
            wait_until(is_over, job, seconds)
        assert last == {state}, f"{last}\n{self.log()}\n{self.slurm.last_errors()}"

    def states(self, job: str) -> set[str]:
        """The states of a job, or of all tasks of an array."""
        shown = self.slurm.ask("scontrol", "--oneliner", "show", "job", job)
        return set(re.findall(r"\bJobState=(\w+)", shown))


@pytest.fixture(scope="session")
def slurm() -> Iterator[RealSlurm]:
    cluster = start_or_skip()
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def jobs(slurm: RealSlurm, tmp_path: Path) -> Iterator[Jobs]:
    """Jobs of this test; the cluster is left empty and whole."""
    wait_until(lambda: slurm.num_idle() == slurm.num_nodes, "idle nodes")
    yield Jobs(slurm, tmp_path / "logs")
    left = slurm.ask("squeue", "--noheader", "--format=%A").split()
    if left:
        slurm.ask("scancel", *sorted(set(left)))
        wait_until(lambda: not slurm.ask("squeue", "--noheader"), "empty queue", 120)
    for node in slurm.nodes:
        if node not in slurm._daemons:
            slurm.start_node(node)
    wait_until(lambda: slurm.num_idle() == slurm.num_nodes, "idle nodes", 120)


def run_program(*words: object, **variables: str) -> None:
    """Runs a program of the repository to its end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    answer = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=REPOSITORY,
        env=environment | {"OMP_NUM_THREADS": "1"} | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert answer.returncode == 0, answer.stderr


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT for pictures of 32 pixels, and a Wav2Vec2."""
    folder = tmp_path_factory.mktemp("encoders")
    run_program("scripts/demo/make_tiny_encoders.py", "--output_dir", folder, "--image_size", 32)
    return folder


@pytest.fixture(scope="session")
def vit(encoders: Path) -> Path:
    return encoders / "vit-tiny"


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Example data: 20 people with two clips of one second each."""
    folder = tmp_path_factory.mktemp("example") / "people"
    sizes = ("--num_people", 20, "--clips_per_person", 2, "--clip_s", 1, "--workers", 2)
    run_program("scripts/demo/make_example_data.py", "--output_dir", folder, *sizes)
    return folder


@pytest.fixture(scope="session")
def hq(people: Path) -> Path:
    """The HQ VoxCeleb tree of the example people, split."""
    root = people / "hq"
    ratios = ("--val_ratio", 0.1, "--test_ratio", 0.1)
    run_program(
        "scripts/hq/create_hq_voxceleb_split.py",
        "--vox_dir",
        root,
        "--output_json",
        root / "split.json",
        *ratios,
    )
    return root
