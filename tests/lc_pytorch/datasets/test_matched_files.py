"""Matched files."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from facevox.errors import UserError
from lc_pytorch.datasets.matched_files import identity_pairs, iter_matched_file, write_matched_files


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def write_meta(root: Path, value: object) -> Path:
    (root / "meta.json").write_text(json.dumps(value), encoding="utf-8")
    return root / "meta.json"


def pairs_of(faces: str, voices: str) -> list[str]:
    """Faces as "1a 1b 2c" (clip and frame), voices as "1 2"; pairs as "1a-1"."""
    face_list = [(name[0], Path(name)) for name in faces.split()]
    voice_list = [(name, Path(name)) for name in voices.split()]
    return [f"{face}-{voice}" for face, voice in identity_pairs(face_list, voice_list)]


@pytest.mark.parametrize(
    ("faces", "voices", "expected"),
    [
        ("1a 1b 2c", "1 2", "1a-1 2c-2"),  # the example of the specification: a third pair does not exist
        ("1a 1b 2c", "1 2 3", "1a-1 2c-2 1b-3"),
        ("1a 2b", "3 4", "1a-3 2b-4"),
        ("1a 3b", "2 3", "3b-3 1a-2"),
        ("1a", "", ""),
        ("", "1", ""),
        ("1a 1b 1c", "1 2 3", "1a-1 1b-2 1c-3"),
    ],
)
def test_clips_with_both_come_first_then_what_is_left_in_order(
    faces: str, voices: str, expected: str
) -> None:
    assert pairs_of(faces, voices) == expected.split()


def test_file_i_holds_pair_i_of_each_identity_that_has_so_many(tmp_path: Path) -> None:
    root = tmp_path / "data"
    touch(root, "id1/faces/0001/a.jpg", "id1/faces/0001/b.jpg", "id1/faces/0002/c.jpg")
    touch(root, "id1/voices/0001.wav", "id1/voices/0002.wav", "id2/faces/0001/a.png", "id2/voices/0001.wav")
    touch(root, "id3/faces/0001/a.jpg", "id4/voices/0001.wav", "id5/faces/0001/notes.txt")
    meta = write_meta(
        tmp_path, {"id2": None, "id1": {"0001": {}}, "id3": [], "id4": "", "id5": 0, "gone": {}}
    )
    summary = write_matched_files(root, meta, tmp_path / "new" / "out", 3)
    texts = [path.read_text(encoding="utf-8") for path in summary.files]
    assert texts[0] == (
        f"{root}/id2/faces/0001/a.png\t{root}/id2/voices/0001.wav\n"
        f"{root}/id1/faces/0001/a.jpg\t{root}/id1/voices/0001.wav\n"
    )
    assert texts[1] == f"{root}/id1/faces/0002/c.jpg\t{root}/id1/voices/0002.wav\n"
    assert texts[2] == ""
    assert [path.name for path in summary.files] == [f"matched_files-{n}.txt" for n in range(3)]
    assert (summary.pairs_per_file, summary.without_folder) == ([2, 1, 0], ["gone"])
    assert summary.without_pairs == ["id3", "id4", "id5"]


def test_paths_are_relative_where_the_dataset_was_given_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "data", "id1/faces/1/a.jpg", "id1/voices/1.wav")
    meta = write_meta(tmp_path, {"id1": {}})
    monkeypatch.chdir(tmp_path)
    summary = write_matched_files("data", meta, "out", 1)
    assert summary.files[0].read_text(encoding="utf-8") == "data/id1/faces/1/a.jpg\tdata/id1/voices/1.wav\n"


@pytest.mark.parametrize(
    ("value", "message"),
    [([], "this is a list"), ({}, "no identities"), ({"x": 1}, "none of the 1 identities")],
)
def test_metadata_that_gives_no_pair_is_refused(tmp_path: Path, value: object, message: str) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match=message):
        write_matched_files(tmp_path / "data", write_meta(tmp_path, value), tmp_path / "out", 1)
    assert not (tmp_path / "out").exists()


def test_identity_cannot_lead_out_of_the_dataset(tmp_path: Path) -> None:
    touch(
        tmp_path, "secret/faces/1/a.jpg", "secret/voices/1.wav", "data/x/faces/1/a.jpg", "data/x/voices/1.wav"
    )
    meta = write_meta(tmp_path, {"../secret": {}, "x": {}, "..": {}, "": {}, str(tmp_path / "secret"): {}})
    summary = write_matched_files(tmp_path / "data", meta, tmp_path / "out", 1)
    assert summary.pairs_per_file == [1]
    assert len(summary.without_folder) == 4


@pytest.mark.parametrize("name", ["x" * 300, "nul\0", "\ud800", "가" * 90])
def test_identity_that_no_folder_can_have_is_counted(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "data", "good/faces/1/a.jpg", "good/voices/1.wav")
    meta = write_meta(tmp_path, {name: {}, "good": {}})
    summary = write_matched_files(tmp_path / "data", meta, tmp_path / "out", 1)
    assert (summary.pairs_per_file, summary.without_folder) == ([1], [name])


@pytest.mark.parametrize("loop", ["faces", "faces/1", "voices", "voices/1.wav", ""])
def test_identity_with_a_link_to_itself_is_counted(tmp_path: Path, loop: str) -> None:
    root = tmp_path / "data"
    touch(root, "good/faces/1/a.jpg", "good/voices/1.wav")
    if loop:  # the other half is whole
        touch(root, "bad/voices/1.wav" if loop.startswith("faces") else "bad/faces/1/a.jpg")
    link = root / "bad" / loop
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(link)
    summary = write_matched_files(root, write_meta(tmp_path, {"bad": 0, "good": 0}), tmp_path / "out", 1)
    assert summary.pairs_per_file == [1]
    assert summary.without_folder + summary.without_pairs == ["bad"]


def test_folder_that_may_not_be_entered_counts_as_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    for name in ("good", "bad"):
        touch(root, f"{name}/faces/1/a.jpg", f"{name}/voices/1.wav")
    stat_of = Path.stat

    def refusing(self: Path, **options: Any) -> os.stat_result:
        if "bad" in self.parts[:-1]:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return stat_of(self, **options)

    monkeypatch.setattr(Path, "stat", refusing)
    summary = write_matched_files(root, write_meta(tmp_path, {"bad": 0, "good": 0}), tmp_path / "out", 1)
    assert (summary.pairs_per_file, summary.without_pairs) == ([1], ["bad"])


def test_failing_disk_is_not_taken_for_a_missing_voice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "data", "x/faces/1/a.jpg", "x/voices/1.wav")

    def failing(self: Path) -> Any:
        raise OSError(errno.EIO, "Input/output error", str(self))

    monkeypatch.setattr(Path, "iterdir", failing)
    with pytest.raises(OSError, match="Input/output error"):
        write_matched_files(tmp_path / "data", write_meta(tmp_path, {"x": 0}), tmp_path / "out", 1)


def test_path_with_a_tab_is_left_out_and_said(tmp_path: Path) -> None:
    touch(
        tmp_path / "data",
        "a\tb/faces/1/a.jpg",
        "a\tb/voices/1.wav",
        "한 국/faces/1/a.jpg",
        "한 국/voices/1.wav",
    )
    meta = write_meta(tmp_path, {"a\tb": {}, "한 국": {}})
    summary = write_matched_files(tmp_path / "data", meta, tmp_path / "out", 1)
    assert (summary.pairs_per_file, len(summary.refused)) == ([1], 1)


def test_matched_file_with_crlf_and_bom_is_read(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffa.jpg\ta.wav\r\n\r\nb c.jpg\tb.wav".encode())
    assert list(iter_matched_file(path)) == [
        (1, Path("a.jpg"), Path("a.wav")),
        (3, Path("b c.jpg"), Path("b.wav")),
    ]


@pytest.mark.parametrize("line", ["a.jpg", "a.jpg\tb.wav\tc", "\ta.wav", "a.jpg b.wav"])
def test_line_of_another_shape_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"x.jpg\tx.wav\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"list\.txt:2: face<TAB>voice is expected"):
        list(iter_matched_file(path))


@pytest.mark.real_data
def test_voxceleb_shaped_real_tree(real_data_dir: Path, tmp_path: Path) -> None:
    root = real_data_dir / "vox"
    identities = sorted(path.name for path in (root / "train").iterdir())
    summary = write_matched_files(
        root / "train", write_meta(tmp_path, dict.fromkeys(identities)), tmp_path / "o", 3
    )
    assert summary.pairs_per_file[0] == len(identities) == 17
    for path in summary.files:
        for _, face, voice in iter_matched_file(path):
            assert face.is_file()
            assert voice.is_file()
            assert face.parts[-4] == voice.parts[-3]


def test_other_sounds_and_pictures_make_pairs_after_those_of_before(tmp_path: Path) -> None:
    root = tmp_path / "data"
    touch(root, "id1/faces/0001/a.gif", "id1/faces/0001/b.jpg", "id1/voices/0001.aac", "id1/voices/0001.wav")
    touch(root, "id1/faces/@eaDir/b.jpg", "id1/faces/0001/@eaDir/c.jpg", "id1/faces/0001/._b.jpg")
    touch(root, "id2/faces/0001/a.heic", "id2/voices/0001.opus")
    summary = write_matched_files(root, write_meta(tmp_path, {"id1": 0, "id2": 0}), tmp_path / "out", 3)
    texts = [path.read_text(encoding="utf-8") for path in summary.files]
    assert texts[0] == (
        f"{root}/id1/faces/0001/b.jpg\t{root}/id1/voices/0001.wav\n"
        f"{root}/id2/faces/0001/a.heic\t{root}/id2/voices/0001.opus\n"
    )
    assert texts[1:] == [f"{root}/id1/faces/0001/a.gif\t{root}/id1/voices/0001.aac\n", ""]
    assert summary.without_pairs == []
