"""Small ViT and Wav2Vec2 encoders in transformers' own format: for tests, the demo and dry runs.

Their weights are random (from a seed): they hold no knowledge, and are never loaded in place of real ones.
Only the first convolution of the voice encoder begins as speech front ends do, as a bank of windowed sines on
the mel scale: from noise it would take most of a short training to become one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)
from transformers.utils import logging

from facevox.errors import UserError
from facevox.files import require_folder

VIT_FOLDER, WAV2VEC2_FOLDER = "vit-tiny", "wav2vec2-tiny"
RATE_HZ = 16000
WINDOW, HOP = 400, 160  # 25 and 10 ms at 16 kHz, the usual analysis of speech
NUM_BANDS = 40
LOWEST_HZ, HIGHEST_HZ = 60.0, 7600.0


def make_vit_config(image_size: int = 112, dropout: float = 0.0) -> ViTConfig:
    """Three layers of 96 numbers over patches of 8 x 8 pixels."""
    return ViTConfig(
        hidden_size=96,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=192,
        image_size=image_size,
        patch_size=8,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.0,
    )


def make_wav2vec2_config(dropout: float = 0.0) -> Wav2Vec2Config:
    """Two layers of 96 numbers over two convolutions, one frame every 20 ms at 16 kHz.

    The strides multiply to 320 samples, as those of wav2vec2-base; seven convolutions of its width would
    take most of the time of a small model. The first convolution has room for a sine and a cosine of each
    band. Layer norm in the convolutions: an embedding does not depend on
    how long the sound is padded in its batch. No layerdrop and no masking, which leave weights unused under
    distributed training.
    """
    return Wav2Vec2Config(
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=192,
        conv_dim=(2 * NUM_BANDS, 96),
        conv_kernel=(WINDOW, 3),
        conv_stride=(HOP, 2),
        feat_extract_norm="layer",
        do_stable_layer_norm=False,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        layerdrop=0.0,
        mask_time_prob=0.0,
        mask_feature_prob=0.0,
        hidden_dropout=dropout,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
    )


def mel_sines() -> NDArray[np.float32]:
    """(2 * NUM_BANDS, 1, WINDOW) filters: Hann-windowed sines and cosines at even steps of the mel scale.

    Each has length 1, so that white noise of variance 1 gives outputs of variance 1.

    Source: the mel scale of O'Shaughnessy, "Speech Communication" (1987): 2595 log10(1 + f / 700).
    """
    low, high = (2595 * np.log10(1 + f_hz / 700) for f_hz in (LOWEST_HZ, HIGHEST_HZ))
    centres_hz = 700 * (10 ** (np.linspace(low, high, NUM_BANDS) / 2595) - 1)
    phase = 2 * np.pi * centres_hz[:, None] * (np.arange(WINDOW) - (WINDOW - 1) / 2) / RATE_HZ
    filters: NDArray[np.float64] = np.concatenate([np.sin(phase), np.cos(phase)]) * np.hanning(WINDOW)
    filters /= np.linalg.norm(filters, axis=1, keepdims=True)
    return filters[:, None].astype(np.float32)


def write_tiny_encoders(
    output_dir: str | Path, *, image_size: int = 112, seed: int = 0, dropout: float = 0.0
) -> tuple[Path, Path]:
    """Writes `vit-tiny/` and `wav2vec2-tiny/` (config, weights, preprocessor) below `output_dir`.

    Args:
        output_dir: Made if missing.
        image_size: Side of the pictures that the ViT takes, in pixels; a multiple of 8.
        seed: Of the random weights; the same seed gives the same bytes on one kind of processor.
        dropout: Share of the numbers between layers that training drops; from 0 to below 1.

    Returns:
        The two folders, to be given as `--face_model` and `--voice_model`.

    Raises:
        UserError: A size that is not a multiple of the patch, or a dropout out of range.
    """
    if image_size < 16 or image_size % 8:
        raise UserError(f"--image_size {image_size}: a multiple of 8, at least 16, is expected")
    if not 0 <= dropout < 1:
        raise UserError(f"--dropout {dropout:g}: from 0 to below 1 is expected")
    # Two of transformers' functions have no types: they are given here.
    disable_progress_bar: Callable[[], None] = logging.disable_progress_bar
    make_extractor: Callable[..., Wav2Vec2FeatureExtractor] = Wav2Vec2FeatureExtractor
    disable_progress_bar()  # a bar for each of two small files is noise
    base = Path(output_dir)
    base.mkdir(parents=True, exist_ok=True)
    require_folder(base, "--output_dir")
    vit_dir, wav2vec2_dir = base / VIT_FOLDER, base / WAV2VEC2_FOLDER
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ViTModel(make_vit_config(image_size, dropout), add_pooling_layer=False).save_pretrained(vit_dir)
        voice: Any = Wav2Vec2Model(make_wav2vec2_config(dropout))
        with torch.no_grad():
            voice.feature_extractor.conv_layers[0].conv.weight.copy_(torch.from_numpy(mel_sines()))
        voice.save_pretrained(wav2vec2_dir)
    size = {"height": image_size, "width": image_size}
    ViTImageProcessorPil(size=size).save_pretrained(vit_dir)
    make_extractor(
        feature_size=1, sampling_rate=16000, do_normalize=True, return_attention_mask=True
    ).save_pretrained(wav2vec2_dir)
    return vit_dir, wav2vec2_dir
