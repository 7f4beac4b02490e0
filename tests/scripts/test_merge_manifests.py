"""The program merge_manifests.py."""

from pathlib import Path
from types import ModuleType

import pytest

from facevox import cli


@pytest.fixture
def script(load_script) -> ModuleType:  # type: ignore[no-untyped-def]
    return load_script("preprocessing/merge_manifests")


def test_shards_of_voices_join_into_the_table_of_one_run(
    script: ModuleType,
    load_script,  # type: ignore[no-untyped-def]
    example_videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    voices = load_script("preprocessing/extract_voices")
    source = ["--dataset_path", str(example_videos), "--debug"]
    assert cli.run(voices.main, [*source, "--output_dir", str(tmp_path / "whole")]) == 0
    shards = [*source, "--output_dir", str(tmp_path / "parts"), "--num_shards", "3"]
    assert cli.run(voices.main, [*shards, "--shard_index", "0"]) == 0
    assert cli.run(script.main, ["--output_dir", str(tmp_path / "parts")]) == 2
    assert "still missing: 1 2" in capsys.readouterr().err
    for index in ("1", "2"):
        assert cli.run(voices.main, [*shards, "--shard_index", index]) == 0
    assert cli.run(script.main, ["--output_dir", str(tmp_path / "parts")]) == 0
    assert "extract_voices: 16 done, 0 failed, 16 rows" in capsys.readouterr().out
    assert (tmp_path / "parts" / "voices.csv").read_bytes() == (
        tmp_path / "whole" / "voices.csv"
    ).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--output_dir", "nowhere"], "no such folder"), (["--output_dir", "."], "no shards to join")],
)
def test_nothing_to_join_is_one_line_with_code_2(
    script: ModuleType,
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(script.main, options) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.splitlines()) == 1
