"""Two small encoders with a learnable temperature, and the batches they are tried on."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lc_pytorch.losses import temperature_of

NUM_INPUTS = 12
DIMENSION = 8
Batch = tuple[Tensor, Tensor]


class TwoTowers(nn.Module):
    def __init__(self, dropout: float = 0.0, uses_numpy: bool = False, is_checkpointed: bool = False) -> None:
        super().__init__()
        self.face, self.voice = (
            nn.Sequential(nn.Linear(NUM_INPUTS, 24), nn.Tanh(), nn.Dropout(dropout), nn.Linear(24, DIMENSION))
            for _ in range(2)
        )
        self.log_temperature = nn.Parameter(torch.tensor(math.log(0.2)))
        self.uses_numpy, self.is_checkpointed = uses_numpy, is_checkpointed
        self.num_calls = 0

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        self.num_calls += 1
        face, voice = batch
        if self.uses_numpy:  # as the time masking of transformers' Wav2Vec2 does
            draws = np.random.random(voice.shape)  # noqa: NPY002 - the global generator is the point
            voice = voice * torch.from_numpy((draws > 0.2).astype(np.float32))
        if self.is_checkpointed:
            face_BD = checkpoint(self.face, face, use_reentrant=False)
            voice_BD = checkpoint(self.voice, voice, use_reentrant=False)
        else:
            face_BD, voice_BD = self.face(face), self.voice(voice)
        temperature = temperature_of(self.log_temperature)
        return F.normalize(face_BD, dim=1), F.normalize(voice_BD, dim=1), temperature


def make_towers(**options: float | bool) -> TwoTowers:
    torch.manual_seed(7)
    return TwoTowers(**options)  # type: ignore[arg-type]


def make_batch(num_samples: int) -> tuple[Batch, Tensor]:
    """Inputs and identities; some people come several times, spread over all of the batch."""
    generator = torch.Generator().manual_seed(3)
    faces = torch.randn(num_samples, NUM_INPUTS, generator=generator)
    voices = torch.randn(num_samples, NUM_INPUTS, generator=generator)
    return (faces, voices), torch.arange(num_samples) % max(1, num_samples * 2 // 3)


def part_of(batch: Batch, rows: slice) -> Batch:
    return batch[0][rows], batch[1][rows]


def split(batch: Batch, sizes: list[int]) -> list[Batch]:
    return list(zip(*(tensor.split(sizes) for tensor in batch), strict=True))


def gradients(model: nn.Module) -> dict[str, Tensor]:
    named = {name.removeprefix("module."): parameter.grad for name, parameter in model.named_parameters()}
    return {name: grad.clone() for name, grad in named.items() if grad is not None}


def largest_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference in any parameter's gradient, relative to that gradient's largest number."""
    assert found.keys() == expected.keys()
    assert all(grad.abs().max() > 1e-4 for grad in expected.values()), "an oracle of zeros shows nothing"
    return max(float((found[n] - expected[n]).abs().max() / expected[n].abs().max()) for n in expected)
