"""The program make_tiny_encoders.py."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from facevox import cli


@pytest.fixture(scope="module")
def script(load_script) -> ModuleType:  # type: ignore[no-untyped-def]
    return load_script("demo/make_tiny_encoders")


@pytest.fixture(scope="module")
def folder(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("encoders") / "new"
    assert cli.run(script.main, ["--output_dir", str(out)]) == 0
    return out


def test_both_load_offline_by_the_auto_classes(folder: Path) -> None:
    import torch
    from transformers import AutoFeatureExtractor, AutoModel

    voice = AutoModel.from_pretrained(folder / "wav2vec2-tiny", local_files_only=True).eval()
    extractor = AutoFeatureExtractor.from_pretrained(folder / "wav2vec2-tiny", local_files_only=True)
    sound = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    with torch.inference_mode():
        states = voice(**extractor(sound, sampling_rate=16000, return_tensors="pt")).last_hidden_state
    assert states.shape[0] == 1
    assert states.shape[2] == 96
    assert states.shape[1] == pytest.approx(50, abs=2)  # a frame every 20 ms


def test_vit_takes_what_its_processor_gives(folder: Path) -> None:
    import torch
    from transformers import ViTImageProcessorPil, ViTModel

    face = ViTModel.from_pretrained(
        folder / "vit-tiny", add_pooling_layer=False, local_files_only=True
    ).eval()
    processor = ViTImageProcessorPil.from_pretrained(folder / "vit-tiny", local_files_only=True)
    picture = np.random.default_rng(0).integers(0, 255, (90, 70, 3), dtype=np.uint8)
    with torch.inference_mode():
        states = face(**processor(picture, return_tensors="pt")).last_hidden_state
    assert states.shape == (1, 1 + 14 * 14, 96)


def test_voice_does_not_depend_on_its_padding(folder: Path) -> None:
    import torch
    from transformers import Wav2Vec2Model

    voice = Wav2Vec2Model.from_pretrained(folder / "wav2vec2-tiny", local_files_only=True).eval()
    sound = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 16000)).astype(np.float32))
    padded = torch.nn.functional.pad(sound, (0, 8000))
    mask = (torch.arange(24000) < 16000)[None].long()
    with torch.inference_mode():
        alone = voice(sound).last_hidden_state[0]
        together = voice(padded, attention_mask=mask).last_hidden_state[0]
    assert together[: len(alone) - 8].numpy() == pytest.approx(alone[:-8].numpy(), abs=1e-4)


def test_same_seed_gives_the_same_bytes_and_another_one_others(
    script: ModuleType, folder: Path, tmp_path: Path
) -> None:
    for seed in ("0", "1"):
        assert cli.run(script.main, ["--output_dir", str(tmp_path / seed), "--seed", seed]) == 0
    for name in ("vit-tiny", "wav2vec2-tiny"):
        weights = f"{name}/model.safetensors"
        assert (tmp_path / "0" / weights).read_bytes() == (folder / weights).read_bytes()
        assert (tmp_path / "1" / weights).read_bytes() != (folder / weights).read_bytes()


def test_dropout_is_what_was_asked_for(script: ModuleType, folder: Path, tmp_path: Path) -> None:
    assert cli.run(script.main, ["--output_dir", str(tmp_path), "--dropout", "0.2"]) == 0
    for name, key in (("vit-tiny", "hidden_dropout_prob"), ("wav2vec2-tiny", "hidden_dropout")):
        assert json.loads((tmp_path / name / "config.json").read_text())[key] == 0.2
        assert json.loads((folder / name / "config.json").read_text())[key] == 0.0
    assert cli.run(script.main, ["--output_dir", str(tmp_path / "x"), "--dropout", "1"]) == 2


@pytest.mark.parametrize("size", ["8", "100"])
def test_size_that_patches_do_not_fill_is_refused(
    script: ModuleType, tmp_path: Path, size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(script.main, ["--output_dir", str(tmp_path / "x"), "--image_size", size]) == 2
    assert "a multiple of 8" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
