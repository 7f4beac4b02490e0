"""The network of SyncNet, with the names and sizes of its published weights (syncnet_v2.model).

Source: Chung and Zisserman 2016, "Out of time: automated lip sync in the wild". A branch for lips and one
for sound, each of 0.2 s, give 1024 numbers; the nearer these are, the better the two go together.

Letters: N windows, F frames, W = F - 4 windows of 5 frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from facevox.errors import UserError
from facevox.training.checkpoint import load_checkpoint, load_weights

WINDOW_FRAMES = 5  # of pictures, at 25 a second
WINDOW_ROWS = 20  # of sound features, at 100 a second
NUM_COEFFICIENTS = 13
CROP_PX = 224
NUM_FEATURES = 1024


def _conv2d(
    inputs: int, outputs: int, kernel: int | tuple[int, int] = 3, padding: int = 1
) -> Sequence[nn.Module]:
    """Convolution, normalisation and rectifier over coefficients x time."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=padding)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def _conv3d(
    inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int = 1, padding: int = 0
) -> Sequence[nn.Module]:
    """The same over time x height x width; stride and padding are those of the picture."""
    convolution = nn.Conv3d(inputs, outputs, kernel, (1, stride, stride), (0, padding, padding))
    return convolution, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)


def _pool3d(padding: int = 0) -> nn.Module:
    return nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, padding, padding))


def _head() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(inplace=True), nn.Linear(512, NUM_FEATURES)
    )


class SyncNet(nn.Module):
    """The two branches; their names and the indices of their layers are those of the published weights."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_conv2d(1, 64),
            nn.MaxPool2d(1, 1),
            *_conv2d(64, 192),
            nn.MaxPool2d(3, (1, 2)),
            *_conv2d(192, 384),
            *_conv2d(384, 256),
            *_conv2d(256, 256),
            nn.MaxPool2d(3, 2),
            *_conv2d(256, 512, (5, 4), 0),
        )
        self.netfcaud = _head()
        self.netcnnlip = nn.Sequential(
            *_conv3d(3, 96, (WINDOW_FRAMES, 7, 7), 2),
            _pool3d(),
            *_conv3d(96, 256, (1, 5, 5), 2, 1),
            _pool3d(1),
            *_conv3d(256, 256, (1, 3, 3), padding=1),
            *_conv3d(256, 256, (1, 3, 3), padding=1),
            *_conv3d(256, 256, (1, 3, 3), padding=1),
            _pool3d(),
            *_conv3d(256, 512, (1, 6, 6)),
        )
        self.netfclip = _head()

    def sound_features(self, mfcc_NKR: Tensor) -> Tensor:
        """(N, 1024) features of (N, 13, 20) cepstral coefficients, `lipsync.lse.sound`."""
        return cast(Tensor, self.netfcaud(self.netcnnaud(mfcc_NKR[:, None]).flatten(1)))

    def lip_features(self, frames_F3HW: Tensor) -> Tensor:
        """(W, 1024) features of all windows of consecutive frames.

        Only the first layer spans several frames, so the network may run over a sequence as a whole: each
        window gets what it gets alone, and no window is copied out.

        Args:
            frames_F3HW: (F, 3, 224, 224) float, 0 to 255, BGR.
        """
        # Channels last in memory: a fifth less time on CPUs, and the same numbers up to rounding.
        sequence = frames_F3HW.transpose(0, 1)[None].to(memory_format=torch.channels_last_3d)
        maps_512W = self.netcnnlip(sequence)[0, :, :, 0, 0]
        return cast(Tensor, self.netfclip(maps_512W.T))


def load_syncnet(path: str | Path, device: torch.device | str = "cpu") -> SyncNet:
    """SyncNet with the weights of a file, to be evaluated; reading it cannot run code.

    Raises:
        UserError: There is no such file, or it has other weights.
    """
    content = load_checkpoint(path, what="file of SyncNet's weights")
    network = SyncNet()
    # Counters of training steps, which files of older torch do not have.
    counters = {
        name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")
    }
    load_weights(network, counters | content, path)
    if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
        raise UserError(f"{path}: some weights are infinite or no numbers; fetch the file again")
    return network.requires_grad_(False).eval().to(device)
