"""The sound of another recorder, placed by the camera's own sound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facevox.media import iter_audio
from facevox.sound_choice import PLAYED, SoundChoice
from lipsync.clips.sounds import SAMPLE_RATE_HZ, SoundFeatures, features_of_blocks, first_samples
from lipsync.repair.alignment import align_sounds, index_sound
from lipsync.repair.retiming import at_rate
from lipsync.sync.timing import Timing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lipsync.settings import AudioSettings

SILENCE_S = 1.0  # of a block
LEAST_DRIFT_S = 0.001  # from the start to the end of a video


def place_sound(video: str | Path, audio: str | Path, choice: SoundChoice = PLAYED) -> Timing | None:
    """The timing of a sound file that has what a video's own sound has; None where no place stands out.

    Args:
        video: With sound of its own.
        audio: The sound file; up to hours longer, and begun up to hours before or after.
        choice: Track and channel of the sound file.

    Raises:
        MediaError: One of them cannot be read, or is longer than 12 h.
        UserError: The sound file is silent, steady or too short to align anything to it.
    """
    alignment = align_sounds(video, index_sound(audio, choice))
    if not alignment.is_aligned:
        return None
    drift_s = alignment.duration_s * alignment.drift_ppm / 1e6
    if abs(drift_s) < LEAST_DRIFT_S:  # not worth another rate: the start is right in the middle of the video
        return Timing(-1000 * (alignment.start_s + drift_s / 2))
    return Timing(-1000 * alignment.start_s, -alignment.drift_ppm)


def placed_features(
    audio: str | Path, timing: Timing, start_s: float, duration_s: float, settings: AudioSettings
) -> SoundFeatures:
    """The features of a sound as it is heard once it is placed.

    Args:
        audio: The sound file.
        timing: Without cuts.
        start_s: Presentation time of the video's first frame.
        duration_s: Of the video.
        settings: Sizes, track and channel.
    """
    rate = 1 - timing.drift_ppm / 1e6
    first_s = start_s * rate - timing.offset_ms / 1000
    blocks = _from(audio, first_s, settings.choice)
    retimed = at_rate((block[None] for block in blocks), SAMPLE_RATE_HZ, "mono", timing.drift_ppm)
    heard = first_samples((block[0] for block in retimed), round(duration_s * SAMPLE_RATE_HZ))
    return features_of_blocks(heard, settings.num_mels, settings.num_mfcc, settings.features)


def _from(audio: str | Path, first_s: float, choice: SoundChoice) -> Iterator[NDArray[np.float32]]:
    """The samples from a time on, after silence where the sound begins later."""
    for begin in np.arange(min(first_s, 0.0), 0.0, SILENCE_S).tolist():
        yield np.zeros(round(min(SILENCE_S, -begin) * SAMPLE_RATE_HZ), np.float32)
    yield from iter_audio(audio, SAMPLE_RATE_HZ, max(first_s, 0.0), choice)
