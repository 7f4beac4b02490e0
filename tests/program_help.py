"""Asks a program for its help: seconds differ between machines, the modules imported for it do not."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# Each takes from a fifth of a second to ten seconds. `benchmarks/help_time.py` measures the whole.
HEAVY = frozenset(
    {
        *("cv2", "deepface", "fastapi", "h5py", "insightface", "keras", "librosa", "matplotlib", "mediapipe"),
        *("mtcnn", "numba", "onnx", "onnxruntime", "pandas", "scipy", "sklearn", "submitit", "tensorboard"),
        *("tensorflow", "torch", "torchaudio", "torchvision", "transformers", "uvicorn"),
    }
)


def light_help(program: str, option: str = "--help") -> str:
    """Help text of a program of the repository, named by its path.

    Raises:
        AssertionError: It did not print it, or imported something heavy before.
    """
    done = subprocess.run(
        [sys.executable, "-X", "importtime", program, option],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("usage: "), done.stdout
    modules = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    packages = {name.partition(".")[0] for name in modules}
    assert "argparse" in packages, "the list of imports is not there"
    assert not HEAVY & packages, f"{program} {option} imports {sorted(HEAVY & packages)}"
    return done.stdout
