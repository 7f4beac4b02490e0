"""Stretches of takes: random segments to train on, and windows to measure on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lipsync.clips.clock import ROWS_PER_FRAME
from lipsync.network.augmentation import (
    SPEED_RANGE,
    augment_lips,
    augment_mouths,
    augment_sound,
    change_levels,
    crop_mouths,
)
from lipsync.network.losses import MAX_LAG_ROWS
from lipsync.network.takes import Take, TakeInputs, inputs_of
from lipsync.sync.inputs import INPUT_CONTEXT_FRAMES, MOUTH_CNN, NUM_SPEEDS, values_of_levels

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


def cut_changed(
    inputs: TakeInputs,
    num_mfcc: int,
    num_frames: int,
    babble_db: NDArray[np.float32],
    rng: np.random.Generator,
) -> dict[str, NDArray[Any]]:
    """A random segment as `cut_segment` returns it, spoken faster or slower, by another throat, in noise.

    Lips and sound change their speed together: moments between frames and rows are interpolated (mouth crops:
    the nearest).
    """
    speed = float(np.exp(rng.uniform(-SPEED_RANGE, SPEED_RANGE)))
    spare = len(inputs) - 1 - (num_frames - 1) * speed
    if spare < 0:  # too short to be slowed down or sped up
        speed, spare = 1.0, max(len(inputs) - num_frames, 0)
    first = float(rng.uniform(0, spare)) if speed != 1.0 else float(rng.integers(0, int(spare) + 1))
    frames = first + speed * np.arange(num_frames, dtype=np.float64)
    low, high, share = _neighbours(frames, len(inputs))
    is_frame = (frames >= 0) & (frames <= len(inputs) - 1)
    is_measured = inputs.is_measured[low] & inputs.is_measured[high] & is_frame
    if inputs.face.dtype == np.uint8:
        face: NDArray[Any] = inputs.face[np.where(share < 0.5, low, high)]
    else:
        weight = share[:, None].astype(np.float32)
        face = inputs.face[low] * (1 - weight) + inputs.face[high] * weight
        face[:, -NUM_SPEEDS:] *= np.float32(speed)
    face[~is_frame] = 0
    num_rows = ROWS_PER_FRAME * num_frames + 2 * MARGIN_ROWS
    steps = np.arange(num_rows, dtype=np.float64) - MARGIN_ROWS
    rows = inputs.first_row + ROWS_PER_FRAME * first + speed * steps
    is_heard = (rows >= 0) & (rows <= len(inputs.level_db) - 1)
    low, high, share = _neighbours(rows, len(inputs.level_db))
    context = INPUT_CONTEXT_FRAMES * ROWS_PER_FRAME
    begin = max(int(low.min()) - context, 0)
    part = inputs.level_db[begin : int(high.max()) + context + 1].astype(np.float64)
    values = values_of_levels(change_levels(part, babble_db, rng), num_mfcc, inputs.features)
    weight = share[:, None].astype(np.float32)
    sound = values[low - begin] * (1 - weight) + values[high - begin] * weight
    return {
        "face": face,
        "is_measured": is_measured,
        "sound": sound * is_heard[:, None].astype(np.float32),
        "is_heard": is_heard,
        "is_voiced": inputs.is_voiced[low] & is_heard,
    }


def _neighbours(
    places: NDArray[np.float64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Entry before each place, the one after it, and how far the place is from the former (0 to 1)."""
    inside = np.clip(places, 0, count - 1)
    low = np.floor(inside).astype(np.int64)
    return low, np.ceil(inside).astype(np.int64), inside - low


class SegmentDataset(Dataset[dict[str, Tensor]]):
    """Random segments of takes, about as many an epoch as cover them once.

    A segment and its random changes depend on (seed, epoch, index) alone. The input of the network for all
    takes is kept in memory: lips take 0.3 MB a minute, sound 2.3 and mouth crops 14.

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
        if self.is_augmented:
            babble = self.inputs[int(rng.integers(len(self.inputs)))].level_db
            num_mfcc = inputs.sound.shape[1] - inputs.level_db.shape[1]
            segment = cut_changed(inputs, num_mfcc, SEGMENT_FRAMES, babble, rng)
        else:
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
