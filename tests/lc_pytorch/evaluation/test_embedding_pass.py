"""Embedding files: each once, the same for any batch, workers and processes, and from the cache."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gloo_processes import run_ranks
from tiny_trained_model import DURATION_S, IMAGE_SIZE_PX, RATE_HZ, make_tiny_model, write_people
from torch import Tensor, nn

from facevox.errors import UserError
from facevox.signals import StopFlag
from facevox.training.distributed import World
from lc_pytorch.datasets.face_voice import FaceVoiceDataset
from lc_pytorch.datasets.pairs import FilePair
from lc_pytorch.datasets.transforms import ImageTransform
from lc_pytorch.evaluation.embedding_pass import (
    PassOptions,
    Stopped,
    embed_files,
    require_writable,
    weights_hash,
)
from lc_pytorch.evaluation.readers import FaceReader, MediaFiles, VoiceReader, media_of_pairs

CPU = torch.device("cpu")
PEOPLE = ["Anna B.", "김민수", "it's", "-dash"]


def readers() -> tuple[FaceReader, VoiceReader]:
    return FaceReader(ImageTransform(image_size=IMAGE_SIZE_PX)), VoiceReader(DURATION_S, RATE_HZ)


def make_pairs(folder: Path, clips: int = 3) -> list[FilePair]:
    faces, voices = write_people(folder, PEOPLE, clips)
    # Every face of a person with every voice of theirs: a voice stands in `clips` pairs.
    return [
        FilePair(faces / person / f"{face}.png", voices / person / f"{voice}.wav", person)
        for person in PEOPLE
        for face in range(clips)
        for voice in range(clips)
    ]


@pytest.fixture
def pairs(tmp_path: Path) -> list[FilePair]:
    return make_pairs(tmp_path)


def media_of(pairs: list[FilePair]) -> tuple[MediaFiles, MediaFiles]:
    return media_of_pairs(pairs, *readers())


def one_by_one(pairs: list[FilePair], kind: str) -> dict[Path, Tensor]:
    """The oracle: items of the data set, each alone through the model."""
    model = make_tiny_model()
    dataset = FaceVoiceDataset(
        pairs,
        image_transform=ImageTransform(image_size=IMAGE_SIZE_PX),
        audio_duration_sec=DURATION_S,
        target_sr=RATE_HZ,
    )
    found: dict[Path, Tensor] = {}
    with torch.inference_mode():
        for index, pair in enumerate(pairs):
            if kind == "face" and pair.face not in found:
                found[pair.face] = model.embed_faces(dataset.load(index, None)["face"][None])[0]
            elif kind == "voice" and pair.voice not in found:
                found[pair.voice] = model.embed_voices(dataset.load(index, None)["voice"][None])[0]
    return found


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (7, 0), (7, 2)])
def test_embeddings_are_those_of_items_alone_and_each_file_comes_once(
    pairs: list[FilePair], batch_size: int, num_workers: int
) -> None:
    model = make_tiny_model()
    options = PassOptions(batch_size=batch_size, num_workers=num_workers)
    for media in media_of(pairs):
        assert len(media.files) == len(set(media.files)) == 12
        found = embed_files(model, media, options, CPU)
        wanted = one_by_one(pairs, media.kind)
        np.testing.assert_array_equal(found.rows, np.arange(12))
        assert found.failures == []
        for file, vector in zip(media.files, found.vectors, strict=True):
            np.testing.assert_allclose(vector, wanted[file].numpy(), atol=1e-5)


def test_bad_files_are_left_out_with_their_reasons(pairs: list[FilePair]) -> None:
    faces, voices = media_of(pairs)
    faces.files[1].write_bytes(b"")
    faces.files[4].write_text("no picture", encoding="utf-8")
    faces.files[7].unlink()
    voices.files[0].write_bytes(b"RIFF....WAVE")
    found = [embed_files(make_tiny_model(), m, PassOptions(batch_size=5), CPU) for m in (faces, voices)]
    assert found[0].rows.tolist() == [0, 2, 3, 5, 6, 8, 9, 10, 11]
    assert [file for file, _ in found[0].failures] == [faces.files[row] for row in (1, 4, 7)]
    for (_, reason), wanted in zip(
        found[0].failures, ("0 bytes", "not a picture", "No such file"), strict=True
    ):
        assert wanted in reason
    assert found[1].rows.tolist() == list(range(1, 12))
    assert len(found[1].failures) == 1


def test_second_run_takes_all_from_the_cache_and_a_changed_file_is_done_again(
    pairs: list[FilePair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media, _ = media_of(pairs)
    options = PassOptions(cache_dir=tmp_path / "cache")
    model = make_tiny_model()
    first = embed_files(model, media, options, CPU)
    calls: list[int] = []
    embed = model.embed_faces
    monkeypatch.setattr(model, "embed_faces", lambda faces: calls.append(len(faces)) or embed(faces))
    second = embed_files(model, media, options, CPU)
    assert (first.num_cached, second.num_cached, calls) == (0, 12, [])
    np.testing.assert_array_equal(first.vectors, second.vectors)
    media.files[3].write_bytes(media.files[0].read_bytes())
    os.utime(media.files[3], (1, 1))
    third = embed_files(model, media, options, CPU)
    assert (third.num_cached, calls) == (11, [1])
    np.testing.assert_allclose(third.vectors[3], third.vectors[0], atol=1e-5)
    np.testing.assert_array_equal(third.vectors[4:], first.vectors[4:])


def test_cache_is_not_shared_between_weights_settings_and_precisions(
    pairs: list[FilePair], tmp_path: Path
) -> None:
    media, _ = media_of(pairs)
    model, cache = make_tiny_model(), tmp_path / "cache"
    first = embed_files(model, media, PassOptions(cache_dir=cache), CPU)
    coarse = embed_files(model, media, PassOptions(cache_dir=cache, precision="bf16"), CPU)
    assert coarse.num_cached == 0
    np.testing.assert_allclose(coarse.vectors, first.vectors, atol=0.05)
    assert not np.array_equal(coarse.vectors, first.vectors)
    other = ImageTransform(image_size=IMAGE_SIZE_PX, image_mean=(0.4, 0.5, 0.5))
    brighter = media_of_pairs(pairs, FaceReader(other), readers()[1])[0]
    assert embed_files(model, brighter, PassOptions(cache_dir=cache), CPU).num_cached == 0
    before = weights_hash(model)
    with torch.no_grad():
        next(model.face_projection.parameters())[0, 0] += 1
    assert weights_hash(model) != before
    assert embed_files(model, media, PassOptions(cache_dir=cache), CPU).num_cached == 0


class Means(nn.Module):
    """Faces by the mean colours of their quarters: without weights, so that processes start fast."""

    def embed_faces(self, faces: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(faces, IMAGE_SIZE_PX // 2).flatten(1)


def embed_on_rank(world: World, folder: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Twice on each process of a group; plain values, for the test's own process."""
    media, _ = media_of(pairs_below(Path(folder)))
    found = [embed_files(Means(), media, PassOptions(**options), CPU) for _ in range(2)]
    return [
        {
            "rows": torch.from_numpy(one.rows),
            "vectors": torch.from_numpy(one.vectors),
            "failures": [(str(file), reason) for file, reason in one.failures],
            "num_cached": one.num_cached,
        }
        for one in found
    ]


def pairs_below(folder: Path) -> list[FilePair]:
    return [
        FilePair(face, folder / "voices" / face.parent.name / f"{face.stem}.wav", face.parent.name)
        for face in sorted((folder / "faces").rglob("*.png"))
    ]


def test_two_processes_give_what_one_gives_with_a_bad_file_and_a_half_full_cache(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_people(data, PEOPLE, clips=3)
    pairs = pairs_below(data)[:11]  # an odd number: the processes get shares of different sizes
    pairs_below(data)[11].face.unlink()
    pairs[5].face.write_bytes(b"broken")
    cache = tmp_path / "cache"
    media, _ = media_of(pairs)
    alone = embed_files(Means(), media, PassOptions(batch_size=2), CPU)
    assert len(alone.rows) == 10
    part = MediaFiles("face", media.files[:3], media.identities[:3], media.load, media.settings)
    embed_files(Means(), part, PassOptions(cache_dir=cache), CPU)
    ranks = run_ranks(embed_on_rank, 2, tmp_path, str(data), {"batch_size": 2, "cache_dir": cache})
    for rounds in ranks:
        for found, num_cached in zip(rounds, (3, 10), strict=True):
            assert found["rows"].tolist() == alone.rows.tolist()
            np.testing.assert_allclose(found["vectors"].numpy(), alone.vectors, atol=1e-5)
            assert found["failures"] == [(str(file), reason) for file, reason in alone.failures]
            assert found["num_cached"] == num_cached


def test_stop_flag_ends_the_pass_and_the_next_run_goes_on(
    pairs: list[FilePair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media, _ = media_of(pairs)
    options = PassOptions(batch_size=5, cache_dir=tmp_path / "cache")
    model, stop = make_tiny_model(), StopFlag()
    embed = model.embed_faces

    def embed_and_raise_flag(faces: Tensor) -> Tensor:
        stop.signal_name = "SIGTERM"
        return embed(faces)

    monkeypatch.setattr(model, "embed_faces", embed_and_raise_flag)
    with pytest.raises(Stopped):
        embed_files(model, media, options, CPU, stop)
    assert embed_files(model, media, options, CPU).num_cached == 5


class Odd(nn.Module):
    """Faces by their mean colour; NaN for white ones. Mels by their mean over time, of any length."""

    def embed_faces(self, faces: Tensor) -> Tensor:
        mean = faces.mean(dim=(2, 3))
        return torch.where((mean > 0.99).all(dim=1, keepdim=True), torch.nan, mean)

    def embed_voices(self, mels: Tensor) -> Tensor:
        return mels.mean(dim=2)


def test_embedding_that_is_not_finite_is_a_failure_of_its_file(tmp_path: Path) -> None:
    faces, _ = write_people(tmp_path, ["a", "b"], clips=1)
    from facevox.files import write_image

    write_image(faces / "a" / "0.png", np.full((8, 8, 3), 255, np.uint8))
    files = sorted(faces.rglob("*.png"))
    media = MediaFiles("face", files, ["a", "b"], readers()[0], {})
    found = embed_files(Odd(), media, PassOptions(cache_dir=tmp_path / "cache"), CPU)
    assert found.rows.tolist() == [1]
    assert found.failures == [(files[0], "the model gives no finite embedding")]


def test_spectrograms_of_several_lengths_are_embedded_without_padding(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    mels = [random.standard_normal((4, length)).astype(np.float32) for length in (5, 9, 5, 7, 9, 5)]
    for number, mel in enumerate(mels):
        np.save(tmp_path / f"{number}.npy", mel)
    files = sorted(tmp_path.glob("*.npy"))
    media = MediaFiles("mel", files, ["x"] * 6, lambda file: torch.from_numpy(np.load(file)), {})
    found = embed_files(Odd(), media, PassOptions(batch_size=4), CPU)
    means = np.stack([mel.mean(axis=1) for mel in mels])
    np.testing.assert_allclose(found.vectors, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-6)


def test_options_out_of_range_are_all_named() -> None:
    with pytest.raises(UserError, match=r"--batch_size: 0 .*--num_workers: -1 .*--precision: 'fp8'"):
        PassOptions(batch_size=0, num_workers=-1, precision="fp8")


def test_file_of_two_people_is_refused(pairs: list[FilePair]) -> None:
    twice = FilePair(pairs[0].face, pairs[0].voice, "somebody else")
    with pytest.raises(UserError, match="is listed with two people"):
        media_of([*pairs, twice])


def test_output_that_cannot_be_written_is_seen_beforehand(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    require_writable(tmp_path / "new" / "folder" / "results.csv", "--output_file")
    require_writable(file, "--output_file")
    for bad in (tmp_path, file / "results.csv"):
        with pytest.raises(UserError, match="--output_file"):
            require_writable(bad, "--output_file")


def test_a_cache_that_cannot_be_written_is_done_without_and_said_once(
    pairs: list[FilePair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    faces, voices = media_of(pairs)
    model, folder = make_tiny_model(), tmp_path / "model"
    options = PassOptions(cache_dir=folder / "embeddings")
    kept = embed_files(model, faces, PassOptions(cache_dir=tmp_path / "its name before" / "embeddings"), CPU)
    (tmp_path / "its name before").rename(folder)
    # Root may write everywhere but on a read-only disk, where access(2) answers as here.
    monkeypatch.setattr(
        os, "access", lambda path, mode: not (mode & os.W_OK and folder in Path(path, "x").parents)
    )
    assert embed_files(model, faces, options, CPU).num_cached == len(kept.rows)  # what is there is read
    assert not logged.messages
    for _ in range(2):
        fresh = embed_files(model, voices, options, CPU)
        assert (len(fresh.rows), fresh.num_cached, fresh.failures) == (12, 0, [])
    assert len(list(folder.rglob("vectors-*"))) == 1
    assert len(logged.messages) == 1
    assert f"nothing can be written into {options.cache_dir}" in logged.text
    assert "--cache_dir" in logged.text
