"""What a wheel of the project holds, and that its programs are found without the repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of the wheel, as below site-packages."""
    repository = Path(__file__).resolve().parents[2]
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=repository, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (repository / name).is_file():
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, target)
    build = "from setuptools.build_meta import build_wheel; build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=folder / "source", capture_output=True, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_wheel_brings_no_folder_of_a_common_name(installed: Path) -> None:
    packages = ["emotion", "facevox", "facevox_demo", "facevox_programs", "lc_pytorch", "lipsync"]
    assert sorted(path.name for path in installed.iterdir() if ".dist-info" not in path.name) == packages


def test_wheel_holds_every_module_and_its_data(installed: Path, repository: Path) -> None:
    for package in ("emotion", "facevox", "facevox_demo", "facevox_programs", "lc_pytorch", "lipsync"):
        for file in (repository / package).rglob("*.py"):
            assert (installed / file.relative_to(repository)).is_file(), file
    for file in repository.glob("scripts/*/*.py"):
        inside = installed / "facevox_programs" / file.relative_to(repository)
        assert inside.is_file() == (file.parent.name != "setup"), file
    models = [str(path.relative_to(repository)) for path in (repository / "facevox/mesh/models").iterdir()]
    assert len(models) > 7
    for name in (
        *models,
        *("lipsync/config.yaml", "emotion/static/index.html", "facevox/py.typed"),
        "facevox_demo/example/masks/astronaut.png",
    ):
        assert (installed / name).is_file(), name


def test_installed_table_finds_its_programs_anywhere(installed: Path, tmp_path: Path) -> None:
    code = (
        "from facevox_programs.jobs import TABLE\n"
        "for name in TABLE.files:\n"
        "    assert TABLE.load(name).JOB, name\n"
        "print(TABLE.load('extract_faces').__file__)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(installed)}, capture_output=True, text=True,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert Path(shown.stdout.strip()).is_relative_to(installed)
