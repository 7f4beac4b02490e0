"""A short run of the fuzzer; and that it finds what it is for, on readers with faults."""

import io
import random
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import fuzz
import numpy as np
import pytest
from fuzz_mutators import MEMBERS, mutate
from fuzz_targets import CONTENT, FORMS, LIGHT, Target

from facevox import cli
from facevox.errors import UserError

NUM_MUTATIONS = 60
WHOLE = bytes(range(256)) * 4


def test_short_run_finds_nothing(repository: Path, tmp_path: Path) -> None:
    options = ["--max_mutations", str(NUM_MUTATIONS), "--minutes", "4", "--output_dir", str(tmp_path / "out")]
    command = [sys.executable, str(repository / "tests" / "hostile" / "fuzz.py"), *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    *_, total, verdict = ended.stdout.splitlines()
    assert total.split()[:2] == ["all", str(NUM_MUTATIONS)]
    assert int(total.split()[3]) > NUM_MUTATIONS // 4  # were refused
    assert verdict == "no findings"
    assert not (tmp_path / "out").exists()


def example_of(form: str) -> bytes:
    if form in MEMBERS:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(zipfile.ZipInfo("a"), WHOLE)
            archive.writestr(zipfile.ZipInfo("b"), b"text")
        return file.getvalue()
    texts = {
        "json": b'{"a": [1, {"b": "x"}], "c": null}',
        "jsonl": b'{"a": 1}\n{"b": [2]}\n',
        "yaml": b"a: {b: [1, 2]}\nc: text\n",
        "csv": b"a,b\n1,2\n3,4\n",
        "env": b"A=1\nB=two\n",
    }
    return texts.get(form, WHOLE)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_seed_makes_the_same_changes(form: str) -> None:
    data = example_of(form)
    first, second, other = (
        [mutate(data, form, random.Random(f"{seed}/{number}")) for number in range(60)] for seed in (0, 0, 1)
    )
    assert first == second
    assert first != other
    assert sum(changed == data for _, changed in first) < 10


# Readers with a fault each, for the process of the fuzzer, which imports this module.


def make(folder: Path) -> None:
    (folder / "x").write_bytes(WHOLE)


def reader(fault: Callable[[], object]) -> Callable[[Path], object]:
    def read(file: Path) -> object:
        data = file.read_bytes()
        return data if data == WHOLE else fault()

    return read


def refuse() -> None:
    raise UserError("x: damaged")


def refuse_in_lines() -> None:
    raise UserError("x:\ndamaged")


def crash() -> None:
    import ctypes

    ctypes.string_at(0)


def show_traceback() -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("unseen")

    Broken()


FAULTS: dict[str, tuple[Callable[[], object], str]] = {
    "sound": (refuse, ""),
    "other exception": (lambda: [][0], "IndexError at "),
    "several lines": (refuse_in_lines, "message of several lines"),
    "native crash": (crash, "crash: SIGSEGV"),
    "hang": (lambda: time.sleep(60), "hang at "),
    "memory": (lambda: np.ones(40_000_000).sum(), "memory: memory"),
    "unseen": (show_traceback, "traceback shown"),
    "silence": (lambda: "damaged content", "silent damage: silence"),
}
TARGETS = [
    Target(name, "bin", LIGHT, "x", make, reader(fault), None, CONTENT if name == "silence" else "")
    for name, (fault, _) in FAULTS.items()
]


@pytest.mark.slow
def test_each_kind_of_fault_is_found_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "LIMIT_S", 5.0)
    monkeypatch.setattr(fuzz, "LIMIT_MB", 200.0)
    report = fuzz.fuzz(TARGETS, num=len(TARGETS), minutes=3, seed=0, module=__name__)
    assert report.counts["bin"].num == len(TARGETS)
    found = {finding.target.name: finding.signature for finding in report.findings}
    assert "sound" not in found
    for name, (_, signature) in FAULTS.items():
        assert found.get(name, "").startswith(signature), (name, found)
    assert set(found) == set(FAULTS) - {"sound"}
    lines = fuzz.write_findings(report.findings, tmp_path)
    assert len(lines) == len(found)
    assert len(list(tmp_path.glob("*/x"))) == len(list(tmp_path.glob("*/repeat.txt"))) == len(found)


def test_options_that_are_wrong_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.run(fuzz.main, ["--formats", "exe"]) == 2
    assert cli.run(fuzz.main, ["--repeat", str(tmp_path)]) == 2
    assert "no folder of a finding" in capsys.readouterr().err
