"""ViT and Wav2Vec2, each with a projection into one space where a person's face and voice are close.

Shape suffixes: B samples, 3 colours, H and W pixels, T sound samples, D numbers per embedding.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facevox.errors import UserError
from lc_pytorch.choices import DEFAULT_FACE_MODEL, DEFAULT_VOICE_MODEL
from lc_pytorch.losses import log_temperature, temperature_of
from lc_pytorch.models.encoders import (
    build_encoder,
    config_of,
    encoder_config,
    load_face_encoder,
    load_voice_encoder,
    pool_tokens,
)


class TwoTowerModel(nn.Module):
    """Base of the models with two sides: a face tower, the temperature, and normalised embeddings.

    A subclass adds the other side (`embed_voices`) and how to rebuild it (`settings`, `from_settings`).

    Attributes:
        face_encoder: The ViT.
        face_projection: Linear layer from the ViT's width to D.
        log_temperature: Scalar parameter; trained only when learnable.
    """

    def __init__(
        self, face_encoder: nn.Module, embedding_dim: int, temperature: float, is_temperature_learnable: bool
    ) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise UserError(f"--embedding_dim is {embedding_dim}: it should be at least 1")
        if not (temperature > 0 and math.isfinite(temperature)):
            raise UserError(f"--temperature is {temperature}: it should be a number above 0")
        self.embedding_dim = embedding_dim
        self.face_encoder = face_encoder
        self.face_projection = nn.Linear(_width(face_encoder), embedding_dim)
        start = (
            log_temperature(temperature) if is_temperature_learnable else torch.tensor(math.log(temperature))
        )
        self.log_temperature = nn.Parameter(start, requires_grad=is_temperature_learnable)

    @property
    def temperature(self) -> Tensor:
        """Scalar temperature; a learnt one stays within its bounds."""
        if self.log_temperature.requires_grad:
            return temperature_of(self.log_temperature)
        return self.log_temperature.exp()

    def rounded_temperature(self) -> float:
        """Temperature for `settings`: six digits, so that one at a bound is not stored as just outside."""
        return float(f"{float(self.log_temperature.detach().exp()):.6g}")

    @property
    def image_size(self) -> int:
        """Side of the square pictures that the face encoder takes, in pixels."""
        return int(config_of(self.face_encoder).image_size)

    def embed_faces(self, faces: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pictures → (B, D) unit vectors, float32."""
        return unit_rows(self.face_projection(pool_tokens(self.face_encoder, faces)))

    def embed_voices(self, voices: Tensor) -> Tensor:
        """Inputs of the other side → (B, D) unit vectors, float32."""
        raise NotImplementedError

    def settings(self) -> dict[str, object]:
        """Plain values from which `from_settings` builds a model of the same shape, without any download."""
        raise NotImplementedError

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> TwoTowerModel:
        """A model of the shape that `settings()` described; the weights are random until loaded."""
        raise NotImplementedError

    def parts(self) -> dict[str, nn.Module]:
        """The networks that are also saved one by one, by the name of their file."""
        raise NotImplementedError

    def encoders(self) -> list[nn.Module]:
        """The pretrained networks, which `--freeze_encoders` leaves as they are."""
        return [self.face_encoder]


class FaceVoiceModel(TwoTowerModel):
    """Faces by a ViT, voices by a Wav2Vec2; `model(faces, voices)` returns both embeddings.

    Args:
        embedding_dim: D, numbers per embedding.
        face_model: Hub id or local folder of the ViT, or an encoder.
        voice_model: Hub id or local folder of the Wav2Vec2, or an encoder.
        pretrained: Load the encoders' weights; False (random weights) only to train from scratch.
        temperature: Of the loss.
        learnable_temperature: Train the temperature too, within [0.01, 1].

    Raises:
        UserError: Weights are missing and cannot be fetched, or a setting is out of range.
    """

    def __init__(
        self,
        embedding_dim: int = 512,
        *,
        face_model: str | Path | nn.Module = DEFAULT_FACE_MODEL,
        voice_model: str | Path | nn.Module = DEFAULT_VOICE_MODEL,
        pretrained: bool = True,
        temperature: float = 0.07,
        learnable_temperature: bool = False,
    ) -> None:
        if not isinstance(face_model, nn.Module):
            face_model = load_face_encoder(face_model, is_pretrained=pretrained)
        if not isinstance(voice_model, nn.Module):
            voice_model = load_voice_encoder(voice_model, is_pretrained=pretrained)
        super().__init__(face_model, embedding_dim, temperature, learnable_temperature)
        self.audio_encoder = voice_model
        self.audio_projection = nn.Linear(_width(voice_model), embedding_dim)

    def forward(self, faces: Tensor, voices: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) pictures and (B, T) sounds → two (B, D) of unit vectors.

        Pictures and sounds are normalised as `create_data_transforms` and `FaceVoiceDataset` do it; all
        sounds of a batch have the same length.
        """
        return self.embed_faces(faces), self.embed_voices(voices)

    def embed_voices(self, voices: Tensor) -> Tensor:
        """(B, T) sounds → (B, D) unit vectors, float32."""
        return unit_rows(self.audio_projection(pool_tokens(self.audio_encoder, voices)))

    def settings(self) -> dict[str, object]:
        """Settings with the configurations of both encoders."""
        return {
            "embedding_dim": self.embedding_dim,
            "temperature": self.rounded_temperature(),
            "learnable_temperature": self.log_temperature.requires_grad,
            "face_encoder": encoder_config(self.face_encoder),
            "audio_encoder": encoder_config(self.audio_encoder),
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> FaceVoiceModel:
        """A model with the two encoders of the settings; the weights are random until loaded."""
        return cls(
            settings["embedding_dim"],
            face_model=build_encoder(settings["face_encoder"]),
            voice_model=build_encoder(settings["audio_encoder"]),
            temperature=settings["temperature"],
            learnable_temperature=settings["learnable_temperature"],
        )

    def parts(self) -> dict[str, nn.Module]:
        """Both encoders and both projections."""
        return {
            "face_encoder": self.face_encoder,
            "face_projection": self.face_projection,
            "audio_encoder": self.audio_encoder,
            "audio_projection": self.audio_projection,
        }

    def encoders(self) -> list[nn.Module]:
        """The ViT and the Wav2Vec2."""
        return [self.face_encoder, self.audio_encoder]


def unit_rows(rows_BD: Tensor) -> Tensor:
    """Rows of length 1, in float32 under autocast too: bfloat16 would leave lengths 0.4 % off."""
    return F.normalize(rows_BD.float(), dim=1)


def _width(encoder: nn.Module) -> int:
    return int(config_of(encoder).hidden_size)
