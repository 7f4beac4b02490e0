"""Pretrained encoders: found, or refused after one look at the network; never random by accident."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import assert_same, wav2vec2_config, write_encoders
from torch import nn

from facevox.errors import UserError
from lc_pytorch.models.encoders import (
    build_encoder,
    encoder_config,
    load_face_encoder,
    load_voice_encoder,
    pool_tokens,
)

pytestmark = pytest.mark.usefixtures("one_thread")
LOADERS: dict[str, Callable[..., nn.Module]] = {"vit": load_face_encoder, "wav2vec2": load_voice_encoder}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders")
    write_encoders(folder)
    return folder


@pytest.fixture
def folders(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "my encoders 한글"))


def stored_weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def change_weights(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    from safetensors.torch import save_file

    state = stored_weights(folder)
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | changes
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_is_loaded_with_its_weights(folders: Path, name: str, kind: type) -> None:
    encoder = LOADERS[name](kind(folders / name))
    stored = stored_weights(folders / name)
    stored.pop("masked_spec_embed", None)  # only masking would use it
    sums = sorted(float(value.double().sum()) for value in stored.values())
    assert sorted(float(v.double().sum()) for v in encoder.state_dict().values()) == pytest.approx(sums)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert encoder.config._attn_implementation in ("sdpa", "eager")
    assert_same(dict(encoder.state_dict()), dict(LOADERS[name](folders / name).state_dict()))


def test_pooling_is_the_mean_over_tokens(folders: Path) -> None:
    encoder = load_face_encoder(folders / "vit").eval()
    pictures = torch.randn(2, 3, 32, 32)
    tokens = encoder(pictures).last_hidden_state
    assert tokens.shape == (2, 5, 16)
    slow = torch.stack([sum(tokens[row, k] for k in range(5)) / 5 for row in range(2)])  # type: ignore[misc]
    torch.testing.assert_close(pool_tokens(encoder, pictures), slow)


@pytest.mark.parametrize("name", LOADERS)
def test_from_scratch_takes_the_shape_and_not_the_weights(folders: Path, name: str) -> None:
    (folders / name / "model.safetensors").unlink()
    torch.manual_seed(1)
    first = LOADERS[name](folders / name, is_pretrained=False)
    torch.manual_seed(2)
    second = LOADERS[name](folders / name, is_pretrained=False)
    assert {n: v.shape for n, v in first.state_dict().items()} == {
        n: v.shape for n, v in second.state_dict().items()
    }
    assert not torch.equal(next(first.parameters()), next(second.parameters())) or name == "vit"
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("name", LOADERS)
def test_an_encoder_built_from_its_configuration_is_the_same_function(folders: Path, name: str) -> None:
    encoder = LOADERS[name](folders / name).eval()
    again = build_encoder(json.loads(json.dumps(encoder_config(encoder)))).eval()
    again.load_state_dict(encoder.state_dict())
    inputs = torch.randn(2, 3, 32, 32) if name == "vit" else torch.randn(2, 400)
    assert torch.equal(pool_tokens(again, inputs), pool_tokens(encoder, inputs))
    text = json.dumps(encoder_config(encoder))
    assert str(folders) not in text  # no path of the machine it was made on


def test_masking_and_layer_drop_are_off_in_training(folders: Path) -> None:
    change_config(folders / "wav2vec2", mask_time_prob=0.9, mask_feature_prob=0.9, layerdrop=0.9,
                  apply_spec_augment=True, hidden_dropout=0.0, attention_dropout=0.0,
                  activation_dropout=0.0, feat_proj_dropout=0.0)  # fmt: skip
    voices = torch.randn(2, 4000)
    for is_pretrained in (True, False):
        encoder = load_voice_encoder(folders / "wav2vec2", is_pretrained=is_pretrained).train()
        assert torch.equal(pool_tokens(encoder, voices), pool_tokens(encoder, voices))


def test_weights_that_nothing_uses_may_be_missing_or_surplus(folders: Path) -> None:
    change_weights(folders / "wav2vec2", lambda state: state.pop("masked_spec_embed"))
    load_voice_encoder(folders / "wav2vec2")
    pooler = {"pooler.dense.weight": torch.zeros(16, 16), "pooler.dense.bias": torch.zeros(16)}
    change_weights(folders / "vit", lambda state: state.update(pooler))
    assert not any("pooler" in name for name in load_face_encoder(folders / "vit").state_dict())


def drop_first(state: dict[str, Any]) -> None:
    del state[next(name for name in sorted(state) if "layers.1" in name or "layer.1" in name)]


def resize_first(state: dict[str, Any]) -> None:
    name = next(name for name in sorted(state) if "layers.0" in name or "layer.0" in name)
    state[name] = torch.zeros(*(size + 1 for size in state[name].shape))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a weight is missing": lambda folder: change_weights(folder, drop_first),
    "a weight of another size": lambda folder: change_weights(folder, resize_first),
    "all weights are others": lambda folder: change_weights(
        folder, lambda state: [state.clear(), state.update(other=torch.zeros(2))]
    ),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "weights are text": lambda folder: (folder / "model.safetensors").write_text("hello"),
    "weights are empty": lambda folder: (folder / "model.safetensors").write_bytes(b""),
    "weights are cut": lambda folder: (folder / "model.safetensors").write_bytes(
        (folder / "model.safetensors").read_bytes()[:-100]
    ),
    "no config": lambda folder: (folder / "config.json").unlink(),
    "config is no JSON": lambda folder: (folder / "config.json").write_text("{"),
    "config is a list": lambda folder: (folder / "config.json").write_text("[]"),
    "config is empty": lambda folder: (folder / "config.json").write_text("{}"),
    "no such type": lambda folder: change_config(folder, model_type="no_such_model"),
    "another model": lambda folder: change_config(folder, model_type="bert"),
    "impossible sizes": lambda folder: change_config(folder, num_attention_heads=5),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", LOADERS)
def test_a_folder_that_is_not_whole_is_refused_and_never_random(
    folders: Path, name: str, damage: str
) -> None:
    DAMAGES[damage](folders / name)
    option = "--face_model" if name == "vit" else "--voice_model"
    with pytest.raises(UserError) as refusal:
        LOADERS[name](folders / name)
    assert str(refusal.value).startswith(option)
    assert folders.name in str(refusal.value)
    assert "\n" not in str(refusal.value)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n"


def shard(folder: Path) -> None:
    """The weights as transformers splits large ones, with a part cut off."""
    part = "model-00001-of-00001.safetensors"
    names = dict.fromkeys(stored_weights(folder), part)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    (folder / part).write_bytes(content[:-7])


def put(name: str, content: str | bytes | int) -> Callable[[Path], object]:
    """Another content for the weights, under another name; a number cuts off that many bytes."""

    def change(folder: Path) -> None:
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").unlink()
        other = whole[:-content] if isinstance(content, int) else content
        (folder / name).write_bytes(other.encode() if isinstance(other, str) else other)

    return change


NO_WEIGHTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pointer": (
        put("model.safetensors", POINTER),
        ": a Git LFS pointer, not the file itself: run git lfs pull",
    ),
    "page": (put("model.safetensors", "<!DOCTYPE html>"), ": a web page: the download failed"),
    "empty": (put("model.safetensors", b""), ": empty (0 bytes)"),
    "zeros": (put("model.safetensors", bytes(999)), ": zero bytes where it should begin"),
    "cut": (put("model.safetensors", 9), ": cut off ("),
    "pointer to pickled weights": (put("pytorch_model.bin", POINTER), ": a Git LFS pointer"),
    "pointer to the index": (put("model.safetensors.index.json", POINTER), ": a Git LFS pointer"),
    "part cut": (shard, ": cut off ("),
    "configuration": (lambda folder: (folder / "config.json").write_text(POINTER), ": a Git LFS pointer"),
}


@pytest.mark.parametrize("case", NO_WEIGHTS)
def test_files_that_are_no_weights_are_named_in_a_folder_and_in_the_cache(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempts: list[Any], case: str
) -> None:
    from huggingface_hub import constants

    change, text = NO_WEIGHTS[case]
    before = {file.name: file.read_bytes() for file in (folders / "vit").iterdir()}
    change(folders / "vit")
    changed = [file for file in (folders / "vit").iterdir() if before.get(file.name) != file.read_bytes()]
    text = changed[-1].name + text if case != "part cut" else "model-00001-of-00001.safetensors" + text
    write_cache(tmp_path, "someone/vit", folders / "vit")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for source in (str(folders / "vit"), "someone/vit"):
        with pytest.raises(UserError) as refusal:
            load_face_encoder(source)
        assert str(refusal.value).startswith(f"--face_model {source}: {text}")
    assert f"remove {tmp_path}/hub/models--someone--vit" in str(refusal.value)
    assert attempts == []


@pytest.mark.parametrize(
    ("variable", "below", "offline"),
    [
        pytest.param("HF_HUB_CACHE", "", "0", marks=pytest.mark.slow),
        ("HF_HOME", "hub", "YES"),
        pytest.param("XDG_CACHE_HOME", "huggingface/hub", "", marks=pytest.mark.slow),
    ],
)
def test_the_hub_is_offline_and_its_cache_is_where_its_library_says(
    tmp_path: Path, variable: str, below: str, offline: str
) -> None:
    program = (
        "from lc_pytorch.models import hub\n"
        "hub.answers = lambda url: print('asked') or False\n"
        "def load(local_files_only=False): raise OSError\n"
        "hub.from_hub(load, 'a/b', '--face_model')\n"
    )
    dropped = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "TRANSFORMERS_OFFLINE")
    environment = {name: text for name, text in os.environ.items() if name not in dropped}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {variable: str(tmp_path), "HF_HUB_OFFLINE": offline},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert f"not in the cache ({tmp_path / below}) and no network" in done.stderr
    assert ("asked" in done.stdout) == (offline != "YES")


def test_pickled_weights_with_code_in_them_are_refused(folders: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "it ran"),)

    (folders / "vit" / "model.safetensors").unlink()
    torch.save({"embeddings.cls_token": Bomb()}, folders / "vit" / "pytorch_model.bin")
    with pytest.raises(UserError, match="--face_model"):
        load_face_encoder(folders / "vit")
    assert not (tmp_path / "it ran").exists()


def test_faces_and_voices_are_not_mixed_up(folders: Path) -> None:
    with pytest.raises(UserError, match=r"--face_model .*'wav2vec2' model; a ViT is expected"):
        load_face_encoder(folders / "wav2vec2")
    with pytest.raises(UserError, match=r"--voice_model .*'vit' model; a Wav2Vec2 is expected"):
        load_voice_encoder(folders / "vit", is_pretrained=False)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The addresses to which a connection is tried, while nothing answers."""
    found: list[Any] = []
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def refuse(self: socket.socket, address: Any) -> None:
        found.append(address)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return found


@pytest.mark.parametrize("name", ["/none/such", "./vit", "~/no such folder", "a/b/c", "", Path("google/vit")])
def test_what_looks_like_a_path_is_not_looked_for_on_the_hub(
    name: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempts: list[Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--face_model .*: there is no such folder"):
        load_face_encoder(name)
    assert attempts == []


def write_cache(home: Path, name: str, source: Path, leave_out: str = "") -> None:
    """A model as the hub's library keeps it."""
    folder = home / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0123456789" * 4)
    shutil.copytree(source, snapshot, ignore=shutil.ignore_patterns(leave_out) if leave_out else None)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123456789" * 4)


def test_a_hub_model_comes_from_the_cache_or_is_refused_after_one_attempt(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempts: list[Any]
) -> None:
    from huggingface_hub import constants
    from huggingface_hub.utils import _detect_agent

    home = tmp_path / "hf home"
    write_cache(home, "someone/tiny-vit", folders / "vit")
    write_cache(home, "someone/half-vit", folders / "vit", leave_out="model.safetensors")
    # The hub's library reads its variables when it is imported; see the next test.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    # For its statistics the library itself asks once a process, for three seconds at most.
    monkeypatch.setattr(_detect_agent, "_registry", {"harnesses": {}})
    assert_same(
        load_face_encoder("someone/tiny-vit").state_dict(), load_face_encoder(folders / "vit").state_dict()
    )
    assert attempts == []
    for name in ("someone/half-vit", "someone/none", "not a name!"):
        with pytest.raises(UserError) as refusal:
            load_face_encoder(name)
        text = str(refusal.value)
        assert text.startswith(f"--face_model {name}: not in the cache ({home}/hub) and no network")
        assert "make weights" in text
        assert attempts == [("127.0.0.1", 9)], name
        attempts.clear()


def test_the_cache_is_where_its_variable_says(tmp_path: Path) -> None:
    program = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    dropped = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"HF_HOME": str(tmp_path / "hf home")},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(tmp_path / "hf home" / "hub")


def test_encoder_config_of_an_untrained_shape_is_small() -> None:
    config = wav2vec2_config()
    settings = encoder_config(build_encoder(config.to_diff_dict() | {"model_type": "wav2vec2"}))
    assert settings["model_type"] == "wav2vec2"
    assert settings["hidden_size"] == 16
