"""The demo's lip-sync part: which clips are scored, and the section of the report."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from facevox.files import write_image
from facevox_demo.report import lipsync as lipsync_report
from facevox_demo.report.lipsync import (
    add_lipsync,
    held_out_clips,
    write_demo_pairs,
    write_repaired_pairs,
)
from facevox_demo.report.page import Report

COLUMNS = ("video", "audio", "score", "offset_ms", "offset_low_ms", "offset_high_ms", "text", "json_file")


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """What the stages before the report leave."""
    folder = tmp_path / "lip sync"
    (folder / "checkpoints").mkdir(parents=True)
    content = {
        "train": ["id3/0001.mp4"],
        "validation": [],
        "test": ["id1/0001.mp4", "id1/0002.mp4", "id2/0001.mp4"],
    }
    (folder / "checkpoints" / "split.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "checkpoints" / "history.json").write_text(json.dumps([{"epoch": 1}] * 7), encoding="utf-8")
    card = "# x\n\n## Test clips\n\n| | network |\n| AUC | 0.99 |\n\n## Use\n\nnot shown\n"
    (folder / "checkpoints" / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    picture = np.zeros((40, 60, 3), np.uint8)
    write_image(folder / "checkpoints" / "curves.png", picture)
    write_image(folder / "shifted.png", picture)
    return folder


def write_scores(folder: Path, pairs: Path, values: list[tuple[str, str]]) -> None:
    folder.mkdir()
    with pairs.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "sync.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for number, (row, (score, offset)) in enumerate(zip(rows, values, strict=True)):
            name = f"{number}.json"
            table.writerow(
                [row["video"], row["audio"], score, offset, offset, offset, f"verdict {number}", name]
            )
            curve = [{"time_s": 1.0, "score": 0.5, "offset_ms": 0.0}, {"time_s": 2.0, "score": None}]
            (folder / name).write_text(json.dumps({"curve": curve}), encoding="utf-8")


def test_clips_are_of_two_people_never_seen(demo: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    assert held_out_clips(demo, videos) == (videos / "id1/0001.mp4", videos / "id2/0001.mp4")
    with write_demo_pairs(demo, videos).open(encoding="utf-8", newline="") as file:
        rows = [(Path(row["video"]).name, row["audio"]) for row in csv.DictReader(file)]
    assert rows == [
        ("0001.mp4", ""),
        ("shifted.mp4", ""),
        ("0001.mp4", str((videos / "id2/0001.mp4").resolve())),
    ]


def test_report_tells_the_four_clips_apart(demo: Path, tmp_path: Path) -> None:
    pairs, repaired = write_demo_pairs(demo, tmp_path / "videos"), write_repaired_pairs(demo)
    write_scores(demo / "scores", pairs, [("0.99", "1.5"), ("0.02", "240.1"), ("0.001", "")])
    write_scores(demo / "repaired_scores", repaired, [("0.98", "-0.5")])
    report = Report("demo")
    found = add_lipsync(report, demo)
    assert found == {
        lipsync_report.IN_SYNC: {"score": 0.99, "offset_ms": 1.5},
        lipsync_report.SHIFTED: {"score": 0.02, "offset_ms": 240.1},
        lipsync_report.SWAPPED: {"score": 0.001, "offset_ms": ""},
        lipsync_report.REPAIRED: {"score": 0.98, "offset_ms": -0.5},
    }
    report.write(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in (
        "7 epochs",
        "another person&#x27;s sound",
        "verdict 1",
        "| AUC | 0.99 |",
        "score second by second",
    ):
        assert text in page
    assert "not shown" not in page
