"""Timelines for editing programs: clips at their places on one master sound, as CMX3600 EDL and FCPXML.

Both hold whole frames alone: a start is rounded to the frame, and the rest, up to half a frame, is noted
with the clip. Neither has names of the system in it that could break a line: control characters are dropped.
Source: SMPTE 258M for the EDL; Apple, "FCPXML Reference", 1.10.
"""

from __future__ import annotations

import math
import unicodedata
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

# Seconds of a frame, by the name of the rate, as FCPXML writes them.
FRAME_DURATIONS = {
    "23.976": Fraction(1001, 24000),
    "24": Fraction(1, 24),
    "25": Fraction(1, 25),
    "29.97": Fraction(1001, 30000),
    "30": Fraction(1, 30),
    "50": Fraction(1, 50),
    "59.94": Fraction(1001, 60000),
    "60": Fraction(1, 60),
}
_CONFORM_NAMES = {"23.976": "23.98"}  # of FCPXML, where they differ
DEFAULT_RATE = "25"
_MOST_ODD = 5e-4  # share by which a rate may differ from a standard one: 24 and 23.976 differ by 1e-3
EDL_START_S = 3600  # 01:00:00:00, where programmes begin by convention: a clip may start earlier
_DAY_H = 24
_ROUNDING = Fraction(1, 100)  # of a frame
_NAME_LENGTH = 200


@dataclass(frozen=True, kw_only=True)
class TimelineClip:
    """A file on the timeline.

    Attributes:
        path: Of the file.
        start_s: Time on the master, in s, at which the file begins; may be negative.
        duration_s: Its length in s.
        rate_hz: Frames a second; 0: unknown, or no pictures.
        has_video, has_sound: Whether it has pictures and sound.
        width, height: Of its pictures; 0: unknown.
        drift_ppm: See `lipsync.repair.alignment`; noted, not corrected.
    """

    path: Path
    start_s: float
    duration_s: float
    rate_hz: float = 0.0
    has_video: bool = True
    has_sound: bool = True
    width: int = 0
    height: int = 0
    drift_ppm: float = 0.0


def standard_rate(rate_hz: float) -> str:
    """The name of the nearest standard rate; "" if none is as near as its rounding in a header."""
    if not rate_hz > 0:
        return ""
    name = min(FRAME_DURATIONS, key=lambda rate: abs(float(FRAME_DURATIONS[rate]) * rate_hz - 1))
    return name if abs(float(FRAME_DURATIONS[name]) * rate_hz - 1) <= _MOST_ODD else ""


def usual_rate(clips: Sequence[TimelineClip]) -> str:
    """The most usual standard rate of the clips, the first one of equals; 25 where none has one."""
    names = Counter(name for clip in clips if (name := standard_rate(clip.rate_hz)))
    return names.most_common(1)[0][0] if names else DEFAULT_RATE


@dataclass(frozen=True)
class Placed:
    """A clip in whole frames of the timeline.

    Attributes:
        start, length: In frames; the start is relative to the master's.
        rest_ms: Time in ms by which the clip begins after its frame (negative: before it).
        lane: From 1; clips that overlap have different ones.
    """

    start: int
    length: int
    rest_ms: float
    lane: int


def placed(clips: Sequence[TimelineClip], step: Fraction) -> list[Placed]:
    """The clips in frames of `step` seconds, in the same order."""
    ends: list[int] = []
    positions: dict[int, Placed] = {}
    for index in sorted(range(len(clips)), key=lambda index: clips[index].start_s):
        start_s = Fraction(clips[index].start_s)
        start = round(start_s / step)
        length = max(math.floor(_length_s(clips[index], step) / step), 1)
        lane = next((lane for lane, end in enumerate(ends) if end <= start), len(ends))
        ends[lane:] = [start + length, *ends[lane + 1 :]]
        positions[index] = Placed(start, length, float(start_s - start * step) * 1e3, lane + 1)
    return [positions[index] for index in range(len(clips))]


def _length_s(clip: TimelineClip, step: Fraction) -> Fraction:
    """The length of the clip in whole frames of its own, in s; tables round it to microseconds."""
    own_step = _own_step(clip, step)
    return max(math.floor(Fraction(clip.duration_s) / own_step + _ROUNDING), 1) * own_step


def timecode(frames: int, rate: str) -> str:
    """Non-drop timecode HH:MM:SS:FF of a number of frames, from 0; after 24 hours it begins again."""
    base = round(1 / FRAME_DURATIONS[rate])
    seconds, frame = divmod(frames, base)
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours % _DAY_H:02d}:{minute:02d}:{second:02d}:{frame:02d}"


def edl_text(clips: Sequence[TimelineClip], rate: str = "", title: str = "alignment") -> str:
    """A CMX3600 edit list: an event for each clip, by start.

    Second 0 of the master is 01:00:00:00, or as many whole hours later as the earliest clip needs.
    Timecodes are non-drop, also at 29.97 and 59.94 frames a second: they count frames. Clips that overlap
    are events that overlap; their lane is noted.

    Args:
        clips: With a duration.
        rate: A name of `FRAME_DURATIONS`; "": the most usual one of the clips.
        title: First line.
    """
    rate = rate or usual_rate(clips)
    step = FRAME_DURATIONS[rate]
    base = round(1 / step)  # timecode counts seconds of whole frames
    earliest_s = min((clip.start_s for clip in clips), default=0.0)
    zero = base * (EDL_START_S + 3600 * max(math.ceil(-earliest_s / 3600) - 1, 0))
    lines = [f"TITLE: {_plain(title)}", "FCM: NON-DROP FRAME", ""]
    ordered = sorted(zip(clips, placed(clips, step), strict=True), key=lambda pair: pair[0].start_s)
    for number, (clip, at) in enumerate(ordered, 1):
        channels = "B" if clip.has_video and clip.has_sound else "V" if clip.has_video else "A"
        codes = (0, at.length, zero + at.start, zero + at.start + at.length)
        times = " ".join(timecode(frames, rate) for frames in codes)
        lines += [
            f"{number:03d}  AX       {channels:<5} C        {times}",
            f"* FROM CLIP NAME: {_plain(clip.path.name)}",
            f"* SOURCE FILE: {_plain(str(clip.path.resolve()))}",
            f"* OFFSET IN MS REMAINS: {at.rest_ms:+.3f}",
            f"* DRIFT IN PPM: {clip.drift_ppm:+.2f}",
            f"* LANE: {at.lane}",
            "",
        ]
    return "\n".join(lines)


def fcpxml_text(
    clips: Sequence[TimelineClip], master: TimelineClip, rate: str = "", title: str = "alignment"
) -> str:
    """An FCPXML 1.10 document: the master on lane -1, clips on lanes from 1 on, above one gap.

    The gap is the primary storyline, so that clips may begin before the master does: the timeline begins at
    the earliest of all.

    Args:
        clips: With a duration.
        master: At start_s 0.
        rate: Of the sequence; a name of `FRAME_DURATIONS`; "": the most usual one of the clips.
        title: Of event and project.
    """
    rate = rate or usual_rate(clips)
    step = FRAME_DURATIONS[rate]
    zero = math.ceil(Fraction(max(-min((clip.start_s for clip in clips), default=0.0), 0.0)) / step)
    root = ET.Element("fcpxml", version="1.10")
    resources = ET.SubElement(root, "resources")
    widest = max(clips, key=lambda clip: clip.width * clip.height, default=master)
    size = (widest.width or 1920, widest.height or 1080)
    formats = _Formats(resources)
    sequence_format = formats.of(step, *size)
    event = ET.SubElement(ET.SubElement(root, "library"), "event", name=_plain(title))
    project = ET.SubElement(event, "project", name=_plain(title))
    sequence = ET.SubElement(
        project, "sequence", format=sequence_format, tcStart="0s", tcFormat="NDF",
        audioLayout="stereo", audioRate="48k",
    )  # fmt: skip
    gap = ET.SubElement(ET.SubElement(sequence, "spine"), "gap", name="Gap", offset="0s", start="0s")
    positions = [replace(placed([master], step)[0], lane=-1), *placed(clips, step)]
    for number, (clip, at) in enumerate(zip([master, *clips], positions, strict=True), 1):
        _add_asset(resources, f"a{number}", clip, step, formats)
        item = ET.SubElement(
            gap, "asset-clip", ref=f"a{number}", lane=str(at.lane), offset=_time((zero + at.start) * step),
            name=_name(clip.path), start="0s", duration=_time(at.length * step),
        )  # fmt: skip
        if clip is not master:
            note = f"{at.rest_ms:+.3f} ms remain after rounding to frames; drift {clip.drift_ppm:+.2f} ppm"
            ET.SubElement(item, "note").text = note
        own_rate = standard_rate(clip.rate_hz)
        if clip.has_video and own_rate and own_rate != rate:  # else programs may play it faster or slower
            name = _CONFORM_NAMES.get(own_rate, own_rate)
            ET.SubElement(item, "conform-rate", scaleEnabled="0", srcFrameRate=name)
    end = zero + max(at.start + at.length for at in positions)
    gap.set("duration", _time(end * step))
    sequence.set("duration", _time(end * step))
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n\n{text}\n'


class _Formats:
    """Formats of the document, each once."""

    def __init__(self, resources: ET.Element) -> None:
        self._resources = resources
        self._names: dict[tuple[Fraction, int, int], str] = {}

    def of(self, step: Fraction, width: int, height: int) -> str:
        """The identifier of a format; it is added where it is new."""
        key = (step, width or 1920, height or 1080)
        if key not in self._names:
            self._names[key] = name = f"r{len(self._names) + 1}"
            duration = _time(step)
            element = ET.Element("format", id=name, frameDuration=duration)
            element.set("width", str(key[1]))
            element.set("height", str(key[2]))
            self._resources.insert(len(self._names) - 1, element)
        return self._names[key]


def _add_asset(
    resources: ET.Element, name: str, clip: TimelineClip, step: Fraction, formats: _Formats
) -> None:
    own_step = _own_step(clip, step)
    asset = ET.SubElement(resources, "asset", id=name, name=_name(clip.path), start="0s")
    asset.set("duration", _time(_length_s(clip, step)))
    if clip.has_video:
        asset.set("hasVideo", "1")
        asset.set("format", formats.of(own_step, clip.width, clip.height))
        asset.set("videoSources", "1")
    if clip.has_sound:
        asset.set("hasAudio", "1")
        asset.set("audioSources", "1")
    ET.SubElement(asset, "media-rep", kind="original-media", src=clip.path.resolve().as_uri())


def _own_step(clip: TimelineClip, step: Fraction) -> Fraction:
    """Seconds of the clip's own frame; those of the sequence where it has no rate."""
    if not clip.has_video or not 1 <= clip.rate_hz <= 1000:
        return step
    name = standard_rate(clip.rate_hz)
    return FRAME_DURATIONS[name] if name else 1 / Fraction(clip.rate_hz).limit_denominator(1001)


def _time(seconds: Fraction) -> str:
    """The time as FCPXML writes it: 1001/30000s, 5s."""
    return f"{seconds.numerator}s" if seconds.denominator == 1 else f"{seconds}s"


def _name(path: Path) -> str:
    return _plain(path.name)[:_NAME_LENGTH]


def _plain(text: str) -> str:
    """The text on one line, without what neither XML nor an edit list can hold: controls, surrogates."""
    spaced = (" " if unicodedata.category(letter) == "Zs" else letter for letter in text)
    return "".join(letter for letter in spaced if letter.isprintable())
