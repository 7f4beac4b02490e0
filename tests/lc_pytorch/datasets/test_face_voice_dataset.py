"""Items of faces with voices: exact crops, any rate and container, bad files, the same in any process."""

import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from PIL import Image
from torch.utils.data import DataLoader

from facevox.errors import UserError
from facevox.files import write_image
from facevox.media import write_video, write_wav
from lc_pytorch.datasets import FaceVoiceDataset, FilePair, create_data_transforms
from lc_pytorch.datasets.base import MAX_ATTEMPTS, item_generator
from lc_pytorch.datasets.face_voice import read_voice
from lc_pytorch.datasets.transforms import ImageTransform

RATE = 16000
AWKWARD = ("a b", 'a "quote"', "it's", "한국어", "줄\n바꿈", "-dash", "bytes\udcff")


def sound(num: int, seed: int = 0) -> np.ndarray:
    """Low-passed noise: no two stretches of it are alike, and resampling keeps it."""
    noise = np.random.default_rng(seed).standard_normal(num + 64)
    smooth = np.convolve(noise, np.hanning(32) / 16, "same")[32 : num + 32]
    return (0.1 * smooth).astype(np.float32)


def face(path: Path, seed: int = 0) -> Path:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((70, 80), Image.Resampling.BICUBIC)
    write_image(path, np.asarray(image))
    return path


def voice(path: Path, num: int = 3 * RATE, seed: int = 0) -> Path:
    soundfile.write(path.as_posix(), sound(num, seed), RATE, subtype="FLOAT")
    return path


def dataset(pairs: list, duration_s: float = 1.0, **options) -> FaceVoiceDataset:
    options.setdefault("image_transform", ImageTransform(image_size=32))
    options.setdefault("processor", create_data_transforms()[1])
    return FaceVoiceDataset(pairs, audio_duration_sec=duration_s, **options)


def middle(num: int) -> Callable[[int], int]:
    return lambda total: max(total - num, 0) // 2


def test_items_are_what_both_processors_of_transformers_give(tmp_path: Path) -> None:
    from transformers import ViTImageProcessorPil, Wav2Vec2FeatureExtractor

    processor = Wav2Vec2FeatureExtractor(do_normalize=True)
    items = FaceVoiceDataset(
        [(face(tmp_path / "f.jpg"), voice(tmp_path / "v.wav"))], processor, audio_duration_sec=1
    )
    item = items[0]
    crop = sound(3 * RATE)[RATE : 2 * RATE]
    theirs = processor(crop, sampling_rate=RATE, return_tensors="np")["input_values"][0]
    assert np.array_equal(item["voice"].numpy(), theirs)
    assert item["voice"].dtype == torch.float32
    pixels = ViTImageProcessorPil()(Image.open(tmp_path / "f.jpg"), return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(item["face"], pixels, rtol=0, atol=2e-6)
    assert {name: item[name].item() for name in ("identity", "index", "used_index")} == {
        "identity": 0,
        "index": 0,
        "used_index": 0,
    }


def test_voices_without_normalisation_are_plain_samples(tmp_path: Path) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    items = dataset(
        [(face(tmp_path / "f.jpg"), voice(tmp_path / "v.wav"))],
        processor=Wav2Vec2FeatureExtractor(do_normalize=False),
    )
    assert np.array_equal(items[0]["voice"].numpy(), sound(3 * RATE)[RATE : 2 * RATE])


def test_training_crops_are_stretches_of_the_recording_spread_over_it(tmp_path: Path) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    whole = sound(3 * RATE)
    items = dataset(
        [(face(tmp_path / "f.jpg"), voice(tmp_path / "v.wav"))],
        processor=Wav2Vec2FeatureExtractor(do_normalize=False),
    )
    starts = []
    for epoch in range(40):
        crop = items[epoch, 0]["voice"].numpy()
        start = int(
            np.flatnonzero(
                np.isclose(whole, crop[0], atol=0) & np.isclose(np.roll(whole, -1), crop[1], atol=0)
            )[0]
        )
        assert np.array_equal(crop, whole[start : start + RATE])
        starts.append(start)
    assert min(starts) < 0.4 * RATE
    assert max(starts) > 1.6 * RATE


@pytest.mark.parametrize("num", [1, 1000, RATE - 1, RATE])
def test_short_voices_are_repeated_to_the_exact_length(tmp_path: Path, num: int) -> None:
    path = voice(tmp_path / "v.wav", num)
    whole = sound(num)
    expected = np.array([whole[k % num] for k in range(RATE)], np.float32)
    assert np.array_equal(read_voice(path, RATE, RATE, middle(RATE)), expected)
    rolled = np.array([whole[(k + num - 1) % num] for k in range(RATE)], np.float32)
    assert np.array_equal(read_voice(path, RATE, RATE, lambda total: total - 1), rolled)


@pytest.mark.parametrize("file_hz", [8000, 11025, 16001, 22050, 44100, 48000])
@pytest.mark.parametrize("where", ["start", "middle", "end"])
def test_resampled_crops_equal_those_of_the_resampled_whole(tmp_path: Path, file_hz: int, where: str) -> None:
    samples = sound(4 * file_hz)
    path = tmp_path / "v.wav"
    soundfile.write(path.as_posix(), samples, file_hz, subtype="FLOAT")
    whole = soxr.resample(samples, file_hz, RATE)
    start = {"start": 0, "middle": 23457, "end": 4 * RATE - 12000}[where]
    crop = read_voice(path, 12000, RATE, lambda total: start)
    assert crop.shape == (12000,)
    assert np.abs(crop - whole[start : start + 12000]).max() < 1e-4 * np.abs(whole).max()


def test_channels_are_averaged_and_every_sample_format_read(tmp_path: Path) -> None:
    left, right = sound(RATE, 1), sound(RATE, 2)
    for subtype, tolerance in (
        ("FLOAT", 1e-7),
        ("DOUBLE", 1e-7),
        ("PCM_16", 1e-4),
        ("PCM_24", 1e-6),
        ("PCM_U8", 1e-2),
    ):
        path = tmp_path / f"{subtype}.wav"
        soundfile.write(path.as_posix(), np.stack([left, right], axis=1), RATE, subtype=subtype)
        crop = read_voice(path, 500, RATE, lambda total: 700)
        assert np.abs(crop - (left + right)[700:1200] / 2).max() < tolerance


@pytest.mark.parametrize("suffix", [".flac", ".ogg"])
def test_seeking_in_compressed_files_finds_the_sample(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"v{suffix}"
    soundfile.write(path.as_posix(), sound(3 * RATE), RATE)
    whole, _ = soundfile.read(path.as_posix(), dtype="float32")
    for start in (0, 12345, 2 * RATE):
        assert np.array_equal(
            read_voice(path, RATE, RATE, lambda total, s=start: s), whole[start : start + RATE]
        )


def test_voices_inside_other_containers_are_read(tmp_path: Path) -> None:
    samples = sound(3 * RATE)
    soundfile.write((tmp_path / "v.mp3").as_posix(), samples, RATE)
    write_video(tmp_path / "v.mp4", [np.zeros((32, 32, 3), np.uint8)] * 75, 25, samples, RATE)
    (tmp_path / "v.m4a").write_bytes((tmp_path / "v.mp4").read_bytes())
    for suffix in (".mp3", ".mp4", ".m4a"):
        crop = read_voice(tmp_path / f"v{suffix}", RATE, RATE, lambda total: RATE)
        assert crop.shape == (RATE,)
        # Lossy, and mp3 is led by its encoder's delay: the best lag within 100 ms, and its likeness.
        lags = range(-1600, 1601)
        likeness = [
            float(np.corrcoef(crop[2000:6000], samples[RATE + 2000 + lag : RATE + 6000 + lag])[0, 1])
            for lag in lags
        ]
        assert max(likeness) > 0.95
        long = read_voice(tmp_path / f"v{suffix}", 10 * RATE, RATE, lambda total: 0)
        assert long.shape == (10 * RATE,)


def test_nan_in_a_float_file_does_not_spread(tmp_path: Path) -> None:
    samples = sound(RATE)
    samples[100] = np.nan
    soundfile.write((tmp_path / "v.wav").as_posix(), samples, RATE, subtype="FLOAT")
    crop = read_voice(tmp_path / "v.wav", RATE, RATE, middle(RATE))
    assert np.isfinite(crop).all()
    assert crop[100] == 0


def bad_voices(folder: Path) -> dict[str, str]:
    """File name → what the error says."""
    write_wav(folder / "none.wav", np.zeros(0, np.float32), RATE)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "empty.mp3").write_bytes(b"")
    (folder / "text.wav").write_text("no sound", encoding="utf-8")
    (folder / "text.mp3").write_text("no sound", encoding="utf-8")
    write_wav(folder / "rate.wav", sound(100), RATE)
    header = bytearray((folder / "rate.wav").read_bytes())
    struct.pack_into("<I", header, 24, 2_000_000_000)
    (folder / "rate.wav").write_bytes(bytes(header))
    soundfile.write((folder / "cut.flac").as_posix(), sound(3 * RATE), RATE)
    whole = (folder / "cut.flac").read_bytes()
    (folder / "cut.flac").write_bytes(whole[: len(whole) // 3])
    (folder / "folder.wav").mkdir()
    return {
        "none.wav": r"holds no sound \(0 samples\)",
        "empty.wav": r"empty \(0 bytes\)",
        "empty.mp3": r"empty \(0 bytes\)",
        "text.wav": "a text",
        "text.mp3": "not a readable media file",
        "rate.wav": "a rate of 2000000000 Hz",
        "cut.flac": "breaks off|not a readable sound file",
        "folder.wav": "folder.wav: ",
        "missing.wav": "no such file",
        "missing.mp3": "No such file",
        "n" * 300 + ".wav": "File name too long",
    }


def bad_faces(folder: Path) -> dict[str, str]:
    whole = face(folder / "whole.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no picture", encoding="utf-8")
    (folder / "folder.jpg").mkdir()
    return {
        "cut.jpg": "broken picture",
        "empty.jpg": r"empty \(0 bytes\)",
        "text.jpg": "not a picture",
        "folder.jpg": "Is a directory",
        "missing.jpg": "no such file",
    }


def test_each_bad_file_gives_one_line_that_names_it(tmp_path: Path) -> None:
    good_face, good_voice = face(tmp_path / "good.jpg"), voice(tmp_path / "good.wav")
    pairs = [((good_face, tmp_path / name), reason) for name, reason in bad_voices(tmp_path).items()]
    pairs += [((tmp_path / name, good_voice), reason) for name, reason in bad_faces(tmp_path).items()]
    items = dataset([pair for pair, _ in pairs])
    for index, (pair, reason) in enumerate(pairs):
        bad = next(path for path in pair if not path.name.startswith("good"))
        with pytest.raises(UserError, match=reason) as caught:
            items[index]
        assert "\n" not in str(caught.value)
        assert bad.name[:200] in str(caught.value)
        assert items.describe(index) == f"{pair[0]} with {pair[1]}"


def test_odd_but_good_pictures_load(tmp_path: Path) -> None:
    image = Image.open(face(tmp_path / "f.png"))
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.convert("L").save(tmp_path / "grey.jpg")
    Image.fromarray(np.full((40, 30), 30000, np.uint16)).save(tmp_path / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees for showing
    image.save(tmp_path / "turned.png", exif=exif)
    names = ["cmyk.jpg", "grey.jpg", "deep.png", "turned.png"]
    items = dataset([(tmp_path / name, voice(tmp_path / "v.wav")) for name in names])
    faces = [items[index]["face"] for index in range(4)]
    assert all(tensor.shape == (3, 32, 32) and tensor.std() < 1 for tensor in faces)
    assert torch.equal(faces[1][0], faces[1][1])
    assert faces[2].unique().item() == pytest.approx(2 * round(30000 / 257) / 255 - 1, abs=1e-6)
    upright = ImageTransform(image_size=32)(image.rotate(-90, expand=True))
    torch.testing.assert_close(faces[3], upright, rtol=0, atol=1e-6)


def test_awkward_names_are_read(tmp_path: Path) -> None:
    pairs = [(face(tmp_path / f"{name}.jpg"), tmp_path / f"{name}.wav") for name in AWKWARD]
    for _, path in pairs:
        write_wav(path, sound(RATE), RATE)
    items = dataset(pairs, 0.1)
    assert [items.pair(index).voice for index in range(len(items))] == [path for _, path in pairs]
    assert all(item["voice"].shape == (1600,) for item in items)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> FaceVoiceDataset:
    """Twelve pairs of six people; the faces of two pairs and the voice of a third are bad."""
    folder = tmp_path_factory.mktemp("mixed")
    pairs = []
    for number in range(12):
        picture, recording = folder / f"{number}.jpg", folder / f"{number}.wav"
        face(picture, number)
        voice(recording, RATE // 2 + 4000 * number, number)
        pairs.append(FilePair(picture, recording, f"id{number % 6}"))
    (folder / "2.jpg").write_bytes(b"")
    (folder / "7.jpg").unlink()
    (folder / "9.wav").write_text("no sound", encoding="utf-8")
    return dataset(pairs, 1.0, seed=5)


def epoch_of(items: FaceVoiceDataset, epoch: int, num_workers: int) -> list[dict[str, torch.Tensor]]:
    keys = [(epoch, index) for index in range(len(items))]
    return list(DataLoader(items, batch_size=4, sampler=keys, num_workers=num_workers))


def test_workers_do_not_change_the_items(mixed: FaceVoiceDataset) -> None:
    alone, shared = epoch_of(mixed, 3, 0), epoch_of(mixed, 3, 2)
    assert len(alone) == len(shared) == 3
    for ours, theirs in zip(alone, shared, strict=True):
        assert ours.keys() == theirs.keys() == {"face", "voice", "identity", "index", "used_index", "epoch"}
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_bad_items_are_replaced_by_good_ones_of_their_draw(mixed: FaceVoiceDataset) -> None:
    used = {}
    for epoch in range(8):
        batch = {
            name: torch.cat([part[name] for part in epoch_of(mixed, epoch, 0)])
            for name in ("index", "used_index", "identity")
        }
        assert batch["index"].tolist() == list(range(12))
        replaced = batch["index"] != batch["used_index"]
        assert batch["index"][replaced].tolist() == [2, 7, 9]
        assert not set(batch["used_index"].tolist()) & {2, 7, 9}
        assert batch["identity"].tolist() == [index % 6 for index in batch["used_index"].tolist()]
        used[epoch] = batch["used_index"][replaced].tolist()
        item = mixed[epoch, 2]
        same = mixed.load(int(item["used_index"]), epoch)
        assert torch.equal(item["face"], same["face"])
        assert torch.equal(item["voice"], same["voice"])
    assert len(set(map(tuple, used.values()))) > 1
    with pytest.raises(UserError, match="0 bytes"):
        mixed[2]


def test_items_change_with_epoch_seed_and_place_only(mixed: FaceVoiceDataset) -> None:
    other = dataset([mixed.pair(index) for index in range(12)], 1.0, seed=6)
    first = mixed[0, 4]
    for again, is_same in ((mixed[0, 4], True), (mixed[1, 4], False), (other[0, 4], False)):
        assert torch.equal(first["face"], again["face"]) == is_same
        assert torch.equal(first["voice"], again["voice"]) == is_same
    assert torch.equal(mixed[4]["voice"], other[4]["voice"])


def test_only_bad_files_end_the_training(tmp_path: Path) -> None:
    items = dataset([(tmp_path / f"{number}.jpg", tmp_path / "v.wav") for number in range(3)])
    with pytest.raises(UserError, match=rf"item 1 .*1\.jpg with .* and {MAX_ATTEMPTS} others.*no such file"):
        items[0, 1]


def test_set_travels_to_spawned_workers_without_the_processor(mixed: FaceVoiceDataset) -> None:
    data = pickle.dumps(mixed)
    assert b"transformers" not in data
    assert torch.equal(pickle.loads(data)[0, 4]["voice"], mixed[0, 4]["voice"])


def test_item_randomness_differs_in_every_part_of_its_key() -> None:
    keys = [(0, 0, 0, "face"), (1, 0, 0, "face"), (0, 1, 0, "face"), (0, 0, 1, "face"), (0, 0, 0, "voice")]
    draws = [item_generator(*key).integers(2**60) for key in keys]
    draws.append(item_generator(0, 0, 0, "face", 1).integers(2**60))
    assert len(set(draws)) == 6
    assert item_generator(0, 0, 0, "face").integers(2**60) == draws[0]


def test_identities_come_from_pairs_paths_or_the_caller(tmp_path: Path) -> None:
    paths = [("x/id2/faces/1/f.jpg", "v.wav"), ("anna B.jpg", "v.wav"), ("f.jpg", "ID2/voices/v.wav")]
    items = dataset(paths)
    assert items.identities == ["id2", "anna_b", "id2"]
    assert items.identity_names == ["anna_b", "id2"]
    assert items.identity_numbers.tolist() == [1, 0, 1]
    assert dataset(paths, identities=["a", "B", " b"]).identities == ["a", "b", "b"]
    with pytest.raises(UserError, match="2 identities for 3 pairs"):
        dataset(paths, identities=["a", "b"])


def test_options_that_do_not_fit_the_voice_model_are_refused() -> None:
    for options, reason in (
        ({"target_sr": 8000}, "--target_sr 8000: the voice model takes sound of 16000 Hz"),
        ({"duration_s": 0.0}, "--audio_duration_sec 0"),
        ({"duration_s": float("nan")}, "--audio_duration_sec nan"),
        ({"seed": -1}, "--seed -1"),
        ({"processor": object()}, "a Wav2Vec2FeatureExtractor .* not object"),
    ):
        with pytest.raises(UserError, match=reason):
            dataset([("f.jpg", "v.wav")], **options)


def test_numbers_outside_of_the_set_are_index_errors(mixed: FaceVoiceDataset) -> None:
    assert torch.equal(mixed[-1]["voice"], mixed[11]["voice"])
    for key in (12, -13, (0, 12)):
        with pytest.raises(IndexError):
            mixed[key]


@pytest.mark.real_data
def test_real_recordings_of_every_kind_are_read(real_data_dir: Path) -> None:
    files = sorted(
        p
        for p in (real_data_dir / "voices").rglob("*")
        if p.suffix.lower() in (".wav", ".flac", ".mp3", ".m4a", ".ogg")
    )
    assert files
    for path in files:
        crop = read_voice(path, RATE, RATE, middle(RATE))
        assert crop.shape == (RATE,)
        assert np.isfinite(crop).all()
