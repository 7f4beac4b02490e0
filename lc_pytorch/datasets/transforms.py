"""Transforms of pictures to tensors for a ViT, and the input settings of a Wav2Vec2.

Pillow resizes as transformers' own `ViTImageProcessorPil` does, with the same numbers: for validation and
evaluation on every machine, and for training on a CPU. On a GPU training uses torchvision instead, see
`device_transforms`. Augmentation is mirroring and a slightly closer, shifted crop. Brightness, white balance
and hue stay as they are: skin and light carry much of what a face reveals about a voice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from facevox.errors import UserError, one_line
from facevox.files import read_json
from lc_pytorch.choices import DEFAULT_FACE_MODEL, DEFAULT_VOICE_MODEL
from lc_pytorch.models.hub import from_hub

if TYPE_CHECKING:
    from transformers import Wav2Vec2FeatureExtractor

# The preprocessor_config.json of the two default models on the hub, which therefore need no network here.
_DEFAULT_SETTINGS: dict[str, dict[str, object]] = {
    DEFAULT_FACE_MODEL: {"size": 224, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": True},
    DEFAULT_VOICE_MODEL: {
        "feature_size": 1,
        "sampling_rate": 16000,
        "padding_value": 0.0,
        "do_normalize": True,
        "return_attention_mask": False,
    },
}
MIN_CROP_SHARE = 0.85  # of the side: hair line and chin of a face crop stay in the picture
FLIP_SHARE = 0.5
MAX_SIDE_PX = 2048
_FILE = "preprocessor_config.json"
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)  # "name" or "owner/name"
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
_RESAMPLINGS = {2: Image.Resampling.BILINEAR, 3: Image.Resampling.BICUBIC}


@dataclass(frozen=True, kw_only=True)
class ImageTransform:
    """Makes (3, size, size) float32 tensors of pictures, (value / 255 - mean) / std for each colour.

    Called with a generator it augments; without, the same picture gives the same tensor.

    Attributes:
        image_size: Side in pixels; pictures of another shape are stretched to it, as ViT's processor does.
        image_mean: Mean of red, green and blue, as values from 0 to 1.
        image_std: Deviation, likewise.
        resample: Pillow's number of the filter: 2 bilinear, 3 bicubic.
    """

    image_size: int = 224
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    resample: int = 2

    def __post_init__(self) -> None:
        faults = []
        if not 1 <= self.image_size <= MAX_SIDE_PX:
            faults.append(f"image_size {self.image_size}: 1 to {MAX_SIDE_PX} pixels are possible")
        if len(self.image_mean) != 3 or len(self.image_std) != 3 or not all(s > 0 for s in self.image_std):
            faults.append("image_mean and image_std: three numbers each, deviations above 0, are expected")
        if self.resample not in _RESAMPLINGS:
            faults.append(f"resample {self.resample}: 2 (bilinear) or 3 (bicubic) is expected")
        if faults:
            raise UserError("; ".join(faults))

    def __call__(
        self, image: NDArray[np.uint8] | Image.Image, rng: np.random.Generator | None = None
    ) -> Tensor:
        """The tensor of a picture.

        Args:
            image: (H, W, 3) uint8 RGB, or a Pillow picture.
            rng: Generator for augmentation; None: no augmentation.
        """
        picture = _as_picture(image)
        box, is_mirrored = draw_crop(picture.size, rng)
        pixels_HWC = self.resized(picture, box)
        if is_mirrored:
            pixels_HWC = pixels_HWC[:, ::-1]
        # One copy, then in place: this runs for every picture of every epoch.
        face_3HW = pixels_HWC.transpose(2, 0, 1).astype(np.float32, order="C")
        mean_3, std_3 = (np.array(values)[:, None, None] for values in (self.image_mean, self.image_std))
        face_3HW *= (1 / (255 * std_3)).astype(np.float32)
        face_3HW -= (mean_3 / std_3).astype(np.float32)
        return torch.from_numpy(face_3HW)

    def resized(self, image: NDArray[np.uint8] | Image.Image, box: Box) -> NDArray[np.uint8]:
        """(image_size, image_size, 3) uint8 of the part inside the box, read-only."""
        size = (self.image_size, self.image_size)
        return np.asarray(
            _as_picture(image).convert("RGB").resize(size, _RESAMPLINGS[self.resample], box=box)
        )

    def item(self, image: NDArray[np.uint8], rng: np.random.Generator | None = None) -> dict[str, Tensor]:
        """Entries of a picture in an item of a data set: {"face": (3, image_size, image_size) float32}."""
        return {"face": self(image, rng)}

    def collate(self, items: Sequence[dict[str, Tensor]]) -> dict[str, object]:
        """A batch of items: {"face": (B, 3, image_size, image_size) float32, the others stacked}."""
        batch: dict[str, object] = default_collate(list(items))
        return batch


def _as_picture(image: NDArray[np.uint8] | Image.Image) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"(H, W, 3) uint8 RGB is expected, not {image.shape} {image.dtype}")
    return Image.fromarray(image)


def draw_crop(size: tuple[int, int], rng: np.random.Generator | None) -> tuple[Box, bool]:
    """A box with MIN_CROP_SHARE to 1 of each side, anywhere, and whether to mirror.

    Without `rng` the box is the whole picture, and it is not mirrored.

    Args:
        size: (width, height) in pixels.
        rng: Generator; four numbers are drawn.
    """
    width, height = size
    if rng is None:
        return (0, 0, width, height), False
    flip, share, left, top = rng.random(4)
    side = MIN_CROP_SHARE + (1 - MIN_CROP_SHARE) * share
    x, y = left * (1 - side) * width, top * (1 - side) * height
    # Rounding must not put the far corner outside, which Pillow refuses.
    return (x, y, min(x + side * width, width), min(y + side * height, height)), bool(flip < FLIP_SHARE)


def create_data_transforms(
    face_model: str | Path | None = None,
    voice_model: str | Path | None = None,
    *,
    image_size: int | None = None,
) -> tuple[ImageTransform, Wav2Vec2FeatureExtractor]:
    """Preparation of the input of the two encoders: (image transform, sound processor).

    Sizes, means and deviations are from the models' `preprocessor_config.json`: in the folder, or in the
    hub's cache on this machine, or the hub. The two default models need none of them.

    Args:
        face_model: Folder or hub id; None: the default ViT.
        voice_model: Folder or hub id; None: the default Wav2Vec2.
        image_size: Side of the pictures in pixels, instead of the model's.

    Raises:
        UserError: The settings of a model cannot be fetched, or are not those of such a model.
    """
    face_file, face = _settings(face_model, DEFAULT_FACE_MODEL, "--face_model")
    voice_file, voice = _settings(voice_model, DEFAULT_VOICE_MODEL, "--voice_model")
    return _image_transform(face, face_file, image_size), _sound_processor(voice, voice_file)


def _settings(model: str | Path | None, default: str, option: str) -> tuple[str, dict[str, object]]:
    """(source for messages, settings) of a model."""
    name = default if model is None else str(model)
    folder = Path(name).expanduser()
    file = folder / _FILE if folder.is_dir() else _cached_file(name)
    if file is None and name in _DEFAULT_SETTINGS:
        return name, _DEFAULT_SETTINGS[name]
    if file is None and not _HUB_ID.fullmatch(name):
        raise UserError(f"{option} {name}: there is no such folder")
    if file is None:
        download = partial(huggingface_hub.hf_hub_download, name, _FILE)
        file = Path(from_hub(download, name, option))
    if not file.is_file():
        raise UserError(f"{option} {name}: the folder has no {_FILE}; put the one there that the model has")
    settings = read_json(file)
    if not isinstance(settings, dict):
        raise UserError(f"{file}: a JSON object is expected")
    return str(file), settings


def _cached_file(name: str) -> Path | None:
    # The hub's answer is a path, None, or an object for "the hub has no such file".
    file = huggingface_hub.try_to_load_from_cache(name, _FILE) if _HUB_ID.fullmatch(name) else None
    return Path(file) if isinstance(file, str) else None


def _image_transform(settings: dict[str, Any], source: str, image_size: int | None) -> ImageTransform:
    # Models with do_center_crop resize a little larger and cut the middle out; a face crop is all middle.
    is_cropped = settings.get("do_center_crop") and settings.get("crop_size") is not None
    size = settings.get("crop_size" if is_cropped else "size", 224)
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    normalise = settings.get("do_normalize", True)
    mean = settings.get("image_mean", [0.5] * 3) if normalise else [0.0] * 3
    std = settings.get("image_std", [0.5] * 3) if normalise else [1.0] * 3
    try:
        return ImageTransform(
            image_size=int(size) if image_size is None else image_size,
            image_mean=rgb_values(mean),
            image_std=rgb_values(std),
            resample=int(settings.get("resample", 2)),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{source}: not the settings of a picture model: {error}") from None


def rgb_values(values: Iterable[float]) -> tuple[float, float, float]:
    """Three numbers, one for each channel; ValueError for any other count."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _sound_processor(settings: Mapping[str, object], source: str) -> Wav2Vec2FeatureExtractor:
    from transformers import Wav2Vec2FeatureExtractor  # takes seconds, also in each spawned loader process

    kind = settings.get("feature_extractor_type", "Wav2Vec2FeatureExtractor")
    if kind != "Wav2Vec2FeatureExtractor" or settings.get("feature_size", 1) != 1:
        raise UserError(f"{source}: the settings of a {kind}; a model that takes waveforms is expected")
    # transformers leaves its constructor without types.
    make_processor: Callable[..., Wav2Vec2FeatureExtractor] = Wav2Vec2FeatureExtractor
    keys = [key for key in _DEFAULT_SETTINGS[DEFAULT_VOICE_MODEL] if key in settings]
    try:
        return make_processor(**{key: settings[key] for key in keys})
    except Exception as error:  # of values that do not fit transformers raises anything
        raise UserError(f"{source}: not the settings of a sound model: {one_line(error)}") from None
