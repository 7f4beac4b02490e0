"""A trained network as a `SyncEstimator`, and the checkpoint that holds it.

A network trained on minutes of speech and a ridge regression fitted on the same minutes make different
errors. The estimator adds their similarities, as both are logarithms of likelihoods.

best_model.pth of format 1 holds plain values and weights: {"format", "kind": "lipsync", "network" (sizes),
"model" (weights), "ridge" ({"weights", "variances", "share"} or None), "calibration" (or None), "settings",
"versions"}. Settings without "clock" and a calibration with "weights" are of an earlier version.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from facevox.errors import UserError, one_line
from facevox.mesh.kinds import FACE_MESH, require_face_mesh
from facevox.training.checkpoint import load_checkpoint, load_weights, save_checkpoint
from facevox.training.distributed import choose_device
from lipsync.clips.clock import CLOCK, ROWS_PER_FRAME
from lipsync.clips.features import FaceTrack
from lipsync.clips.sounds import SoundFeatures
from lipsync.network.augmentation import crop_mouths
from lipsync.network.model import TEMPORAL_REACH, LipSyncNetwork, NetworkConfig
from lipsync.network.takes import face_values
from lipsync.sync.chunks import in_chunks
from lipsync.sync.estimators import RidgeEstimator, SyncEstimator
from lipsync.sync.inputs import (
    FACE_KERNEL,
    INPUT_CONTEXT_FRAMES,
    MOUTH_CNN,
    NUM_FACE_BLOCKS,
    SOUND_DILATIONS,
    SOUND_KERNEL,
    sound_values,
)
from lipsync.sync.methods import CHECKPOINT, Method
from lipsync.sync.posterior import SyncCalibration

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
KIND = "lipsync"
RIDGE_SHARE, FORMER_RIDGE_SHARE, MOST_RIDGE_SHARE = 0.25, 1.0, 100.0
# For checkpoints of the former kind: about that of the shipped model, whose similarities have the same scale.
STAND_IN = SyncCalibration(sharpness=0.14, weight=0.8, bias=-0.45, spread_ms=5.0)
CHUNK_FRAMES = 500  # embedded at once; memory does not grow with the recording
# Frames (or rows in frames) that convolutions and temporal parts see to each side. An LSTM sees everything;
# what is beyond this changes similarities by less than 0.01 (tested).
_CONVOLUTION_FRAMES = max(
    NUM_FACE_BLOCKS * (FACE_KERNEL // 2) + 2,
    -(-(SOUND_KERNEL // 2) * sum(SOUND_DILATIONS) // ROWS_PER_FRAME),
)
NETWORK_CONTEXT_FRAMES = _CONVOLUTION_FRAMES + TEMPORAL_REACH


class NetworkEstimator(SyncEstimator):
    """The products of a network's embeddings times its learned scale, plus a share of a ridge's similarities.

    Args:
        network: On the CPU or a GPU; put into evaluation mode.
        ridge: Fitted on the same clips; None: the network alone.
        ridge_share: Factor on its similarities: 0.1 to 0.5 do equally well on people left out, 1 worse.
    """

    def __init__(
        self, network: LipSyncNetwork, ridge: RidgeEstimator | None = None, ridge_share: float = RIDGE_SHARE
    ) -> None:
        self.network, self.ridge, self.ridge_share = network.eval(), ridge, ridge_share
        parts = [network.config.visual_frontend, network.config.temporal] + ["ridge"] * (ridge is not None)
        self.name = f"network ({', '.join(parts)})"
        self.context_frames = INPUT_CONTEXT_FRAMES + NETWORK_CONTEXT_FRAMES
        self.needs_mouths = network.config.visual_frontend == MOUTH_CNN

    def embed_face(self, track: FaceTrack) -> NDArray[np.float32]:
        """(frames, D), length 1."""
        values = face_values(track, self.network.config.visual_frontend)
        if self.network.config.visual_frontend == MOUTH_CNN:
            expected_px, side_px = self.network.config.mouth_px, track.mouths.shape[1]
            if side_px != expected_px:
                raise UserError(
                    f"the model was trained on mouth crops of {expected_px} pixels, here they have "
                    f"{side_px}: give the same data.mouth_crop_px"
                )
            values = crop_mouths(track.mouths, 0.5, 0.5)
        embed = self._embedding_of(self.network.embed_face)
        return in_chunks(values, CHUNK_FRAMES, NETWORK_CONTEXT_FRAMES, embed)

    def embed_sound(self, sound: SoundFeatures) -> NDArray[np.float32]:
        """(rows, D), length 1."""
        values = sound_values(sound)
        expected = self.network.config.num_sound_values
        if values.shape[1] != expected:
            raise UserError(
                f"the model was trained on {expected} numbers for each row of sound, here there are "
                f"{values.shape[1]}: give the same audio.num_mels and audio.num_mfcc"
            )
        return in_chunks(
            values,
            CHUNK_FRAMES * ROWS_PER_FRAME,
            NETWORK_CONTEXT_FRAMES * ROWS_PER_FRAME,
            self._embedding_of(self.network.embed_sound),
        )

    def face_vectors(self, track: FaceTrack) -> NDArray[np.float32]:
        vectors = np.float32(self.network.log_scale.detach().exp()) * self.embed_face(track)
        if self.ridge is None:
            return vectors
        return np.concatenate(
            [vectors, np.float32(self.ridge_share) * self.ridge.face_vectors(track)], axis=1
        )

    def sound_vectors(self, sound: SoundFeatures) -> NDArray[np.float32]:
        vectors = self.embed_sound(sound)
        if self.ridge is None:
            return vectors
        return np.concatenate([vectors, self.ridge.sound_vectors(sound)], axis=1)

    def _embedding_of(self, embed: Callable[[Tensor], Tensor]) -> Callable[[NDArray[Any]], NDArray[Any]]:
        device = self.network.log_scale.device

        def of_piece(piece: NDArray[Any]) -> NDArray[Any]:
            if len(piece) == 0:
                return np.zeros((0, self.network.config.embedding_dim), np.float32)
            with torch.inference_mode():
                embeddings = embed(torch.from_numpy(np.ascontiguousarray(piece)).to(device).unsqueeze(0))[0]
            numbers: NDArray[Any] = embeddings.cpu().numpy()
            return numbers

        return of_piece


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """Content of a checkpoint.

    Attributes:
        network: On the device that it was loaded to.
        ridge: Fitted on the same clips; None where the sound has too few bands for it.
        ridge_share: As in `NetworkEstimator`.
        calibration: Of the score; None: there were no clips to fit it on, or training is not finished.
        settings: Plain values that describe what it was trained on.
        notes: Sentences about what an earlier version left in it.
    """

    network: LipSyncNetwork
    ridge: RidgeEstimator | None
    calibration: SyncCalibration | None
    settings: Mapping[str, object]
    ridge_share: float = RIDGE_SHARE
    notes: tuple[str, ...] = ()

    @property
    def estimator(self) -> NetworkEstimator:
        """Network and ridge as one."""
        return NetworkEstimator(self.network, self.ridge, self.ridge_share)


def save_model(path: Path, model: SavedModel) -> None:
    """Writes a checkpoint."""
    network, ridge, calibration = model.network, model.ridge, model.calibration
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    linear = None
    if ridge is not None:
        linear = {
            "weights": ridge.weights.tolist(),
            "variances": ridge.variances.tolist(),
            "share": model.ridge_share,
        }
    save_checkpoint(
        path,
        {
            "format": FORMAT,
            "kind": KIND,
            "network": network.config.to_plain(),
            "model": state,
            "ridge": linear,
            "calibration": calibration.to_plain() if calibration else None,
            "settings": model.settings,
            "mesh": FACE_MESH,
            "versions": {
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "numpy": np.__version__,
            },
        },
    )


def load_model(path: str | Path, device: str | torch.device = "cpu") -> SavedModel:
    """The content of a checkpoint.

    Raises:
        UserError: No such file, damaged, or of something else.
    """
    content = load_checkpoint(path, device)
    if content.get("kind") != KIND or "network" not in content:
        raise UserError(
            f"{path}: a checkpoint of {content.get('kind', 'something else')!r}, not a lip-sync model; "
            "best_model.pth of lipsync/train.py is expected"
        )
    if content.get("format") != FORMAT:
        raise UserError(f"{path}: of format {content.get('format')}; this program reads {FORMAT}")
    require_face_mesh(content, path)
    try:
        network = LipSyncNetwork(NetworkConfig(**content["network"]))
        plain, linear = content["calibration"], content["ridge"]
        notes = notes_on(content, path)
        if plain is not None and "weights" in plain:  # of the former kind
            calibration: SyncCalibration | None = STAND_IN
        else:
            calibration = SyncCalibration.from_plain(plain) if plain is not None else None
        ridge, ridge_share = None, RIDGE_SHARE
        if linear is not None:
            ridge_share = float(linear.get("share", FORMER_RIDGE_SHARE))
            if not 0 <= ridge_share <= MOST_RIDGE_SHARE:
                raise ValueError(f"a ridge's share of {ridge_share}")
            ridge = RidgeEstimator(*(np.array(linear[name], float) for name in ("weights", "variances")))
        settings = dict(content["settings"])
    except Exception as error:  # of values that do not fit torch raises anything
        raise UserError(f"{path}: no lip-sync model of this version ({one_line(error)})") from None
    load_weights(network, content.get("model"), path)
    return SavedModel(
        network=network.to(device),
        ridge=ridge,
        calibration=calibration,
        settings=settings,
        ridge_share=ridge_share,
        notes=notes,
    )


def notes_on(content: Mapping[str, Any], path: str | Path) -> tuple[str, ...]:
    """Sentences about what an earlier version left in a checkpoint."""
    notes = []
    plain, settings = content["calibration"], content["settings"]
    if plain is not None and "weights" in plain:
        notes.append(
            f"{Path(path).name} is of an earlier version: how it makes probabilities of similarities is "
            "replaced by what other models do; train it again for its own"
        )
    if settings.get("clock") != CLOCK:
        notes.append(
            f"{Path(path).name} was trained on clips whose pictures may have been up to 40 ms late; process "
            "them again and train it again"
        )
    return tuple(notes)


def load_method(path: str | Path, device: str = "cpu") -> Method:
    """The estimator of a checkpoint, and the calibration that makes probabilities of its similarities.

    Args:
        path: The checkpoint.
        device: auto, cpu or cuda.

    Raises:
        UserError: As `load_model`, there is no calibration in it, or no such device.
    """
    model = load_model(path, choose_device(device, 0))
    if model.calibration is None:
        raise UserError(
            f"{path}: without a calibration of its score: training was stopped before its end (run train.py "
            "again), or the validation clips are too short"
        )
    return Method(
        f"{CHECKPOINT}: {model.estimator.name}", model.estimator, model.calibration, model.notes, str(path)
    )
