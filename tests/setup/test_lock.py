"""scripts/setup/lock.py: reading, writing and checking the lock."""

import pytest

from facevox import cli
from facevox.errors import ExitCode

PROJECT = """
[project]
dependencies = ["numpy==1.26.4"]
[project.optional-dependencies]
demo = ["tqdm>=4"]
dev = ["facevox[demo]"]
"""


@pytest.fixture
def lock(load_script):
    return load_script("setup/lock")


@pytest.fixture
def true_lock(lock):
    """Pins for PROJECT that agree with what is installed here."""
    from importlib.metadata import version

    return f"numpy=={version('numpy')}\ntqdm=={version('tqdm')}\n"


def test_lock_fits_the_project(lock, capsys):
    assert cli.run(lock.main, ["--check"]) == ExitCode.DONE
    assert "fits the project" in capsys.readouterr().out


def test_true_lock_has_no_faults(lock, true_lock):
    assert lock.find_faults(true_lock + "# cuda: more\nnvidia-nvtx==13.0\n", PROJECT) == []


def test_each_kind_of_fault_is_found(lock, true_lock):
    tqdm = true_lock.splitlines()[1]
    cases = {
        "tqdm is not pinned (pyproject.toml needs it)": true_lock.replace(tqdm, ""),
        "is not ==1.26.4": true_lock.replace("numpy==1.26.4", "numpy==1.26.3"),
        "installed: run make install": true_lock.replace(tqdm, "tqdm==4.0.1"),
    }
    for words, text in cases.items():
        faults = lock.find_faults(text, PROJECT)
        assert any(words in fault for fault in faults), (words, faults)
    missing = PROJECT.replace('"tqdm>=4"', '"tqdm>=4", "no-such-package-here"')
    assert any(
        "no-such-package-here is not installed" in fault for fault in lock.find_faults(true_lock, missing)
    )


def test_pins_that_nothing_needs_are_found(lock, true_lock, monkeypatch):
    monkeypatch.setattr(lock.sys, "version_info", (3, 11, 7))
    monkeypatch.setattr(lock.sys, "platform", "linux")
    faults = lock.find_faults(true_lock + "left-over==1.0\n", PROJECT)
    assert faults == ["left-over is pinned and nothing needs it: run make lock"]


def test_check_with_faults_exits_1(lock, monkeypatch, capsys):
    monkeypatch.setattr(lock, "find_faults", lambda *_: ["numpy is not pinned"])
    assert cli.run(lock.main, ["--check"]) == ExitCode.SOME_FAILED
    assert capsys.readouterr().err == "requirements.lock: numpy is not pinned\n"


def test_text_of_a_lock_reads_back_with_the_cuda_part_last(lock):
    pins = {"zlib-ng": "1.0", "nvidia-nvtx": "13.0", "attrs": "26.1", "torchvision": "0.28.0"}
    text = lock.lock_text(pins)
    assert lock.read_pins(text) == pins
    common, cuda = text.split("# cuda")
    assert common.index("attrs") < common.index("zlib-ng")
    assert "nvidia-nvtx" in cuda
    assert "torchvision" in cuda


def test_names_and_versions_are_normalised(lock):
    assert lock.read_pins("# note\nPy_YAML==6.0.3  # why\ntorch==2.13.0+cpu ; python_version < '4'\n\n") == {
        "py-yaml": "6.0.3",
        "torch": "2.13.0",
    }
