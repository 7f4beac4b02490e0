"""The demo: its stages, its report."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from facevox import cli
from facevox_demo.report.face_voice import score_groups


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


def run_demo(repository: Path, folder: Path) -> str:
    """What the demo of 12 people prints; the limit is against hanging only."""
    command = [sys.executable, "scripts/demo/run_demo.py", "--output_dir", str(folder), "--num_people", "12"]
    done = subprocess.run(
        command, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=3600
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def redone(output: str) -> dict[str, int]:
    """The programs of the demo that go through items, and how many each did that were not finished before."""
    counts = re.findall(r"^(\w+): (\d+) done, \d+ skipped", output, re.MULTILINE)
    return {name: sum(int(count) for other, count in counts if other == name) for name, _ in counts}


@pytest.mark.slow
@pytest.mark.timeout(7500)
def test_small_demo_runs_to_its_report_and_the_second_time_skips(repository: Path, tmp_path: Path) -> None:
    first = redone(run_demo(repository, tmp_path))
    assert len(first) == 11
    assert all(first.values())
    facts = json.loads((tmp_path / "demo.json").read_text(encoding="utf-8"))
    assert facts["groups"]["faces"] == 24
    assert facts["groups"]["bcubed_f1"] > 0.7
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for title in ("Example data", "Faces", "Groups", "Representatives", "Voices", "Pairs", "Commands"):
        assert f">{title}</h2>" in page
    assert page.count("<img") > 24
    assert "http" not in page.replace("http://www.w3.org", "")
    again = run_demo(repository, tmp_path)
    # Scores of a new clip; pictures with --overwrite; what is read out of archives, which are packed anew.
    anew = {"inference", "emotion_pictures", "emotion_preprocess", "extract_landmarks"}
    assert {name for name, count in redone(again).items() if count} <= anew
    assert again.count("epochs are done already") == 3
    assert again.count("trained already") == 1
