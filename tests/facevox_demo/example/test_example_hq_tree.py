"""The HQ-VoxCeleb-shaped part of the example data: spectrograms, masks, tables."""

import io
import pickle

import librosa
import numpy as np
import pytest

from facevox.files import read_image
from facevox_demo.example import hq_tree
from facevox_demo.example.clips import plan_clip
from facevox_demo.example.people import make_person
from facevox_demo.example.voice import speak
from lc_pytorch.hq.mels import read_mel
from lc_pytorch.hq.split import audit_split, make_split
from lc_pytorch.hq.tree import load_genders, scan_tree


@pytest.mark.numeric
def test_log_mel_is_what_librosa_gives():
    sound = speak(plan_clip(make_person(0, 3), 0, 1.0))
    samples = sound.astype(np.float64) * 32768
    power = (
        np.abs(
            librosa.stft(
                samples, n_fft=512, hop_length=160, win_length=400, window=np.hamming(400), center=False
            )
        )
        ** 2
        / 512
    )
    filters = librosa.filters.mel(sr=16000, n_fft=512, n_mels=40, htk=True, norm=None)
    wanted = np.log(filters @ power + 1)
    found = hq_tree.log_mel(sound)
    # librosa puts the window of 400 into the middle of frames of 512: 56 samples later, and fewer frames.
    shifted = hq_tree.log_mel(sound[56:])[:, : wanted.shape[1]]
    np.testing.assert_allclose(shifted, wanted, atol=2e-3)
    assert found.shape == (40, 1 + (16000 - 400) // 160)
    assert hq_tree.log_mel(sound[:10]).shape == (40, 1)


def test_files_of_both_sets_hold_the_same_spectrogram():
    person = make_person(0, 5)
    assert hq_tree.sets_of(5) == ("vox1", "vox2")
    for number in (0, 1):
        plan = plan_clip(person, number, 1.0)
        sound = speak(plan)
        files = hq_tree.mel_files(plan, sound)
        npy, pickled = sorted(files)
        assert npy == f"hq/vox1/mel_spectrograms/Example_0005/id0005_{plan.name}_00001.npy"
        stored = np.load(io.BytesIO(files[npy]))
        value = pickle.loads(files[pickled])
        assert value.keys() == {"LogMel_Features", "spkid", "clipid", "wavid"}
        assert value["LogMel_Features"].dtype == np.float64
        assert stored.shape == ((98, 40) if number else (40, 98))
        np.testing.assert_allclose(stored.T if number else stored, value["LogMel_Features"], atol=1e-5)


def test_tables_have_the_real_ones_columns_and_every_person():
    persons = [make_person(0, index) for index in range(24)]
    tables = hq_tree.metadata_files(persons)
    vox1, vox2 = (text.splitlines() for text in tables.values())
    assert vox1[0].split("\t") == ["VoxCeleb1 ID", "VGGFace1 ID", "Gender", "Nationality", "Set"]
    assert vox2[0].split(",")[:5] == ["Class_ID", "Name", "Sample_Num", "Flag", "Gender_x"]
    assert len(vox1) - 1 + len(vox2) - 1 == 24 + 2  # two people are in both
    assert {len(row.split("\t")) for row in vox1} == {5}
    assert {len(row.split(",")) for row in vox2} == {9}


@pytest.mark.real_data
def test_tables_begin_as_the_real_ones_do(real_data_dir):
    for name, header in (("vox1_meta.csv", hq_tree.VOX1_HEADER), ("full_vox2_meta.csv", hq_tree.VOX2_HEADER)):
        assert (real_data_dir / "hq" / "meta" / name).read_text(encoding="utf-8").splitlines()[0] == header


def test_example_set_holds_a_tree_that_can_be_split_and_read(example_data_dir):
    root = example_data_dir / "hq"
    tree = scan_tree(root)
    assert tree.notes == ()
    names = {name: list(people) for name, people in tree.people.items()}
    assert names["vox1"] == ["Example_0000", "Example_0003", "Example_0005", "Example_0006"]
    assert names["vox2"] == [f"Example_{k:04d}" for k in (1, 2, 4, 5, 7)]
    genders, notes = load_genders(tree)
    assert notes == []
    assert {genders[person.identity] for people in tree.people.values() for person in people.values()} == {
        "m",
        "f",
    }
    split = make_split(names, genders, val_ratio=0.2, test_ratio=0.2)
    assert audit_split(split, tree) == []
    shapes = set()
    for people in tree.people.values():
        for person in people.values():
            assert (len(person.mels), len(person.faces)) == (2, 6)
            shapes |= {read_mel(path).shape for path in person.mels}
    assert shapes == {(40, 98)}


def test_faces_are_masked_and_the_face_is_left_as_it_was(example_data_dir):
    """Against the crops of the other tree: the same frame, black around the face and equal within it."""
    for index, set_name, suffix in ((0, "vox1", "jpg"), (1, "vox2", "png")):
        folder = example_data_dir / "hq" / set_name / "masked_faces" / f"Example_{index:04d}"
        files = sorted(folder.glob(f"*.{suffix}"))
        assert len(files) == 6
        for file in files:
            clip, number = file.stem.split("_")
            masked = read_image(file).astype(int)
            crop = read_image(example_data_dir / f"vox/id{index:04d}/faces/{clip}/frame_{number}.jpg").astype(
                int
            )
            assert masked.shape == crop.shape
            black = masked.max(axis=2) < 12
            assert 0.2 < black.mean() < 0.75
            side = len(masked)
            assert black[:4, :4].all()
            assert black[-4:, -4:].all()
            middle = slice(int(0.35 * side), int(0.8 * side))
            core = np.abs(masked - crop)[middle, int(0.35 * side) : int(0.65 * side)]
            assert core.mean() < 5  # jpg on one side or on both
