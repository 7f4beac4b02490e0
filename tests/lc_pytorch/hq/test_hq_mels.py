"""Spectrograms of all shapes and releases, and files that are none."""

import pickle

import numpy as np
import pytest

from facevox.errors import UserError
from lc_pytorch.hq.mels import crop, load_array, read_mel, survey

RNG = np.random.default_rng(0)
MEL = RNG.normal(11, 3, (40, 173))


def write_npy(path, array):
    np.save(path, array)
    return path


def write_pickle(path, value, protocol=3):
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def test_every_way_of_storing_gives_the_same_spectrogram(tmp_path):
    wanted = MEL.astype(np.float32)
    stored = [
        write_npy(tmp_path / "mels first.npy", MEL),
        write_npy(tmp_path / "time first.npy", MEL.T),
        write_npy(tmp_path / "fortran.npy", np.asfortranarray(MEL)),
        write_npy(tmp_path / "big endian.npy", MEL.astype(">f8")),
        write_npy(tmp_path / "float32.NPY.npy", MEL.astype(np.float32)),
        write_pickle(tmp_path / "bare.pkl", MEL.T, 5),
        write_pickle(tmp_path / "dict.pickle", {"LogMel_Features": MEL, "spkid": "id1", "other": MEL.T}),
        write_pickle(tmp_path / "다른 이름\n.pickle", {"name": "x", "features": MEL.T, "length": 173}),
    ]
    for path in stored:
        mel = read_mel(path)
        assert mel.dtype == np.float32
        assert mel.flags.c_contiguous
        np.testing.assert_array_equal(mel, wanted, err_msg=str(path))


def test_half_precision_is_read(tmp_path):
    mel = read_mel(write_npy(tmp_path / "a.npy", MEL.astype(np.float16)))
    np.testing.assert_allclose(mel, MEL, atol=0.01)


def test_the_number_of_mels_decides_between_two_known_sides(tmp_path):
    path = write_npy(tmp_path / "a.npy", RNG.normal(size=(80, 40)))
    with pytest.raises(UserError, match="either side could be the mels; give --num_mels"):
        read_mel(path)
    assert read_mel(path, 40).shape == (40, 80)
    assert read_mel(path, 80).shape == (80, 40)
    with pytest.raises(UserError, match="80 x 40; expected 64 mels"):
        read_mel(path, 64)


def broken_files(folder):
    def header(text: str, rest: bytes = b"") -> bytes:
        body = text.encode().ljust(117) + b"\n"
        return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body + rest

    nan = MEL.copy()
    nan[3, 4] = np.nan
    return {
        "empty.npy": b"",
        "empty.pickle": b"",
        "text.npy": b"no array at all",
        "cut.npy": write_npy(folder / "x.npy", MEL).read_bytes()[:-100],
        "header_cut.npy": write_npy(folder / "x.npy", MEL).read_bytes()[:20],
        "huge.npy": header(
            "{'descr': '<f8', 'fortran_order': False, 'shape': (40, 100000000000), }", b"x" * 64
        ),
        "negative.npy": header("{'descr': '<f8', 'fortran_order': False, 'shape': (-4, -2), }", b"x" * 64),
        "code.npy": header(
            "{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': (4, 2), }"
        ),
        "deep.npy": header("(" * 100),
        "objects.npy": write_npy(folder / "y.npy", np.array([[None, {}]], dtype=object)).read_bytes(),
        "records.npy": write_npy(folder / "y.npy", np.zeros((40, 2), dtype=[("a", "f8")])).read_bytes(),
        "complex.npy": write_npy(folder / "y.npy", np.zeros((40, 2), dtype=complex)).read_bytes(),
        "one_row.npy": write_npy(folder / "y.npy", np.zeros(40)).read_bytes(),
        "no_frames.npy": write_npy(folder / "y.npy", np.zeros((40, 0))).read_bytes(),
        "nan.npy": write_npy(folder / "y.npy", nan).read_bytes(),
        "too_large.npy": write_npy(folder / "y.npy", MEL * 1e300).read_bytes(),
        "strange_size.npy": write_npy(folder / "y.npy", np.zeros((37, 200))).read_bytes(),
        "cut.pickle": pickle.dumps({"LogMel_Features": MEL})[:-300],
        "no_mel.pickle": pickle.dumps({"spkid": "id1", "length": 5}),
        "two_mels.pickle": pickle.dumps({"a": MEL, "b": MEL}),
        "text_as_mel.pickle": pickle.dumps({"LogMel_Features": "soon"}),
        "list.pickle": pickle.dumps([1, 2]),
        "command.pickle": b"cos\nsystem\n(Vtrue\ntR.",
        "wav.wav": b"RIFF",
    }


def test_each_broken_file_is_told_in_one_line_that_names_it(tmp_path):
    for name, content in broken_files(tmp_path).items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            read_mel(path)
        message = str(caught.value)
        assert message.startswith(str(path)), message
        assert "\n" not in message
    with pytest.raises(UserError, match="No such file"):
        read_mel(tmp_path / "none.npy")


def test_keys_are_found_and_named(tmp_path):
    assert load_array(write_pickle(tmp_path / "a.pickle", {"mel": MEL, "n": np.zeros(3)}))[1] == "mel"
    assert load_array(write_pickle(tmp_path / "b.pickle", {"LogMel_Features": MEL}))[1] == "LogMel_Features"
    with pytest.raises(UserError, match=r"2 other spectrograms among its keys \('a', 'b'\)"):
        load_array(write_pickle(tmp_path / "c.pickle", {"a": MEL, "b": MEL}))


def test_survey_measures_what_numpy_measures_and_says_it(tmp_path):
    mels = [RNG.normal(10, 2, (40, 100 + 30 * k)) for k in range(5)]
    files = [write_npy(tmp_path / f"{k}.npy", mel.T if k < 2 else mel) for k, mel in enumerate(mels)]
    files.append(write_pickle(tmp_path / "z.pickle", {"feat": mels[0]}))
    (tmp_path / "bad.npy").write_bytes(b"bad")
    found = survey([*files, tmp_path / "bad.npy"])
    values = np.concatenate([mel.ravel() for mel in (*mels, mels[0])])
    assert found.mean == pytest.approx(values.mean(), rel=1e-6)
    assert found.std == pytest.approx(values.std(), rel=1e-6)
    assert (found.num_mels, found.num_files, found.num_time_first) == (40, 6, 2)
    assert found.keys == {"feat": 1}
    text = "\n".join(found.lines())
    for words in (
        "40 bands",
        "(T, mels) in 2",
        "'feat' (1 files)",
        "1 sampled files cannot be read",
        "bad.npy",
    ):
        assert words in text


def test_survey_finds_an_unusual_number_of_mels_by_what_the_files_share(tmp_path):
    files = [write_npy(tmp_path / f"{k}.npy", np.ones((37, 100 + k))) for k in range(3)]
    assert survey(files).num_mels == 37
    assert survey(files).std == 1.0  # silence all over
    with pytest.raises(UserError, match="is ambiguous; give --num_mels"):
        survey(files[:1])
    assert survey(files[:1], 37).num_mels == 37


def test_survey_names_keys_that_are_no_texts_among_others(tmp_path):
    files = [write_pickle(tmp_path / f"{n}.pickle", {key: MEL}) for n, key in enumerate(("mel", b"mel", 7))]
    assert survey(files).keys == {"mel": 1, "b'mel'": 1, "7": 1}
    assert "'7' (1 files)" in survey(files).lines()[1]


def test_survey_of_broken_files_only_tells_the_first_reason(tmp_path):
    (tmp_path / "bad.npy").write_bytes(b"bad")
    with pytest.raises(UserError, match=r"bad\.npy"):
        survey([tmp_path / "bad.npy"])


@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("num_frames", [1, 50, 173, 174, 400])
def test_crop_is_a_stretch_of_the_repeated_spectrogram(place, num_frames):
    cut = crop(MEL.astype(np.float32), num_frames, place)
    assert cut.shape == (40, num_frames)
    length = MEL.shape[1]
    start = int(place * (length - num_frames + 1 if num_frames <= length else length))
    for frame in range(num_frames):  # the slow way
        np.testing.assert_array_equal(cut[:, frame], MEL[:, (start + frame) % length].astype(np.float32))
    if num_frames <= length:
        assert start + num_frames <= length
