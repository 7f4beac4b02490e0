"""Rows of an extracted folder: read from the disk when asked for, refused where damaged."""

import tracemalloc

import numpy as np
import pytest
from landmark_folders import CLASSES, make_folder

from emotion.landmarks.table import MAX_OPEN_FILES, load_table
from facevox.errors import UserError


def test_rows_are_those_of_the_shards_in_any_order(tmp_path):
    folder = make_folder(tmp_path / "x", num_people=4)
    table = load_table(folder)
    whole = np.concatenate([np.load(path) for path in sorted((folder / "shards").iterdir())])
    assert len(table) == len(whole) == 36
    order = np.random.default_rng(0).permutation(36)
    assert np.array_equal(table.rows.read(order), whole[order])
    assert np.array_equal(load_table(folder, in_memory=True).rows.read(order), whole[order])
    assert table.sizes[0].tolist() == [600, 800]
    table.close()


def test_only_wanted_classes_and_pictures_with_a_face_are_loaded(tmp_path):
    table = load_table(make_folder(tmp_path / "x", num_people=2), ["happy", "neutral"])
    assert set(table.labels) == {"happy", "neutral"}
    samples = table.to_samples(["happy", "neutral"])
    assert samples.labels.tolist() == [0 if label == "happy" else 1 for label in table.labels]
    assert len(table) == 12


def test_person_who_is_not_known_is_one_of_its_own(tmp_path):
    table = load_table(make_folder(tmp_path / "x", num_people=2, with_people=False))
    assert table.to_samples(CLASSES).num_people == len(table)


def test_memory_and_open_files_do_not_grow_with_the_data(tmp_path):
    folder = make_folder(tmp_path / "x", num_people=100, shard_rows=9)
    table = load_table(folder)
    assert len(table.rows._shards) > MAX_OPEN_FILES
    tracemalloc.start()
    for row in range(len(table)):
        table.rows.read([row])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000  # 900 faces take 5 MB
    assert len(table.rows._open) == MAX_OPEN_FILES
    table.close()


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(b"no array"), "no shard of landmarks"),
        (lambda path: np.save(path, np.zeros((3, 5))), "no shard of landmarks"),
        (
            lambda path: np.save(path, np.array([{"a": 1}], object), allow_pickle=True),
            "no shard of landmarks",
        ),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "has no row"),
    ],
)
def test_damaged_shard_is_told(tmp_path, damage, text):
    folder = make_folder(tmp_path / "x", num_people=2)
    damage(folder / "shards" / "000.npy")
    with pytest.raises(UserError, match=text):
        load_table(folder).rows.read([0])


@pytest.mark.parametrize("shard", ["../other.npy", "/etc/x.npy", "shards/x.pickle"])
def test_index_that_leads_elsewhere_is_refused(tmp_path, shard):
    folder = make_folder(tmp_path / "x", num_people=2)
    text = (folder / "index.csv").read_text(encoding="utf-8")
    (folder / "index.csv").write_text(text.replace("shards/000.npy", shard), encoding="utf-8")
    with pytest.raises(UserError, match="row 2: not of an extraction"):
        load_table(folder)


def test_folder_without_index_says_what_to_run(tmp_path):
    with pytest.raises(UserError, match=r"run python emotion/landmarks/extract\.py first"):
        load_table(tmp_path)
