"""A stand-in for SyncNet that is exact: brightness of the picture against loudness; and clips for it."""

import numpy as np
import torch
from torch import Tensor, nn


class BrightnessNet(nn.Module):
    """Lips: the brightness of each of five frames; sound: the loudness of their times. No more."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.sizes: list[int] = []

    def lip_features(self, frames_F3HW: Tensor) -> Tensor:
        self.sizes.append(len(frames_F3HW))
        return self._features(frames_F3HW.mean(dim=(1, 2, 3)).unfold(0, 5, 1))

    def sound_features(self, mfcc_NKR: Tensor) -> Tensor:
        return self._features(mfcc_NKR[:, 0].unflatten(1, (5, 4)).mean(dim=2))

    @staticmethod
    def _features(values_W5: Tensor) -> Tensor:
        """Relative to the window, so that neither the face's colour nor the volume matters."""
        shape_W5 = (values_W5 - values_W5.mean(dim=1, keepdim=True)) / values_W5.std(dim=1, keepdim=True)
        return torch.nn.functional.pad(shape_W5, (0, 1019))


def flicker(num_frames: int) -> np.ndarray:
    """(n,) brightness of each frame, 0.6 to 1."""
    return np.random.default_rng(7).uniform(0.6, 1.0, num_frames)


def flickering_sound(brightness: np.ndarray) -> np.ndarray:
    """A noise whose logarithm of loudness is the brightness of each frame, times 10."""
    noise = np.random.default_rng(8).uniform(-1, 1, (len(brightness), 640))
    return (noise * np.exp(10 * (brightness[:, None] - 1))).ravel().astype(np.float32)
