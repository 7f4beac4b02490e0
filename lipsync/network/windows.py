"""Stretches of takes: random segments to train on, and windows to measure on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lipsync.clips.clock import ROWS_PER_FRAME
from lipsync.network.augmentation import augment_lips, augment_mouths, augment_sound, crop_mouths
from lipsync.network.losses import MAX_LAG_ROWS
from lipsync.network.takes import MOUTH_CNN, Take, TakeInputs, inputs_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEGMENT_FRAMES = 64  # 2.6 s: the longest stretch of the loss, and room to move it
EDGE_ROWS = 20  # of sound beyond the outermost lag, for the convolutions to see
MARGIN_ROWS = MAX_LAG_ROWS + EDGE_ROWS
MIN_FRAMES = 10  # shorter takes are left out of training


def cut_segment(inputs: TakeInputs, first_frame: int, num_frames: int) -> dict[str, NDArray[Any]]:
    """Frames of a take with the sound around them; frames and rows that do not exist are zero and marked.

    Returns:
        face (num_frames, ...); is_measured (num_frames,); sound, is_heard, is_voiced of 4 * num_frames +
        2 * MARGIN_ROWS rows, of which number MARGIN_ROWS + 4 t belongs to frame t.
    """
    frames = first_frame + np.arange(num_frames)
    is_frame = (frames >= 0) & (frames < len(inputs))
    frames = np.clip(frames, 0, len(inputs) - 1)
    num_rows = ROWS_PER_FRAME * num_frames + 2 * MARGIN_ROWS
    rows = inputs.first_row + ROWS_PER_FRAME * first_frame - MARGIN_ROWS + np.arange(num_rows)
    is_heard = (rows >= 0) & (rows < len(inputs.sound))
    rows = np.clip(rows, 0, max(len(inputs.sound) - 1, 0))
    face = inputs.face[frames]
    face[~is_frame] = 0
    return {
        "face": face,
        "is_measured": inputs.is_measured[frames] & is_frame,
        "sound": inputs.sound[rows] * is_heard[:, None].astype(np.float32),
        "is_heard": is_heard,
        "is_voiced": inputs.is_voiced[rows] & is_heard,
    }


class SegmentDataset(Dataset[dict[str, Tensor]]):
    """Random segments of takes, about as many an epoch as cover them once.

    A segment and its random changes depend on (seed, epoch, index) alone. The input of the network for all
    takes is kept in memory: lips take 0.3 MB a minute, sound 1.3 and mouth crops 14.

    Args:
        takes: To cut from; those of fewer than MIN_FRAMES frames or without sound are left out.
        visual_frontend: Of the network.
        seed: Of the draws.
        is_augmented: Whether segments are changed at random.
    """

    def __init__(
        self, takes: Sequence[Take], visual_frontend: str, seed: int, *, is_augmented: bool = True
    ) -> None:
        self.visual_frontend, self.seed, self.is_augmented = visual_frontend, seed, is_augmented
        usable = [take for take in takes if len(take.track) >= MIN_FRAMES and len(take.sound.log_mel)]
        self.inputs = [inputs_of(take, visual_frontend) for take in usable]
        # A take that is n segments long is drawn from n times an epoch.
        counts = [max(round(len(inputs) / SEGMENT_FRAMES), 1) for inputs in self.inputs]
        self.owners = [number for number, count in enumerate(counts) for _ in range(count)]

    def __len__(self) -> int:
        return len(self.owners)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        rng = np.random.default_rng([self.seed, epoch, index])
        inputs = self.inputs[self.owners[index]]
        first = int(rng.integers(0, max(len(inputs) - SEGMENT_FRAMES, 0) + 1))
        segment = cut_segment(inputs, first, SEGMENT_FRAMES)
        face, sound = segment["face"], segment["sound"]
        if self.is_augmented:
            augment = augment_mouths if self.visual_frontend == MOUTH_CNN else augment_lips
            face, sound = augment(face, rng), augment_sound(sound, rng)
            sound = sound * segment["is_heard"][:, None]  # no noise where there is no recording
        elif self.visual_frontend == MOUTH_CNN:
            face = crop_mouths(face, 0.5, 0.5)
        whole = segment | {"face": face, "sound": sound}
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in whole.items()}


def find_windows(
    take: Take, num_frames: int, *, lags_rows: int = MAX_LAG_ROWS, min_measured: float = 0.5
) -> list[int]:
    """First frames of windows without overlap in which every lag of the search exists.

    Args:
        take: Its known offset is the middle of the search.
        num_frames: Length of the windows.
        lags_rows: Of the search, to each side.
        min_measured: Least share of measured frames.
    """
    first_row = ROWS_PER_FRAME * take.track.start - take.lag
    firsts, frame = [], 0
    while frame + num_frames <= len(take.track):
        lowest = first_row + ROWS_PER_FRAME * frame - lags_rows
        highest = first_row + ROWS_PER_FRAME * (frame + num_frames - 1) + lags_rows
        is_complete = lowest >= 0 and highest < len(take.sound.log_mel)
        if is_complete and take.track.is_measured[frame : frame + num_frames].mean() >= min_measured:
            firsts.append(frame)
            frame += num_frames
        else:
            frame += 1
    return firsts
