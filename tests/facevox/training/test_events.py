"""TensorBoard event files."""

import subprocess
import sys
from pathlib import Path

import pytest
from small_training import read_scalars

from facevox.training.events import EventWriter, remove_events


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    with EventWriter(tmp_path / "events") as events:
        for step in (1, 10, 20):
            events.scalars({"step/loss": 1 / step, "step/rate": step / 100}, step)
    found = read_scalars(tmp_path / "events")
    assert found["step/loss"] == [(step, pytest.approx(1 / step)) for step in (1, 10, 20)]
    assert found["step/rate"] == [(step, pytest.approx(step / 100)) for step in (1, 10, 20)]


def test_points_are_there_before_the_file_is_closed(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as events:
        events.scalars({"a": 1.0}, 1)
        assert read_scalars(tmp_path) == {"a": [(1, 1.0)]}


def test_points_after_the_checkpoint_of_a_resumed_run_are_shown_once(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as events:
        for step in range(1, 8):
            events.scalars({"a": float(step)}, step)
    with EventWriter(tmp_path, 5) as events:  # its checkpoint was that after step 4
        for step in range(5, 10):
            events.scalars({"a": float(100 + step)}, step)
    assert read_scalars(tmp_path)["a"] == [
        *[(step, float(step)) for step in range(1, 5)],
        *[(step, float(100 + step)) for step in range(5, 10)],
    ]


def test_former_events_are_removed_and_other_files_stay(tmp_path: Path) -> None:
    with EventWriter(tmp_path) as events:
        events.scalars({"a": 1.0}, 1)
    (tmp_path / "note.txt").write_text("mine")
    remove_events(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["note.txt"]
    remove_events(tmp_path / "none")


def test_neither_writing_nor_reading_imports_tensorflow(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from facevox.training.events import EventWriter\n"
        "with EventWriter(sys.argv[1]) as events: events.scalars({'a': 1.0}, 3)\n"
        "print('tensorflow' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False", done.stderr
    assert read_scalars(tmp_path) == {"a": [(3, 1.0)]}
