"""The network: equal to Keras' MobileNetV3Large at the same weights; what trains in each phase and mode."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion.classifier import pretrained
from emotion.classifier.backbone import build_backbone
from emotion.classifier.network import (
    adapting_batch_norms,
    backbone_layers,
    batch_norms,
    build_network,
    freeze_backbone,
    unfreeze_backbone,
)
from facevox.errors import UserError

SIZE = 64


@pytest.fixture(scope="module")
def keras_model() -> Any:
    """Keras' own, with statistics that are not 0 and 1."""
    import keras

    model = keras.applications.MobileNetV3Large((SIZE, SIZE, 3), include_top=False, weights=None)
    rng = np.random.default_rng(0)
    for layer in batch_norms(model.layers):
        shape = layer.moving_mean.shape
        layer.set_weights(
            [rng.uniform(0.5, 1.5, shape), rng.normal(0, 0.2, shape), rng.normal(0, 0.2, shape),
             rng.uniform(0.5, 1.5, shape)]
        )  # fmt: skip
    return model


@pytest.fixture(scope="module")
def network() -> Any:
    return build_network(SIZE, 5, 0.25)


def test_weights_file_of_keras_gives_the_same_features(keras_model: Any, tmp_path: Path) -> None:
    path = tmp_path / "backbone.weights.h5"
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    with h5py.File(path, "w") as file:  # the format of the ImageNet file
        legacy_h5_format.save_weights_to_hdf5_group(file, keras_model)
    legacy = tmp_path / "backbone.h5"
    path.rename(legacy)
    backbone = build_backbone(SIZE)
    pretrained.load_backbone(backbone, str(legacy))
    images = np.random.default_rng(1).uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    expected = np.asarray(keras_model(images, training=False))
    np.testing.assert_allclose(np.asarray(backbone(images, training=False)), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", "empty"), (b"not a weight file", "a text"), (b"<html>", "a web page"), ("another model", "")],
)
def test_other_weight_file_is_one_line(content: bytes | str, text: str, tmp_path: Path) -> None:
    import keras

    path = tmp_path / "x.h5"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(tmp_path / "x.weights.h5")
        (tmp_path / "x.weights.h5").rename(path)
    with pytest.raises(UserError, match=f"does not hold MobileNetV3Large without its top: {text}"):
        pretrained.load_backbone(build_backbone(32), str(path))


def test_missing_imagenet_weights_name_file_folder_and_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(pretrained, "SERVER", "https://127.0.0.1:9/")
    with pytest.raises(UserError) as caught:
        pretrained.backbone_file("imagenet")
    text = str(caught.value)
    assert pretrained.FILE_NAME in text
    assert str(tmp_path / "models") in text
    assert "make weights" in text
    assert "BACKBONE_WEIGHTS=none" in text
    with pytest.raises(UserError, match="no such file"):
        pretrained.backbone_file(str(tmp_path / "no.h5"))
    assert pretrained.backbone_file("none") is None
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / pretrained.FILE_NAME).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"in .*models is a Git LFS pointer, .* and cannot be fetched now"):
        pretrained.backbone_file("imagenet")


def test_keras_knows_the_imagenet_file_by_the_same_name() -> None:
    from keras.src.applications import mobilenet_v3

    assert pretrained.SERVER == mobilenet_v3.BASE_WEIGHT_PATH
    assert pretrained.FILE_NAME == "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5"
    assert "large_224_1.0_float" in mobilenet_v3.WEIGHTS_HASHES


def trainable_layers(network: Any) -> set[str]:
    return {weight.path.split("/")[0] for weight in network.trainable_weights}


def test_head_is_as_documented(network: Any) -> None:
    import keras

    pool, hidden, dropout, logits = network.layers[-4:]
    assert isinstance(pool, keras.layers.GlobalAveragePooling2D)
    assert (hidden.units, hidden.activation.__name__) == (256, "relu")
    assert dropout.rate == 0.25
    assert logits.units == 5


def test_head_phase_trains_the_head_alone(network: Any) -> None:
    freeze_backbone(network)
    assert trainable_layers(network) == {"hidden", "logits"}
    assert adapting_batch_norms(network) == []


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_finetuning_leaves_layers_below_its_share_frozen(network: Any, share: float) -> None:
    unfreeze_backbone(network, share, "none")
    layers = backbone_layers(network)
    first = round(share * len(layers))
    below = {layer.name for layer in layers[:first] if layer.weights}
    above = {layer.name for layer in layers[first:] if layer.weights}
    assert trainable_layers(network) == above | {"hidden", "logits"}
    assert {layer.name for layer in adapting_batch_norms(network)} == {
        layer.name for layer in batch_norms(layers[first:])
    }
    assert (share == 0.0) == (not below)


STAGES_1_TO_3 = {"conv_bn", "expanded_conv_depthwise_bn", "expanded_conv_project_bn"} | {
    f"expanded_conv_{block}_{part}_bn" for block in range(1, 6) for part in ("expand", "depthwise", "project")
}


def test_freeze_bn_modes(network: Any) -> None:
    names = {layer.name for layer in batch_norms(backbone_layers(network))}
    assert names > STAGES_1_TO_3
    trained, adapting, affine = {}, {}, {}
    for mode in ("all", "s3", "adaptive", "none"):
        unfreeze_backbone(network, 0.0, mode)
        trained[mode] = trainable_layers(network) & names
        adapting[mode] = {layer.name for layer in adapting_batch_norms(network)}
        affine[mode] = {w.path for w in network.trainable_weights if w.path.endswith(("/gamma", "/beta"))}
    assert trained == {"all": set(), "s3": names - STAGES_1_TO_3, "adaptive": set(), "none": names}
    assert adapting == {"all": set(), "s3": names - STAGES_1_TO_3, "adaptive": names, "none": names}
    assert len(affine["none"]) == 2 * len(names)
    assert affine["adaptive"] == set()


def test_stage_4_begins_where_the_picture_is_a_sixteenth(network: Any) -> None:
    sides = {name: network.get_layer(f"{name}_bn").output.shape[1] for name in
             ("expanded_conv_5_project", "expanded_conv_6_project", "expanded_conv_12_project")}  # fmt: skip
    assert list(sides.values()) == [SIZE // 8, SIZE // 16, SIZE // 32]
