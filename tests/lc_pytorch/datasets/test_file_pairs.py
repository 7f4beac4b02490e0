"""Which face goes with which voice, and whose they are, out of folders, lists and tables."""

from pathlib import Path

import pytest

from facevox.errors import UserError
from lc_pytorch.datasets.pairs import PairList, identity_of_paths, list_folder_pairs, list_matched_pairs

AWKWARD = ("a b", 'a "quote"', "it's", "한국어", "줄\n바꿈", "-dash", "semi;colon")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def named(pairs: PairList, folder: Path) -> list[tuple[str, str, str]]:
    return [
        (p.face.relative_to(folder).as_posix(), p.voice.relative_to(folder).as_posix(), p.identity)
        for p in pairs.pairs
    ]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "f", tmp_path / "v"


def test_pairs_share_sub_folder_and_stem(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    touch(folders[0], "id1/a.jpg", "id1/a_1.jpg", "id2/a.PNG", "id2/b.jpg", "id3/only.jpg")
    touch(folders[1], "id1/a.wav", "id2/a.wav", "id2/b.flac", "id4/b.wav", "notes.txt")
    listed = list_folder_pairs(*folders)
    assert named(listed, tmp_path) == [
        ("f/id1/a.jpg", "v/id1/a.wav", "id1"),
        ("f/id2/a.PNG", "v/id2/a.wav", "id2"),
        ("f/id2/b.jpg", "v/id2/b.flac", "id2"),
    ]
    assert listed.rule == "the top sub-folder (3 pairs)"
    assert listed.identities == ["id1", "id2", "id2"]
    assert listed.num_identities == 2
    assert [path.name for path in listed.faces_alone] == ["a_1.jpg", "only.jpg"]
    assert [path.name for path in listed.voices_alone] == ["b.wav"]
    assert len(listed.warnings) == 2
    assert listed.warnings[0].startswith("2 faces without a voice of the same path and stem")
    assert listed.warnings[1].startswith("1 voice without a face of the same path and stem")


def test_stems_are_the_people_of_flat_folders(folders: tuple[Path, Path]) -> None:
    touch(folders[0], "b.jpg", "a.jpg")
    touch(folders[1], "a.wav", "b.wav")
    listed = list_folder_pairs(*folders)
    assert (listed.identities, listed.rule) == (["a", "b"], "the stem (2 pairs)")


def test_mixed_rules_are_said(folders: tuple[Path, Path]) -> None:
    touch(folders[0], "a.jpg", "id1/x.jpg", "id1/y.jpg")
    touch(folders[1], "a.wav", "id1/x.wav", "id1/y.wav")
    listed = list_folder_pairs(*folders)
    assert listed.rule == "the stem (1 pair), the top sub-folder (2 pairs)"
    assert any("several rules" in text for text in listed.warnings)


def test_folder_above_faces_goes_before_the_top_sub_folder(folders: tuple[Path, Path]) -> None:
    touch(folders[0], "train/id1/faces/a.jpg", "train/id2/faces/a.jpg")
    touch(folders[1], "train/id1/faces/a.wav", "train/id2/faces/a.wav")
    listed = list_folder_pairs(*folders)
    assert listed.identities == ["id1", "id2"]
    assert listed.rule.startswith("the folder above faces/")


def test_names_above_the_given_folders_do_not_count(tmp_path: Path) -> None:
    touch(tmp_path / "run/faces", "a.jpg", "b.jpg")
    touch(tmp_path / "run/voices", "a.wav", "b.wav")
    assert list_folder_pairs(tmp_path / "run/faces", tmp_path / "run/voices").identities == ["a", "b"]


def test_several_faces_take_one_voice_and_wav_goes_first(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    touch(folders[0], "id1/a.jpg", "id1/a.png", "id2/b.jpg")
    touch(folders[1], "id1/a.mp4", "id1/a.wav", "id2/b.mp4")
    listed = list_folder_pairs(*folders)
    assert [(face, voice) for face, voice, _ in named(listed, tmp_path)] == [
        ("f/id1/a.jpg", "v/id1/a.wav"),
        ("f/id1/a.png", "v/id1/a.wav"),
        ("f/id2/b.jpg", "v/id2/b.mp4"),
    ]
    assert any("1 voice of a stem that another voice has" in text for text in listed.warnings)


def test_decomposed_names_meet_composed_ones(folders: tuple[Path, Path]) -> None:
    touch(folders[0], "zoe\u0308.jpg", "b.jpg")
    touch(folders[1], "zoë.wav", "b.wav")
    assert list_folder_pairs(*folders).identities == ["b", "zoë"]


def test_awkward_names_are_paired(folders: tuple[Path, Path]) -> None:
    touch(folders[0], *(f"{name}/{name}.jpg" for name in AWKWARD))
    touch(folders[1], *(f"{name}/{name}.wav" for name in AWKWARD))
    listed = list_folder_pairs(*folders)
    assert len(listed.pairs) == len(AWKWARD) == listed.num_identities


def test_one_folder_may_hold_both(tmp_path: Path) -> None:
    touch(tmp_path, "id1/a.jpg", "id1/a.wav", "id2/b.jpg", "id2/b.wav")
    assert list_folder_pairs(tmp_path, tmp_path).identities == ["id1", "id2"]


def test_spellings_of_one_name_are_one_person_and_said(folders: tuple[Path, Path]) -> None:
    touch(folders[0], "Anna B/1.jpg", "anna_b/2.jpg", "Carl/3.jpg")
    touch(folders[1], "Anna B/1.wav", "anna_b/2.wav", "Carl/3.wav")
    listed = list_folder_pairs(*folders)
    assert listed.identities == ["anna_b", "carl", "anna_b"]
    assert listed.spellings == {"anna_b": "Anna B", "carl": "Carl"}
    assert any("1 name written in several ways" in text for text in listed.warnings)


def test_expression_captures_the_person(folders: tuple[Path, Path]) -> None:
    touch(folders[0], "x_id1_a.jpg", "x_id2_b.jpg", "x_id2_c.jpg", "nobody.jpg")
    touch(folders[1], "x_id1_a.wav", "x_id2_b.wav", "x_id2_c.wav", "nobody.wav")
    listed = list_folder_pairs(*folders, identity_regex=r"_(id\d+)_")
    assert listed.identities == ["id1", "id2", "id2"]
    assert [refused.face.name for refused in listed.refused] == ["nobody.jpg"]
    assert any(
        "1 pair left out" in text and "matches neither nobody.jpg nor nobody.wav" in text
        for text in listed.warnings
    )


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("(", "not a regular expression"),
        ("id", "holds 0 groups"),
        ("(a)(b)", "holds 2 groups"),
        ("(zzz)", "all 2 pairs are refused"),
        (r"\.(jpg|wav)", "all 2 pairs are refused.*'jpg' and 'wav'"),
        ("(id)", "all 2 pairs are of one identity, 'id'"),
    ],
)
def test_unusable_expressions_are_refused(folders: tuple[Path, Path], expression: str, reason: str) -> None:
    touch(folders[0], "id1.jpg", "id2.jpg")
    touch(folders[1], "id1.wav", "id2.wav")
    with pytest.raises(UserError, match=reason):
        list_folder_pairs(*folders, identity_regex=expression)


HEADER = "file,group,representative,distance,quality,dedupe_file,status,reason\n"


def write_groups(path: Path, *rows: str, bom: bool = False) -> Path:
    path.write_text(
        ("\ufeff" if bom else "") + HEADER + "".join(f"{row}\n" for row in rows), encoding="utf-8"
    )
    return path


def test_table_of_groups_gives_the_people(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    touch(folders[0], "s/a.jpg", "s/b.jpg", "t/c.jpg", "t/bad.jpg", "t/new.jpg")
    touch(folders[1], "s/a.wav", "s/b.wav", "t/c.wav", "t/bad.wav", "t/new.wav")
    table = write_groups(
        tmp_path / "groups.csv",
        "s/a.jpg,0,t/c.jpg,0.1,1,x.jpg,done,",
        "s/b.jpg,1,s/b.jpg,0,1,y.jpg,done,",
        't/bad.jpg,,,,,,failed,"no face, at all"',
        "t/c.jpg,0,t/c.jpg,0,1,z.jpg,done,",
        bom=True,
    )
    listed = list_folder_pairs(*folders, identity_csv=table)
    assert listed.identities == ["t/c", "s/b", "t/c"]
    assert [(r.face.name, r.reason.split(": ", 1)[1]) for r in listed.refused] == [
        ("bad.jpg", f"in {table} it is failed: no face, at all"),
        ("new.jpg", f"it is not in {table}"),
    ]
    assert any(text.startswith("2 pairs left out") for text in listed.warnings)


@pytest.mark.parametrize("way", ["absolute", "above", "below", "stem"])
def test_files_of_the_table_are_found_however_they_are_written(
    tmp_path: Path, folders: tuple[Path, Path], way: str
) -> None:
    touch(folders[0], "s/a.jpg", "s/b.jpg", "t/c.jpg")
    touch(folders[1], "s/a.wav", "s/b.wav", "t/c.wav")
    start = {"absolute": f"{folders[0]}/s/", "above": "f/s/", "below": "", "stem": "elsewhere/"}[way]
    table = write_groups(
        tmp_path / "g.csv",
        f"{start}a.jpg,7,,,,,done,",
        f"{start}b.{'png' if way == 'stem' else 'jpg'},8,,,,,,",
    )
    listed = list_folder_pairs(*folders, identity_csv=table)
    assert [(pair.face.name, pair.identity) for pair in listed.pairs] == [("a.jpg", "7"), ("b.jpg", "8")]
    assert [refused.face.name for refused in listed.refused] == ["c.jpg"]


def test_one_lookup_in_the_table_applies_to_all_faces(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    # c.jpg at the top is in the table; s/c.jpg is not, and must not be taken for it.
    touch(folders[0], "c.jpg", "s/a.jpg", "s/c.jpg")
    touch(folders[1], "c.wav", "s/a.wav", "s/c.wav")
    table = write_groups(tmp_path / "g.csv", "c.jpg,1,,,,,done,", "s/a.jpg,2,,,,,done,")
    listed = list_folder_pairs(*folders, identity_csv=table)
    assert listed.identities == ["1", "2"]
    assert [refused.face for refused in listed.refused] == [folders[0] / "s/c.jpg"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        ("", "no column file and group"),
        ("file,person\na.jpg,1\n", r"no column group \(there are: file, person\)"),
        (HEADER, "holds no rows"),
        (HEADER + "a.jpg,1,,,,,done,\na.jpg,2,,,,,done,\n", "g.csv:3: a.jpg is in two groups, of 1 and of 2"),
        (HEADER + "z.jpg,1,,,,,done,\n", "all 2 pairs are refused"),
    ],
)
def test_unusable_tables_are_refused(
    tmp_path: Path, folders: tuple[Path, Path], content: str | None, reason: str
) -> None:
    touch(folders[0], "a.jpg", "b.jpg")
    touch(folders[1], "a.wav", "b.wav")
    if content is not None:
        (tmp_path / "g.csv").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=reason):
        list_folder_pairs(*folders, identity_csv=tmp_path / "g.csv")


def test_folders_without_partners_say_so_with_examples(folders: tuple[Path, Path]) -> None:
    touch(folders[0], "a.jpg")
    touch(folders[1], "sub/a.wav")
    with pytest.raises(UserError, match=r"none of 1 faces has .* \('a.jpg' and 'sub/a.wav', for example\)"):
        list_folder_pairs(*folders)


def test_missing_and_empty_folders_are_named(folders: tuple[Path, Path]) -> None:
    folders[0].mkdir()
    with pytest.raises(UserError, match="--audio_folder: no such folder"):
        list_folder_pairs(*folders)
    folders[1].mkdir()
    with pytest.raises(UserError, match="--image_folder: nothing below"):
        list_folder_pairs(*folders)


def test_one_person_is_not_enough(folders: tuple[Path, Path]) -> None:
    touch(folders[0], "id1/a.jpg", "ID1/b.jpg")
    touch(folders[1], "id1/a.wav", "ID1/b.wav")
    with pytest.raises(UserError, match="all 2 pairs are of one identity, 'ID1', by the top sub-folder"):
        list_folder_pairs(*folders)


def write_list(path: Path, *lines: str, newline: str = "\n", bom: bool = False) -> Path:
    path.write_bytes((("\ufeff" if bom else "") + newline.join(lines)).encode())
    return path


@pytest.fixture
def vox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for person in ("id1", "id2"):
        touch(
            tmp_path / "vox" / person,
            "faces/0001/f.jpg",
            "faces/0002/f.jpg",
            "voices/0001.wav",
            "voices/0002.wav",
        )
    return tmp_path


def line(face_person: str, voice_person: str, clip: str = "0001") -> str:
    return f"vox/{face_person}/faces/{clip}/f.jpg\tvox/{voice_person}/voices/{clip}.wav"


def test_lists_are_joined_and_repeated_lines_taken_once(vox: Path) -> None:
    lists = [
        write_list(vox / "0.txt", line("id1", "id1"), line("id2", "id2"), newline="\r\n", bom=True),
        write_list(vox / "1.txt", line("id1", "id1", "0002"), line("id2", "id2"), line("id2", "id2")),
    ]
    listed = list_matched_pairs(lists)
    assert listed.identities == ["id1", "id2", "id1"]
    assert listed.rule == "the folder above faces/ or voices/ (3 pairs)"
    assert listed.num_repeated == 2
    assert listed.warnings == ["2 repeated lines: taken once"]
    assert listed.pairs[0].face == Path("vox/id1/faces/0001/f.jpg")


def test_missing_files_and_two_people_in_a_line_are_refused(vox: Path) -> None:
    path = write_list(
        vox / "0.txt", line("id1", "id1"), line("id2", "id2"), line("id1", "id2", "0002"), line("id3", "id3")
    )
    listed = list_matched_pairs([path])
    assert listed.identities == ["id1", "id2"]
    assert sorted(refused.reason for refused in listed.refused) == [
        "face and voice are of two people by the folder above faces/ or voices/: 'id1' and 'id2'",
        f"no such file: vox/id3/faces/0001/f.jpg ({path}:4)",
    ]
    assert len(listed.warnings) == 2


def test_a_file_of_two_people_is_refused(vox: Path) -> None:
    touch(vox, "x/a/1.jpg", "x/b/2.jpg", "x/c/3.jpg", "y/1.wav", "y/3.wav")
    path = write_list(vox / "0.txt", "x/a/1.jpg\ty/1.wav", "x/b/2.jpg\ty/1.wav", "x/c/3.jpg\ty/3.wav")
    listed = list_matched_pairs([path])
    assert listed.identities == ["a", "c"]
    assert [refused.reason for refused in listed.refused] == [
        "a file of two people: it is also in a pair of 'a'"
    ]


def test_lists_of_other_trees_take_the_folder_below_what_is_shared(vox: Path) -> None:
    touch(vox / "data", "pics/anna/1.jpg", "pics/carl/2.jpg", "wavs/anna/x/1.wav", "wavs/carl/2.wav")
    rows = ("data/pics/anna/1.jpg\tdata/wavs/anna/x/1.wav", "data/pics/carl/2.jpg\tdata/wavs/carl/2.wav")
    assert list_matched_pairs([write_list(vox / "0.txt", *rows)]).identities == ["anna", "carl"]
    absolute = [f"{vox}/{row}".replace("\t", f"\t{vox}/") for row in rows]
    assert list_matched_pairs([write_list(vox / "1.txt", *absolute)]).identities == ["anna", "carl"]


def test_lists_of_flat_files_take_the_stem_of_the_face(vox: Path) -> None:
    touch(vox, "p/anna.jpg", "p/carl.jpg", "w/1.wav", "w/2.wav")
    path = write_list(vox / "0.txt", "p/anna.jpg\tw/1.wav", "p/carl.jpg\tw/2.wav")
    assert list_matched_pairs([path]).identities == ["anna", "carl"]


def test_table_and_expression_work_with_lists(vox: Path) -> None:
    path = write_list(vox / "0.txt", line("id1", "id1"), line("id2", "id2"))
    table = write_groups(
        vox / "g.csv", "id1/faces/0001/f.jpg,3,,,,,done,", "id2/faces/0001/f.jpg,4,,,,,done,"
    )
    assert list_matched_pairs([path], identity_csv=table).identities == ["3", "4"]
    assert list_matched_pairs([path], identity_regex=r"id(\d)/").identities == ["1", "2"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((), "holds no pairs"),
        (("a\tb\tc",), r"0\.txt:1: face<TAB>voice is expected, not 3 columns"),
        (("no.jpg\tno.wav",), "none of its 1 pairs exists.*looked up from the working folder"),
        ((f"{'n' * 300}.jpg\tno.wav",), "none of its 1 pairs exists"),
    ],
)
def test_unusable_lists_are_refused(vox: Path, lines: tuple[str, ...], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        list_matched_pairs([write_list(vox / "0.txt", *lines)])
    with pytest.raises(UserError, match="no such file"):
        list_matched_pairs([vox / "none.txt"])


def test_list_of_one_shared_faces_folder_says_what_to_do(vox: Path) -> None:
    touch(vox / "d", "faces/a/1.jpg", "faces/b/2.jpg", "voices/a/1.wav", "voices/b/2.wav")
    path = write_list(vox / "0.txt", "d/faces/a/1.jpg\td/voices/a/1.wav", "d/faces/b/2.jpg\td/voices/b/2.wav")
    with pytest.raises(UserError, match=r"of one identity, 'd'.*--identity_regex"):
        list_matched_pairs([path])


def test_folder_above_is_that_of_the_last_faces_folder() -> None:
    assert identity_of_paths(Path("/x/faces/id7/Faces/1/f.jpg"), Path("v.wav")) == "id7"
    assert identity_of_paths(Path("f.jpg"), Path("id8/voices/v.wav")) == "id8"
    assert identity_of_paths(Path("faces/f.jpg"), Path("/voices/v.wav")) is None


@pytest.mark.real_data
def test_real_tree_gives_its_people(real_data_dir: Path, tmp_path: Path) -> None:
    from lc_pytorch.datasets.matched_files import write_matched_files

    root = real_data_dir / "vox" / "train"
    people = sorted(path.name for path in root.iterdir())
    (tmp_path / "meta.json").write_text(str(dict.fromkeys(people, 0)).replace("'", '"'), encoding="utf-8")
    written = write_matched_files(root, tmp_path / "meta.json", tmp_path / "out", 2)
    listed = list_matched_pairs(written.files)
    assert sorted(listed.spellings.values()) == people
    assert len(listed.pairs) == sum(written.pairs_per_file)


def test_voice_of_a_stem_stays_the_same_beside_other_kinds(folders: tuple[Path, Path]) -> None:
    touch(folders[0], "id1/a.jpg", "id2/b.heic", "id2/@eaDir/b.jpg")
    touch(folders[1], "id1/a.aac", "id1/a.mp4", "id1/a.ogg", "id2/b.opus")
    result = list_folder_pairs(*folders)
    assert [(pair.face.name, pair.voice.name) for pair in result.pairs] == [
        ("a.jpg", "a.ogg"),
        ("b.heic", "b.opus"),
    ]
