"""ViT for faces; for mel spectrograms two layers on the flattened input, or pooling over time.

Flattening ties the model to one length of spectrogram. The two poolings take any length: a small network of
convolutions computes numbers for each frame, and the next layer gets their mean and deviation over time
("statistics"), or mean and deviation weighted by an attention over the frames ("attentive").

Source: Okabe, Koshinaka and Shinoda 2018, "Attentive Statistics Pooling for Deep Speaker Embedding",
equations 3 to 6; here with one attention for each channel.

Shape suffixes: B samples, 3 colours, H and W pixels, M mels, T frames, C channels, D numbers per embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from facevox.errors import UserError
from lc_pytorch.choices import DEFAULT_FACE_MODEL, MEL_POOLINGS
from lc_pytorch.models.encoders import build_encoder, encoder_config, load_face_encoder
from lc_pytorch.models.face_voice import TwoTowerModel, unit_rows

HIDDEN = 512  # between the two layers after the spectrogram
CHANNELS = 128  # of the convolutions before a pooling
ATTENTION = 64
MIN_VARIANCE = 1e-5  # under the root: its slope at 0 is infinite, and a steady channel must not stop training


class HQVoxCelebModel(TwoTowerModel):
    """Faces by a ViT, spectrograms by a small network; `model(mels, faces)`: (face, audio) embeddings.

    Args:
        embedding_dim: D, numbers per embedding.
        pretrained: Load the ViT's weights; False (random weights) only to train from scratch.
        face_model: Hub id or local folder of the ViT, or an encoder.
        num_mels: M, bands of the spectrograms.
        num_frames: T. Flattening takes spectrograms of this length only.
        mel_pooling: One of `MEL_POOLINGS`.
        temperature: Of the loss.
        learnable_temperature: Train the temperature too.

    Raises:
        UserError: Weights are missing and cannot be fetched, or a setting is out of range.
    """

    def __init__(
        self,
        embedding_dim: int = 512,
        pretrained: bool = True,
        *,
        face_model: str | Path | nn.Module = DEFAULT_FACE_MODEL,
        num_mels: int = 40,
        num_frames: int = 150,
        mel_pooling: str = "flatten",
        temperature: float = 0.07,
        learnable_temperature: bool = False,
    ) -> None:
        faults = []
        if mel_pooling not in MEL_POOLINGS:
            faults.append(f"--mel_pooling is {mel_pooling!r}: it should be one of {', '.join(MEL_POOLINGS)}")
        for name, value in (("mels", num_mels), ("mel frames", num_frames)):
            if not 1 <= value <= 1_000_000:
                faults.append(f"{value} {name}: at least 1 is expected")
        if faults:
            raise UserError("; ".join(faults))
        if not isinstance(face_model, nn.Module):
            face_model = load_face_encoder(face_model, is_pretrained=pretrained)
        super().__init__(face_model, embedding_dim, temperature, learnable_temperature)
        self.num_mels, self.num_frames, self.mel_pooling = num_mels, num_frames, mel_pooling
        self.audio_encoder: nn.Module | None = None
        width = num_mels * num_frames
        if mel_pooling != "flatten":
            self.audio_encoder = PooledMels(num_mels, is_attentive=mel_pooling == "attentive")
            width = 2 * CHANNELS
        self.audio_projection = nn.Sequential(
            nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, embedding_dim)
        )

    def forward(self, mels: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
        """(B, M, T) spectrograms and (B, 3, H, W) pictures → (face, audio), two (B, D) of unit vectors."""
        return self.embed_faces(faces), self.embed_voices(mels)

    def embed_voices(self, voices: Tensor) -> Tensor:
        """(B, M, T) normalised spectrograms → (B, D) unit vectors, float32.

        Raises:
            UserError: Spectrograms of a size that the model does not take.
        """
        self._check_size(tuple(voices.shape))
        if self.audio_encoder is not None:
            return unit_rows(self.audio_projection(self.audio_encoder(voices)))
        return unit_rows(self.audio_projection(voices.flatten(1)))

    def _check_size(self, shape: tuple[int, ...]) -> None:
        if self.audio_encoder is not None:
            expected = f"{self.num_mels} x any length"
            is_right = len(shape) == 3 and shape[1] == self.num_mels
        else:
            expected = f"{self.num_mels} x {self.num_frames}, because it flattens them (--mel_pooling)"
            is_right = shape[1:] == (self.num_mels, self.num_frames)
        if not is_right:
            size = " x ".join(str(side) for side in shape[1:])
            raise UserError(f"spectrograms of {size} (mels x frames); this model takes {expected}")

    def settings(self) -> dict[str, object]:
        """Settings with the ViT's configuration and the size of the spectrograms."""
        return {
            "embedding_dim": self.embedding_dim,
            "num_mels": self.num_mels,
            "num_frames": self.num_frames,
            "mel_pooling": self.mel_pooling,
            "temperature": self.rounded_temperature(),
            "learnable_temperature": self.log_temperature.requires_grad,
            "face_encoder": encoder_config(self.face_encoder),
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> HQVoxCelebModel:
        """A model with the ViT and the sizes of the settings; the weights are random until loaded."""
        names = ("num_mels", "num_frames", "mel_pooling", "temperature", "learnable_temperature")
        return cls(
            settings["embedding_dim"],
            face_model=build_encoder(settings["face_encoder"]),
            **{name: settings[name] for name in names},
        )

    def parts(self) -> dict[str, nn.Module]:
        """Encoders and projections; a model that flattens has no audio encoder."""
        encoder = {} if self.audio_encoder is None else {"audio_encoder": self.audio_encoder}
        return {
            "face_encoder": self.face_encoder,
            "face_projection": self.face_projection,
            **encoder,
            "audio_projection": self.audio_projection,
        }


class PooledMels(nn.Module):
    """Two convolutions over time, then mean and deviation: (B, M, T) → (B, 2 C) for any T of at least 1."""

    def __init__(self, num_mels: int, *, is_attentive: bool) -> None:
        super().__init__()
        # 5 and 3 frames see 70 ms: a pitch period of the lowest voices takes 15, a burst 10.
        self.frames = nn.Sequential(
            nn.Conv1d(num_mels, CHANNELS, 5, padding=2),
            nn.ReLU(),
            nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1),
            nn.ReLU(),
        )
        self.attention = (
            nn.Sequential(nn.Conv1d(CHANNELS, ATTENTION, 1), nn.Tanh(), nn.Conv1d(ATTENTION, CHANNELS, 1))
            if is_attentive
            else None
        )

    def forward(self, mels_BMT: Tensor) -> Tensor:
        """The mean and the deviation of each channel over time."""
        frames_BCT = self.frames(mels_BMT)
        if self.attention is None:
            weights_BCT = torch.full_like(frames_BCT, 1.0 / frames_BCT.shape[2])
        else:
            weights_BCT = self.attention(frames_BCT).softmax(dim=2)
        mean_BC = (weights_BCT * frames_BCT).sum(dim=2)
        variance_BC = (weights_BCT * (frames_BCT - mean_BC[..., None]).square()).sum(dim=2)
        return torch.cat([mean_BC, variance_BC.clamp(min=MIN_VARIANCE).sqrt()], dim=1)
