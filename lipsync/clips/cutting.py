"""Parts of clips, and their sound at another rate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lipsync.clips.clock import ROW_HZ, ROWS_PER_FRAME
from lipsync.clips.features import ClipFeatures, FaceTrack
from lipsync.clips.sounds import SoundFeatures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lipsync.sync.timing import Timing


def cut_clip(clip: ClipFeatures, start: int, end: int) -> ClipFeatures:
    """The frames `start` to before `end` of a clip with their sound, on a clock that starts with them."""
    sound = cut_sound(clip.sound, ROWS_PER_FRAME * start, ROWS_PER_FRAME * end)
    tracks = [part for track in clip.tracks if (part := _cut_track(track, start, end)) is not None]
    tracks.sort(key=lambda track: (-len(track), track.start))
    shots = tuple(sorted({max(first - start, 0) for first in clip.shot_starts if first < end}))
    return ClipFeatures(max(min(end, clip.num_frames) - start, 0), shots, tuple(tracks), sound)


def cut_sound(sound: SoundFeatures, first: int, last: int) -> SoundFeatures:
    """The rows `first` to before `last`."""
    return replace(sound, log_mel=sound.log_mel[first:last], mfcc=sound.mfcc[first:last])


def retimed_sound(sound: SoundFeatures, timing: Timing) -> SoundFeatures:
    """The rows of a sound as they would be with a timing (without cuts): between two rows, their mixture.

    The pitch stays as it is, other than that of samples at another rate.
    """
    rate, offset_rows = 1 - timing.drift_ppm / 1e6, timing.offset_ms / 1000 * ROW_HZ
    count = max(int(np.ceil((len(sound.log_mel) + offset_rows) / rate)), 0)
    places = np.clip(np.arange(count) * rate - offset_rows, 0, max(len(sound.log_mel) - 1, 0))
    low = places.astype(np.int64)
    high = np.minimum(low + 1, max(len(sound.log_mel) - 1, 0))
    share = (places - low).astype(np.float32)[:, None]

    def mixed(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        values: NDArray[np.float32] = rows[low] * (1 - share) + rows[high] * share
        return values

    return replace(sound, log_mel=mixed(sound.log_mel), mfcc=mixed(sound.mfcc))


def _cut_track(track: FaceTrack, start: int, end: int) -> FaceTrack | None:
    part = slice(max(start - track.start, 0), max(end - track.start, 0))
    if len(track.opening[part]) == 0:
        return None
    return replace(
        track,
        start=max(track.start - start, 0),
        mouths=track.mouths[part],
        lips=track.lips[part],
        opening=track.opening[part],
        boxes_px=track.boxes_px[part],
        is_measured=track.is_measured[part],
    )
