"""HQ VoxCeleb as items and loaders: one per person and epoch, drawn from (seed, epoch, person) alone."""

import json
import pickle
from collections import Counter

import numpy as np
import pytest
import torch

from facevox.errors import UserError
from facevox.files import write_image
from lc_pytorch.datasets.transforms import ImageTransform
from lc_pytorch.hq.dataset import (
    HQVoxCelebDataset,
    MelSettings,
    create_hq_voxceleb_dataloaders,
    fixed_pairs,
    load_people,
    measure_mels,
)
from lc_pytorch.hq.mels import read_mel
from lc_pytorch.hq.readers import media_of_people

TRANSFORM = ImageTransform(image_size=16)
SETTINGS = MelSettings(num_mels=40, num_frames=50, mel_mean=11.0, mel_std=3.0)
NUM_FACES, NUM_MELS = 3, 4


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Ten people, three of them in both sets (in another spelling)."""
    top = tmp_path_factory.mktemp("hq")
    rng = np.random.default_rng(0)
    names = {"vox1": [f"Person_{k}" for k in range(6)], "vox2": [f"person {k}" for k in range(3, 10)]}
    for set_name, people in names.items():
        for name in people:
            mels, faces = (top / set_name / kind / name for kind in ("mel_spectrograms", "masked_faces"))
            mels.mkdir(parents=True)
            for k in range(NUM_MELS):
                mel = rng.normal(11, 3, (40, 30 + 40 * k))  # shorter than a crop, and longer
                if set_name == "vox1":
                    np.save(mels / f"{k}.npy", mel.T)
                else:
                    (mels / f"{k}.pickle").write_bytes(pickle.dumps({"LogMel_Features": mel}, 4))
            for k in range(NUM_FACES):
                write_image(faces / f"{k}.png", rng.integers(0, 255, (20, 20, 3), dtype=np.uint8))
    split = {
        "vox1": {"train": names["vox1"][:4], "val": [names["vox1"][4]], "test": [names["vox1"][5]]},
        "vox2": {
            "train": ["person 3", "person 6", "person 7"],
            "val": ["person 4", "person 8"],
            "test": ["person 5"],
        },
    }
    (top / "split.json").write_text(json.dumps(split), encoding="utf-8")
    return top


@pytest.fixture
def train_set(root):
    return HQVoxCelebDataset(
        load_people(root / "split.json", "both")[0]["train"], TRANSFORM, SETTINGS, seed=3
    )


def test_people_of_both_sets_are_one_person_with_all_files(root):
    parts, notes = load_people(root / "split.json", "both")
    assert [person.identity for person in parts["train"]] == [f"person_{k}" for k in (0, 1, 2, 3, 6, 7)]
    assert [person.identity for person in parts["val"]] == ["person_4", "person_8"]
    in_both = parts["train"][3]
    assert (len(in_both.mels), len(in_both.faces)) == (2 * NUM_MELS, 2 * NUM_FACES)
    assert notes == []
    only = load_people(root / "split.json", "vox2")[0]
    assert [person.identity for person in only["train"]] == ["person_3", "person_6", "person_7"]
    assert len(only["train"][0].mels) == NUM_MELS


def test_an_item_is_a_normalised_crop_of_a_file_of_that_person(train_set):
    item = train_set[(0, 3)]
    assert item["face"].shape == (3, 16, 16)
    assert item["mel"].shape == (40, 50)
    assert item["mel"].dtype == torch.float32
    assert int(item["identity"]) == 3
    face_file, mel_file = train_set.files(3, 0)
    assert face_file.parent.name.casefold().replace(" ", "_") == "person_3"
    whole = (read_mel(mel_file, 40) - 11.0) / 3.0
    repeated = np.concatenate([whole] * 4, axis=1)  # every crop is somewhere in it
    places = [
        s
        for s in range(repeated.shape[1] - 49)
        if np.allclose(repeated[:, s : s + 50], item["mel"], atol=1e-5)
    ]
    assert places


def test_an_epoch_draws_other_files_and_the_same_key_the_same(train_set, root):
    again = HQVoxCelebDataset(train_set.people, TRANSFORM, SETTINGS, seed=3)
    other = HQVoxCelebDataset(train_set.people, TRANSFORM, SETTINGS, seed=4)
    assert len(train_set) == 6
    for index in range(6):
        item = train_set[(1, index)]
        same = again[(1, index)]
        assert torch.equal(item["mel"], same["mel"])
        assert torch.equal(item["face"], same["face"])
    drawn = {train_set.files(0, epoch) for epoch in range(60)}
    assert len({face for face, _ in drawn}) == NUM_FACES
    assert len({mel for _, mel in drawn}) == NUM_MELS
    assert len(drawn) > 8  # of 12: face and mel are drawn on their own
    assert any(train_set.files(k, 1) != other.files(k, 1) for k in range(6))


def test_files_and_places_are_drawn_evenly(train_set):
    faces = Counter(train_set.files(0, epoch)[0].name for epoch in range(900))
    assert all(250 < count < 350 for count in faces.values())


def test_evaluation_items_are_fixed_pairs_with_the_middle_of_the_mel(root):
    people = load_people(root / "split.json", "both")[0]["val"]
    items = HQVoxCelebDataset(people, TRANSFORM, SETTINGS, pairs_per_identity=5, seed=1)
    assert Counter(items.identities) == {"person_4": 5, "person_8": 4}  # 8 of person 4's mels, all 4 of 8's
    assert torch.equal(items[0]["mel"], items[0]["mel"])
    for index in range(len(items)):
        _, mel_file = items.files(index, None)
        whole = read_mel(mel_file, 40)
        frames = whole.shape[1]
        if frames >= 50:
            start = int(0.5 * (frames - 50 + 1))
            wanted = whole[:, start : start + 50]
        else:
            wanted = whole[:, (int(0.5 * frames) + np.arange(50)) % frames]
        np.testing.assert_allclose(items[index]["mel"], (wanted - 11.0) / 3.0, atol=1e-5)
    assert items.files(0, None) == items.files(0, 7)


@pytest.mark.parametrize(
    ("faces", "mels", "limit"), [(1, 1, 5), (3, 4, 5), (40, 7, 5), (2, 100, 5), (10, 10, 1)]
)
def test_fixed_pairs_differ_and_use_as_many_files_as_they_can(faces, mels, limit):
    pairs = fixed_pairs(faces, mels, limit)
    count = min(limit, max(faces, mels))
    assert len(pairs) == len(set(pairs)) == count
    assert all(0 <= face < faces and 0 <= mel < mels for face, mel in pairs)
    assert len({face for face, _ in pairs}) == min(faces, count)
    assert len({mel for _, mel in pairs}) == min(mels, count)


def test_bad_files_are_replaced_in_training_and_told_in_evaluation(root, tmp_path):
    people = load_people(root / "split.json", "vox1")[0]["train"]
    for k in range(NUM_MELS):
        (tmp_path / f"{k}.pickle").write_bytes(b"cos\nsystem\n(Vtrue\ntR.")
    bad = type(people[0].mels)((str(tmp_path), tuple(f"{k}.pickle" for k in range(NUM_MELS))))
    people[1] = type(people[1])(identity=people[1].identity, faces=people[1].faces, mels=bad)
    items = HQVoxCelebDataset(people, TRANSFORM, SETTINGS)
    item = items[(0, 1)]
    assert int(item["index"]) == 1
    assert int(item["used_index"]) != 1
    with pytest.raises(UserError, match=r"posix\.system|os\.system"):
        items[1]
    assert "0.pickle" in items.describe(1)


def test_measured_settings_are_those_of_all_values(root):
    people = load_people(root / "split.json", "both")[0]["train"]
    settings, lines = measure_mels(people, 0.5)
    values = np.concatenate([read_mel(path, 40).ravel() for person in people for path in person.mels])
    assert settings.mel_mean == pytest.approx(values.mean(), abs=1e-4)
    assert settings.mel_std == pytest.approx(values.std(), abs=1e-4)
    assert (settings.num_mels, settings.num_frames) == (40, 50)
    assert "40 bands" in lines[0]
    assert MelSettings.from_config(json.loads(json.dumps(settings.as_config()))) == settings
    with pytest.raises(UserError, match="--audio_duration_sec 0"):
        measure_mels(people, 0.0)
    with pytest.raises(UserError, match=r"config\.json: no settings of spectrograms"):
        MelSettings.from_config({"target_sr": 16000})


def test_loaders_give_the_documented_batches(root, logged):
    loaders = create_hq_voxceleb_dataloaders(
        root / "split.json", "both", 2, audio_duration_sec=0.5, image_transform=TRANSFORM
    )
    assert "mels: 40 bands" in logged.text
    assert list(loaders) == ["train", "val", "test"]
    epochs = [list(loaders["train"]) for _ in range(2)]
    for batches in epochs:
        assert len(batches) == 3
        assert batches[0]["mel"].shape == (2, 40, 50)
        assert batches[0]["face"].shape == (2, 3, 16, 16)
        assert sorted(int(k) for batch in batches for k in batch["identity"]) == list(range(6))
    assert not torch.equal(epochs[0][0]["mel"], epochs[1][0]["mel"])
    first, second = (list(loaders["test"]) for _ in range(2))
    assert all(torch.equal(a["mel"], b["mel"]) for a, b in zip(first, second, strict=True))


def test_workers_do_not_change_what_comes(root):
    def first_epoch(num_workers):
        loaders = create_hq_voxceleb_dataloaders(
            root / "split.json", "vox2", 3, audio_duration_sec=0.5, image_transform=TRANSFORM, mels=SETTINGS,
            num_workers=num_workers,
        )  # fmt: skip
        return list(loaders["train"])

    for alone, helped in zip(first_epoch(0), first_epoch(2), strict=True):
        assert torch.equal(alone["mel"], helped["mel"])
        assert torch.equal(alone["face"], helped["face"])


def test_media_for_evaluation_are_the_files_of_the_items(root):
    people = load_people(root / "split.json", "both")[0]["val"]
    faces, mels = media_of_people(people, TRANSFORM, SETTINGS, 5)
    items = HQVoxCelebDataset(people, TRANSFORM, SETTINGS, pairs_per_identity=5)
    used = [items.files(index, None) for index in range(len(items))]
    assert set(faces.files) == {face for face, _ in used}
    assert set(mels.files) == {mel for _, mel in used}
    assert len(set(mels.files)) == len(mels.files) == len(mels.identities)
    assert torch.equal(mels.load(mels.files[0]), items[0]["mel"])
    assert torch.equal(faces.load(faces.files[0]), items[0]["face"])


def test_nobody_is_trained_on_and_tested_whatever_the_split_says(root, tmp_path):
    for set_name in ("vox1", "vox2"):
        (tmp_path / set_name).symlink_to(root / set_name)
    split = {
        "vox1": {"train": ["Person_0", "Person_3", "Gone"], "val": [], "test": ["Person_1"]},
        "vox2": {"train": ["person 6"], "val": [], "test": ["person 3"]},
    }
    (tmp_path / "split.json").write_text(json.dumps(split), encoding="utf-8")
    for dataset_type in ("vox1", "both"):
        parts, notes = load_people(tmp_path / "split.json", dataset_type)
        assert "person_3" not in [person.identity for person in parts["train"]]
        assert parts["val"] == []
        assert any("1 of" in note and "in another part" in note for note in notes)
        assert any("1 of" in note and "have no folder" in note for note in notes)


def test_nobody_to_train_on_and_unknown_types_are_errors(root, tmp_path):
    with pytest.raises(UserError, match="should be one of vox1, vox2, both"):
        load_people(root / "split.json", "vox3")
    with pytest.raises(UserError, match=r"create_hq_voxceleb_split\.py"):
        load_people(tmp_path / "split.json")
    (tmp_path / "vox2").mkdir()
    (tmp_path / "split.json").write_text('{"vox2": {"train": ["A"]}}', encoding="utf-8")
    with pytest.raises(UserError, match="nobody to train on in vox2"):
        load_people(tmp_path / "split.json")


@pytest.mark.real_data
def test_real_derived_tree_loads_in_all_types(real_data_dir):
    for dataset_type, people in (("vox1", 2), ("vox2", 2), ("both", 4)):
        loaders = create_hq_voxceleb_dataloaders(
            real_data_dir / "hq" / "derived" / "split.json", dataset_type, 2, image_transform=TRANSFORM
        )
        batch = next(iter(loaders["train"]))
        assert len(loaders["train"].dataset) == people
        assert batch["mel"].shape == (2, 40, 150)
        assert abs(float(batch["mel"].mean())) < 1
