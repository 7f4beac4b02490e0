"""The folder of a trained model."""

import json
import os
import pickle
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import assert_same, make_model

from facevox.errors import UserError
from lc_pytorch.models import FaceVoiceModel, load_model
from lc_pytorch.models.store import save_config, save_weights

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = {"image_size": 32, "target_sr": 4000}


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "a model 한글"
    folder.mkdir()
    best, last = make_model(seed=1), make_model(seed=2)
    save_config(folder, best, kind="face_voice", data=DATA, training={"seed": 1})
    save_weights(folder, best, which="best")
    save_weights(folder, last, which="last")
    return folder


def change_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    change(config)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def test_best_and_last_come_back_ready_for_use(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # and the hub is not asked
    for which, seed in (("best", 1), ("last", 2)):
        trained = load_model(model_dir, which)
        assert_same(dict(trained.model.state_dict()), dict(make_model(seed=seed).state_dict()))
        assert not any(module.training for module in trained.model.modules())
        assert (trained.kind, trained.model_dir, trained.config["data"]) == ("face_voice", model_dir, DATA)
        assert trained.weights_file.is_file()
    assert isinstance(load_model(str(model_dir)).model, FaceVoiceModel)


def test_the_files_of_the_parts_fit_the_parts(model_dir: Path) -> None:
    model, last = make_model(seed=3), make_model(seed=2)
    for name, part in model.parts().items():
        part.load_state_dict(torch.load(model_dir / f"{name}.pth", weights_only=True))
    assert_same(dict(model.state_dict()), dict(last.state_dict()))


def test_versions_and_format_are_kept(model_dir: Path) -> None:
    config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    assert config["format"] == 1
    assert config["versions"]["torch"] == version("torch")
    assert set(config["versions"]) >= {"facevox", "torch", "transformers", "numpy", "python"}


class Bomb:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.file),)


def test_code_in_the_weights_is_not_run(model_dir: Path) -> None:
    for write in (
        lambda file, bomb: torch.save(bomb, file),
        lambda file, bomb: file.write_bytes(pickle.dumps(bomb)),
    ):
        write(model_dir / "best_model.pth", {"log_temperature": Bomb(model_dir / "it ran")})
        with pytest.raises(UserError, match=r"best_model\.pth: no checkpoint of facevox"):
            load_model(model_dir)
    assert not (model_dir / "it ran").exists()


def missing_weight(folder: Path) -> None:
    state = torch.load(folder / "best_model.pth", weights_only=True)
    del state["audio_projection.bias"]
    torch.save(state, folder / "best_model.pth")


def other_size(folder: Path) -> None:
    state = torch.load(folder / "best_model.pth", weights_only=True)
    state["audio_projection.bias"] = torch.zeros(9)
    torch.save(state, folder / "best_model.pth")


def encoder_name(config: dict[str, Any]) -> None:
    config["model"]["face_encoder"]["model_type"] = "no_such_model"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "best_model.pth").write_text("hello"), r"best_model\.pth: no checkpoint of facevox"),
        (lambda d: (d / "best_model.pth").write_bytes(b""), r"best_model\.pth: no checkpoint of facevox"),
        (
            lambda d: torch.save(torch.nn.Linear(2, 2).state_dict(), d / "best_model.pth"),
            "weights of another model",
        ),
        (
            lambda d: (d / "best_model.pth").write_bytes((d / "face_encoder.pth").read_bytes()),
            "weights of another",
        ),
        (missing_weight, r"1 of this one's are missing, 0 are unknown .*audio_projection\.bias"),
        (other_size, r"audio_projection\.bias is \(9,\), this model's is \(8,\)"),
        (lambda d: torch.save({"model": {}}, d / "best_model.pth"), "it holds no weights"),
        (lambda d: (d / "best_model.pth").unlink(), r"no trained model here \(best_model\.pth missing\)"),
        (lambda d: (d / "config.json").unlink(), r"\(config\.json missing\)"),
        (lambda d: (d / "config.json").write_text("{"), r"config\.json"),
        (lambda d: (d / "config.json").write_text("[]"), "not the configuration of a face-voice model"),
        (lambda d: change_config(d, lambda c: c.update(format=2)), "format 2, this program reads 1"),
        (
            lambda d: change_config(d, lambda c: c.update(kind="lipsync")),
            "not the configuration of a face-voice",
        ),
        (lambda d: change_config(d, lambda c: c.pop("model")), "model missing"),
        (lambda d: change_config(d, lambda c: c.pop("data")), "data missing"),
        (lambda d: change_config(d, lambda c: c["model"].pop("face_encoder")), "cannot be built"),
        (lambda d: change_config(d, lambda c: c["model"].update(embedding_dim="8")), "cannot be built"),
        (
            lambda d: change_config(d, lambda c: c["model"].update(embedding_dim=16)),
            "weights of another size",
        ),
        (
            lambda d: change_config(d, lambda c: c["model"]["face_encoder"].update(hidden_size=24)),
            "another size",
        ),
        (lambda d: change_config(d, encoder_name), "'no_such_model' cannot be built"),
    ],
)
def test_a_folder_that_does_not_hold_together_is_refused(
    model_dir: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(model_dir)
    with pytest.raises(UserError, match=message) as refusal:
        load_model(model_dir)
    assert "\n" not in str(refusal.value)
    assert model_dir.name in str(refusal.value) or "config.json" in str(refusal.value)


def test_wrong_folders_and_names_are_refused(model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--checkpoint is 'newest': it should be one of best, last"):
        load_model(model_dir, "newest")
    with pytest.raises(UserError, match="--model_dir"):
        load_model(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UserError, match=r"no trained model here \(config\.json and best_model\.pth missing\)"
    ):
        load_model(tmp_path / "empty")
