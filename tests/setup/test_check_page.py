"""scripts/setup/check_page.sh without Node or its packages: one line, and a failure only where asked for."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

REGISTRY = "https://registry.npmjs.org/"


@pytest.fixture
def tree(tmp_path: Path, repository: Path) -> Path:
    """A copy of the project without packages, and a PATH (bin) without Node."""
    (tmp_path / "scripts" / "setup").mkdir(parents=True)
    (tmp_path / "tests" / "emotion" / "page").mkdir(parents=True)
    (tmp_path / "tests" / "emotion" / "page" / "package-lock.json").touch()
    shutil.copy(repository / "scripts" / "setup" / "check_page.sh", tmp_path / "scripts" / "setup")
    (tmp_path / "bin").mkdir()
    for name in ("dirname", "head"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    return tmp_path


def check(tree: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(tree / "scripts" / "setup" / "check_page.sh")],
        env={"PATH": str(tree / "bin"), **settings}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_machine_without_node_leaves_it_out_in_one_line(tree):
    answer = check(tree)
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (0, "", 1)
    assert "no npm" in answer.stderr
    assert check(tree, FACEVOX_REQUIRE_NODE="1").returncode == 1


def test_packages_that_cannot_be_had_leave_it_out_in_one_line(tree):
    npm = tree / "bin" / "npm"
    npm.write_text(
        "#!/bin/sh\necho 'npm error code ENOTFOUND'\necho 'npm error network …'\nexit 1\n", "utf-8"
    )
    npm.chmod(0o755)
    answer = check(tree)
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (0, "", 1)
    assert "npm error code ENOTFOUND" in answer.stderr
    assert check(tree, FACEVOX_REQUIRE_NODE="1").returncode == 1


def test_versions_are_exact_and_the_lock_names_no_other_registry(repository: Path):
    folder = repository / "tests" / "emotion" / "page"
    wanted = json.loads((folder / "package.json").read_text("utf-8"))["devDependencies"]
    packages = json.loads((folder / "package-lock.json").read_text("utf-8"))["packages"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    for name, package in packages.items():
        assert not name or package["integrity"], name
        assert package.get("resolved", REGISTRY).startswith(REGISTRY), name
