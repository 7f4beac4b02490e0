"""The imports run one way: scripts → packages → facevox; and importing facevox costs little."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = sorted(p.parent.name for p in REPOSITORY.glob("*/__init__.py") if p.parent.name != "tests")
# What each may import of the project, besides itself.
ALLOWED = {"facevox": set(), **{name: {"facevox"} for name in PACKAGES if name != "facevox"}}


def imported_names(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_what_lies_below_it(package: str) -> None:
    files = sorted((REPOSITORY / package).rglob("*.py"))
    assert files
    own = {"scripts", "tests", "benchmarks", *PACKAGES} - {package} - ALLOWED[package]
    upward = {str(file.relative_to(REPOSITORY)): imported_names(file) & own for file in files}
    assert {name: found for name, found in upward.items() if found} == {}


def test_scripts_do_not_import_each_other() -> None:
    for file in sorted(REPOSITORY.glob("scripts/*/*.py")):
        assert "scripts" not in imported_names(file)


def test_importing_the_foundation_loads_nothing_heavy() -> None:
    code = (
        "import sys, facevox, facevox.errors, facevox.cli, facevox.files, facevox.batch, facevox.report\n"
        "heavy = ('cv2', 'av', 'torch', 'mediapipe', 'scipy', 'PIL', 'matplotlib')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_files_stay_readable() -> None:
    lengths = {
        str(file.relative_to(REPOSITORY)): file.read_text(encoding="utf-8").count("\n")
        for package in (*PACKAGES, "scripts", "benchmarks")
        for file in (REPOSITORY / package).rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > 600} == {}
