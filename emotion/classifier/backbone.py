"""MobileNetV3Large, layer by layer as `keras.applications` has it, built so that a saved model loads again.

The one of Keras computes its hard sigmoid by arithmetic on symbolic tensors, and a whole-model `.h5` with
such operations does not load. Here it is a layer. Names, order and shapes of the weights are the same, so
weights of the one fit the other.

Source: Howard et al. (2019), "Searching for MobileNetV3", table 1; `keras.applications.mobilenet_v3`.
"""

from typing import NamedTuple

import keras
from keras import layers

MULTIPLE = 8  # channels come in multiples of it
SQUEEZE_RATIO = 0.25
# Keras has 0.999 here. The statistics are computed again before they are used (emotion.classifier.averaging),
# but in training from scratch they should not be nearly the initial ones after hundreds of steps either.
BN_MOMENTUM = 0.99


class Block(NamedTuple):
    """An inverted residual block."""

    expansion: float
    channels: int
    kernel: int
    stride: int
    has_squeeze: bool
    activation: str


BLOCKS = (
    Block(1, 16, 3, 1, False, "relu"),
    Block(4, 24, 3, 2, False, "relu"),
    Block(3, 24, 3, 1, False, "relu"),
    Block(3, 40, 5, 2, True, "relu"),
    Block(3, 40, 5, 1, True, "relu"),
    Block(3, 40, 5, 1, True, "relu"),
    Block(6, 80, 3, 2, False, "hard_swish"),
    Block(2.5, 80, 3, 1, False, "hard_swish"),
    Block(2.3, 80, 3, 1, False, "hard_swish"),
    Block(2.3, 80, 3, 1, False, "hard_swish"),
    Block(6, 112, 3, 1, True, "hard_swish"),
    Block(6, 112, 3, 1, True, "hard_swish"),
    Block(6, 160, 5, 2, True, "hard_swish"),
    Block(6, 160, 5, 1, True, "hard_swish"),
    Block(6, 160, 5, 1, True, "hard_swish"),
)
# The first block whose output is a sixteenth of the picture: stage 4 begins here, stages 1 to 3 end.
FIRST_BLOCK_OF_STAGE_4 = 6


def build_backbone(img_size: int) -> keras.Model:
    """MobileNetV3Large without its top, weights drawn at random.

    Args:
        img_size: Side of the input, pixels; at least 32.

    Returns:
        (B, S, S, 3) pixel values 0 to 255, S = img_size -> (B, ceil(S / 32), ceil(S / 32), 960). The scaling
        to -1 … 1 is its first layer.
    """
    pixels = keras.Input((img_size, img_size, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(pixels)
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False, name="conv")(x)
    x = layers.Activation("hard_swish", name="conv_act")(_normalised(x, "conv"))
    for index, block in enumerate(BLOCKS):
        x = _residual_block(x, block, f"expanded_conv_{index}_" if index else "expanded_conv_", index > 0)
    x = layers.Conv2D(channels_of(6 * x.shape[-1]), 1, padding="same", use_bias=False, name="conv_1")(x)
    x = layers.Activation("hard_swish", name="conv_1_act")(_normalised(x, "conv_1"))
    return keras.Model(pixels, x, name="MobileNetV3Large")


def channels_of(width: float) -> int:
    """The multiple of 8 nearest to `width`, at most a tenth below it."""
    rounded = max(MULTIPLE, int(width + MULTIPLE / 2) // MULTIPLE * MULTIPLE)
    return rounded + MULTIPLE if rounded < 0.9 * width else rounded


def _normalised(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.BatchNormalization(epsilon=1e-3, momentum=BN_MOMENTUM, name=f"{name}_bn")(x)


def _residual_block(x: keras.KerasTensor, block: Block, prefix: str, expands: bool) -> keras.KerasTensor:
    shortcut, channels_in = x, x.shape[-1]
    inner = channels_of(channels_in * block.expansion)
    if expands:
        x = layers.Conv2D(inner, 1, padding="same", use_bias=False, name=f"{prefix}expand")(x)
        x = layers.Activation(block.activation, name=f"{prefix}expand_act")(_normalised(x, f"{prefix}expand"))
    if block.stride == 2:
        x = layers.ZeroPadding2D(_stride_padding(x, block.kernel), name=f"{prefix}depthwise_pad")(x)
    x = layers.DepthwiseConv2D(
        block.kernel,
        strides=block.stride,
        padding="same" if block.stride == 1 else "valid",
        use_bias=False,
        name=f"{prefix}depthwise",
    )(x)
    x = layers.Activation(block.activation, name=f"{prefix}depthwise_act")(
        _normalised(x, f"{prefix}depthwise")
    )
    if block.has_squeeze:
        x = _squeeze(x, inner, prefix)
    x = layers.Conv2D(block.channels, 1, padding="same", use_bias=False, name=f"{prefix}project")(x)
    x = _normalised(x, f"{prefix}project")
    if block.stride == 1 and channels_in == block.channels:
        x = layers.Add(name=f"{prefix}add")([shortcut, x])
    return x


def _squeeze(x: keras.KerasTensor, channels: int, prefix: str) -> keras.KerasTensor:
    """Squeeze-and-excite: each channel times a number from 0 to 1 that depends on all channels' means."""
    name = f"{prefix}squeeze_excite"
    share = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_avg_pool")(x)
    share = layers.Conv2D(channels_of(channels * SQUEEZE_RATIO), 1, padding="same", name=f"{name}_conv")(
        share
    )
    share = layers.ReLU(name=f"{name}_relu")(share)
    share = layers.Conv2D(channels, 1, padding="same", name=f"{name}_conv_1")(share)
    # Keras' own: relu6(x + 3) / 6, the same function.
    share = layers.Activation("hard_sigmoid", name=f"{name}_hard_sigmoid")(share)
    return layers.Multiply(name=f"{name}_mul")([x, share])


def _stride_padding(x: keras.KerasTensor, kernel: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Zeros before and after rows and columns, so that a stride of 2 fits odd and even sizes alike."""
    half = kernel // 2
    rows, columns = (half - (1 - side % 2) for side in x.shape[1:3])
    return (rows, half), (columns, half)
