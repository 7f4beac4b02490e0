"""Deduplication on synthetic faces and a small ONNX model: files, table, reruns, crashes, refusals."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from face_models import make_onnx, make_picture, pictures_below, read_groups, write_faces

from facevox.errors import ExitCode, UserError
from facevox.files import write_image
from lc_pytorch.faces import deduplicator, embedders, group_files
from lc_pytorch.faces.deduplicator import choose_representatives, deduplicate
from lc_pytorch.faces.embedders import make_embedder
from lc_pytorch.faces.embedding_store import FACTS, VectorStore
from lc_pytorch.faces.face_table import read_face_table
from lc_pytorch.faces.group_files import NameBook, name_members
from lc_pytorch.faces.options import DedupeConfig

PEOPLE = {f"vid_{number}.jpg": number % 4 for number in range(14)}
THRESHOLD = 0.2


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    return make_onnx(tmp_path_factory.mktemp("model") / "model.onnx", num_values=40, batch="faces")


@pytest.fixture
def config(tmp_path, model_file):
    write_faces(tmp_path / "faces", PEOPLE)
    return config_for(tmp_path, model_file)


def config_for(folder: Path, model_file: Path, **options) -> DedupeConfig:
    options = {"threshold": THRESHOLD, "batch_size": 4} | options
    return DedupeConfig(
        faces_dir=folder / "faces",
        dedupe_dir=folder / "deduped",
        representative_dir=folder / "representatives",
        model_name=str(model_file),
        **options,
    )


def people_of(rows):
    """The faces of each group, as a set of sets."""
    groups = {}
    for name, row in rows.items():
        groups.setdefault(row["group"], set()).add(name)
    return {frozenset(members) for members in groups.values()}


def all_outputs(config):
    return pictures_below(config.dedupe_dir), pictures_below(config.representative_dir)


def fail_to_load(*_args, **_options):
    raise AssertionError("the model was loaded")


def test_every_person_gets_a_group_with_the_best_face_as_representative(config):
    summary = deduplicate(config)
    rows = read_groups(config.dedupe_dir)
    assert (summary.exit_code, summary.num_faces, summary.num_groups) == (ExitCode.DONE, 14, 4)
    true_people = {frozenset(n for n, p in PEOPLE.items() if p == person) for person in range(4)}
    assert people_of(rows) == true_people
    for members in true_people:
        best = max(sorted(members), key=lambda name: float(rows[name]["quality"]))
        assert {rows[name]["representative"] for name in members} == {best}
    assert {row["status"] for row in rows.values()} == {"done"}


def test_files_are_named_after_representative_and_member_and_equal_the_input(config):
    deduplicate(config)
    rows = read_groups(config.dedupe_dir)
    expected, representatives = {}, {}
    for name, row in rows.items():
        data = (config.faces_dir / name).read_bytes()
        best = row["representative"]
        if name == best:
            expected[name] = representatives[name] = data
        else:
            expected[f"{Path(best).stem}_dedupe_{name}"] = data
    assert all_outputs(config) == (expected, representatives)
    assert len(expected) == 14
    assert len(representatives) == 4
    assert {row["dedupe_file"] for row in rows.values()} == set(expected)


def test_distances_equal_those_of_the_models_own_vectors(config, model_file):
    deduplicate(config)
    names = list(PEOPLE)
    from facevox.files import read_image

    pictures = [read_image(config.faces_dir / name) for name in names]
    vectors = dict(zip(names, make_embedder(model_file).embed(pictures).astype(np.float64), strict=True))
    for name, row in read_groups(config.dedupe_dir).items():
        distance = 1 - vectors[name] @ vectors[row["representative"]]
        assert float(row["distance"]) == pytest.approx(max(distance, 0), abs=2e-4)


def test_a_second_run_and_another_threshold_embed_nothing(config, monkeypatch):
    deduplicate(config)
    before = all_outputs(config)
    table = (config.dedupe_dir / "groups.csv").read_bytes()
    monkeypatch.setattr(embedders.FaceModel, "load", fail_to_load)
    deduplicate(config)
    assert all_outputs(config) == before
    assert (config.dedupe_dir / "groups.csv").read_bytes() == table
    assert deduplicate(replace(config, threshold=2.0)).num_groups == 1


def test_a_moved_picture_is_not_embedded_again_and_a_changed_one_is(config, monkeypatch):
    deduplicate(config)
    (config.faces_dir / "sub").mkdir()
    (config.faces_dir / "vid_3.jpg").rename(config.faces_dir / "sub" / "vid_3.jpg")
    table = config.faces_dir / "faces.csv"
    table.write_text(table.read_text().replace("vid_3.jpg", "sub/vid_3.jpg"))
    with monkeypatch.context() as patch:
        patch.setattr(embedders.FaceModel, "load", fail_to_load)
        assert deduplicate(config).num_faces == 14
    write_image(config.faces_dir / "vid_5.jpg", make_picture(9, 0))
    assert deduplicate(config).num_groups == 5


@pytest.mark.parametrize("other", [0.0, 2.0])
def test_another_threshold_leaves_the_files_of_a_fresh_run_and_nothing_else(
    config, tmp_path, model_file, other
):
    deduplicate(config)
    keep = config.dedupe_dir / "notes of mine.jpg"
    keep.write_bytes(b"mine")
    deduplicate(replace(config, threshold=other))
    fresh = replace(
        config,
        threshold=other,
        dedupe_dir=tmp_path / "fresh" / "d",
        representative_dir=tmp_path / "fresh" / "r",
    )
    deduplicate(fresh)
    dedupe, representatives = all_outputs(config)
    assert dedupe.pop("notes of mine.jpg") == b"mine"
    assert (dedupe, representatives) == all_outputs(fresh)
    for name in ("groups.csv", "manifests/deduplicate_faces.jsonl"):
        ours, theirs = ((c.dedupe_dir / name).read_text() for c in (config, fresh))
        assert ours.replace("../representatives/", "../r/") == theirs


def test_a_file_of_somebody_else_is_never_overwritten_unless_asked(config):
    config.representative_dir.mkdir()
    theirs = config.representative_dir / "vid_0.jpg"
    for name in PEOPLE:
        (config.representative_dir / name).write_bytes(b"theirs")
    with pytest.raises(UserError, match="no earlier run wrote it"):
        deduplicate(config)
    assert theirs.read_bytes() == b"theirs"
    assert pictures_below(config.dedupe_dir) == {}
    deduplicate(replace(config, overwrite=True))
    rows = read_groups(config.dedupe_dir)
    best = next(name for name, row in rows.items() if row["representative"] == name)
    assert (config.representative_dir / best).read_bytes() != b"theirs"


@pytest.mark.parametrize("num_copies", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 9))])
def test_a_run_killed_while_it_copies_ends_like_an_undisturbed_one(config, tmp_path, monkeypatch, num_copies):
    deduplicate(replace(config, threshold=0.0))
    copied = []

    def copy_and_die(placement):
        if len(copied) == num_copies:
            raise KeyboardInterrupt
        copied.append(placement)
        real_copy(placement)

    real_copy = group_files._copy
    with monkeypatch.context() as patch:
        patch.setattr(group_files, "_copy", copy_and_die)
        with pytest.raises(KeyboardInterrupt):
            deduplicate(config)
    # Then even with a third threshold: the files of the killed run must go as well.
    for threshold in (2.0, THRESHOLD):
        changed = replace(config, threshold=threshold)
        deduplicate(changed)
        fresh = replace(
            changed,
            dedupe_dir=tmp_path / f"fresh{threshold}",
            representative_dir=tmp_path / f"r{threshold}",
        )
        deduplicate(fresh)
        assert all_outputs(changed) == all_outputs(fresh)
    assert not list(config.dedupe_dir.rglob("*.plan.json"))


@pytest.mark.numeric
def test_shards_only_embed_and_the_last_run_groups_as_one_run_would(config, tmp_path, monkeypatch, logged):
    deduplicate(config)
    shared = replace(config, dedupe_dir=tmp_path / "shared", representative_dir=tmp_path / "shared_r")
    for shard in range(3):
        summary = deduplicate(replace(shared, num_shards=3, shard_index=shard))
        assert (summary.num_groups, summary.exit_code) == (0, ExitCode.DONE)
    assert "--num_shards 1 to group" in logged.text
    assert pictures_below(shared.dedupe_dir) == {}
    monkeypatch.setattr(embedders.FaceModel, "load", fail_to_load)
    deduplicate(shared)
    assert all_outputs(shared) == all_outputs(config)
    tables = [(c.dedupe_dir / "groups.csv").read_bytes() for c in (shared, config)]
    assert tables[0] == tables[1]


@pytest.mark.numeric
def test_lost_vectors_are_made_again(config):
    deduplicate(config)
    table = (config.dedupe_dir / "groups.csv").read_bytes()
    shutil.rmtree(next(config.dedupe_dir.glob(".embeddings/*/vectors")))
    deduplicate(config)
    assert (config.dedupe_dir / "groups.csv").read_bytes() == table


def test_equal_names_in_two_sub_folders_are_both_kept(tmp_path, model_file):
    people = {"a/vid.jpg": 0, "b/vid.jpg": 0, "c/vid.jpg": 0, "a/solo.jpg": 1, "b/solo.jpg": 2}
    write_faces(tmp_path / "faces", people)
    config = config_for(tmp_path, model_file)
    deduplicate(config)
    dedupe, representatives = all_outputs(config)
    assert len(dedupe) == 5
    assert len(representatives) == 3
    best = Path(read_groups(config.dedupe_dir)["a/vid.jpg"]["representative"])
    others = sorted({"a", "b", "c"} - {best.parent.name})
    assert set(dedupe) == {
        "a/solo.jpg",
        "b/solo.jpg",
        best.as_posix(),
        *(f"{best.parent.name}/vid_dedupe_{folder}__vid.jpg" for folder in others),
    }
    assert set(representatives) == {"a/solo.jpg", "b/solo.jpg", best.as_posix()}


def test_pictures_without_a_face_are_left_out_or_kept_as_asked(tmp_path, model_file, monkeypatch):
    write_faces(tmp_path / "faces", PEOPLE)
    write_image(tmp_path / "faces" / "wall.png", np.full((90, 60, 3), 128, np.uint8))
    config = config_for(tmp_path, model_file)
    summary = deduplicate(config)
    row = read_groups(config.dedupe_dir)["wall.png"]
    assert (summary.exit_code, summary.num_failed, summary.num_nobody) == (ExitCode.DONE, 0, 1)
    assert (row["status"], row["group"], row["dedupe_file"]) == ("no_face", "", "")
    assert "no face" in row["reason"]
    monkeypatch.setattr(embedders.FaceModel, "load", fail_to_load)  # nothing has to be embedded for this
    assert deduplicate(replace(config, enforce_detection=False)).exit_code == ExitCode.DONE
    assert read_groups(config.dedupe_dir)["wall.png"]["group"] != ""
    assert "wall.png" in pictures_below(config.representative_dir)


def test_pictures_without_any_face_are_reported_by_the_exit_code(tmp_path, model_file, logged):
    write_image(tmp_path / "faces" / "wall.png", np.full((90, 60, 3), 128, np.uint8))
    assert deduplicate(config_for(tmp_path, model_file)).exit_code == ExitCode.SOME_FAILED
    assert "no item gave a result; made with detector FaceMesh, min_confidence 0.5" in (logged.text)


def test_a_share_of_the_pictures_may_fail(tmp_path, model_file):
    write_faces(tmp_path / "faces", PEOPLE)
    (tmp_path / "faces" / "text.jpg").write_text("not a picture")
    config = config_for(tmp_path, model_file)
    assert deduplicate(config).exit_code == ExitCode.SOME_FAILED
    assert deduplicate(replace(config, max_failed=0.5)).exit_code == ExitCode.DONE


def test_broken_pictures_fail_with_their_reason_and_the_others_are_grouped(config):
    (config.faces_dir / "text.jpg").write_text("not a picture")
    (config.faces_dir / "empty.png").write_bytes(b"")
    whole = (config.faces_dir / "vid_1.jpg").read_bytes()
    (config.faces_dir / "half.jpg").write_bytes(whole[: len(whole) // 2])
    assert deduplicate(config).num_failed == 3
    rows = read_groups(config.dedupe_dir)
    assert {name for name, row in rows.items() if row["status"] == "failed"} == {
        "text.jpg",
        "empty.png",
        "half.jpg",
    }
    assert all(rows[name]["reason"] for name in ("text.jpg", "empty.png", "half.jpg"))
    assert len(people_of({n: r for n, r in rows.items() if r["status"] == "done"})) == 4


def test_odd_file_names_survive(tmp_path, model_file):
    names = ["with space.jpg", "quo'te\".jpg", "얼굴.jpg", "line\nbreak.jpg", "-dash.jpg", "comma,.jpg"]
    names += [os.fsdecode(b"bad\xff.jpg"), "a" * 240 + ".jpg", "b" * 240 + ".jpg"]
    write_faces(tmp_path / "faces", dict.fromkeys(names, 0), with_table=False)
    config = config_for(tmp_path, model_file, enforce_detection=False)
    assert deduplicate(config).num_groups == 1
    assert set(read_groups(config.dedupe_dir)) == set(names)
    assert len(pictures_below(config.dedupe_dir)) == len(names)
    assert deduplicate(config).exit_code == ExitCode.DONE


def test_outputs_inside_the_faces_folder_are_not_read_as_faces(config):
    inside = replace(
        config,
        dedupe_dir=config.faces_dir / "deduped",
        representative_dir=config.faces_dir / "representatives",
    )
    for _ in range(2):
        assert deduplicate(inside).num_faces == 14


def test_all_faults_of_a_configuration_are_reported_at_once(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError) as caught:
        DedupeConfig(
            faces_dir=tmp_path / "out" / "faces",
            dedupe_dir=tmp_path / "out",
            representative_dir=tmp_path / "out",
            threshold=3.0,
            batch_size=0,
        )
    text = str(caught.value)
    for part in ("--threshold: 3.0", "--batch_size: 0", "neither inside the other", "holds --faces_dir"):
        assert part in text
    assert "\n" not in text
    with pytest.raises(UserError, match="is a file"):
        DedupeConfig(faces_dir=tmp_path / "f", dedupe_dir=file, representative_dir=tmp_path / "r")


def test_an_onnx_model_needs_a_threshold_and_deepfaces_bring_their_own(config, tmp_path, logged):
    with pytest.raises(UserError, match="--threshold is needed"):
        deduplicate(replace(config, threshold=None))
    assert not config.dedupe_dir.exists()
    model = embedders.FaceModel(
        name="ArcFace", key="k", file=tmp_path, default_threshold=0.68, input_size=(112, 112)
    )
    assert deduplicator._chosen_threshold(replace(config, threshold=None), model) == 0.68
    assert "threshold 0.68" in logged.text


def test_a_dry_run_writes_nothing(config, logged):
    assert deduplicate(replace(config, dry_run=True)).num_groups == 0
    assert "14 faces" in logged.text
    assert not config.dedupe_dir.exists()
    assert not config.representative_dir.exists()


def test_representatives_equal_a_slow_loop_and_ties_go_to_the_first():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 7, 60)
    labels[:7] = np.arange(7)
    quality = np.round(generator.random(60), 1)
    leaders = choose_representatives(labels, quality.tolist())
    for face in range(60):
        members = [other for other in range(60) if labels[other] == labels[face]]
        assert leaders[face] == max(members, key=lambda other: (quality[other], -other))


def test_names_never_clash_and_never_grow_too_long():
    names = sorted(["vid.jpg", "vid_dedupe_x.jpg", "x.jpg", "x.png", "b/X.jpg", "b/vid.jpg"])
    leader = names.index("vid.jpg")
    members = ["vid.jpg", "x.jpg", "x.png", "b/X.jpg"]
    places = name_members(names, [leader if n in members else i for i, n in enumerate(names)])
    assert len({place.casefold() for place in places}) == len(names)
    assert places[names.index("vid_dedupe_x.jpg")] == "vid_dedupe_x.jpg"
    assert places[names.index("x.png")] == "vid_dedupe_x.png"
    assert places[names.index("b/X.jpg")] == "vid_dedupe_b__X.jpg"
    long = ["가" * 80 + ".jpg", "나" * 80 + ".jpg", "나" * 79 + "다.jpg"]
    places = name_members(long, [0, 0, 0])
    assert len(set(places)) == 3
    assert max(len(place.encode()) for place in places) <= 255
    book = NameBook()
    assert [book.take("a/v.jpg"), book.take("A/V.jpg"), book.take("a/v.jpg")] == [
        "a/v.jpg",
        "A/V_2.jpg",
        "a/v_3.jpg",
    ]


def test_a_manifest_cannot_make_a_run_remove_files_outside_of_its_folders(config, tmp_path):
    deduplicate(config)
    victim = tmp_path / "faces" / "vid_0.jpg"
    manifest = config.dedupe_dir / "manifests" / "deduplicate_faces.jsonl"
    text = manifest.read_text()
    manifest.write_text(text.replace('"outputs":[[', '"outputs":[["../faces/vid_0.jpg",1],[', 1))
    deduplicate(replace(config, threshold=2.0))
    assert victim.exists()


def test_the_store_finds_what_many_writers_wrote_and_leaves_out_half_a_record(tmp_path):
    vectors = np.eye(6, dtype=np.float32)
    keys = [bytes([number]) * 32 for number in range(6)]
    facts = [[float(number)] * len(FACTS) for number in range(6)]
    for start in (0, 3):
        with VectorStore(tmp_path) as store:
            part = slice(start, start + 3)
            store.append(keys[part], facts[part], vectors[part])
    file = max(tmp_path.iterdir(), key=lambda path: keys[5] in path.read_bytes())
    file.write_bytes(file.read_bytes()[:-5])
    (tmp_path / "vectors-cut.bin").write_bytes(b"FVV")
    store = VectorStore(tmp_path)
    assert len(store) == 5
    assert keys[5] not in store
    np.testing.assert_array_equal(store.vectors([keys[4], keys[0]]), vectors[[4, 0]])
    assert store.facts(keys[4]) == dict.fromkeys(FACTS, 4.0)
    (tmp_path / "vectors-odd.bin").write_bytes(b"something else entirely")
    with pytest.raises(UserError, match=r"vectors-odd\.bin"):
        VectorStore(tmp_path)


def test_the_face_table_gives_landmarks_confidence_and_guesses(tmp_path):
    write_faces(tmp_path, {"a.jpg": 0, "b.jpg": 1, "c.jpg": 2})
    table = tmp_path / "faces.csv"
    lines = table.read_text().splitlines()
    lines[2] = lines[2].replace("detector", "average")
    lines[3] = "c.jpg,c.jpg" + "," * (lines[0].count(",") - 1)
    table.write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    faces = read_face_table(table)
    assert len(faces["a.jpg"]["points"]) == 10
    assert faces["a.jpg"]["confidence"] == 0.9
    assert "is_guess" not in faces["a.jpg"]
    assert faces["b.jpg"]["is_guess"]
    assert faces["c.jpg"] == {}
    assert read_face_table(tmp_path / "none.csv") == {}
    other = tmp_path / "other.csv"
    other.write_text("some,thing\n1,2\n")
    assert read_face_table(other) == {}


def test_where_every_picture_fails_the_table_says_so_and_earlier_files_go(config):
    deduplicate(config)
    for name in PEOPLE:
        (config.faces_dir / name).write_bytes(b"broken")
    summary = deduplicate(config)
    assert (summary.num_groups, summary.num_failed, summary.exit_code) == (0, 14, ExitCode.SOME_FAILED)
    assert {row["status"] for row in read_groups(config.dedupe_dir).values()} == {"failed"}
    assert all_outputs(config) == ({}, {})
