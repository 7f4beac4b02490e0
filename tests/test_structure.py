"""The imports run one way: scripts → facevox_programs, facevox_demo → packages → facevox, without circles."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = sorted(p.parent.name for p in REPOSITORY.glob("*/__init__.py") if p.parent.name != "tests")
# What each may import of the project, besides itself. Only scripts and benchmarks import the top floor.
TOP = {"facevox_demo", "facevox_programs"}
ALLOWED = {name: {"facevox"} for name in PACKAGES} | {"facevox": set()}
ALLOWED |= {name: set(PACKAGES) - TOP for name in TOP}


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


def module_arrows(package: str) -> dict[str, set[str]]:
    """Which modules of a package import which others of it, also within functions and for types alone."""
    files = {}
    for file in (REPOSITORY / package).rglob("*.py"):
        parts = file.relative_to(REPOSITORY).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    arrows: dict[str, set[str]] = {}
    for module, file in files.items():
        names = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= {name if name in files else node.module for name in inner}
        arrows[module] = names & files.keys() - {module}
    return arrows


def page_arrows() -> dict[str, set[str]]:
    """Which modules of the live page import which others; types alone (in comments) do not count."""
    files = (REPOSITORY / "emotion" / "static").glob("*.js")
    pattern = re.compile(r'^(?:import|\}) .*?"\./([\w.]+)";$', re.MULTILINE)
    return {file.name: set(pattern.findall(file.read_text(encoding="utf-8"))) for file in files}


@pytest.mark.parametrize("package", [*PACKAGES, "page"])
def test_modules_import_each_other_in_no_circle(package: str) -> None:
    arrows = page_arrows() if package == "page" else module_arrows(package)
    assert any(arrows.values())
    while free := [module for module, names in arrows.items() if not names & arrows.keys()]:
        for module in free:
            del arrows[module]
    assert arrows == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_the_front_of_its_own_package(package: str) -> None:
    """`__init__` imports the modules behind it; the other way round would be a circle for each of them."""
    arrows = module_arrows(package)
    fronts = {module for module in arrows if (REPOSITORY / module.replace(".", "/")).is_dir()}
    wrong = {
        (module, name)
        for module, names in arrows.items()
        for name in names & fronts
        if module.startswith(f"{name}.") and module not in fronts
    }
    assert wrong == set()


def test_program_with_the_name_of_a_package_does_not_hide_it(tmp_path: Path) -> None:
    """Python looks into a program's own folder first; `facevox.program` takes it out before other imports."""
    programs = [*REPOSITORY.glob("scripts/*/*.py"), *REPOSITORY.glob("benchmarks/*.py")]
    assert {file.stem for file in programs} & set(PACKAGES) == {"lipsync"}
    command = [sys.executable, "benchmarks/lipsync.py", "--parts", "real"]  # imports the package
    environment = os.environ | {"FACEVOX_TEST_DATA": str(tmp_path)}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "no real clips" in done.stdout) == (0, True), done.stderr


def test_scripts_do_not_import_each_other() -> None:
    for file in sorted(REPOSITORY.glob("scripts/*/*.py")):
        assert "scripts" not in imported_names(file)


# What faces the console itself: errors, logs and progress; figures of the demo; faults of the .env.
PRINTING = {"facevox/cli.py", "facevox/logs.py", "facevox/progress.py", "facevox_demo/figures.py"}
PRINTING |= {"emotion/logger_config.py", "emotion/settings.py"}


def test_libraries_log_and_only_programs_print() -> None:
    printing = set()
    for file in (path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if "if __name__ == " in text:
            continue
        calls = (node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
        if any(isinstance(call, ast.Name) and call.id == "print" for call in calls):
            printing.add(file.relative_to(REPOSITORY).as_posix())
    assert printing == PRINTING


def test_importing_the_foundation_loads_nothing_heavy() -> None:
    code = (
        "import sys, facevox, facevox.errors, facevox.cli, facevox.files, facevox.batch\n"
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
