"""Clips written out of a video: pictures encoded again from the first frame on, sound moved by the offset."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from facevox.media import Frame, MediaError, MediaInfo, iter_audio, iter_frames, write_timed_video
from facevox.sound_choice import SoundChoice
from lipsync.repair.shift import AAC_RATES_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Side of the square of a face crop over the longer side of its points: hair, chin and some shoulder.
CROP_MARGIN = 1.8
_EPSILON_S = 1e-6


@dataclass(frozen=True, kw_only=True)
class ClipForm:
    """The form of a clip.

    Attributes:
        square_px: Left, top and side of the part of the pictures that is written; None: all.
        size: Side of the square in the clip, in pixels.
        fps: Pictures a second; None: those of the video, each at its time.
        choice: Which sound.
    """

    square_px: tuple[int, int, int] | None = None
    size: int = 512
    fps: float | None = None
    choice: SoundChoice


def face_square(
    box_px: NDArray[np.float64], extent_px: NDArray[np.float64], width: int, height: int
) -> tuple[int, int, int]:
    """Left, top and side in pixels of a square around a face; it is inside the picture.

    CROP_MARGIN times the longer side of the face, more where the face moves further, and at most the shorter
    side of the picture.

    Args:
        box_px: (4,) left, top, width and height: the median over the clip.
        extent_px: (4,) left, top, right and bottom that the face stays within.
        width, height: Of the picture.
    """
    left, top, right, bottom = extent_px.tolist()
    side_px = max(CROP_MARGIN * float(box_px[2:].max()), right - left, bottom - top)
    side = max(min(round(side_px), width, height), 1)
    x, y = (left + right - side) / 2, (top + bottom - side) / 2
    return min(max(round(x), 0), width - side), min(max(round(y), 0), height - side), side


def write_clip(
    target: Path, video: Path, info: MediaInfo, times_s: tuple[float, float], offset_ms: float, form: ClipForm
) -> None:
    """Writes a part of a video as an mp4 whose first picture and first sample are both at time 0.

    Pictures are H.264 at display orientation, the sound is mono AAC at the rate of the video's or the next
    one that AAC has.

    Args:
        target: The clip; it appears as a whole or not at all.
        video: The file.
        info: Of it by `probe`.
        times_s: Presentation times; pictures from the first to before the second are written.
        offset_ms: Of the video, positive: the audio is early; in the clip it is later by as much.
        form: Crop, rate, sound.

    Raises:
        MediaError: The video cannot be read, or has no picture there.
    """
    start_s, end_s = times_s
    frames = itertools.takewhile(
        lambda frame: frame.time_s < end_s - _EPSILON_S,
        iter_frames(video, rate_hz=form.fps, start_s=start_s),
    )
    head = next(frames, None)
    if head is None:
        raise MediaError(f"{video}: no picture between {start_s:.2f} and {end_s:.2f} s")
    rate_hz = next((rate for rate in AAC_RATES_HZ if rate >= info.audio_rate_hz), AAC_RATES_HZ[-1])
    sound = iter_audio(video, rate_hz, head.time_s - offset_ms / 1000, form.choice)
    if form.fps is not None:
        info = replace(info, rate_hz=form.fps)
    write_timed_video(
        target,
        _from_zero(itertools.chain([head], frames), head.time_s, form),
        info,
        _exactly(sound, round((end_s - head.time_s) * rate_hz)),
        rate_hz,
    )


def _from_zero(frames: Iterator[Frame], first_s: float, form: ClipForm) -> Iterator[Frame]:
    for frame in frames:
        duration_s = frame.duration_s if form.fps is None else 1 / form.fps
        image = _square_of(frame.image, form)
        yield replace(frame, image=image, time_s=frame.time_s - first_s, duration_s=duration_s)


def _square_of(image: NDArray[np.uint8], form: ClipForm) -> NDArray[np.uint8]:
    if form.square_px is None:
        return image
    left, top, side = form.square_px
    part = image[top : top + side, left : left + side]
    method = cv2.INTER_AREA if side > form.size else cv2.INTER_CUBIC
    square: NDArray[np.uint8] = cv2.resize(part, (form.size, form.size), interpolation=method)
    return square


def _exactly(blocks: Iterator[NDArray[np.float32]], num_samples: int) -> Iterator[NDArray[np.float32]]:
    """The first `num_samples` of blocks; silence where they end before."""
    missing = num_samples
    for block in blocks:
        yield block[:missing]
        missing -= min(len(block), missing)
        if not missing:
            return
    yield np.zeros(missing, np.float32)
