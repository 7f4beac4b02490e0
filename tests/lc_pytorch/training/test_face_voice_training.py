"""Face-voice training: who is learnt from, what is kept for a resumption, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import DURATION_S, RATE_HZ, assert_same, copy_of, write_encoders, write_people

from facevox.errors import UserError
from facevox.training.checkpoint import load_checkpoint
from facevox.training.distributed import World
from facevox.training.run_folder import run_folder
from facevox.training.trainer import DONE, TrainingResult
from lc_pytorch.datasets.face_voice import FaceVoiceDataset
from lc_pytorch.datasets.pairs import PairList, list_matched_pairs
from lc_pytorch.datasets.splits import load_split
from lc_pytorch.models import load_model
from lc_pytorch.training import face_voice as face_voice_training
from lc_pytorch.training import run as training_run
from lc_pytorch.training.face_voice import FaceVoiceConfig, train_face_voice
from lc_pytorch.training.task import ContrastiveTask

pytestmark = pytest.mark.usefixtures("one_thread")
ONE = World(device=torch.device("cpu"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small set")
    write_encoders(folder)
    write_people(folder / "data", 10)
    return folder


@pytest.fixture
def pairs(base: Path) -> PairList:
    return list_matched_pairs([base / "data" / "pairs.txt"])


def train(base: Path, pairs: PairList, save_dir: Path, **changes: Any) -> TrainingResult:
    options: dict[str, Any] = {
        "embedding_dim": 8,
        "face_model": str(base / "vit"),
        "voice_model": str(base / "wav2vec2"),
        "audio_duration_sec": DURATION_S,
        "target_sr": RATE_HZ,
        "batch_size": 4,
        "num_epochs": 2,
        "test_size": 0.2,
        "val_size": 0.2,
    } | changes
    with run_folder(save_dir):
        return train_face_voice(pairs, FaceVoiceConfig(save_dir=save_dir, **options), ONE)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | None]]:
    """(person, epoch) of all that was loaded for training."""
    seen: list[tuple[str, int | None]] = []
    plain = FaceVoiceDataset.load

    def load(self: FaceVoiceDataset, index: int, epoch: int | None) -> dict[str, torch.Tensor]:
        seen.append((self.pair(index).face.parts[-3], epoch))
        return plain(self, index, epoch)

    monkeypatch.setattr(FaceVoiceDataset, "load", load)
    return seen


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The people on whom the best model is chosen."""
    seen: set[str] = set()
    plain = face_voice_training.media_of_pairs

    def media(pairs: Any, *readers: Any) -> Any:
        seen.update(pair.face.parts[-3] for pair in pairs)
        return plain(pairs, *readers)

    monkeypatch.setattr(face_voice_training, "media_of_pairs", media)
    return seen


def test_nobody_is_in_two_parts_and_test_people_are_never_looked_at(
    base: Path, pairs: PairList, tmp_path: Path, loaded: list, embedded: set
) -> None:
    train(base, pairs, tmp_path, num_epochs=4)
    split = json.loads((tmp_path / "split.json").read_text(encoding="utf-8"))
    train_people, val, test = (set(split[name]) for name in ("train", "val", "test"))
    assert (len(train_people), len(val), len(test)) == (6, 2, 2)
    assert train_people | val | test == {f"p{number:02}" for number in range(10)}
    assert {person for person, _ in loaded} == train_people
    assert {epoch for _, epoch in loaded} == {0, 1, 2, 3}
    assert embedded == val


def test_the_split_stays_when_a_run_goes_on(base: Path, pairs: PairList, tmp_path: Path) -> None:
    train(base, pairs, tmp_path, num_epochs=1)
    before = (tmp_path / "split.json").read_bytes()
    result = train(base, pairs, tmp_path, num_epochs=3)
    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    assert (tmp_path / "split.json").read_bytes() == before
    for changes in ({"test_size": 0.4}, {"seed": 1}):
        with pytest.raises(UserError, match=r"split\.json: does not fit this run"):
            train(base, pairs, tmp_path, num_epochs=3, **changes)
    assert (tmp_path / "split.json").read_bytes() == before
    train(base, pairs, tmp_path, num_epochs=1, seed=1, resume="never")
    assert load_split(tmp_path / "split.json").seed == 1


def test_a_split_by_hand_is_kept_to_and_one_that_leaks_is_refused(
    base: Path, pairs: PairList, tmp_path: Path, loaded: list
) -> None:
    names = [f"p{number:02}" for number in range(10)]
    split = {"format": 1, "train": names[5:], "val": names[3:5], "test": names[:3]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    train(base, pairs, tmp_path, num_epochs=1)
    assert {person for person, _ in loaded} == set(names[5:])
    leaking = tmp_path / "leaking"
    leaking.mkdir()
    (leaking / "split.json").write_text(json.dumps(split | {"test": names[:6]}))
    with pytest.raises(UserError, match=r"1 identity are in two parts|'p05'"):
        train(base, pairs, leaking)


def test_other_pairs_of_the_same_people_are_not_gone_on_with(
    base: Path, pairs: PairList, tmp_path: Path
) -> None:
    train(base, pairs, tmp_path, num_epochs=1)
    fewer = PairList(pairs=pairs.pairs[::2], spellings=pairs.spellings, rule=pairs.rule)
    with pytest.raises(UserError, match=r"other settings .*pairs '20 pairs \(.*→ '10 pairs"):
        train(base, fewer, tmp_path, num_epochs=2)


def test_the_finished_folder_holds_a_model_of_its_best_epoch(
    base: Path, pairs: PairList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_epoch: list[dict[str, torch.Tensor]] = []
    plain = ContrastiveTask.validate

    def validate(self: ContrastiveTask, epoch: int) -> dict[str, float]:
        by_epoch.append(copy_of(self.model))
        return plain(self, epoch)

    monkeypatch.setattr(ContrastiveTask, "validate", validate)
    result = train(base, pairs, tmp_path, num_epochs=3)
    last = load_model(tmp_path, "last")
    assert_same(dict(last.model.state_dict()), load_checkpoint(tmp_path / "last.pth")["model"])
    assert last.config["data"]["image_size"] == 32
    assert last.config["data"]["target_sr"] == RATE_HZ
    assert last.config["data"]["num_people"] == {"train": 6, "val": 2, "test": 2}
    assert last.config["data"]["split_hash"] == load_split(tmp_path / "split.json").hash
    best = max(result.history, key=lambda row: (row["val_auc"], -row["epoch"]))
    assert result.best_epoch == best["epoch"]
    assert_same(dict(load_model(tmp_path).model.state_dict()), by_epoch[result.best_epoch - 1])


@pytest.mark.parametrize("val_size", [0.0, 0.1])
def test_without_two_people_to_validate_on_there_is_a_best_model_too(
    base: Path, pairs: PairList, tmp_path: Path, val_size: float, logged: pytest.LogCaptureFixture
) -> None:
    result = train(base, pairs, tmp_path, num_epochs=3, val_size=val_size)
    assert result.status == DONE
    losses = [row["train_loss"] for row in result.history]
    assert result.best_epoch == 1 + losses.index(min(losses))
    assert load_model(tmp_path, "best").weights_file.is_file()
    assert "the best model is known by its training loss" in logged.text


def test_a_named_checkpoint_brings_its_best_model_along(base: Path, pairs: PairList, tmp_path: Path) -> None:
    train(base, pairs, tmp_path / "a", num_epochs=1)
    checkpoint = tmp_path / "a" / "last.pth"
    content = load_checkpoint(checkpoint)
    content["position"]["best"] = 2.0  # no later epoch can be better
    torch.save(content, checkpoint)
    result = train(base, pairs, tmp_path / "b", num_epochs=2, resume=str(checkpoint))
    assert result.best_epoch == 1
    best = load_model(tmp_path / "b", "best").model.state_dict()
    assert_same(dict(best), dict(load_model(tmp_path / "a", "best").model.state_dict()))


def test_pretrained_weights_are_where_training_begins(base: Path, pairs: PairList, tmp_path: Path) -> None:
    train(base, pairs, tmp_path / "a", num_epochs=1, freeze_encoders=True)
    train(base, pairs, tmp_path / "b", num_epochs=1, freeze_encoders=True, from_scratch=True, seed=5)
    from lc_pytorch.models.encoders import load_face_encoder

    original = dict(load_face_encoder(base / "vit").state_dict())
    trained, scratch = (load_model(tmp_path / name).model.face_encoder.state_dict() for name in "ab")
    assert_same(dict(trained), original)
    assert not torch.equal(
        scratch["layers.0.attention.q_proj.weight"], original["layers.0.attention.q_proj.weight"]
    )


def test_the_same_seed_gives_the_same_model_and_another_seed_another(
    base: Path, pairs: PairList, tmp_path: Path
) -> None:
    states = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(base, pairs, tmp_path / name, num_epochs=1, seed=seed)
        states.append(load_checkpoint(tmp_path / name / "last.pth")["model"])
    assert_same(states[0], states[1])
    assert not torch.equal(states[0]["face_projection.weight"], states[2]["face_projection.weight"])


def test_settings_that_do_not_fit_the_models_are_said(base: Path, pairs: PairList, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"target_sr": 16000}, "--target_sr 16000: the voice model takes sound of 4000 Hz"),
        ({"face_model": str(base / "wav2vec2")}, "--face_model|preprocessor"),
        ({"face_model": str(base / "none")}, "--face_model"),
        ({"test_size": 0.6, "val_size": 0.6}, "together below 1"),
        ({"temperature": 5.0, "learnable_temperature": True}, "--temperature is 5.0"),
    ]
    for number, (changes, message) in enumerate(cases):
        with pytest.raises(UserError, match=message):
            train(base, pairs, tmp_path / str(number), **changes)


def test_the_splits_file_is_that_of_the_evaluation() -> None:
    assert training_run.SPLIT_FILE == "split.json"
