"""A real SLURM for tests: one that is there, or the one-machine cluster of the shared tools."""

import os
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "shared" / "tools"


def read_environment(script: Path) -> dict[str, str]:
    """The environment after a shell script of settings."""
    found = subprocess.run(
        ["bash", "-c", 'source "$1" && env -0', "-", str(script)], capture_output=True, check=True
    )
    pairs = (entry.partition("=") for entry in found.stdout.decode().split("\0") if entry)
    return {name: value for name, _, value in pairs}


def num_idle_nodes(environment: dict[str, str]) -> int:
    """Nodes that would take a job now; 0 where there is no SLURM."""
    try:
        found = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--format=%N %T"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return len({line.split()[0] for line in found.stdout.splitlines() if line.endswith("idle")})


def start_slurm(state_dir: Path) -> dict[str, str]:
    """The environment in which srun reaches two idle nodes; skips the test where there is no way to them."""
    if num_idle_nodes(dict(os.environ)) >= 2:
        return dict(os.environ)
    if not (TOOLS / "slurm-up.sh").is_file() or os.geteuid() != 0:
        pytest.skip("no SLURM with two idle nodes, and no tools (or no rights) to start one")
    started = subprocess.run(
        ["bash", str(TOOLS / "slurm-up.sh"), str(state_dir)], capture_output=True, text=True, timeout=600
    )
    if started.returncode:
        pytest.skip(f"SLURM did not start: {started.stderr.strip().splitlines()[-1:]}")
    return read_environment(state_dir / "env.sh")


def stop_slurm(state_dir: Path) -> None:
    """Ends what `start_slurm` started; nothing where it started nothing."""
    if (state_dir / "env.sh").is_file():
        subprocess.run(["bash", str(TOOLS / "slurm-down.sh"), str(state_dir)], check=False, timeout=120)
