"""The program create_matched_file.py."""

from pathlib import Path
from types import ModuleType

import pytest

from facevox import cli
from lc_pytorch.pairs import iter_matched_file


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
