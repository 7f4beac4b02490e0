"""A copy of a file with its sound corrected, scored again by time stamps and by counting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from facevox.errors import UserError, one_line
from facevox.files import scratch_folder
from facevox.media import (
    Downmix,
    MediaError,
    decoded_frames,
    open_media,
    packed_samples,
    played_stream,
    stream_packets,
)
from facevox.sound_choice import MIX, PLAYED, SoundChoice
from lipsync.clips.clock import FRAME_HZ
from lipsync.clips.features import ClipFeatures, FaceTrack
from lipsync.clips.sounds import SAMPLE_RATE_HZ, sound_features
from lipsync.repair.plan import plan_timing
from lipsync.repair.shift import ShiftedFile, checked_format, shift_audio
from lipsync.sync.posterior import IN_SYNC_MS
from lipsync.sync.timing import Timing
from lipsync.sync.verdicts import CANNOT_TELL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lipsync.sync.scoring import ClipScore

MOST_TRIALS = 3
Measure = Callable[[ClipFeatures], "ClipScore"]


@dataclass(frozen=True)
class Correction:
    """A written file and the offset that remains in it, in ms.

    Attributes:
        shifted: The file.
        timing: Of its sound.
        by_stamps_ms: For readers that go by time stamps.
        by_counting_ms: For readers that count pictures and samples.
    """

    shifted: ShiftedFile
    timing: Timing
    by_stamps_ms: float
    by_counting_ms: float


class NotBetterError(UserError):
    """The corrected file would not be better than the input; nothing was written."""


def write_corrected(
    video: Path,
    audio: Path | None,
    output: Path,
    timing: Timing,
    read_clip: Callable[[Path], ClipFeatures],
    measure: Measure,
    choice: SoundChoice = PLAYED,
    *,
    is_placed: bool = False,
) -> Correction:
    """Writes `output` with the sound retimed, if the result measures better.

    Args:
        video, audio, output: As in `lipsync.repair.shift.shift_audio`.
        timing: Of the sound.
        read_clip: Features of the file that is tried, which has one track.
        measure: Scores them.
        choice: The sound that was measured.
        is_placed: Whether the timing comes from the video's own sound: then lips that cannot tell are
            enough.

    Raises:
        NotBetterError: The result measures no better; nothing is written.
        UserError: As `shift_audio`.
    """
    checked_format(output, (video, audio or video), timing.offset_ms, timing.drift_ppm)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output}: its folder cannot be made: {one_line(error)}") from None
    # Next to the output: only within one file system is the finished file renamed in one step.
    with scratch_folder(output.parent) as folder:
        trial = folder / f"corrected{output.suffix}"
        for number in range(MOST_TRIALS):
            shifted = shift_audio(
                video,
                trial,
                timing.offset_ms,
                audio_path=audio,
                track=choice.track,
                drift_ppm=timing.drift_ppm,
                cuts=timing.cuts,
            )
            clip = read_clip(trial)
            score = measure(clip)
            # A strong drift is seen better once most of it is gone.
            rest = plan_timing(score)
            finer = None if rest is None else timing.then(rest)
            if finer is None or number + 1 == MOST_TRIALS:
                break
            timing = finer
        by_stamps_ms = remaining_ms(score)
        by_counting_ms = remaining_ms(measure(as_counted(trial, clip, choice.channel)))
        is_shift = not timing.drift_ppm and not timing.cuts
        most_ms = min(IN_SYNC_MS, abs(timing.offset_ms)) if is_shift else IN_SYNC_MS
        for reader, rest_ms in (
            ("by time stamps", by_stamps_ms),
            ("by counting pictures and samples", by_counting_ms),
        ):
            if is_placed and score.judgement.verdict.kind == CANNOT_TELL:
                continue
            # Written so that nan, for which every comparison is false, is refused.
            if not abs(rest_ms) <= most_ms:
                is_unknown = np.isnan(rest_ms)
                reason = "no offset is found" if is_unknown else f"{rest_ms:+.0f} ms remain"
                raise NotBetterError(
                    f"the corrected file would not be right: {reason} when it is read {reader}; "
                    "nothing was written"
                )
        trial.replace(output)
    return Correction(replace(shifted, output_file=output), timing, by_stamps_ms, by_counting_ms)


def remaining_ms(score: ClipScore) -> float:
    """The offset of a clip; nan where none stands out, or it changes."""
    return score.judgement.offset_ms if score.change is None else math.nan


def as_counted(path: Path, clip: ClipFeatures, channel: str = MIX) -> ClipFeatures:
    """The clip of a file for a reader that ignores time stamps.

    Picture i is at i / rate and sample i at i / its rate, both counted in the file. The faces are those of
    `clip`, moved to the times at which such a reader shows them; the sound is decoded again.

    Args:
        path: The file.
        clip: Its features by time stamps.
        channel: Of its sound, as `SoundChoice` has it.

    Raises:
        MediaError: Not readable, or without sound.
    """
    with open_media(path) as container:
        stream = played_stream(container, "video", path)
        rate_hz = float(stream.average_rate or FRAME_HZ)
        assert stream.time_base is not None, "opened streams have one"
        base = float(stream.time_base)
        stamps = sorted(
            packet.pts * base
            for packet in stream_packets(container, stream)
            if packet.pts is not None and packet.size and not packet.is_discard
        )
    if not stamps:
        raise MediaError(f"{path}: pictures without time stamps")
    times_s = np.array(stamps) - stamps[0]
    num_frames = max(round(len(times_s) / rate_hz * FRAME_HZ), 1)
    pictures = np.minimum(np.rint(np.arange(num_frames) / FRAME_HZ * rate_hz).astype(int), len(times_s) - 1)
    frames = np.rint(times_s[pictures] * FRAME_HZ).astype(int)  # of `clip`, for each counted frame
    tracks = tuple(counted for track in clip.tracks if (counted := _reorder(track, frames)) is not None)
    samples = np.concatenate(list(_counted_samples(path, channel)))
    like = clip.sound
    sound = sound_features(samples, like.log_mel.shape[1], like.mfcc.shape[1], like.features)
    return ClipFeatures(num_frames, clip.shot_starts, tracks, sound)


def _reorder(track: FaceTrack, frames: NDArray[np.int64]) -> FaceTrack | None:
    """The track in a clip whose frame i is frame `frames[i]` of the clip of `track`; None if it is absent."""
    counted = np.flatnonzero((frames >= track.start) & (frames < track.start + len(track)))
    if len(counted) == 0:
        return None
    rows = frames[counted] - track.start
    return replace(
        track,
        start=int(counted[0]),
        mouths=track.mouths[rows],
        lips=track.lips[rows],
        opening=track.opening[rows],
        boxes_px=track.boxes_px[rows],
        is_measured=track.is_measured[rows],
    )


def _counted_samples(path: Path, channel: str) -> Iterator[NDArray[np.float32]]:
    resampler, downmix = av.AudioResampler(format="flt", rate=SAMPLE_RATE_HZ), None
    with open_media(path) as container:
        for frame in decoded_frames(container, played_stream(container, "audio", path)):
            if downmix is None:
                names = [each.name for each in frame.layout.channels]
                downmix = Downmix(SoundChoice(channel), names, SAMPLE_RATE_HZ, [], path)
            frame.pts = None
            for part in resampler.resample(frame):
                yield from downmix.mix(packed_samples(part))
    if downmix is None:
        raise MediaError(f"{path}: no sample of its sound can be decoded")
    for part in resampler.resample(None):
        yield from downmix.mix(packed_samples(part))
    yield from downmix.rest()
