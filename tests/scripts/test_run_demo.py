"""The demo: its stages, its report."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from facevox import cli
from lc_pytorch.demo_report import score_groups


@pytest.fixture
def script(load_script) -> ModuleType:  # type: ignore[no-untyped-def]
    return load_script("demo/run_demo")


def test_groups_are_scored_against_the_folders_of_the_people() -> None:
    rows = [
        {"file": "a/1.jpg", "group": "0", "status": "done"},
        {"file": "a/2.jpg", "group": "0", "status": "done"},
        {"file": "b/1.jpg", "group": "1", "status": "done"},
        {"file": "b/2.jpg", "group": "2", "status": "done"},
        {"file": "c/1.jpg", "group": "", "status": "failed"},
    ]
    score = score_groups(rows)
    assert (score["faces"], score["people"], score["groups"]) == (4, 2, 3)
    # precision 1, recall (1 + 1 + 0.5 + 0.5) / 4
    assert score["bcubed_f1"] == pytest.approx(2 * 0.75 / 1.75, abs=1e-4)


def test_failing_stage_ends_the_demo_and_names_itself(
    script: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "example_data").write_text("in the way", encoding="utf-8")
    assert cli.run(script.main, ["--output_dir", str(tmp_path), "--num_people", "2", "--workers", "0"]) == 1
    assert "Example data ended with exit code 2" in capfd.readouterr().out


@pytest.mark.slow
def test_small_demo_runs_to_its_report_and_the_second_time_skips(repository: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "scripts/demo/run_demo.py",
        "--output_dir",
        str(tmp_path),
        "--num_people",
        "12",
    ]
    subprocess.run(command, cwd=repository, check=True, timeout=280, capture_output=True)
    facts = json.loads((tmp_path / "demo.json").read_text(encoding="utf-8"))
    assert facts["groups"]["faces"] == 24
    assert facts["groups"]["bcubed_f1"] > 0.7
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for title in ("Example data", "Faces", "Groups", "Representatives", "Voices", "Pairs", "Commands"):
        assert f">{title}</h2>" in page
    assert page.count("<img") > 24
    assert "http" not in page.replace("http://www.w3.org", "")
    start_s = time.monotonic()
    subprocess.run(command, cwd=repository, check=True, timeout=280, capture_output=True)
    assert time.monotonic() - start_s < 0.6 * facts["seconds"]
