"""Pictures to tensors: as transformers' own processor has them, the settings of models, augmentation."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facevox.errors import UserError
from facevox_demo.tiny_encoders import write_tiny_encoders
from lc_pytorch.datasets.transforms import ImageTransform, create_data_transforms


def picture(height: int = 150, width: int = 130, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("shape", [(256, 256), (150, 130), (100, 640), (1, 1)])
def test_tensor_equals_that_of_the_processor_of_transformers(shape: tuple[int, int]) -> None:
    from transformers import ViTImageProcessorPil

    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    processor = ViTImageProcessorPil(size={"height": 96, "width": 96}, image_mean=mean, image_std=std)
    transform = ImageTransform(image_size=96, image_mean=tuple(mean), image_std=tuple(std))
    image = picture(*shape)
    theirs = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"][0]
    ours = transform(image)
    assert ours.shape == (3, 96, 96)
    assert ours.dtype == torch.float32
    assert ours.is_contiguous()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_pillow_pictures_of_any_mode_are_taken() -> None:
    transform, image = ImageTransform(image_size=32), Image.fromarray(picture())
    assert torch.equal(transform(image), transform(np.asarray(image)))
    assert torch.equal(transform(image.convert("L")), transform(image.convert("L").convert("RGB")))


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)]
)
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8 RGB is expected"):
        ImageTransform()(image)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""

    def refuse(*_: object) -> None:
        raise AssertionError("the network is used")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.usefixtures("hub_cache")
def test_default_models_need_neither_network_nor_cache() -> None:
    transform, processor = create_data_transforms()
    assert transform == ImageTransform(image_size=224, image_mean=(0.5,) * 3, image_std=(0.5,) * 3)
    assert type(processor).__name__ == "Wav2Vec2FeatureExtractor"
    assert (processor.sampling_rate, processor.do_normalize, processor.return_attention_mask) == (
        16000,
        True,
        False,
    )


def test_settings_come_from_the_folders_of_the_models(tmp_path: Path) -> None:
    vit_dir, wav2vec2_dir = write_tiny_encoders(tmp_path, image_size=48)
    transform, processor = create_data_transforms(vit_dir, wav2vec2_dir)
    assert transform.image_size == 48
    assert processor.return_attention_mask is True
    assert create_data_transforms(vit_dir, wav2vec2_dir, image_size=64)[0].image_size == 64


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"size": 99}, ImageTransform(image_size=99)),
        ({"size": {"shortest_edge": 88}, "resample": 3}, ImageTransform(image_size=88, resample=3)),
        (
            {"size": {"height": 256, "width": 256}, "do_center_crop": True, "crop_size": 224},
            ImageTransform(image_size=224),
        ),
        ({"do_normalize": False}, ImageTransform(image_mean=(0, 0, 0), image_std=(1, 1, 1))),
        (
            {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]},
            ImageTransform(image_mean=(0.1, 0.2, 0.3), image_std=(1, 2, 3)),
        ),
    ],
)
def test_forms_of_picture_settings_are_read(tmp_path: Path, settings: dict, expected: ImageTransform) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert create_data_transforms(tmp_path)[0] == expected


@pytest.mark.parametrize(
    ("face", "voice", "reason"),
    [
        ("[]", "{}", "a JSON object is expected"),
        ('{"size": "big"}', "{}", "not the settings of a picture model"),
        ('{"size": 0}', "{}", "image_size 0"),
        ('{"image_std": [0, 1, 1]}', "{}", "deviations above 0"),
        ('{"image_mean": [1, 1]}', "{}", "not the settings of a picture model"),
        ('{"resample": 0}', "{}", "resample 0"),
        ("{}", '{"feature_extractor_type": "WhisperFeatureExtractor"}', "WhisperFeatureExtractor"),
        (None, "{}", "--face_model .*the folder has no preprocessor_config.json"),
    ],
)
def test_settings_of_other_models_are_refused(
    tmp_path: Path, face: str | None, voice: str, reason: str
) -> None:
    for name, text in (("face", face), ("voice", voice)):
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "preprocessor_config.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=reason):
        create_data_transforms(tmp_path / "face", tmp_path / "voice")


def test_settings_come_from_the_cache_of_the_hub(hub_cache: Path) -> None:
    for model in ("someone--vit", "google--vit-base-patch16-224-in21k"):
        (hub_cache / f"models--{model}/refs").mkdir(parents=True)
        (hub_cache / f"models--{model}/refs/main").write_text("abc", encoding="utf-8")
        file = hub_cache / f"models--{model}/snapshots/abc/preprocessor_config.json"
        file.parent.mkdir(parents=True)
        file.write_text('{"size": 160}', encoding="utf-8")
    assert create_data_transforms("someone/vit")[0].image_size == 160
    assert create_data_transforms()[0].image_size == 160


@pytest.mark.usefixtures("hub_cache")
def test_unknown_model_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"--face_model someone/vit: .*no network.*hf download someone/vit"):
        create_data_transforms("someone/vit")
    for name in (tmp_path / "none", "./vit", "a/b/c"):
        with pytest.raises(UserError, match=r"--voice_model .*: there is no such folder"):
            create_data_transforms(None, name)


def test_augmentation_follows_its_generator() -> None:
    transform, image = ImageTransform(image_size=40), picture()
    drawn = [transform(image, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(transform(image), transform(image))


def test_augmentation_is_a_crop_of_the_picture_mirrored_half_of_the_time() -> None:
    """On a ramp the crop can be read off: values rise along x from the left to the right of the crop."""
    side = 400
    x = np.linspace(0, 255, side)
    image = np.stack(
        [np.tile(x, (side, 1)), np.tile(x[:, None], (1, side)), np.full((side, side), 77)], axis=2
    )
    transform = ImageTransform(image_size=200, image_mean=(0, 0, 0), image_std=(1, 1, 1))
    shares, lefts, num_mirrored = [], [], 0
    for seed in range(200):
        red, green, blue = transform(np.rint(image).astype(np.uint8), np.random.default_rng(seed)).numpy()
        num_mirrored += red[0, 0] > red[0, -1]
        left, right = sorted((red[0, 0], red[0, -1]))
        assert np.ptp(red, axis=0).max() <= 1 / 255  # upright: rows are alike
        assert (right - left) == pytest.approx(green[-1, 0] - green[0, 0], abs=0.02)  # not stretched
        assert np.all(blue == np.float32(77 / 255))  # colours stay
        shares.append(right - left)
        lefts.append(left)
    assert 0.83 <= min(shares) <= 0.87
    assert 0.97 <= max(shares) <= 1.0
    assert max(lefts) > 0.08
    assert 70 <= num_mirrored <= 130


def test_transform_travels_to_other_processes() -> None:
    transform = ImageTransform(image_size=20)
    assert pickle.loads(pickle.dumps(transform)) == transform
