"""A small set in AIHub's shape, and the settings of .env.example in the environment."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from emotion import settings
from facevox import cli
from facevox.batch import BatchConfig, run_batch
from facevox_demo.example import aihub

EXAMPLE = aihub.AihubConfig(num_people=8, pictures_per_expression=2, picture_size=160, zip_names="cp949")


@pytest.fixture(scope="session")
def aihub_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`folders/` and `archives/` (names in cp949) with 8 people x 5 expressions x 2 pictures."""
    folder = tmp_path_factory.mktemp("aihub")
    batch = BatchConfig(
        output_dir=folder,
        program=aihub.PROGRAM,
        table=aihub.TABLE,
        columns=aihub.COLUMNS,
        item_column="person",
        settings=EXAMPLE.settings(),
    )
    summary = run_batch(aihub.AihubTask(EXAMPLE), aihub.make_items(EXAMPLE), batch)
    assert summary.failed == 0
    aihub.write_lists_and_archives(folder, EXAMPLE)
    return folder


@pytest.fixture
def example_settings(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """The 29 of .env.example as variables of the process; no .env; logs in the test's folder."""
    lines = (repository / ".env.example").read_text(encoding="utf-8").splitlines()
    values = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    values["LOG_DIR"] = str(tmp_path / "logs")
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(settings, "ENV_FILE", tmp_path / "no" / ".env")
    return values


@pytest.fixture
def preprocess(
    load_script: Callable[[str], ModuleType], example_settings: dict[str, str]
) -> Callable[..., int]:
    """Runs emotion/preprocess.py in this process: `preprocess(raw, output, "--workers", "2")`."""
    script = load_script("emotion/preprocess")

    def run(raw: Path, output: Path, *options: str) -> int:
        folders = ["--data_dir_train", str(output / "train"), "--data_dir_val", str(output / "validation")]
        small = ["--img_size", "64", *(["--debug"] if "--workers" not in options else [])]
        return cli.run(script.main, ["--data_dir_raw", str(raw), *folders, *small, *options])

    return run
