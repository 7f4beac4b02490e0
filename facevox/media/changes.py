"""The kinds of files that an earlier version of the media reader took for something else.

`facevox.batch.MEDIA_READER` is the number of this version; whoever changes what is read of a kind of file
raises it and names the kind here. Version 1, which no manifest names, took the first track, the mean of all
channels and each jump of the time stamps as a gap, and knew no pixel aspect, mirror, half pictures or high
dynamic range.
"""

import contextlib
import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from av.stream import Disposition

from facevox.media.container import (
    JUMP_S,
    RESET_S,
    MediaError,
    decoded_frames,
    is_joined,
    open_media,
    start_of,
    until_damage,
)
from facevox.media.display import Turn, is_high_range, pixel_aspect
from facevox.media.fields import stated_order
from facevox.media.sound import CANCELLING, iter_audio
from facevox.media.streams import played_stream

if TYPE_CHECKING:
    from av.container import InputContainer

_NUM_FRAMES = 10  # that are looked at for half pictures, which a film may begin without
_ON_GRID_S = 0.0005  # pictures nearer than this to a grid were on it


def changed_kinds(
    path: str | Path, *, pictures: bool = False, sound: bool = False, grid_hz: float = 0.0
) -> list[str]:
    """Reasons why a file is read otherwise than by version 1; none for an ordinary one.

    Headers, time stamps, a few frames and the sound of two channels are read.

    Args:
        path: The file.
        pictures: Whether its pictures are used.
        sound: Whether its sound is.
        grid_hz: The rate at which pictures are used, where their phase counts; 0 where it does not.

    Returns:
        Names of kinds, for people.
    """
    kinds: list[str] = []
    with contextlib.suppress(MediaError):  # readable once: what there is of it is kept
        if pictures:
            with open_media(path) as container:
                kinds += _picture_kinds(container, path, grid_hz)
        if sound:
            with open_media(path) as container:
                kinds += _sound_kinds(container, path)
            if not kinds and _cancels(path):
                kinds.append("channels that cancel out")
        with open_media(path) as container:
            # Stamps that jump back concern both tracks together alone: each was read as it is.
            if is_joined(container) and _jumps(container, RESET_S if grid_hz else math.inf):
                kinds.append("jumps of the clock")
    return kinds


def _picture_kinds(container: "InputContainer", path: str | Path, grid_hz: float) -> Iterable[str]:
    stream = played_stream(container, "video", path)
    first = next(s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    if stream.index != first.index:
        yield "several tracks of pictures"
    if pixel_aspect(stream) != 1:
        yield "pixel aspect"
    order = stated_order(stream)
    frames = list(itertools.islice(decoded_frames(container, stream), _NUM_FRAMES))
    if not frames:
        return
    turn = Turn.of(frames[0])
    if (turn.is_transposed + turn.is_mirrored + turn.is_upside_down) % 2:
        yield "mirrored"
    if is_high_range(frames[0]):
        yield "high dynamic range"
    if order or any(frame.interlaced_frame for frame in frames):
        yield "interlaced"
    if grid_hz:
        first_s = max((frames[0].time or 0.0) - start_of(container), 0.0)
        phase_s = math.fmod(first_s, 1 / grid_hz)
        if min(phase_s, 1 / grid_hz - phase_s) > _ON_GRID_S:
            yield "pictures between the steps of the clock"


def _sound_kinds(container: "InputContainer", path: str | Path) -> Iterable[str]:
    stream = played_stream(container, "audio", path)
    if stream.index != container.streams.audio[0].index:
        yield "several tracks of sound"
    if (stream.channels or 1) > 2:
        yield "more than two channels"


def _cancels(path: str | Path) -> bool:
    notes: list[str] = []
    return any(any(CANCELLING in note for note in notes) for _ in iter_audio(path, notes=notes))


def _jumps(container: "InputContainer", back_s: float) -> bool:
    """True if the stamps of a track jump ahead, or back by more than `back_s`."""
    last_s: dict[int, float] = {}
    for packet in until_damage(container.demux()):
        if packet.dts is None or packet.time_base is None:
            continue
        time_s = float(packet.dts * packet.time_base)
        former_s = last_s.get(packet.stream.index, time_s)
        if time_s > former_s + JUMP_S or time_s < former_s - back_s:
            return True
        last_s[packet.stream.index] = time_s
    return False
