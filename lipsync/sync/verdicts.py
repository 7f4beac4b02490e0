"""The verdict on a clip: in sync, audio early or late by a number of ms, or no answer with the reason.

The sign: offset_ms > 0 means that the audio is early; delay it by that much to correct it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lipsync.clips.clock import FRAME_HZ, ROWS_PER_FRAME
from lipsync.sync.changes import Change, Drift
from lipsync.sync.estimators import (
    HIGH_PASS_FRAMES,
    SOUND_SMOOTH_ROWS,
    high_passed,
    lip_distances,
    loudness_db,
    smoothed,
)
from lipsync.sync.offset import LAG_MS
from lipsync.sync.posterior import IN_SYNC_MS, Posterior

if TYPE_CHECKING:
    from lipsync.clips.features import ClipFeatures, FaceTrack
    from lipsync.clips.sounds import SoundFeatures

IN_SYNC, AUDIO_EARLY, AUDIO_LATE = "in_sync", "audio_early", "audio_late"
NO_MATCH, CANNOT_TELL = "no_match", "cannot_tell"

MIN_DURATION_S = 1.0
MIN_FACE_PX = 36  # width; below it MediaPipe's lips are mostly its idea of a face
STILL_DEVIATION = 0.012  # of the height of the lips, halves of the crop: who speaks has 0.03 and more
SILENCE_DB = -60.0  # loudest band anywhere; speech recorded faintly still has -40
SPEECH_DEVIATION_DB = 1.0  # of the fast changes of the level: speech has 1.6 and more, steady noise 0.4
MIN_VOICED_S = 0.5  # within VOICED_DB of the loudest
VOICED_DB = 30.0

MOST_ODDS = 999.0
# Probabilities of a match from which its offset is reported, and to which there is no match. On people
# left out, 0.7 gave 7 points more of the right offsets in windows of 2 s, and twice as often one for the
# sound of somebody else; none of the windows that match was below 0.2.
LIKELY_MATCH, UNLIKELY_MATCH = 0.8, 0.2
EVEN = 0.5  # a clip is off where its score is below
SURE_NEAR = 0.7  # least probability, given a match, that the offset is right to a frame
# ITU-R BT.1359-1: what viewers detect, and what they still accept; positive: audio early.
DETECTABLE_MS = (-125.0, 45.0)
ACCEPTABLE_MS = (-185.0, 90.0)


@dataclass(frozen=True)
class Verdict:
    """The verdict on a clip or a face.

    Attributes:
        kind: IN_SYNC, AUDIO_EARLY, AUDIO_LATE, NO_MATCH (no offset fits) or CANNOT_TELL.
        text: In words, with the number and what to do.
        reason: Why there is no answer, or why no offset fits; "" otherwise.
        band: Of the offset by ITU-R BT.1359: not detectable, detectable, not acceptable; "" without offset.
    """

    kind: str
    text: str
    reason: str = ""
    band: str = ""


def cannot_tell(reason: str) -> Verdict:
    """The verdict without an answer."""
    return Verdict(CANNOT_TELL, f"cannot tell: {reason}", reason)


def band_of(offset_ms: float) -> str:
    """The band of ITU-R BT.1359 that an offset is in; "" for nan."""
    if math.isnan(offset_ms):
        return ""
    if DETECTABLE_MS[0] <= offset_ms <= DETECTABLE_MS[1]:
        return "not detectable"
    return "detectable" if ACCEPTABLE_MS[0] <= offset_ms <= ACCEPTABLE_MS[1] else "not acceptable"


def offset_text(offset_ms: float) -> str:
    """An offset in words: "audio 120 ms early; delay it by 120 ms"."""
    size = f"{abs(offset_ms):.0f} ms"
    if offset_ms >= 0:
        return f"audio {size} early; delay it by {size}"
    return f"audio {size} late; move it ahead by {size}"


def judge(posterior: Posterior, change: Change | None = None) -> Verdict:
    """The verdict that a posterior stands for.

    In sync: a match is likely, and the whole interval of its offset is within IN_SYNC_MS. Early or late: a
    match is likely, its offset stands out, its interval leaves 0 out, and the score is below one half. No
    match: one is unlikely.

    Args:
        posterior: Of a clip, a face or a window; where the offset changes, over its moments.
        change: A drift or jumps in it.
    """
    offset_ms, (low_ms, high_ms) = posterior.offset_ms, posterior.interval_ms
    band = band_of(offset_ms)
    if posterior.match <= UNLIKELY_MATCH:
        reason = (
            f"no offset up to {LAG_MS * posterior.lags[-1]:.0f} ms stands out: other words (dubbed, another "
            "language), another person's voice, or a larger offset"
        )
        return Verdict(NO_MATCH, f"not in sync; {reason}", reason)
    if posterior.match >= LIKELY_MATCH:
        if low_ms >= -IN_SYNC_MS and high_ms <= IN_SYNC_MS:
            side = "early" if round(offset_ms) >= 0 else "late"
            return Verdict(IN_SYNC, f"in sync (audio {abs(round(offset_ms))} ms {side})", band=band)
        if change is not None:
            early = posterior.mass_between(IN_SYNC_MS, math.inf)
            is_early = early >= posterior.mass_between(-math.inf, -IN_SYNC_MS)
            if abs(offset_ms) > IN_SYNC_MS:  # so that the offset and the verdict have one sign
                is_early = offset_ms > 0
            kind = AUDIO_EARLY if is_early else AUDIO_LATE
            return Verdict(kind, f"not in sync throughout; {change_text(change)}", band=band)
        if posterior.is_at_edge:
            return cannot_tell(
                f"the likeliest offset is at the end of the search, {offset_ms:+.0f} ms: it may be larger; "
                "a wider search would tell (max_offset_ms)"
            )
        if posterior.near >= SURE_NEAR and (low_ms > 0 or high_ms < 0):
            if posterior.in_sync >= EVEN:
                return cannot_tell(
                    f"at the edge of what counts as in sync: {offset_ms:+.0f} ms, 90 % between {low_ms:+.0f} "
                    f"and {high_ms:+.0f} ms"
                )
            kind = AUDIO_EARLY if offset_ms > 0 else AUDIO_LATE
            return Verdict(kind, offset_text(offset_ms), band=band)
    seconds = posterior.num_frames / FRAME_HZ
    return cannot_tell(
        f"lips and sound agree too little in {seconds:.1f} s, {guess_text(posterior)}; "
        "a longer stretch of the same speaker would tell"
    )


def guess_odds(posterior: Posterior) -> float:
    """Odds that the likeliest offset is right to a frame: 3 stands for 3 to 1; at most MOST_ODDS."""
    return min(posterior.confidence / max(1 - posterior.confidence, 1 / MOST_ODDS), MOST_ODDS)


def guess_text(posterior: Posterior) -> str:
    """The likeliest offset with its odds, in words."""
    odds = guess_odds(posterior)
    text = f"{odds:.0f} to 1" if odds >= 1 else f"1 to {min(1 / max(odds, 1e-9), MOST_ODDS):.0f}"
    return f"the best guess is {posterior.offset_ms:+.0f} ms with odds of {text}"


def change_text(change: Change) -> str:
    """A drift or jumps in words."""
    if isinstance(change, Drift):
        return (
            f"the offset drifts by {change.ppm:+.0f} ppm, from {change.start_ms:+.0f} ms at the start to "
            f"{change.end_ms:+.0f} ms at the end (positive: audio early)"
        )
    first, *others = change.parts
    steps = ", ".join(f"at about {part.start_s:.0f} s to {part.offset_ms:+.0f} ms" for part in others)
    return f"the offset jumps from {first.offset_ms:+.0f} ms {steps} (positive: audio early)"


def sound_fault(sound: SoundFeatures) -> str:
    """Reason why a sound gives no answer; "" where it can."""
    seconds = len(sound.log_mel) / (FRAME_HZ * ROWS_PER_FRAME)
    if seconds < MIN_DURATION_S:
        return f"{seconds:.2f} s of sound; at least {MIN_DURATION_S:g} s are needed"
    loudest = sound.log_mel.max(axis=1)
    if float(loudest.max()) < SILENCE_DB:
        return "the sound is silent"
    voiced_s = float((loudest > loudest.max() - VOICED_DB).mean()) * seconds
    if voiced_s < MIN_VOICED_S:
        return f"no speech in the sound: {voiced_s:.1f} s of it are louder than its background"
    level_db = smoothed(loudness_db(sound.log_mel), SOUND_SMOOTH_ROWS, mode="reflect")
    if float(high_passed(level_db, HIGH_PASS_FRAMES * ROWS_PER_FRAME).std()) < SPEECH_DEVIATION_DB:
        return "no speech in the sound: its loudness hardly changes"
    return ""


def face_fault(track: FaceTrack) -> str:
    """Reason why a face gives no answer; "" where it can."""
    seconds = float(track.is_measured.sum()) / FRAME_HZ
    if seconds < MIN_DURATION_S:
        return f"the face is seen for {seconds:.2f} s; at least {MIN_DURATION_S:g} s are needed"
    width_px = float(np.median(track.boxes_px[:, 2]))
    if width_px < MIN_FACE_PX:
        return f"the face is too small: {width_px:.0f} pixels wide, at least {MIN_FACE_PX} are needed"
    height = high_passed(lip_distances(track.lips)[:, :1], HIGH_PASS_FRAMES)
    if float(height[track.is_measured].std()) < STILL_DEVIATION:
        return "the mouth stands still"
    return ""


def clip_fault(clip: ClipFeatures) -> str:
    """Reason why a clip gives no answer; "" where it can."""
    seconds = clip.num_frames / FRAME_HZ
    if seconds < MIN_DURATION_S:
        return f"{seconds:.2f} s of video; at least {MIN_DURATION_S:g} s are needed"
    if not clip.tracks:
        return "no face is seen"
    fault = sound_fault(clip.sound)
    if fault:
        return fault
    faults = [face_fault(track) for track in clip.tracks]
    if all(faults):
        return faults[0]  # of the face that is seen longest
    return ""
