"""Two tasks on two nodes of a real SLURM train what one process trains."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from real_slurm import start_slurm, stop_slurm
from small_training import options_for, write_encoders, write_people

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    state_dir = tmp_path / "slurm"
    yield start_slurm(state_dir)
    stop_slurm(state_dir)


def test_two_nodes_give_the_losses_and_weights_of_one_process(
    slurm: dict[str, str], repository: Path, tmp_path: Path
) -> None:
    listing = write_people(tmp_path / "people", num_people=12)
    encoders = write_encoders(tmp_path / "encoders", dropout=0.0)
    program = [sys.executable, "scripts/training/train_face_voice_from_matched_file.py"]
    one = options_for(listing, encoders, tmp_path / "one", batch_size=8, num_workers=0)
    two = options_for(listing, encoders, tmp_path / "two", batch_size=4, num_workers=0)
    subprocess.run([*program, *one], cwd=repository, check=True, timeout=300)
    srun = ["srun", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
    finished = subprocess.run(
        [*srun, *program, *two], cwd=repository, env=slurm, capture_output=True, text=True, timeout=600
    )
    assert finished.returncode == 0, finished.stderr
    rows = [json.loads((tmp_path / name / "history.json").read_text()) for name in ("one", "two")]
    assert len(rows[0]) == len(rows[1]) > 1
    for first, second in zip(*rows, strict=True):
        assert first["train_loss"] == pytest.approx(second["train_loss"], abs=1e-4)
    weights = [torch.load(tmp_path / name / "full_model.pth", weights_only=True) for name in ("one", "two")]
    # Biases of keys have no gradient but rounding, which Adam blows up to a whole step.
    names = [name for name in weights[0] if "k_proj.bias" not in name]
    largest = max(float((weights[0][name] - weights[1][name]).abs().max()) for name in names)
    assert largest < 1e-4
