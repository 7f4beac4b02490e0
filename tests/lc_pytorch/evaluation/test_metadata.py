"""Tables of people in the spellings that data sets use."""

from pathlib import Path

import pytest

from facevox.errors import UserError
from lc_pytorch.evaluation.metadata import load_metadata


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    file = folder / "meta.csv"
    file.write_bytes(text.encode(encoding))
    return file


def test_voxceleb1_table_knows_people_by_number_and_by_name(tmp_path: Path) -> None:
    text = (
        "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n"
        "id10001\tA.J._Buckley\tm\tIreland\tdev\nid10003\tAamir_Khan\tm\tIndia\tdev\n"
    )
    found = load_metadata(write(tmp_path, text))
    assert found.num_rows == 2
    assert found.attributes["id10001"] == found.attributes["a.j._buckley"] == ("m", "ireland")
    assert found.unmatched(["aamir_khan", "nobody", "id10001"]) == ["nobody"]


def test_extended_voxceleb2_table_has_genders_and_no_nationalities(tmp_path: Path) -> None:
    text = (
        "Class_ID,Name,Sample_Num,Flag,Gender_x,VoxCeleb2ID,VGGFace2ID,Gender_y,Set\n"
        "n000012,Aaron_Ashmore,382,1,m,id00012,n000012,m,dev\n"
        "n000015,Ann Other,382,1,m,id00015,n000015,f,dev\n"
    )
    found = load_metadata(write(tmp_path, text))
    assert found.attributes["id00012"] == found.attributes["aaron_ashmore"] == ("m", "")
    assert found.attributes["ann_other"] == ("", "")  # the table contradicts itself


@pytest.mark.parametrize("text", [
    "identity,gender,nationality\nAnna B.,female,KR\nben,Male,\n",
    "\ufeffSpeaker ID ; Sex ; Country\r\nanna_b. ; F ; kr\r\n\r\nBEN ; m ; unknown\r\n",
    "nationality\tname\tgender\nKR\t Anna  B. \twoman\n-\tBen\tman\n",
])  # fmt: skip
def test_plain_tables_in_several_spellings_say_the_same(text: str, tmp_path: Path) -> None:
    assert load_metadata(write(tmp_path, text)).attributes == {"anna_b.": ("f", "kr"), "ben": ("m", "")}


def test_rows_that_differ_leave_the_difference_unknown_and_are_counted(tmp_path: Path) -> None:
    text = "id,gender,nationality\na,m,KR\nA,m,US\nb,f,US\nb,f,US\n"
    found = load_metadata(write(tmp_path, text))
    assert found.attributes == {"a": ("m", ""), "b": ("f", "us")}
    assert found.num_conflicts == 1


@pytest.mark.parametrize(
    ("text", "encoding", "message"),
    [
        ("", "utf-8", "the file is empty"),
        ("id,gender,nationality\n", "utf-8", "no person in it"),
        ("file,group\na,1\n", "utf-8", "columns file, group"),
        ("id,gender,nationality\na,m\n", "utf-8", "meta.csv:2: 2 columns, the header has 3"),
        ("이름,gender\n", "cp949", "not UTF-8 text"),
    ],
)
def test_other_files_are_refused_with_the_reason(
    text: str, encoding: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        load_metadata(write(tmp_path, text, encoding))


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none.csv", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(UserError, match=message):
            load_metadata(path)


@pytest.mark.real_data
def test_real_voxceleb_tables_are_read_whole(real_data_dir: Path) -> None:
    first = load_metadata(real_data_dir / "hq" / "meta" / "vox1_meta.csv")
    assert first.num_rows == 1251
    assert first.attributes["id10001"] == ("m", "ireland")
    assert first.num_conflicts == 0
    second = load_metadata(real_data_dir / "hq" / "meta" / "full_vox2_meta.csv")
    assert second.num_rows == 6114
    genders = [second.attributes[f"id{number:05d}"][0] for number in (12, 15, 16)]
    assert genders == ["m", "m", "m"]
    assert {gender for gender, _ in second.attributes.values()} == {"m", "f"}
