"""Pretrained encoders by hub id or from a local folder: ViT for faces, Wav2Vec2 for voices.

A hub id is first looked up in the local cache; the network is used only if it is not cached, after one quick
check that it answers. Missing weights are an error, never random numbers: an untrained encoder has to be
requested (`is_pretrained=False`).

Layers that a contrastive training would leave without gradient, on which distributed training stops, are
switched off: the ViT's pooler, Wav2Vec2's layer drop and its masking of the input (`apply_spec_augment`).

transformers is imported in functions: it takes seconds, and every spawned loader process imports this module.

Shape suffixes: B samples, 3 colours, H and W pixels, T sound samples, K tokens or time steps, D numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from torch import Tensor, nn

from facevox.errors import UserError, one_line
from lc_pytorch.models.bounds import bounded_config, check_parameters
from lc_pytorch.models.hub import from_hub, read_weights

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_KINDS = {"face": ("image_size", "a ViT"), "voice": ("conv_stride", "a Wav2Vec2")}
# Weights that a checkpoint may lack: nothing here uses them (pooler: not built; the others: masking, off).
_UNUSED = ("pooler.", "masked_spec_embed", "mask_token")


class LoadingInfo(TypedDict):
    """Report of transformers about weights that it has loaded."""

    missing_keys: list[str]
    mismatched_keys: list[str]


def load_face_encoder(name: str | Path, *, is_pretrained: bool = True) -> nn.Module:
    """A ViT without pooler: (B, 3, H, W) pictures → `last_hidden_state` (B, K, D).

    Args:
        name: Hub id, or a folder in transformers' format.
        is_pretrained: Load the weights too; otherwise they are random and only the configuration is read.

    Raises:
        UserError: Not cached and not to be fetched (known within seconds), or not such a model.
    """
    return _load(name, "face", is_pretrained)


def load_voice_encoder(name: str | Path, *, is_pretrained: bool = True) -> nn.Module:
    """A Wav2Vec2 (HuBERT and WavLM work too): (B, T) sound → `last_hidden_state` (B, K, D).

    Args and errors: as `load_face_encoder`.
    """
    return _load(name, "voice", is_pretrained)


def build_encoder(config: Mapping[str, object]) -> nn.Module:
    """The encoder that `encoder_config` described, with random weights (to be replaced by trained ones)."""
    from transformers import AutoConfig

    settings = dict(config)
    kind = str(settings.pop("model_type", ""))
    try:
        return _from_config(AutoConfig.for_model(kind, **bounded_config(settings, "config.json")))
    except UserError:
        raise
    except Exception as error:  # of values that do not fit transformers and torch raise anything
        raise UserError(
            f"config.json: an encoder of kind {kind!r} cannot be built ({one_line(error)})"
        ) from None


def config_of(encoder: nn.Module) -> Any:
    """The configuration that transformers gave an encoder; its fields depend on the kind of model."""
    return encoder.config


def encoder_config(encoder: nn.Module) -> dict[str, object]:
    """Settings for `build_encoder`, as plain JSON values."""
    config = config_of(encoder)
    settings: dict[str, object] = config.to_diff_dict()
    dropped = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
    return {name: value for name, value in settings.items() if name not in dropped} | {
        "model_type": config.model_type
    }


def pool_tokens(encoder: nn.Module, inputs: Tensor) -> Tensor:
    """(B, D): the mean over all tokens of the last layer.

    The mean needs no trained pooler and no special token, so it works for both encoders and any length.
    """
    tokens_BKD: Tensor = encoder(inputs).last_hidden_state
    return tokens_BKD.mean(dim=1)


def _load(name: str | Path, kind: str, is_pretrained: bool) -> nn.Module:
    import transformers

    # A bar for each of two local files is noise. (transformers leaves this function without types.)
    disable_progress_bar: Callable[[], object] = transformers.logging.disable_progress_bar
    disable_progress_bar()
    option = f"--{kind}_model"
    source, is_local = _source(name, option)
    field, expected = _KINDS[kind]
    if is_local:
        config = read_weights(lambda: _read_config(source, option, local_files_only=True), source, option)
    else:
        config = from_hub(partial(_read_config, source, option), source, option)
    if not hasattr(config, field) or not hasattr(config, "hidden_size"):
        raise UserError(f"{option} {name}: a {config.model_type!r} model; {expected} is expected here")
    num_bytes = _weight_bytes(source) if is_local and is_pretrained else 0
    check = partial(check_parameters, partial(_from_config, config), num_bytes, f"{option} {name}")
    read_weights(check, source, option)
    if not is_pretrained:
        return read_weights(lambda: _from_config(config), source, option)

    def load(**where: bool) -> tuple[PreTrainedModel, LoadingInfo]:
        model_class = _model_class(config)
        loaded: tuple[PreTrainedModel, LoadingInfo] = model_class.from_pretrained(
            source, config=config, output_loading_info=True, **_extras(model_class), **where
        )
        return loaded

    if is_local:
        model, info = read_weights(lambda: load(local_files_only=True), source, option)
    else:
        model, info = from_hub(load, source, option)
    _refuse_missing(info, name, option)
    return _prepared(model)


def _read_config(source: str, option: str, **where: bool) -> Any:
    from transformers import CONFIG_MAPPING, PretrainedConfig

    settings, _ = PretrainedConfig.get_config_dict(source, **where)
    kind = settings.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise UserError(f"{option} {source}: its config.json is of no model that transformers has ({kind!r})")
    config = CONFIG_MAPPING[kind].from_dict(bounded_config(settings, f"{option} {source}: config.json"))
    config.name_or_path = source
    return config


def _weight_bytes(folder: str) -> int:
    """Bytes of the weights in a folder, each of which takes one at least."""
    files = [file for file in Path(folder).iterdir() if file.suffix in (".safetensors", ".bin")]
    return sum(file.stat().st_size for file in files)


def _source(name: str | Path, option: str) -> tuple[str, bool]:
    """(name for transformers, whether it is a folder)."""
    text = str(name)
    folder = Path(text).expanduser()
    if text and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{option} {name}: the folder has no config.json; give one in transformers' format"
            )
        return str(folder), True
    looks_like_path = text.startswith((".", "/", "~")) or text.count("/") > 1 or isinstance(name, Path)
    if looks_like_path or not text:
        raise UserError(f"{option} {name}: there is no such folder")
    return text, False


def _model_class(config: PretrainedConfig) -> Any:
    from transformers import AutoModel

    try:
        return AutoModel._model_mapping[type(config)]
    except KeyError:
        raise UserError(f"there is no encoder for a {config.model_type!r} model") from None


def _extras(model_class: Callable[..., object]) -> dict[str, bool]:
    has_pooler = "add_pooling_layer" in inspect.signature(model_class).parameters
    return {"add_pooling_layer": False} if has_pooler else {}


def _from_config(config: PretrainedConfig) -> nn.Module:
    model_class = _model_class(config)
    return _prepared(model_class(config, **_extras(model_class)))


def _prepared(model: PreTrainedModel) -> nn.Module:
    for name in ("layerdrop", "mask_time_prob", "mask_feature_prob"):
        if hasattr(model.config, name):
            setattr(model.config, name, 0.0)
    if hasattr(model.config, "apply_spec_augment"):
        model.config.apply_spec_augment = False
    # A Wav2Vec2 that is rebuilt from this configuration, with masking off, has no such weight.
    if getattr(model, "masked_spec_embed", None) is not None:
        del model.masked_spec_embed
    # A ViT's mask token gets no gradient either, and stays in the weights.
    for name, parameter in model.named_parameters():
        if name.endswith("mask_token"):
            parameter.requires_grad_(False)
    to_float: Callable[[], nn.Module] = model.float  # without types in transformers
    return to_float()


def _refuse_missing(info: LoadingInfo, name: str | Path, option: str) -> None:
    missing = [
        key for key in info["missing_keys"] if not key.endswith(_UNUSED) and not key.startswith(_UNUSED)
    ]
    wrong = [str(key) for key in info.get("mismatched_keys", [])]
    if missing or wrong:
        example = (missing + wrong)[0]
        raise UserError(
            f"{option} {name}: the weights do not fit the configuration ({len(missing)} missing, "
            f"{len(wrong)} of another size, such as {example}); give a complete model"
        )
