"""The example of the documents runs as it stands."""

from pathlib import Path

import pytest
from talking_clips import make_talking

from facevox import cli
from lipsync import example_usage


@pytest.fixture(scope="module")
def talking(load_script, tmp_path_factory) -> tuple[Path, ...]:
    return make_talking(load_script, tmp_path_factory)


@pytest.mark.slow
def test_example_shifts_finds_and_mends(talking: tuple[Path, ...], tmp_path: Path, capsys) -> None:
    assert cli.run(example_usage.main, ["--video", str(talking[0]), "--output_dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "in sync" in said
    assert "early; delay it" in said
    assert {path.name for path in tmp_path.iterdir()} == {"early.mp4", "mended.mp4", "sync.png"}


def test_missing_video_is_one_line(tmp_path: Path, capsys) -> None:
    assert cli.run(example_usage.main, ["--video", str(tmp_path / "gone.mp4")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
