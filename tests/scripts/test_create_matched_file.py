"""The program create_matched_file.py."""

import io
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from facevox import cli
from lc_pytorch.datasets.matched_files import iter_matched_file


@pytest.fixture
def script(load_script) -> ModuleType:  # type: ignore[no-untyped-def]
    return load_script("preprocessing/create_matched_file")


def test_example_tree_gives_a_pair_of_every_person(
    script: ModuleType, example_data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vox, out = example_data_dir / "vox", tmp_path / "new" / "folder"
    assert (
        cli.run(script.main, ["-d", str(vox), "-m", str(vox / "metadata.json"), "-o", str(out), "-l", "3"])
        == 0
    )
    pairs = [[(f, v) for _, f, v in iter_matched_file(out / f"matched_files-{n}.txt")] for n in range(3)]
    assert [len(found) for found in pairs] == [8, 8, 0]
    for face, voice in pairs[0] + pairs[1]:
        assert face.is_file()
        assert voice.is_file()
        assert (face.parts[-4], face.parts[-2]) == (voice.parts[-3], voice.stem)
    shown = capsys.readouterr().out
    assert "16 pairs of 8 identities in 3 lists" in shown
    assert "matched_files-2.txt: 0 pairs, 8 identities skipped" in shown


def test_bad_identities_end_nothing_and_are_shown(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("good/faces/1/a.jpg", "good/voices/1.wav", "loop/voices/1.wav"):
        (tmp_path / "vox" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "vox" / name).write_bytes(b"x")
    (tmp_path / "vox" / "loop" / "faces").symlink_to("faces")
    meta = tmp_path / "meta.json"
    meta.write_text(json.dumps({"x" * 300: 0, "\0": 0, "\ud800": 0, "loop": 0, "good": 0}), encoding="utf-8")
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", out)
    options = ["-d", str(tmp_path / "vox"), "-m", str(meta), "-o", str(tmp_path / "out"), "-l", "1"]
    assert cli.run(script.main, options) == 0
    shown = out.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert "1 pairs of 1 identities" in shown
    assert "3 without a folder: " in shown
    assert "1 without a face or a voice: loop" in shown


def test_number_of_5000_digits_is_bad_input(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = tmp_path / "meta.json"
    meta.write_text('{"a": ' + "1" * 5000 + "}", encoding="utf-8")
    options = ["-d", str(tmp_path), "-m", str(meta), "-o", str(tmp_path / "out"), "-l", "1"]
    assert cli.run(script.main, options) == 2
    assert "meta.json: not JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-d", "nowhere", "-m", "m.json", "-o", "out", "-l", "1"], "no such folder: nowhere"),
        (["-d", ".", "-m", "m.json", "-o", "out", "-l", "1"], "m.json: no such file"),
        (["-d", ".", "-m", "m.json", "-o", "out"], "required: -l/--limit"),
        (["-d", ".", "-m", "m.json", "-o", "out", "-l", "0"], "'0' is not a whole number of at least 1"),
    ],
)
def test_bad_usage_is_one_line_with_code_2(
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
    assert not (tmp_path / "out").exists()
