"""The landmark programs, run in this process."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from facevox import cli


@pytest.fixture
def run_train(load_script: Callable[[str], ModuleType], tmp_path: Path) -> Callable[..., int]:
    script = load_script("emotion/landmarks/train")

    def run(*options: object) -> int:
        return cli.run(script.main, [*map(str, options), "--log_dir", str(tmp_path / "logs")])

    return run


@pytest.fixture
def run_predict(load_script: Callable[[str], ModuleType], tmp_path: Path) -> Callable[..., int]:
    script = load_script("emotion/landmarks/predict")

    def run(*options: object) -> int:
        return cli.run(script.main, [*map(str, options), "--log_dir", str(tmp_path / "logs")])

    return run
