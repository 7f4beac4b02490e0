"""The classifier, and which of its layers train in each phase.

    pixels -> MobileNetV3Large -> mean over the picture -> Dense 256 ReLU -> Dropout -> Dense C -> softmax

Training works on the logits; what is exported ends in a softmax of them (`with_probabilities`).
"""

import keras
from keras import layers

from emotion.classifier.backbone import FIRST_BLOCK_OF_STAGE_4, build_backbone

HIDDEN_UNITS = 256
HEAD_LAYERS = ("pool", "hidden", "dropout", "logits")


def build_network(img_size: int, num_classes: int, dropout_rate: float, *, seed: int = 0) -> keras.Model:
    """The classifier with weights drawn at random.

    Args:
        img_size: Side of the square input, pixels.
        num_classes: C.
        dropout_rate: Share of the hidden units dropped in each training step.
        seed: Of the weights and of dropout.

    Returns:
        (B, img_size, img_size, 3) pixel values 0 to 255 -> (B, C) logits, float32 under any precision.
    """
    keras.utils.set_random_seed(seed)
    backbone = build_backbone(img_size)
    x = layers.GlobalAveragePooling2D(name="pool")(backbone.output)
    x = layers.Dense(HIDDEN_UNITS, activation="relu", name="hidden")(x)
    x = layers.Dropout(dropout_rate, seed=seed, name="dropout")(x)
    x = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(backbone.input, x, name="emotion_classifier")


def with_probabilities(network: keras.Model, temperature: float = 1.0) -> keras.Model:
    """The same layers with a softmax at the end: (B, C) probabilities, float32, each row summing to 1.

    Args:
        network: Of `build_network`.
        temperature: The logits are divided by it first (`emotion.scores.calibration`); a layer of the model.
    """
    x = layers.Rescaling(1.0 / temperature, dtype="float32", name="temperature")(network.output)
    x = layers.Softmax(dtype="float32", name="probabilities")(x)
    return keras.Model(network.input, x, name="emotion_classifier")


def backbone_layers(network: keras.Model) -> list[keras.Layer]:
    """The layers of MobileNetV3Large, from the input on."""
    return [layer for layer in network.layers if layer.name not in HEAD_LAYERS]


def batch_norms(candidates: list[keras.Layer]) -> list[keras.Layer]:
    """Those of the layers that are BatchNormalization."""
    return [layer for layer in candidates if isinstance(layer, layers.BatchNormalization)]


def freeze_backbone(network: keras.Model) -> None:
    """Head phase: only `hidden` and `logits` train; BatchNorm keeps its statistics."""
    _reset(network)
    for layer in backbone_layers(network):
        layer.trainable = False


def unfreeze_backbone(network: keras.Model, unfreeze_from: float, freeze_bn_mode: str) -> None:
    """Fine-tuning: the head, and the backbone from a share of its depth on.

    Below that share everything stays frozen, BatchNorm with it. From there on BatchNorm layers

    * `all`: stay frozen, statistics, gamma and beta;
    * `s3`: stay frozen in stages 1 to 3 (whose outputs are a half, a quarter and an eighth of the picture's
      side) and train in stages 4 and 5;
    * `adaptive`: keep gamma and beta, while their statistics become those of our pictures;
    * `none`: train whole.

    Args:
        network: Of `build_network`.
        unfreeze_from: UNFREEZE_FROM, a share of the number of backbone layers.
        freeze_bn_mode: FREEZE_BN_MODE.
    """
    _reset(network)
    backbone = backbone_layers(network)
    first = round(unfreeze_from * len(backbone))
    for layer in backbone[:first]:
        layer.trainable = False
    for layer in batch_norms(backbone[first:]):
        if freeze_bn_mode == "all" or (freeze_bn_mode == "s3" and _is_before_stage_4(layer.name)):
            layer.trainable = False
        elif freeze_bn_mode == "adaptive":
            layer.gamma.trainable = False
            layer.beta.trainable = False


def adapting_batch_norms(network: keras.Model) -> list[keras.Layer]:
    """The BatchNorm layers that are not frozen: they work with each batch's statistics in training."""
    return [layer for layer in batch_norms(network.layers) if layer.trainable]


def _reset(network: keras.Model) -> None:
    for layer in network.layers:
        layer.trainable = True
    for layer in batch_norms(network.layers):  # `adaptive` froze these two by themselves
        layer.gamma.trainable = layer.beta.trainable = True


def _is_before_stage_4(name: str) -> bool:
    """True if a layer comes before the first block whose output is a sixteenth of the picture."""
    if name.startswith("expanded_conv_"):
        index = name.removeprefix("expanded_conv_").split("_")[0]
        return not index.isdigit() or int(index) < FIRST_BLOCK_OF_STAGE_4
    return name == "conv_bn"
