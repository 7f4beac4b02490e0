"""The sound of files as mono samples on the clock of the pictures."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from facevox.growing import GrowingArray
from facevox.media.container import MAX_GAP_S, Clock, MediaError, decoded_frames, open_media, seek
from facevox.media.streams import played_stream, track_text
from facevox.sound_choice import LEFT, MIX, PLAYED, RIGHT, SoundChoice

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Sound that starts further than this from where all the sound before it ends leaves a real gap or
# overlap; below it the difference is the rounding of time stamps (1 ms in Matroska).
GAP_S = 0.02
MIN_RATE_HZ, MAX_RATE_HZ = 1000, 768_000  # of a recording; a header that says otherwise is damaged
# What FFmpeg gives a channel in a mix to one: the centre is kept, the sides lose 3 dB, those behind 6 dB.
_SIDE, _BEHIND = math.sqrt(0.5), 0.5
_WEIGHTS = {"FC": 1.0, "FL": _SIDE, "FR": _SIDE, "FLC": _SIDE, "FRC": _SIDE}
_LOW = frozenset({"LFE", "LFE2"})  # effects, no speech
# Of files that do not name their channels (PCM in Matroska, a plain WAV), as FFmpeg guesses it ...
_GUESSED = {
    6: ["FL", "FR", "FC", "LFE", "BL", "BR"],
    8: ["FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"],
}
_LOW_HZ = (
    200.0  # ... unless the channel for low effects has a higher mean frequency: then they are microphones
)
# A mix with less than this share of its channels' power is one in which they cancel each other out.
_CANCELLED = 0.02
_HEARD_S = 1.0  # of sound that is no silence, on which that is decided
_MOST_HELD_S = 60.0
FREE_S = 3600.0
LEAST_BITS_PER_S = 50.0  # silence in FLAC has 80
GAPS_FACTOR = 10.0  # a camera that records when something moves
CANCELLING = "the channels cancel each other out"
_SILENCE = 1e-8  # mean power; -80 dB


class Downmix:
    """Makes one channel of blocks of several, and notes what is remarkable about them.

    Channels that cancel each other out (a cable with swapped poles, "wide" stereo) would leave silence: then
    the louder one is taken from there on. That is decided for a second of sound at a time, which is held
    back; silence does not count.

    Args:
        choice: Which channel.
        names: Of the channels, as FFmpeg calls them (FL, FC, LFE).
        rate_hz: Of the samples.
        notes: Gets a sentence for each remarkable thing.
        path: For messages.

    Raises:
        MediaError: There is no such channel.
    """

    def __init__(
        self, choice: SoundChoice, names: list[str], rate_hz: int, notes: list[str], path: str | Path
    ) -> None:
        self._is_guessed = len(names) in _GUESSED and not set(names) & (_WEIGHTS.keys() | _LOW)
        if self._is_guessed:
            names = _GUESSED[len(names)]
        self._names, self._notes, self._rate_hz = names, notes, rate_hz
        self._low_powers = np.zeros(2)  # of the guessed channel for low effects, and of its differences
        self._held: list[NDArray[np.float32]] = []
        self._num_heard = self._num_held = 0
        self._powers = np.zeros(len(names) + 1)  # of the channels, then of their mix
        self._weights = _mix_of(names)
        self._is_decided = len(names) == 1
        if choice.channel != MIX:
            self._take(_channel_index(choice.channel, names, path))

    def _take(self, index: int) -> None:
        self._weights, self._is_decided = np.eye(len(self._names), dtype=np.float32)[index], True

    def mix(self, block_NC: "NDArray[np.float32]") -> Iterator["NDArray[np.float32]"]:
        """(n,) blocks of the (n, C) blocks up to here; at first they are held back."""
        if self._is_decided:
            yield self._mixed(block_NC)
            return
        self._held.append(block_NC)
        self._num_held += len(block_NC)
        power = np.append((block_NC**2).sum(axis=0), (self._mixed(block_NC) ** 2).sum()).astype(np.float64)
        if power[:-1].max(initial=0.0) > _SILENCE * len(block_NC):
            self._num_heard += len(block_NC)
            self._powers += power
            if self._is_guessed:
                low = block_NC[:, self._names.index("LFE")].astype(np.float64)
                self._low_powers += (low**2).sum(), (np.diff(low) ** 2).sum()
        if self._num_heard >= _HEARD_S * self._rate_hz or self._num_held >= _MOST_HELD_S * self._rate_hz:
            yield from self.rest()

    def rest(self) -> Iterator["NDArray[np.float32]"]:
        """The blocks that are still held back."""
        if not self._is_decided:
            self._decide()
        for block in self._held:
            yield self._mixed(block)
        self._held.clear()
        self._num_heard = self._num_held = 0
        self._powers[:] = 0

    def _decide(self) -> None:
        # Of independent channels the mix has the power of each, weighted; of opposite ones none.
        powers = self._powers[:-1] * self._weights.astype(np.float64) ** 2
        # A sine of frequency f has differences of (2 pi f / rate)^2 of its power.
        bar = (2 * np.pi * _LOW_HZ / self._rate_hz) ** 2
        if self._is_guessed and self._low_powers[1] > bar * self._low_powers[0]:
            self._weights, self._is_guessed = _mix_of([""] * len(self._names)), False
        elif self._powers[-1] < _CANCELLED * float(powers.sum()):
            loudest = int((self._powers[:-1] * (self._weights > 0)).argmax())
            self._take(loudest)
            note = f"{CANCELLING}: {self._names[loudest]}, the loudest, is taken"
            if note not in self._notes:
                self._notes.append(note)

    def _mixed(self, block_NC: "NDArray[np.float32]") -> "NDArray[np.float32]":
        if block_NC.shape[1] == 1:
            return block_NC[:, 0]
        if block_NC.shape[1] == 2 and self._weights[0] == self._weights[1]:
            mean: NDArray[np.float32] = block_NC.mean(axis=1, dtype=np.float32)
            return mean
        mixed: NDArray[np.float32] = block_NC @ self._weights
        return mixed


def _mix_of(names: list[str]) -> "NDArray[np.float32]":
    """The weights (C,) of channels in a mix that is never beyond full scale: their sum is 1."""
    weights = np.array([0.0 if name in _LOW else _WEIGHTS.get(name, _BEHIND) for name in names])
    if not set(names) & _WEIGHTS.keys():  # microphones without places
        weights = np.ones(len(names))
    shares: NDArray[np.float32] = (weights / weights.sum()).astype(np.float32)
    return shares


def _channel_index(channel: str, names: list[str], path: str | Path) -> int:
    if channel.isdecimal() and 1 <= int(channel) <= len(names):
        return int(channel) - 1
    sides = {LEFT: "FL", RIGHT: "FR"}
    if len(names) == 1 and channel in sides:  # one channel is both sides
        return 0
    if channel in sides and sides[channel] in names:
        return names.index(sides[channel])
    raise MediaError(f"{path}: no channel {channel} in its sound; it has {len(names)} ({', '.join(names)})")


def iter_audio(
    path: str | Path,
    rate_hz: int = 16000,
    start_s: float = 0.0,
    choice: SoundChoice = PLAYED,
    notes: list[str] | None = None,
) -> Iterator["NDArray[np.float32]"]:
    """The sound of a file, mixed to mono, in blocks of (n,) float32 at `rate_hz`.

    The first sample is at presentation time `start_s`: sound that starts later is preceded by silence, gaps
    are filled with it and overlaps cut, so that sample k is within `GAP_S` of start_s + k / rate_hz.
    Blocks of silence have at most a second. Channels are weighted as FFmpeg does it (`Downmix`).

    Args:
        path: The file.
        rate_hz: Samples a second.
        start_s: Presentation time of the first sample.
        choice: Which track and channel; the ones that a player plays, mixed.
        notes: Gets a sentence for each remarkable thing: several tracks, channels that cancel out.

    Raises:
        MediaError: No such file, no sound, track or channel, none of it can be decoded, or the time stamps
            leave a gap of more than `MAX_GAP_S`.
    """
    remarks: list[str] = [] if notes is None else notes
    part: _Part | None = None
    with open_media(path) as container:
        stream = played_stream(container, "audio", path, choice.track)
        sounds = container.streams.audio
        if len(sounds) > 1:
            number = 1 + sounds.index(stream)
            note = f"{len(sounds)} sound tracks: number {number} ({track_text(stream)}) is taken"
            if note not in remarks:
                remarks.append(note)
        stream.codec_context.thread_count = 1
        clock = Clock(path, container)
        seek(container, start_s - 1.0)  # one second ahead, so that the decoder has settled
        # End of the sound so far. It is counted from the samples, not taken from each packet's stamp:
        # differences too small to be a gap would add up unnoticed.
        end_s = start_s
        skip = 0  # samples at rate_hz still to be dropped: overlaps, and those before start_s
        length = _Length(path)
        for frame in decoded_frames(container, stream):
            missing_s = clock.time_s(frame.time, end_s) - end_s
            if part is None or part.form != _form(frame) or abs(missing_s) > GAP_S:
                checked_rate(frame.sample_rate, path)
                # A new resampler for each part; the old one still has samples in its filter.
                if part is not None:
                    rest = list(part.rest())
                    yield from _without(skip, rest)
                    skip = max(skip - sum(map(len, rest)), 0)
                part = _Part(frame, rate_hz, choice, remarks, path)
                length.add_gap(missing_s)
                missing = round(missing_s * rate_hz)
                end_s += missing / rate_hz
                yield from _silence(missing - skip, rate_hz)
                skip = max(skip - missing, 0)
            end_s += frame.samples / frame.sample_rate
            length.add_sound(frame.samples / frame.sample_rate)
            for block in part.blocks(frame):
                yield from _without(skip, [block])
                skip = max(skip - len(block), 0)
        if part is not None:
            yield from _without(skip, part.rest())
    if part is None:
        raise MediaError(f"{path}: no sample of its sound can be decoded")


class _Length:
    """Bounds what a file may become: a few bytes that are played again and again, gaps that are filled."""

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._most_s = FREE_S + 8 * Path(path).stat().st_size / LEAST_BITS_PER_S
        self._sound_s = self._gaps_s = 0.0

    def add_sound(self, seconds: float) -> None:
        """Counts decoded sound; raises MediaError when the file is too small for it."""
        self._sound_s += seconds
        if self._sound_s > self._most_s:
            raise MediaError(f"{self._path}: more than {self._most_s:.0f} s of sound in so small a file")

    def add_gap(self, seconds: float) -> None:
        """Counts a gap; raises MediaError when nearly all would be silence."""
        self._gaps_s += max(seconds, 0.0)
        if self._gaps_s > 2 * MAX_GAP_S + GAPS_FACTOR * self._sound_s:
            raise MediaError(
                f"{self._path}: its time stamps leave {self._gaps_s:.0f} s without sound between "
                f"{self._sound_s:.0f} s of it; write the file again with correct ones"
            )


def checked_rate(rate_hz: int, path: str | Path) -> int:
    """The rate of a recording.

    Raises:
        MediaError: It is none: one second of 1 Hz would become 16,000 samples.
    """
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise MediaError(f"{path}: a rate of {rate_hz} Hz; {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz are read")
    return rate_hz


def _form(frame: av.AudioFrame) -> tuple[int, str, str]:
    return frame.sample_rate, frame.layout.name, frame.format.name  # joined parts may differ


class _Part:
    """Sound of one form, without a gap: resampled and mixed."""

    def __init__(
        self, frame: av.AudioFrame, rate_hz: int, choice: SoundChoice, notes: list[str], path: str | Path
    ) -> None:
        self.form = _form(frame)
        # Packed samples: PyAV does not know where the planes of eight and more channels end.
        self._resampler = av.AudioResampler(format="flt", rate=rate_hz)
        names = [channel.name for channel in frame.layout.channels]
        self._downmix = Downmix(choice, names, rate_hz, notes, path)

    def blocks(self, frame: av.AudioFrame) -> Iterator["NDArray[np.float32]"]:
        frame.pts = None  # the caller handles times; the resampler must not add corrections of its own
        yield from self._mixed(self._resampler.resample(frame))

    def rest(self) -> Iterator["NDArray[np.float32]"]:
        yield from self._mixed(self._resampler.resample(None))
        yield from self._downmix.rest()

    def _mixed(self, frames: Iterable[av.AudioFrame]) -> Iterator["NDArray[np.float32]"]:
        for frame in frames:
            yield from self._downmix.mix(packed_samples(frame))


def packed_samples(frame: av.AudioFrame) -> "NDArray[np.float32]":
    """(n, C) float32 of a frame of format flt; NaN, which would spread through everything, becomes 0."""
    samples: NDArray[np.float32] = np.asarray(frame.to_ndarray(), np.float32).reshape(frame.samples, -1)
    return np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)


def _silence(count: int, rate_hz: int) -> Iterator["NDArray[np.float32]"]:
    for start in range(0, count, rate_hz):
        yield np.zeros(min(rate_hz, count - start), np.float32)


def _without(skip: int, blocks: Iterable["NDArray[np.float32]"]) -> Iterator["NDArray[np.float32]"]:
    for block in blocks:
        num_dropped = min(skip, len(block))
        skip -= num_dropped
        if num_dropped < len(block):
            yield block[num_dropped:]


def read_audio(
    path: str | Path,
    rate_hz: int = 16000,
    start_s: float = 0.0,
    duration_s: float | None = None,
    choice: SoundChoice = PLAYED,
    notes: list[str] | None = None,
) -> "NDArray[np.float32]":
    """The sound of a file as (n,) float32 mono in [-1, 1]; sample k is at start_s + k / rate_hz.

    `duration_s` limits the decoding; the result is shorter if the sound ends earlier.
    Raises MediaError as `iter_audio`.
    """
    limit = math.inf if duration_s is None else round(duration_s * rate_hz)
    samples = GrowingArray(np.float32)
    for block in iter_audio(path, rate_hz, start_s, choice, notes):
        samples.add(block[: int(min(limit - len(samples), len(block)))])
        if len(samples) >= limit:
            break
    return samples.take()
