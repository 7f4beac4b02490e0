"""Runs the model that comes with the package: small convolutional networks and a ridge, in NumPy.

The file holds the weights of networks of `lipsync.network.model` without a temporal part, and of one ridge.
It is written by `lipsync/train_shipped.py`; MODEL_CARD.md beside it says what it was trained on, and how well
it does on people left out. Embeddings equal those of torch within 1e-4.

Arrays of model.npz (no pickles): "K.NAME", the weight NAME of network K; "ridge.weights", "ridge.variances";
and "description": JSON of {"format", "networks": sizes of each, "ridge_share", "calibration", "clips"}.

Letters: T frames or rows, H hidden width, D numbers of an embedding.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facevox.errors import UserError, one_line
from lipsync.clips.clock import ROWS_PER_FRAME
from lipsync.sync.chunks import in_chunks
from lipsync.sync.estimators import RidgeEstimator, SyncEstimator
from lipsync.sync.inputs import (
    DISTANCES_FROM,
    DISTANCES_LESS,
    FACE_KERNEL,
    INPUT_CONTEXT_FRAMES,
    LIP_DISTANCES,
    NUM_DISTANCES,
    NUM_FACE_BLOCKS,
    SOUND_DILATIONS,
    SOUND_KERNEL,
    lip_values,
    of_sound_values,
)
from lipsync.sync.methods import SHIPPED, Method
from lipsync.sync.posterior import SyncCalibration

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lipsync.clips.features import FaceTrack
    from lipsync.clips.sounds import SoundFeatures

    Values = NDArray[np.float32]

FILE = Path(__file__).with_name("model.npz")
CARD = Path(__file__).with_name("MODEL_CARD.md")
FORMAT = 1
NORM_EPSILON = 1e-5  # torch's LayerNorm
LEAST_LENGTH = 1e-12  # torch's normalize
CHUNK_FRAMES = 1000  # embedded at once; memory does not grow with the recording
FACE_REACH = NUM_FACE_BLOCKS * (FACE_KERNEL // 2)
SOUND_REACH = (SOUND_KERNEL // 2) * sum(SOUND_DILATIONS)


@dataclass(frozen=True)
class SmallNetwork:
    """A network of convolutions over lips and sound; numbers of `lipsync.network.model.LipSyncNetwork`.

    Attributes:
        sizes: Of its `NetworkConfig`.
        weights: By name, as torch has them; float32.
    """

    sizes: Mapping[str, Any]
    weights: Mapping[str, Values]

    @property
    def scale(self) -> float:
        """Factor on the products of embeddings."""
        return float(np.exp(self.weights["log_scale"]))

    def embed_face(self, lips: Values) -> Values:
        """(T, NUM_LIP_VALUES) to (T, D), length 1."""
        if self.sizes["visual_frontend"] == LIP_DISTANCES:
            missing = NUM_DISTANCES - len(DISTANCES_LESS)
            lips = lips[:, DISTANCES_FROM] - np.pad(lips[:, DISTANCES_LESS], ((0, 0), (0, missing)))
        return in_chunks(
            lips, CHUNK_FRAMES, FACE_REACH, lambda part: self._embed("face", part, (1,) * NUM_FACE_BLOCKS)
        )

    def embed_sound(self, sound: Values) -> Values:
        """(T, bands + coefficients) to (T, D), length 1."""
        num_groups, num_mels = self.sizes["sound_bands"], self.sizes["num_mels"]
        if num_groups:
            edges = [round(step * num_mels / num_groups) for step in range(num_groups + 1)]
            groups = [sound[:, low:high].mean(axis=1) for low, high in itertools.pairwise(edges)]
            sound = np.stack(groups, axis=1)
        chunk = CHUNK_FRAMES * ROWS_PER_FRAME
        return in_chunks(sound, chunk, SOUND_REACH, lambda part: self._embed("sound", part, SOUND_DILATIONS))

    def _embed(self, side: str, values: Values, dilations: tuple[int, ...]) -> Values:
        hidden = self._convolve(f"{side}_input", values, 1)
        for number, dilation in enumerate(dilations):
            name = f"{side}_blocks.{number}"
            changed = self._convolve(f"{name}.convolution", hidden, dilation)
            centred = changed - changed.mean(axis=1, keepdims=True)
            deviation = np.sqrt((centred * centred).mean(axis=1, keepdims=True) + np.float32(NORM_EPSILON))
            weight, bias = self.weights[f"{name}.norm.weight"], self.weights[f"{name}.norm.bias"]
            hidden = hidden + _gelu(centred / deviation * weight + bias)
        out = self._convolve(f"{side}_output", hidden, 1)
        lengths = np.sqrt((out * out).sum(axis=1, keepdims=True))
        unit: Values = out / np.maximum(lengths, np.float32(LEAST_LENGTH))
        return unit

    def _convolve(self, name: str, values: Values, dilation: int) -> Values:
        """(T, inputs) to (T, outputs): a convolution over time, zeros beyond the ends."""
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        taps = weight.shape[2]
        reach = dilation * (taps // 2)
        padded = np.pad(values, ((reach, reach), (0, 0)))
        # All taps at once: many small products cost BLAS ten times as much.
        columns = [padded[tap * dilation : tap * dilation + len(values)] for tap in range(taps)]
        rows = weight.transpose(2, 1, 0).reshape(taps * weight.shape[1], len(bias))
        convolved: Values = np.concatenate(columns, axis=1) @ rows + bias
        return convolved


def _gelu(values: Values) -> Values:
    from scipy.special import erf

    result: Values = values * np.float32(0.5) * (1 + erf(values * np.float32(0.5**0.5)))
    return result


class ShippedEstimator(SyncEstimator):
    """The mean of the networks' similarities, plus a share of the ridge's: all are logarithms of likelihoods.

    Args:
        networks: At least one.
        ridge: Fitted on the same clips.
        ridge_share: Factor on its similarities.
    """

    name = "small networks and a ridge"

    def __init__(self, networks: tuple[SmallNetwork, ...], ridge: RidgeEstimator, ridge_share: float) -> None:
        self.networks, self.ridge, self.ridge_share = networks, ridge, ridge_share
        self.context_frames = INPUT_CONTEXT_FRAMES + FACE_REACH

    def face_vectors(self, track: FaceTrack) -> NDArray[np.float32]:
        lips = lip_values(track.lips)
        # One product for all: embeddings side by side, each times its share.
        parts = [np.float32(net.scale / len(self.networks)) * net.embed_face(lips) for net in self.networks]
        return np.concatenate([*parts, np.float32(self.ridge_share) * self.ridge.face_vectors(track)], axis=1)

    def sound_vectors(self, sound: SoundFeatures) -> NDArray[np.float32]:
        num_values = sound.log_mel.shape[1] + sound.mfcc.shape[1]
        expected = self.networks[0].sizes["num_sound_values"]
        if num_values != expected:
            raise UserError(
                f"the model that comes with the package takes {expected} numbers for each row of sound, not "
                f"{num_values}: leave audio.num_mels and audio.num_mfcc alone, or use --method untrained"
            )
        heard = of_sound_values(
            sound,
            SOUND_REACH,
            lambda values: np.concatenate([net.embed_sound(values) for net in self.networks], axis=1),
        )
        return np.concatenate([heard, self.ridge.sound_vectors(sound)], axis=1)


@functools.cache
def load_shipped(file: Path = FILE) -> Method:
    """The model that comes with the package.

    Raises:
        UserError: Its file is missing or damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
        description = json.loads(arrays.pop("description").tobytes())
        if description["format"] != FORMAT:
            raise ValueError(f"format {description['format']}, this program reads {FORMAT}")
        networks = tuple(
            SmallNetwork(sizes, _named(arrays, f"{number}."))
            for number, sizes in enumerate(description["networks"])
        )
        ridge = RidgeEstimator(
            *(arrays[f"ridge.{name}"].astype(np.float64) for name in ("weights", "variances"))
        )
        calibration = SyncCalibration.from_plain(description["calibration"])
        estimator = ShippedEstimator(networks, ridge, float(description["ridge_share"]))
    except Exception as error:  # of damaged archives NumPy, zipfile and zlib raise anything
        raise UserError(
            f"{file}: the lip-sync model of the package cannot be read ({one_line(error)}); install facevox "
            "again, or use --method untrained"
        ) from None
    return Method(f"{SHIPPED}: {estimator.name}", estimator, calibration)


def _named(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, Values]:
    return {
        name.removeprefix(prefix): array.astype(np.float32)
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
