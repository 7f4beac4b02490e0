"""The network: one embedding for each frame of a face and one for each row of a sound, in one space.

    mouth_cnn       2D convolutions over each crop, the first over five frames as well
    lip_landmarks   1D convolutions over the movements of the lips; about 50,000 weights in all
    lip_distances   the same over heights and widths of the mouth alone: for minutes of clips
    sound           1D convolutions over log-mel bands and MFCC, 100 rows a second
    temporal        on both sides a bidirectional LSTM, a Transformer that sees half a second to each side, or
                    nothing: the convolutions see 0.2 s to each side

Embeddings have length 1; their product measures how well a frame and a row fit. Four rows are one frame: so
that a step means the same time on both sides, the temporal part of the sound runs over every fourth row, four
times.

Letters: B clips, T frames, R rows, C values of a row, H hidden width, D numbers of an embedding.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lipsync.clips.clock import ROWS_PER_FRAME
from lipsync.network.augmentation import CROP_SHARE
from lipsync.sync.inputs import (
    DISTANCES_FROM,
    DISTANCES_LESS,
    FACE_KERNEL,
    LIP_DISTANCES,
    LIP_LANDMARKS,
    MOUTH_CNN,
    NUM_DISTANCES,
    NUM_FACE_BLOCKS,
    NUM_LIP_VALUES,
    SOUND_DILATIONS,
    SOUND_KERNEL,
)

TEMPORAL_REACH = 12  # frames (0.5 s) that a Transformer looks to each side
HEADS = 4
MAX_SIZE = 1024  # of a layer, an embedding, a row of sound, a mouth
# Initial factor on what a temporal part adds to its input: small, so that training starts with the
# convolutions, which learn from few clips.
TEMPORAL_GAIN = 0.1
FIRST_SCALE = 2.0  # natural logarithm of the factor on similarities


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes of a network; plain values, kept in its checkpoint.

    Attributes:
        visual_frontend: `mouth_cnn`, `lip_landmarks` or `lip_distances`.
        temporal: `lstm`, `transformer` or `none`.
        hidden_dim: H, a multiple of 4.
        embedding_dim: D.
        dropout: Share of channels switched off in training.
        num_sound_values: C.
        mouth_px: Side of the mouth crops that it is for, before they are cut.
        num_mels: Of the C values, the bands, which come first.
        sound_bands: Groups of bands whose means are all that it hears; 0: all C values.
    """

    visual_frontend: str
    temporal: str
    hidden_dim: int = 32
    embedding_dim: int = 16
    dropout: float = 0.1
    num_sound_values: int = 53
    mouth_px: int = 96
    num_mels: int = 40
    sound_bands: int = 0

    @property
    def num_face_inputs(self) -> int:
        """Values of a frame that the first convolution over lips takes."""
        return NUM_DISTANCES if self.visual_frontend == LIP_DISTANCES else NUM_LIP_VALUES

    def band_edges(self) -> list[int]:
        """First band of each group that the network hears, and the end of the last."""
        steps = range(self.sound_bands + 1)
        return [round(step * self.num_mels / self.sound_bands) for step in steps]

    def __post_init__(self) -> None:
        """Checks values that may be out of a file.

        Raises:
            ValueError: A part that there is none of, or a size beyond those of the settings.
        """
        parts = (
            self.visual_frontend in (MOUTH_CNN, LIP_LANDMARKS, LIP_DISTANCES),
            self.temporal in ("lstm", "transformer", "none"),
        )
        sizes = (self.hidden_dim, self.embedding_dim, self.num_sound_values, self.mouth_px, self.num_mels)
        # A former checkpoint has no num_mels, and then hears all values.
        has_bands = not self.sound_bands or 0 < self.sound_bands <= self.num_mels <= self.num_sound_values
        if not all(parts) or not all(0 < size <= MAX_SIZE for size in sizes) or not has_bands:
            raise ValueError(f"a network of {list(vars(self).values())}"[:200])

    def to_plain(self) -> dict[str, object]:
        """Numbers and strings, as a checkpoint may hold them."""
        return asdict(self)


class _Block(nn.Module):
    """Convolution over time, normalised over channels (of one moment, so that length does not matter)."""

    def __init__(self, width: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(
            width, width, kernel, padding=dilation * (kernel // 2), dilation=dilation
        )
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, values_BHT: Tensor) -> Tensor:
        changed_BTH = self.norm(self.convolution(values_BHT).transpose(1, 2))
        dropped: Tensor = self.dropout(functional.gelu(changed_BTH).transpose(1, 2))
        return values_BHT + dropped


class _MouthCnn(nn.Module):
    """(B, T, S, S) uint8 crops to (B, H, T)."""

    def __init__(self, hidden_dim: int, mouth_px: int) -> None:
        super().__init__()
        half = hidden_dim // 2
        side = math.ceil(round(mouth_px * CROP_SHARE) / 16)  # four times halved
        self.first = nn.Conv3d(1, half, (5, 5, 5), stride=(1, 2, 2), padding=(2, 2, 2))
        widths = (half, hidden_dim, hidden_dim, hidden_dim)
        self.rest = nn.Sequential(
            nn.GroupNorm(1, half),
            nn.GELU(),
            *(
                layer
                for before, after in itertools.pairwise(widths)
                for layer in (nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(1, after), nn.GELU())
            ),
        )
        # Where in the mouth something moves matters: no pooling over all of it.
        self.out = nn.Linear(hidden_dim * side * side, hidden_dim)

    def forward(self, mouths_BTSS: Tensor) -> Tensor:
        scaled = (mouths_BTSS.unsqueeze(1).float() - 128.0) / 64.0
        first = self.first(scaled).transpose(1, 2).flatten(0, 1)  # B*T, H/2, S/2, S/2
        values: Tensor = self.out(self.rest(first).flatten(1))
        return torch.unflatten(values, 0, mouths_BTSS.shape[:2]).transpose(1, 2)


class _Recurrent(nn.Module):
    """Bidirectional LSTM over (B, T, H)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cells = nn.LSTM(width, width // 2, batch_first=True, bidirectional=True)

    def forward(self, values_BTH: Tensor) -> Tensor:
        out: Tensor = self.cells(values_BTH)[0]
        return out


class _LocalAttention(nn.Module):
    """A Transformer layer in which each moment sees TEMPORAL_REACH to each side, by distance."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.to_qkv = nn.Linear(width, 3 * width)
        self.from_heads = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(HEADS, 2 * TEMPORAL_REACH + 1))
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = dropout

    def forward(self, values_BTH: Tensor) -> Tensor:
        num = values_BTH.shape[1]
        moments = torch.arange(num, device=values_BTH.device)
        apart = moments[None, :] - moments[:, None]
        bias = self.bias[:, apart.clamp(-TEMPORAL_REACH, TEMPORAL_REACH) + TEMPORAL_REACH]
        bias = bias.masked_fill(apart.abs() > TEMPORAL_REACH, -math.inf)
        query, key, value = torch.unflatten(self.to_qkv(values_BTH), 2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        heads = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        mixed: Tensor = self.from_heads(heads.transpose(1, 2).flatten(2))
        fed: Tensor = self.feed(mixed)
        return mixed + fed


class _Temporal(nn.Module):
    """Context of each moment from its neighbours, added to (B, H, T)."""

    def __init__(self, kind: str, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layer: nn.Module = _Recurrent(width) if kind == "lstm" else _LocalAttention(width, dropout)
        self.gain = nn.Parameter(torch.full((width,), TEMPORAL_GAIN))

    def forward(self, values_BHT: Tensor) -> Tensor:
        changed_BTH: Tensor = self.layer(self.norm(values_BHT.transpose(1, 2)))
        return values_BHT + (self.gain * changed_BTH).transpose(1, 2)


class LipSyncNetwork(nn.Module):
    """Embeds faces and sounds, as the module describes."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        width, dropout = config.hidden_dim, config.dropout
        if config.visual_frontend == MOUTH_CNN:
            self.face_input: nn.Module = _MouthCnn(width, config.mouth_px)
        else:
            self.face_input = nn.Conv1d(config.num_face_inputs, width, 1)
        self.face_blocks = nn.Sequential(
            *(_Block(width, FACE_KERNEL, 1, dropout) for _ in range(NUM_FACE_BLOCKS))
        )
        self.sound_input = nn.Conv1d(config.sound_bands or config.num_sound_values, width, 1)
        self.sound_blocks = nn.Sequential(
            *(_Block(width, SOUND_KERNEL, dilation, dropout) for dilation in SOUND_DILATIONS)
        )
        self.face_temporal, self.sound_temporal = (
            nn.Identity() if config.temporal == "none" else _Temporal(config.temporal, width, dropout)
            for _ in range(2)
        )
        self.face_output = nn.Conv1d(width, config.embedding_dim, 1)
        self.sound_output = nn.Conv1d(width, config.embedding_dim, 1)
        self.log_scale = nn.Parameter(torch.tensor(FIRST_SCALE))
        self.bias = nn.Parameter(torch.tensor(0.0))

    def embed_face(self, face: Tensor) -> Tensor:
        """(B, T, S, S) uint8 crops cut to CROP_SHARE, or (B, T, NUM_LIP_VALUES) float32, to (B, T, D)."""
        if self.config.visual_frontend == LIP_DISTANCES:
            less = functional.pad(face[..., list(DISTANCES_LESS)], (0, NUM_DISTANCES - len(DISTANCES_LESS)))
            face = face[..., list(DISTANCES_FROM)] - less
        if self.config.visual_frontend != MOUTH_CNN:
            face = face.transpose(1, 2)
        values_BHT = self.face_temporal(self.face_blocks(self.face_input(face)))
        return functional.normalize(self.face_output(values_BHT).transpose(1, 2), dim=2)

    def embed_sound(self, sound_BRC: Tensor) -> Tensor:
        """(B, R, C) to (B, R, D)."""
        if self.config.sound_bands:
            bounds = itertools.pairwise(self.config.band_edges())
            sound_BRC = torch.stack([sound_BRC[..., low:high].mean(dim=2) for low, high in bounds], dim=2)
        rows_BHR = self.sound_blocks(self.sound_input(sound_BRC.transpose(1, 2)))
        if self.config.temporal == "none":
            return functional.normalize(self.sound_output(rows_BHR).transpose(1, 2), dim=2)
        num_rows = rows_BHR.shape[2]
        missing = -num_rows % ROWS_PER_FRAME
        padded = functional.pad(rows_BHR, (0, missing))
        # Every fourth row from row 0, from row 1, …: as separate sequences.
        phases = torch.unflatten(padded, 2, (-1, ROWS_PER_FRAME)).permute(0, 3, 1, 2).flatten(0, 1)
        changed = torch.unflatten(self.sound_temporal(phases), 0, (-1, ROWS_PER_FRAME))
        rows = changed.permute(0, 2, 3, 1).flatten(2)[:, :, :num_rows]
        return functional.normalize(self.sound_output(rows).transpose(1, 2), dim=2)
