"""The repair of a sound that does not fit its pictures: a shift, another rate, or cuts at quiet places."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lipsync.clips.clock import ROW_HZ
from lipsync.repair.retiming import FINENESS
from lipsync.repair.shift import OUTPUT_FORMATS
from lipsync.sync.changes import Drift
from lipsync.sync.timing import Cut, Timing
from lipsync.sync.verdicts import AUDIO_EARLY, AUDIO_LATE, NO_MATCH, offset_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lipsync.sync.scoring import ClipScore

CUT_REACH_S = 1.0  # from where the offset jumps by the evidence, which comes in blocks of 0.4 s
QUIET_ROWS = 3  # on either side of a cut
FARTHER_DB = 6.0  # a second: a place so much nearer may be so much louder
RATE_HZ = 48_000  # of the sound in a command that resamples


def plan_timing(score: ClipScore) -> Timing | None:
    """The timing that puts a clip right; None where its verdict stands for no offset, or it is in sync.

    A sound of another recorder is put where it was placed, also where the lips cannot tell more.
    """
    placed, kind = score.placed, score.judgement.verdict.kind
    rest = _plan_rest(score)
    if placed is None:
        return rest
    return placed.then(rest) if rest is not None else None if kind == NO_MATCH else placed


def _plan_rest(score: ClipScore) -> Timing | None:
    if score.judgement.verdict.kind not in (AUDIO_EARLY, AUDIO_LATE):
        return None
    change = score.change
    if change is None:
        return Timing(round(score.judgement.offset_ms, 1))  # as in the details
    if isinstance(change, Drift):
        return Timing(change.start_ms, change.ppm)
    cuts = [
        _place_cut(score.level_db, after.start_s, before.offset_ms, after.offset_ms)
        for before, after in itertools.pairwise(change.parts)
    ]
    return Timing(change.parts[0].offset_ms, cuts=tuple(cuts))


def _place_cut(level_db: NDArray[np.float32], time_s: float, before_ms: float, after_ms: float) -> Cut:
    """The cut for an offset that jumps when the pictures are at about `time_s`.

    Sound that is missing is replaced by silence at the quietest place; too much is taken out where both ends
    are quiet.

    Args:
        level_db: (rows,) of the sound.
        time_s: Of the pictures.
        before_ms, after_ms: The offsets.
    """
    by_ms = after_ms - before_ms
    # Missing sound: the pictures go on for `by_ms` without any. In the sound it is one moment.
    first_s = time_s - before_ms / 1000 - max(by_ms, 0.0) / 1000 - CUT_REACH_S
    last_s = time_s - before_ms / 1000 + CUT_REACH_S
    rows = np.arange(max(round(first_s * ROW_HZ), 0), max(round(last_s * ROW_HZ), 0) + 1)
    middle = (rows[0] + rows[-1]) / 2
    cost = np.maximum(_loudness_at(level_db, rows), _loudness_at(level_db, rows + round(max(-by_ms, 0) / 10)))
    cost = cost + FARTHER_DB * np.abs(rows - middle) / ROW_HZ
    return Cut(float(rows[int(cost.argmin())]) / ROW_HZ, by_ms)


def _loudness_at(level_db: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """The loudest of the rows around each; outside the recording it is quiet."""
    places = rows[:, None] + np.arange(-QUIET_ROWS, QUIET_ROWS + 1)
    is_inside = (places >= 0) & (places < len(level_db))
    values = (
        level_db[np.clip(places, 0, max(len(level_db) - 1, 0))] if len(level_db) else np.zeros(places.shape)
    )
    quietest = float(level_db.min()) if len(level_db) else 0.0
    loudest: NDArray[np.float64] = np.where(is_inside, values, quietest).max(axis=1).astype(np.float64)
    return loudest


def ffmpeg_line(video: Path, audio: Path | None, timing: Timing) -> str:
    """A command for a shell that does the same with ffmpeg; pictures are copied.

    A shift copies the sound too; for a drift or cuts it is encoded again. The copy is of the video's own kind
    where `--output` writes that and the sound is the video's; else .mkv, which holds anything.

    Args:
        video: The pictures.
        audio: Another file with the sound; None: the video's own.
        timing: Of the sound.
    """
    is_own_kind = video.suffix.lower() in OUTPUT_FORMATS and audio is None
    fixed = video.with_name(f"{video.stem}_fixed{video.suffix if is_own_kind else '.mkv'}")
    sound = _argument(audio or video)
    words = ["ffmpeg", "-i", _argument(video)]
    if not timing.drift_ppm and not timing.cuts:
        words += ["-itsoffset", f"{timing.offset_ms / 1000:.4f}", "-i", sound]
        words += ["-map", "0:v", "-map", "1:a", "-c", "copy"]
    else:
        words += ["-i", sound, "-filter_complex", _filters(timing)]
        words += ["-map", "0:v", "-map", "[a]", "-c:v", "copy"]
    return shlex.join([*words, _argument(fixed)])


def _filters(timing: Timing) -> str:
    """The sound of input 1, retimed, as [a]."""
    if not timing.cuts:
        rate_hz = round(RATE_HZ * FINENESS * (1 - timing.drift_ppm / 1e6))
        shift = _shift_filters(timing.offset_ms, 0.0, None)
        # Of whole rates a thousand times as high, the ratio is right to 0.01 ppm.
        resample = f"asetrate={rate_hz},aresample={RATE_HZ * FINENESS},asetrate={RATE_HZ}"
        return f"[1:a]aresample={RATE_HZ},{shift},{resample}[a]"
    starts = [0.0, *(cut.at_s + max(-cut.by_ms, 0.0) / 1000 for cut in timing.cuts)]
    ends = [*(cut.at_s for cut in timing.cuts), None]
    delays = [timing.offset_ms, *(max(cut.by_ms, 0.0) for cut in timing.cuts)]
    count = len(starts)
    inputs = "".join(f"[i{number}]" for number in range(count))
    outputs = "".join(f"[o{number}]" for number in range(count))
    parts = [
        f"[i{number}]{_shift_filters(delay_ms, start_s, end_s)}[o{number}]"
        for number, (delay_ms, start_s, end_s) in enumerate(zip(delays, starts, ends, strict=True))
    ]
    return ";".join([f"[1:a]asplit={count}{inputs}", *parts, f"{outputs}concat=n={count}:v=0:a=1[a]"])


def _shift_filters(delay_ms: float, start_s: float, end_s: float | None) -> str:
    """Filters for the sound from `start_s` to `end_s` after a silence of `delay_ms`, or without its start."""
    start_s += max(-delay_ms, 0.0) / 1000
    trim = f"atrim=start={start_s:.4f}" + (f":end={end_s:.4f}" if end_s is not None else "")
    delay = f",adelay={delay_ms:.1f}:all=1" if delay_ms > 0 else ""
    return f"{trim},asetpts=PTS-STARTPTS{delay}"


def _argument(path: Path) -> str:
    """A path that ffmpeg takes for a file: a colon would name a protocol, a dash an option."""
    return str(path) if path.is_absolute() else f"./{path}"


def timing_text(timing: Timing) -> str:
    """The repair in words."""
    parts = []
    if timing.offset_ms or timing == Timing(0.0):
        parts.append(offset_text(timing.offset_ms))
    if timing.drift_ppm:
        parts.append(f"drift of {timing.drift_ppm:+.0f} ppm: the sound is resampled by it")
    for cut in timing.cuts:
        done = "silence is put in" if cut.by_ms > 0 else "sound is taken out"
        parts.append(f"at {cut.at_s:.1f} s {abs(cut.by_ms):.0f} ms of {done}")
    return ", ".join(parts)
