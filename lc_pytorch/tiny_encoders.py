"""Small ViT and Wav2Vec2 encoders in transformers' own format: for tests, the demo and dry runs.

Their weights are random (from a seed): they hold no knowledge, and are never loaded in place of real ones.
"""

from pathlib import Path
from typing import Any

from facevox.errors import UserError
from facevox.files import require_folder

VIT_FOLDER, WAV2VEC2_FOLDER = "vit-tiny", "wav2vec2-tiny"


def make_vit_config(image_size: int = 112) -> Any:
    """Three layers of 96 numbers over patches of 8 x 8 pixels; dropout off."""
    from transformers import ViTConfig

    return ViTConfig(
        hidden_size=96,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=192,
        image_size=image_size,
        patch_size=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def make_wav2vec2_config() -> Any:
    """Two layers of 96 numbers over four convolutions, one frame every 20 ms at 16 kHz; dropout off.

    The strides multiply to 320 samples, as those of wav2vec2-base; seven convolutions of its width would
    take most of the time of a small model. Layer norm in the convolutions: an embedding does not depend on
    how long the sound is padded in its batch. No layerdrop and no masking, which leave weights unused under
    distributed training.
    """
    from transformers import Wav2Vec2Config

    return Wav2Vec2Config(
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=192,
        conv_dim=(32, 48, 64, 64),
        conv_kernel=(16, 10, 8, 4),
        conv_stride=(8, 5, 4, 2),
        feat_extract_norm="layer",
        do_stable_layer_norm=False,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        layerdrop=0.0,
        mask_time_prob=0.0,
        mask_feature_prob=0.0,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
    )


def write_tiny_encoders(output_dir: str | Path, *, image_size: int = 112, seed: int = 0) -> tuple[Path, Path]:
    """Writes `vit-tiny/` and `wav2vec2-tiny/` (config, weights, preprocessor) below `output_dir`.

    Args:
        output_dir: Made if missing.
        image_size: Side of the pictures that the ViT takes, in pixels; a multiple of 8.
        seed: Of the random weights; the same seed gives the same bytes.

    Returns:
        The two folders, to be given as `--face_model` and `--voice_model`.

    Raises:
        UserError: A size that is no multiple of the patch.
    """
    if image_size < 16 or image_size % 8:
        raise UserError(f"--image_size {image_size}: a multiple of 8, at least 16, is wanted")
    import torch
    from transformers import ViTImageProcessorPil, ViTModel, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    base = Path(output_dir)
    base.mkdir(parents=True, exist_ok=True)
    require_folder(base, "--output_dir")
    vit_dir, wav2vec2_dir = base / VIT_FOLDER, base / WAV2VEC2_FOLDER
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ViTModel(make_vit_config(image_size), add_pooling_layer=False).save_pretrained(vit_dir)
        Wav2Vec2Model(make_wav2vec2_config()).save_pretrained(wav2vec2_dir)
    size = {"height": image_size, "width": image_size}
    ViTImageProcessorPil(size=size).save_pretrained(vit_dir)
    Wav2Vec2FeatureExtractor(
        feature_size=1, sampling_rate=16000, do_normalize=True, return_attention_mask=True
    ).save_pretrained(wav2vec2_dir)
    return vit_dir, wav2vec2_dir
