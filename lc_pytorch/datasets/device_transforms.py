"""Face pictures of a training, transformed on the device: loader processes decode, torchvision does the rest.

    train_set = FaceVoiceDataset(pairs, processor, DeviceTransform.of(transform))
    loader = make_loader(train_set, …, collate_fn=train_set.collate)
    faces_B3SS = faces_on_device(batch["face"], device)

A GPU waits for the loader processes, and most of their work on a picture, besides decoding it, is resizing,
conversion to float and normalising. Here they only draw the crop, the same as on Pillow's path, and hand over
its bytes; a batch travels as one block of bytes.

Crops are whole pixels here, and fractions of pixels on Pillow's path; apart from that both come to the same
numbers, up to rounding. torchvision is imported in functions, because CPU installations do not have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from facevox.errors import UserError, one_line
from facevox.training import distributed
from lc_pytorch.choices import AUTO, PILLOW, TORCHVISION
from lc_pytorch.datasets.transforms import ImageTransform, draw_crop

# A crop with a side longer than this many times the model's is resized by its loader process. Below that, its
# bytes are at most 9/4 of the model's input in float32 (a photo of 12 megapixels would be 60 times as many);
# and torch's kernel keeps its weights in the GPU's shared memory, which a large reduction would overrun.
MAX_REDUCTION = 3
MISSING = "torchvision is not installed"
_BICUBIC = 3  # Pillow's number


@dataclass(frozen=True, kw_only=True)
class DeviceTransform(ImageTransform):
    """An `ImageTransform` that works in two steps: `item` and `collate`, then `PackedFaces.unpacked`.

    A call of it does the same as a call of the plain transform.
    """

    @classmethod
    def of(cls, transform: ImageTransform) -> DeviceTransform:
        """The transform on the device with the results of `transform`."""
        return cls(**{field.name: getattr(transform, field.name) for field in fields(transform)})

    def item(self, image: NDArray[np.uint8], rng: np.random.Generator | None = None) -> dict[str, Tensor]:
        """{"face": (H, W, 3) uint8, cropped and of any size; "is_mirrored": whether to mirror it later}."""
        (left, top, right, bottom), is_mirrored = draw_crop((image.shape[1], image.shape[0]), rng)
        longest = max(right - left, bottom - top)
        if longest > MAX_REDUCTION * self.image_size:
            pixels_HWC = self.resized(image, (left, top, right, bottom)).copy()
        else:
            rows, columns = _whole_pixels(top, bottom), _whole_pixels(left, right)
            pixels_HWC = image[rows, columns]  # no copy: `collate` makes one
        return {"face": torch.from_numpy(pixels_HWC), "is_mirrored": torch.tensor(is_mirrored)}

    def collate(self, items: Sequence[dict[str, Tensor]]) -> dict[str, object]:
        """A batch of items: {"face": `PackedFaces`, the others stacked}."""
        packed = ("face", "is_mirrored")
        batch: dict[str, object] = default_collate(
            [{name: value for name, value in item.items() if name not in packed} for item in items]
        )
        pictures = [item["face"].numpy() for item in items]
        pixels = np.empty(sum(picture.size for picture in pictures), np.uint8)
        start = 0
        for picture in pictures:
            pixels[start : start + picture.size].reshape(picture.shape)[...] = picture
            start += picture.size
        faces = PackedFaces(
            pixels=torch.from_numpy(pixels),
            sizes_B2=torch.tensor([picture.shape[:2] for picture in pictures]),
            is_mirrored_B=torch.stack([item["is_mirrored"] for item in items]),
            transform=self,
        )
        return batch | {"face": faces}


def _whole_pixels(first: float, end: float) -> slice:
    """Slice of the nearest whole pixels, at least one of them, that ends no later than `end` rounded."""
    start = min(round(first), round(end) - 1) if round(end) else 0
    return slice(start, max(round(end), 1))


@dataclass(frozen=True, kw_only=True)
class PackedFaces:
    """The pictures of a batch, of any sizes, on their way to the device.

    Attributes:
        pixels: (N,) uint8: rows of RGB, one picture after the other. One copy to the device moves them all.
        sizes_B2: (B, 2) int64, height and width of each. Stays with the CPU, which cuts the pictures out.
        is_mirrored_B: (B,) bool, likewise.
        transform: Its size, filter and normalisation are used on the device.
    """

    pixels: Tensor
    sizes_B2: Tensor
    is_mirrored_B: Tensor
    transform: ImageTransform

    def pin_memory(self) -> PackedFaces:
        """The same in pinned memory; torch's loader calls this by its name."""
        return replace(self, pixels=self.pixels.pin_memory())

    def unpacked(self, device: torch.device) -> Tensor:
        """(B, 3, image_size, image_size) float32 on the device, normalised."""
        from torchvision.transforms.v2 import InterpolationMode, functional

        pixels = self.pixels.to(device, non_blocking=True)
        side, is_bicubic = self.transform.image_size, self.transform.resample == _BICUBIC
        interpolation = InterpolationMode.BICUBIC if is_bicubic else InterpolationMode.BILINEAR
        faces, start = [], 0
        for (height, width), is_mirrored in zip(
            self.sizes_B2.tolist(), self.is_mirrored_B.tolist(), strict=True
        ):
            end = start + height * width * 3
            face_3HW = pixels[start:end].view(height, width, 3).permute(2, 0, 1)
            # As float on every device: torchvision has a kernel for uint8 on CPUs only.
            face_3HW = face_3HW.to(torch.float32, memory_format=torch.contiguous_format)
            if is_bicubic:
                # As Pillow: rows, then columns, and what bicubic overshoots is clipped between them as well.
                face_3HW = functional.resize(face_3HW, [height, side], interpolation, antialias=True)
                face_3HW = face_3HW.round_().clamp_(0, 255)
            face_3HW = functional.resize(face_3HW, [side, side], interpolation, antialias=True)
            faces.append(functional.horizontal_flip(face_3HW) if is_mirrored else face_3HW)
            start = end
        faces_B3SS = torch.stack(faces).round_().clamp_(0, 255)  # whole grey levels, as Pillow has them
        # With plain numbers, colour by colour: torchvision's normalize would copy two small tensors to the
        # device and wait for that, before anything else of the step can start.
        for colour, (mean, std) in enumerate(
            zip(self.transform.image_mean, self.transform.image_std, strict=True)
        ):
            faces_B3SS[:, colour].sub_(255 * mean).div_(255 * std)
        return faces_B3SS


def faces_on_device(faces: Tensor | PackedFaces, device: torch.device) -> Tensor:
    """(B, 3, S, S) float32 on the device: the "face" of a batch, whichever transform its data set has."""
    if isinstance(faces, PackedFaces):
        return faces.unpacked(device)
    return faces.to(device, non_blocking=True)


def choose_picture_transforms(asked: str, device: torch.device) -> tuple[str, str]:
    """(PILLOW or TORCHVISION, a line for the log); the same on all ranks, which all must call this.

    Args:
        asked: One of PICTURE_TRANSFORMS. AUTO: torchvision where the training runs on GPUs and all ranks can
            import it.
        device: Device of this rank.

    Raises:
        UserError: TORCHVISION is asked for and cannot be imported; or it is installed and broken, which
            keeps transformers from loading any model.
    """
    by_pillow = "face pictures: resized by Pillow in the loader processes"
    if asked == PILLOW or (asked == AUTO and distributed.any_rank(device.type != "cuda")):
        return PILLOW, by_pillow
    reasons = [reason for reason in distributed.gather_objects(_import_failure()) if reason]
    if not reasons:
        return TORCHVISION, f"face pictures: resized by torchvision on the {device.type} device"
    broken = [reason for reason in reasons if reason != MISSING]
    if broken:
        raise UserError(
            f"torchvision is installed here and cannot be imported ({broken[0]}), which stops transformers "
            "too; uninstall it, or `make install CUDA=1` for one that fits"
        )
    if asked == TORCHVISION:
        raise UserError(
            f"--picture_transforms torchvision: {MISSING}; `make install CUDA=1` sets it up for GPUs, and "
            "--picture_transforms pillow does without"
        )
    return PILLOW, f"{by_pillow}, for {MISSING}"


def _import_failure() -> str:
    """Reason why torchvision cannot be used; empty where it can."""
    try:
        from torchvision.transforms.v2 import functional  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: a build for another torch
        is_missing = isinstance(error, ModuleNotFoundError) and error.name == "torchvision"
        return MISSING if is_missing else one_line(error)
    return ""


def transform_of_training(transform: ImageTransform, chosen: str) -> ImageTransform:
    """The transform of a training set: `transform`, or the same with its work on the device."""
    return DeviceTransform.of(transform) if chosen == TORCHVISION else transform
