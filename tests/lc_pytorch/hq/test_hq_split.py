"""The tree, the split over vox1 and vox2 together, and the audit."""

import csv
import json
from collections import Counter

import numpy as np
import pytest

from facevox import cli
from facevox.errors import UserError
from facevox_demo.example import hq_tree
from facevox_demo.example.people import make_person
from lc_pytorch.datasets.splits import normalise_identity
from lc_pytorch.hq.dataset import list_people
from lc_pytorch.hq.split import HQSplit, audit_split, load_split, make_split, write_split
from lc_pytorch.hq.tree import Files, load_genders, same_people, scan_tree


def published_split(people: dict[str, list[str]]) -> HQSplit:
    """The rule of the published split: row i % 10 of each table, 8 for test, 9 for validation."""
    part = {8: "test", 9: "val"}
    names = {
        set_name: {
            wanted: tuple(name for i, name in enumerate(rows) if part.get(i % 10, "train") == wanted)
            for wanted in ("train", "val", "test")
        }
        for set_name, rows in people.items()
    }
    return HQSplit(names=names)


def read_column(path, delimiter, column):
    with path.open(encoding="utf-8", newline="") as file:
        return [row[column] for row in csv.DictReader(file, delimiter=delimiter)]


def make_tree(root, people: dict[str, list[str]], mel_folder="mel_spectrograms"):
    for set_name, names in people.items():
        for name in names:
            mels, faces = root / set_name / mel_folder / name, root / set_name / "masked_faces" / name
            mels.mkdir(parents=True)
            faces.mkdir(parents=True)
            np.save(mels / "a.npy", np.ones((40, 9)))
            (faces / "1.jpg").write_bytes(b"picture")
    return root


PEOPLE = {
    "vox1": [f"Person_{k}" for k in range(40)] + ["Harry_Connick_Jr."],
    "vox2": [f"Other {k}" for k in range(60)] + ["harry connick_JR.", "Person 3"],
}
GENDERS = {
    name: "f" if number % 4 == 0 else "m" for names in PEOPLE.values() for number, name in enumerate(names)
}


def part_of(split: HQSplit) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for parts in split.names.values():
        for part, names in parts.items():
            for name in names:
                found.setdefault(normalise_identity(name), set()).add(part)
    return found


def test_nobody_is_in_two_parts_though_spelt_differently_and_nobody_is_lost():
    split = make_split(PEOPLE, GENDERS, val_ratio=0.2, test_ratio=0.2, seed=1)
    parts = part_of(split)
    assert all(len(found) == 1 for found in parts.values())
    assert len(parts) == 101
    for set_name, names in PEOPLE.items():
        assert sorted(name for listed in split.names[set_name].values() for name in listed) == sorted(names)
    assert audit_split(split) == []


def test_parts_have_their_share_of_people_sets_and_genders():
    split = make_split(PEOPLE, GENDERS, val_ratio=0.2, test_ratio=0.2)
    assert abs(split.count("test") - 0.2 * 101) <= 1
    assert abs(split.count("val") - 0.2 * 101) <= 1
    genders = {normalise_identity(name): gender for name, gender in GENDERS.items()}
    total = Counter(genders.values())
    for part in ("val", "test"):
        counts = Counter(genders[name] for name in split.identities(part))
        for gender, count in counts.items():
            assert abs(count - 0.2 * total[gender]) <= 3
        assert abs(len(split.names["vox1"][part]) - 0.2 * 41) <= 2


def test_split_depends_on_the_seed_and_not_on_the_order():
    first = make_split(PEOPLE, GENDERS, seed=3)
    turned = {set_name: names[::-1] for set_name, names in reversed(PEOPLE.items())}
    assert make_split(turned, GENDERS, seed=3).names == first.names
    assert make_split(PEOPLE, GENDERS, seed=4).names != first.names


def test_file_holds_what_readers_of_the_published_format_want(tmp_path):
    split = make_split(PEOPLE, GENDERS, seed=3)
    write_split(tmp_path / "split.json", split)
    value = json.loads((tmp_path / "split.json").read_text(encoding="utf-8"))
    for set_name in ("vox1", "vox2"):  # as SF2F reads it
        assert {name for part in ("train", "val", "test") for name in value[set_name][part]} == set(
            PEOPLE[set_name]
        )
    assert (value["format"], value["seed"]) == (1, 3)
    assert load_split(tmp_path / "split.json") == split


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "no split"),
        ("{}", "no split"),
        ('{"vox1": []}', "must be an object"),
        ('{"vox1": {"train": "Anna"}}', "vox1.train must be a list"),
        ('{"vox1": {"train": ["../../etc"]}}', "vox1.train must be a list"),
        ('{"vox1": {"train": [3]}}', "vox1.train must be a list"),
        ('{"vox1": {"train": []}, "format": 7}', "format 7"),
        ("{", "not JSON"),
    ],
)
def test_what_is_no_split_is_told(tmp_path, content, words):
    (tmp_path / "split.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        load_split(tmp_path / "split.json")


def test_missing_split_names_the_program_that_makes_it(tmp_path):
    with pytest.raises(UserError, match=r"scripts/hq/create_hq_voxceleb_split\.py --vox_dir"):
        load_split(tmp_path / "split.json")


@pytest.mark.parametrize(
    ("ratios", "words"),
    [((1.0, 0.1), "--val_ratio 1"), ((0.6, 0.5), "together below 1"), ((-0.1, 0.1), "--val_ratio -0.1")],
)
def test_shares_that_are_none_are_told(ratios, words):
    with pytest.raises(UserError, match=words):
        make_split(PEOPLE, GENDERS, val_ratio=ratios[0], test_ratio=ratios[1])


def test_two_people_are_too_few_for_three_parts():
    with pytest.raises(UserError, match="2 people with mels and faces: at least 3"):
        make_split({"vox1": ["a", "b"]}, {})
    split = make_split({"vox1": ["a", "b"]}, {}, val_ratio=0)
    assert (split.count("train"), split.count("val"), split.count("test")) == (1, 0, 1)


@pytest.mark.real_data
def test_real_metadata_are_split_without_anybody_twice_and_the_published_rule_leaks(real_data_dir):
    meta = real_data_dir / "hq" / "meta"
    people = {
        "vox1": read_column(meta / "vox1_meta.csv", "\t", "VGGFace1 ID"),
        "vox2": read_column(meta / "full_vox2_meta.csv", ",", "Name"),
    }
    assert (len(people["vox1"]), len(people["vox2"])) == (1251, 6114)
    from lc_pytorch.evaluation.metadata import load_metadata

    genders = {
        name: facts[0]
        for file in ("vox1_meta.csv", "full_vox2_meta.csv")
        for name, facts in load_metadata(meta / file).attributes.items()
    }
    split = make_split(people, genders)
    assert audit_split(split) == []
    assert sum(split.count(part) for part in ("train", "val", "test")) == 7364  # one is in both sets
    total = Counter(
        genders[name]
        for name in split.identities("train") | split.identities("val") | split.identities("test")
    )
    assert set(total) == {"m", "f"}
    for part in ("train", "val", "test"):
        shares = Counter(genders[name] for name in split.identities(part))
        assert shares["f"] / shares.total() == pytest.approx(total["f"] / total.total(), abs=0.005)
    leaks = [finding for finding in audit_split(published_split(people)) if finding.kind == "in_two_parts"]
    assert [finding.identity for finding in leaks] == ["harry_connick_jr."]


def test_published_rule_leaks_on_the_example_tables_too_and_ours_does_not(tmp_path):
    tables = hq_tree.metadata_files([make_person(0, index) for index in range(60)])
    for path, text in tables.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    root = tmp_path / "hq"
    people = {
        "vox1": read_column(root / "vox1" / "vox1_meta.csv", "\t", "VGGFace1 ID"),
        "vox2": read_column(root / "vox2" / "full_vox2_meta.csv", ",", "Name"),
    }
    shared = set(people["vox1"]) & set(people["vox2"])
    assert len(shared) == 5
    leaks = [finding for finding in audit_split(published_split(people)) if finding.kind == "in_two_parts"]
    assert leaks
    assert {finding.identity for finding in leaks} <= {normalise_identity(name) for name in shared}
    genders, notes = load_genders(scan_tree(root))
    assert notes == []
    split = make_split(people, genders)
    assert audit_split(split) == []
    women = [sum(genders[name] == "f" for name in split.identities(part)) for part in ("val", "test")]
    assert all(2 <= count <= 4 for count in women)  # about half of six


NAMED = {f"id1{k:04}": f"Known Person {k}" for k in range(40)}  # the folders of vox1 by VoxCeleb1's ids


def write_tables(root, vox2: str) -> None:
    lines = ["VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"]
    lines += [f"{key}\t{name.replace(' ', '_')}\tf\tKorea\tdev" for key, name in NAMED.items()]
    (root / "vox1" / "vox1_meta.csv").write_text("\n".join(lines))
    (root / "vox2" / "full_vox2_meta.csv").write_text(vox2)


def test_vox1_by_ids_and_vox2_by_names_are_one_person_by_the_tables(tmp_path):
    people = {"vox1": list(NAMED), "vox2": [*list(NAMED.values())[:20], *(f"id0{k:04}" for k in range(5))]}
    make_tree(tmp_path, people)
    # By its table an id of VoxCeleb2 is somebody who is in vox1 by an id as well.
    rows = [f"{k},Known_Person_{k + 30},m,id0{k:04}" for k in range(5)]
    write_tables(tmp_path, "\n".join(["Class_ID,Name,Gender_x,VoxCeleb2ID", *rows]))
    tree = scan_tree(tmp_path)
    persons = same_people(tmp_path, [name for names in people.values() for name in names])
    assert len(persons) == 2 * 25
    assert persons["id10003"] == persons["known_person_3"] == "known_person_3"
    assert persons["id10030"] == persons["id00000"] == "id00000"
    assert "id10029" not in persons
    genders, notes = load_genders(tree)
    assert notes == []
    for seed in range(5):
        split = make_split(people, genders, persons=persons, val_ratio=0.2, test_ratio=0.2, seed=seed)
        part = {
            name: part for parts in split.names.values() for part, names in parts.items() for name in names
        }
        assert all(part[key] == part[NAMED[key]] for key in list(NAMED)[:20])
        assert all(part[f"id0{k:04}"] == part[f"id1{k + 30:04}"] for k in range(5))
        assert audit_split(split, tree) == []
    # Without the tables' knowledge they are in two parts, and the audit finds it.
    blind = make_split(people, genders, val_ratio=0.2, test_ratio=0.2)
    leaks = [finding for finding in audit_split(blind, tree) if finding.kind == "in_two_parts"]
    assert len(leaks) >= 5
    assert any("vox1/id1" in leak.text and "vox2/Known Person" in leak.text for leak in leaks)
    # And training has one person of the two, in one part.
    parts = {
        name: {p.identity: p for p in list_people(tree, blind, name)[0]} for name in ("train", "val", "test")
    }
    for name, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not parts[name].keys() & parts[other].keys()
    assert sum(map(len, parts.values())) == 40
    assert not {persons[key] for key in persons} - {key for people in parts.values() for key in people}


def test_table_without_the_names_of_the_folders_is_reported(tmp_path):
    make_tree(tmp_path, {"vox1": list(NAMED), "vox2": ["Known Person 1", "Other"]})
    write_tables(
        tmp_path, "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid00012,n000012,m,dev\nid00016,n000016,f,dev\n"
    )
    genders, (note,) = load_genders(scan_tree(tmp_path))
    assert note.startswith(
        "vox2: full_vox2_meta.csv has ids only (such as id00012), and none of the 2 folders"
    )
    assert "their genders are unknown" in note
    assert "other" not in genders
    write_tables(tmp_path, "Name,Gender\nSomebody,m\n")
    assert (
        "vox2: full_vox2_meta.csv has other names (such as somebody)"
        in load_genders(scan_tree(tmp_path))[1][0]
    )


def test_numbers_of_rows_are_no_names_of_people(tmp_path):
    make_tree(tmp_path, {"vox1": ["A"], "vox2": ["B"]})
    (tmp_path / "vox1" / "vox1_meta.csv").write_text("id,name,gender\n1,A,f\n")
    (tmp_path / "vox2" / "full_vox2_meta.csv").write_text("id,name,gender\n1,B,m\n")
    assert same_people(tmp_path, ["A", "B", "1"]) == {}


def test_tree_takes_both_spellings_and_says_so(tmp_path):
    make_tree(tmp_path, {"vox1": ["A"]})
    make_tree(tmp_path, {"vox2": ["B"]}, "mel_spectograms")
    tree = scan_tree(tmp_path)
    assert [len(tree.people[name][person].mels) for name, person in (("vox1", "A"), ("vox2", "B"))] == [1, 1]
    assert [note for note in tree.notes if "spelt mel_spectograms" in note and note.startswith("vox2")]
    assert tree.find("vox2", "b ").name == "B"


def test_folder_of_a_system_is_no_person(tmp_path):
    make_tree(tmp_path, {"vox1": ["A", "@eaDir", "__MACOSX"]})
    assert list(scan_tree(tmp_path).people["vox1"]) == ["A"]


def test_tree_with_neither_set_is_an_error(tmp_path):
    with pytest.raises(UserError, match="none of vox1, vox2 is in it"):
        scan_tree(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        scan_tree(tmp_path / "none")


def test_audit_finds_missing_folders_and_empty_ones_and_names_listed_twice(tmp_path):
    make_tree(tmp_path, {"vox1": ["A", "B", "C", "D"], "vox2": ["E"]})
    (tmp_path / "vox1/mel_spectrograms/B/a.npy").unlink()
    (tmp_path / "vox1/masked_faces/C/1.jpg").unlink()
    (tmp_path / "vox1/masked_faces/D/1.jpg").unlink()
    (tmp_path / "vox1/masked_faces/D").rmdir()
    split = HQSplit(
        names={
            "vox1": {"train": ("A", "B", "A"), "val": ("C", "D"), "test": ()},
            "vox2": {"train": ("E", "F"), "val": (), "test": ("a",)},
        }
    )
    findings = {(finding.kind, finding.identity) for finding in audit_split(split, scan_tree(tmp_path))}
    assert findings == {
        ("in_two_parts", "a"),
        ("twice", "a"),
        ("no_mels", "b"),
        ("no_faces", "c"),
        ("no_face_folder", "d"),
        ("no_mel_folder", "f"),
        ("no_face_folder", "f"),
        ("no_mel_folder", "a"),  # vox2 has nobody of that name
        ("no_face_folder", "a"),
    }


def test_files_count_and_index_like_the_list_they_stand_for():
    files = Files(("/a", ("1", "2")), ("/b", ()), ("/c", ("3",))) + Files(("/d", ("4", "5")))
    paths = ["/a/1", "/a/2", "/c/3", "/d/4", "/d/5"]
    assert [str(path) for path in files] == paths
    assert [str(files[k]) for k in range(-5, 0)] == paths
    assert [str(path) for path in files[1:4]] == paths[1:4]
    with pytest.raises(IndexError):
        files[5]


# The program.


@pytest.fixture
def script(load_script):
    return load_script("hq/create_hq_voxceleb_split")


def test_program_makes_a_split_that_its_audit_accepts(script, tmp_path, capsys):
    root = make_tree(tmp_path / "HQ Vox 셀럽", PEOPLE)
    (root / "vox1" / "vox1_meta.csv").write_text(
        "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\nid1\tPerson_1\tf\tX\tdev\n", encoding="utf-8"
    )
    output = root / "split.json"
    options = ["--vox_dir", str(root), "--output_json", str(output), "--test_ratio", "0.2", "--seed", "5"]
    assert cli.run(script.main, options) == 0
    said = capsys.readouterr().out
    assert "vox2: no " in said  # no table there: not balanced, and said
    first = output.read_bytes()
    assert cli.run(script.main, ["--audit", str(output)]) == 0
    assert "nothing found" in capsys.readouterr().out
    assert cli.run(script.main, options) == 0
    assert output.read_bytes() == first


def test_program_leaves_people_without_files_out_and_says_so(script, tmp_path, capsys):
    root = make_tree(tmp_path, {"vox1": list("ABCDEFGH")})
    (root / "vox1/masked_faces/C/1.jpg").unlink()
    assert cli.run(script.main, ["--vox_dir", str(root)]) == 0
    assert "1 people without mels or faces are left out ('C'" in capsys.readouterr().out
    assert "C" not in (root / "split.json").read_text(encoding="utf-8")


def test_audit_of_a_leaking_split_ends_with_1(script, tmp_path, capsys):
    root = make_tree(tmp_path, {"vox1": ["A", "B"], "vox2": ["a", "C"]})
    value = {"vox1": {"train": ["A"], "test": ["B"]}, "vox2": {"train": ["C"], "test": ["a"]}}
    (root / "split.json").write_text(json.dumps(value), encoding="utf-8")
    assert cli.run(script.main, ["--audit", str(root / "split.json"), "--vox_dir", str(root)]) == 1
    assert "in_two_parts: a: in train (vox1/A) and in test (vox2/a)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--vox_dir", "{}/none"], "no such folder"),
        (["--audit", "{}/none.json"], "no such file"),
        (["--vox_dir", "{}", "--val_ratio", "2"], "--val_ratio"),
        (["--vox_dir", "{}", "--val_ratio", "0.6", "--test_ratio", "0.5"], "together below 1"),
    ],
)
def test_bad_options_are_told_in_one_line(script, tmp_path, capsys, options, words):
    make_tree(tmp_path, {"vox1": ["A", "B", "C"]})
    assert cli.run(script.main, [option.format(tmp_path) for option in options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_audit_of_a_split_without_its_data_looks_at_the_names(script, tmp_path, capsys):
    split = {
        "vox1": {"train": ["A_B"], "val": [], "test": []},
        "vox2": {"train": [], "val": ["a b"], "test": []},
    }
    (tmp_path / "split.json").write_text(json.dumps(split), encoding="utf-8")
    assert cli.run(script.main, ["--audit", str(tmp_path / "split.json")]) == 1
    said = capsys.readouterr().out
    assert "only the names are audited" in said
    assert "in_two_parts" in said
