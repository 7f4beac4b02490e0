"""scripts/hq/convert_mels.py: one form for all spectrograms, read in place of the originals."""

import csv
import pickle

import numpy as np
import pytest

from facevox import cli
from lc_pytorch.hq.mels import read_mel
from lc_pytorch.hq.tree import scan_tree

RNG = np.random.default_rng(1)


@pytest.fixture
def script(load_script):
    return load_script("hq/convert_mels")


@pytest.fixture
def root(tmp_path):
    """Three people, of whom one has a broken file; names as they should not be."""
    top = tmp_path / "HQ 'Vox'"
    for set_name, name in (("vox1", "Anna B."), ("vox1", "-김철수"), ("vox2", "Anna B.")):
        folder = top / set_name / "mel_spectrograms" / name
        folder.mkdir(parents=True)
        np.save(folder / "a b.npy", RNG.normal(11, 3, (120, 40)))
        (folder / "한글\n.pickle").write_bytes(
            pickle.dumps({"LogMel_Features": RNG.normal(11, 3, (40, 77))}, 2)
        )
        (top / set_name / "masked_faces" / name).mkdir(parents=True)
    (top / "vox1/mel_spectrograms/-김철수/bad.pickle").write_bytes(b"cos\nsystem\n(Vtrue\ntR.")
    return top


def mels_of(root, **options):
    tree = scan_tree(root, **options)
    return {
        (set_name, name, path.name.removesuffix(".npy")): path
        for set_name, people in tree.people.items()
        for name, person in people.items()
        for path in person.mels
    }


def test_converted_files_hold_the_same_numbers_and_are_read_first(script, root, capsys):
    before = mels_of(root)
    assert cli.run(script.main, ["--vox_dir", str(root), "--debug"]) == 1
    said = capsys.readouterr().out
    assert "6 done, 0 skipped (finished before), 1 failed" in said
    assert "(T, mels) in" in said
    after = mels_of(root)
    assert len(after) == len(before) == 7
    converted = [path for path in after.values() if "mel_npy" in path.parts]
    assert len(converted) == 6
    for path in converted:
        original = (
            root / path.parts[-4] / "mel_spectrograms" / path.parts[-2] / path.name.removesuffix(".npy")
        )
        np.testing.assert_array_equal(np.load(path), read_mel(original))
        assert np.load(path).dtype == np.float32
    with (root / "mels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7
    failed = [row for row in rows if row["status"] == "failed"]
    assert len(failed) == 1
    assert "os.system, which is not plain data" in failed[0]["reason"]
    assert {row["stored_shape"] for row in rows} == {"120x40", "40x77", ""}


def test_second_run_does_only_what_failed_or_is_new(script, root, capsys):
    cli.run(script.main, ["--vox_dir", str(root), "--debug"])
    np.save(root / "vox1/mel_spectrograms/Anna B./new.npy", np.ones((40, 9)))
    capsys.readouterr()
    assert cli.run(script.main, ["--vox_dir", str(root), "--debug"]) == 1
    assert "1 done, 6 skipped (finished before), 1 failed" in capsys.readouterr().out


def test_originals_may_be_removed_afterwards(script, root):
    cli.run(script.main, ["--vox_dir", str(root), "--debug"])
    for path in list(mels_of(root, has_converted=False).values()):
        path.unlink()
    left = scan_tree(root).people["vox1"]["Anna B."]
    assert len(left.mels) == 2
    assert all(read_mel(path, 40).shape[0] == 40 for path in left.mels)


def test_half_precision_into_another_folder(script, root, tmp_path):
    output = tmp_path / "out"
    options = ["--vox_dir", str(root), "--output_dir", str(output), "--dtype", "float16", "--debug"]
    assert cli.run(script.main, options) == 1
    assert not list(root.rglob("mel_npy"))
    after = mels_of(root, converted_dir=output)
    converted = [path for path in after.values() if output in path.parents]
    assert len(converted) == 6
    for path in converted:
        original = (
            root / path.parts[-4] / "mel_spectrograms" / path.parts[-2] / path.name.removesuffix(".npy")
        )
        assert np.load(path).dtype == np.float16
        np.testing.assert_allclose(read_mel(path, 40), read_mel(original), atol=0.01)


def test_a_tree_without_spectrograms_is_an_error(script, tmp_path, capsys):
    (tmp_path / "vox1").mkdir()
    assert cli.run(script.main, ["--vox_dir", str(tmp_path), "--debug"]) == 2
    assert "no spectrograms to convert" in capsys.readouterr().err
