"""Edit lists and FCPXML: read back, their times are those of the clips to the frame."""

import re
import xml.etree.ElementTree as ET
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import pytest

from lipsync.repair.timelines import (
    FRAME_DURATIONS,
    TimelineClip,
    edl_text,
    fcpxml_text,
    standard_rate,
    timecode,
    usual_rate,
)

MASTER = TimelineClip(path=Path("/sound/master.wav"), start_s=0.0, duration_s=600.0, has_video=False)


def clip(
    name: str, start_s: float, duration_s: float = 20.0, rate_hz: float = 25.0, **options
) -> TimelineClip:
    options = {"width": 1920, "height": 1080, **options}
    return TimelineClip(
        path=Path("/films", name), start_s=start_s, duration_s=duration_s, rate_hz=rate_hz, **options
    )


def seconds(text: str) -> Fraction:
    """The time of FCPXML, strictly."""
    assert re.fullmatch(r"-?\d+(/\d+)?s", text), text
    return Fraction(text.removesuffix("s"))


def edl_events(text: str, rate: str) -> list[dict]:
    """The events of an edit list: frames of the source and the record, and the notes."""
    base = round(1 / FRAME_DURATIONS[rate])
    events: list[dict] = []
    title, mode, blank, *lines = text.split("\n")
    assert (title, mode, blank) == ("TITLE: alignment", "FCM: NON-DROP FRAME", "")
    for line in lines:
        if line.startswith("* "):
            name, _, value = line[2:].partition(": ")
            events[-1][name] = value
        elif line:
            number, reel, channels, kind, *codes = line.split()
            assert (reel, kind, len(codes)) == ("AX", "C", 4)
            frames = []
            for code in codes:
                hours, minutes, whole, frame = map(int, code.split(":"))
                assert hours < 24
                assert max(minutes, whole) < 60
                assert frame < base
                frames.append(((hours * 60 + minutes) * 60 + whole) * base + frame)
            events.append({"number": int(number), "channels": channels, "frames": frames})
    return events


@pytest.mark.parametrize("rate", FRAME_DURATIONS)
def test_edit_list_has_each_clip_at_its_frame_and_notes_the_rest(rate: str) -> None:
    step = float(FRAME_DURATIONS[rate])
    clips = [
        clip("b.mp4", 100.0 + 0.3 * step),
        clip("a.mp4", -1800.0, 7.0),
        clip("silent.mp4", 5.0, has_sound=False),
    ]
    events = edl_events(edl_text(clips, rate), rate)
    assert [event["FROM CLIP NAME"] for event in events] == ["a.mp4", "silent.mp4", "b.mp4"]
    assert [event["channels"] for event in events] == ["B", "V", "B"]
    assert [event["number"] for event in events] == [1, 2, 3]
    base = round(1 / step)
    for event, start_s, duration_s in zip(
        events, (-1800.0, 5.0, clips[0].start_s), (7.0, 20.0, 20.0), strict=True
    ):
        source_in, source_out, record_in, record_out = event["frames"]
        rest_ms = float(event["OFFSET IN MS REMAINS"])
        assert source_in == 0
        assert source_out == record_out - record_in == int(duration_s / step + 0.01)
        assert (record_in - 3600 * base) * step + rest_ms / 1e3 == pytest.approx(start_s, abs=1e-6)
        assert abs(rest_ms) <= step * 500 + 1e-3
    assert any(float(event["OFFSET IN MS REMAINS"]) for event in events)


def test_edit_list_begins_later_where_a_clip_begins_hours_before_the_master() -> None:
    (event,) = edl_events(edl_text([clip("a.mp4", -2.5 * 3600)], "25"), "25")
    assert event["frames"][2] == 1800 * 25  # of the zero at 03:00:00:00


def test_timecode_counts_frames_and_begins_again_after_a_day() -> None:
    assert timecode(0, "24") == "00:00:00:00"
    assert timecode(3600 * 30 - 1, "29.97") == "00:59:59:29"  # non-drop: frames, 3.6 s after the clock
    assert timecode(24 * 3600 * 60 + 59, "59.94") == "00:00:00:59"


def test_rates_are_those_of_the_clips() -> None:
    assert standard_rate(29.97003) == "29.97"
    assert standard_rate(24000 / 1001) == "23.976"
    assert standard_rate(24.0) == "24"
    assert [standard_rate(rate) for rate in (22.13, 0.0, float("nan"), 15.0)] == [""] * 4
    assert (
        usual_rate([clip("a", 0, rate_hz=50), clip("b", 0, rate_hz=22.13), clip("c", 0, rate_hz=50)]) == "50"
    )
    assert usual_rate([]) == usual_rate([clip("a", 0, rate_hz=0)]) == "25"


@pytest.mark.parametrize("rate", FRAME_DURATIONS)
def test_fcpxml_has_each_clip_at_its_frame_on_a_lane_of_its_own(rate: str) -> None:
    step = FRAME_DURATIONS[rate]
    clips = [
        clip("a.mp4", -3.21, 20.0),
        clip("b.mp4", 10.0, 20.0, 30000 / 1001, width=1280, height=720),
        clip("c.mp4", 12.0, 100.0, 22.13),
        clip("d.mp4", 40.0, 20.0),
    ]
    text = fcpxml_text(clips, MASTER, rate)
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n')
    root = ET.fromstring(text.encode())
    assert (root.tag, root.get("version")) == ("fcpxml", "1.10")
    sequence = root.find("library/event/project/sequence")
    assert sequence is not None
    formats = {element.get("id"): element for element in root.findall("resources/format")}
    assert seconds(formats[sequence.get("format")].get("frameDuration")) == step
    (gap,) = list(sequence.find("spine"))
    assert gap.tag == "gap"
    items = gap.findall("asset-clip")
    assert [item.get("name") for item in items] == ["master.wav", "a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    assert [item.get("lane") for item in items] == ["-1", "1", "2", "3", "1"]
    assets = {element.get("id"): element for element in root.findall("resources/asset")}
    zero = seconds(items[0].get("offset"))
    assert 3.21 <= zero < 3.21 + step
    for item, source in zip(items, [MASTER, *clips], strict=True):
        offset, duration = seconds(item.get("offset")), seconds(item.get("duration"))
        assert offset >= 0
        assert (offset / step).denominator == (duration / step).denominator == 1  # whole frames
        assert abs(float(offset - zero) - source.start_s) <= step / 2 + 1e-9
        asset = assets[item.get("ref")]
        assert 0 < duration <= seconds(asset.get("duration")) <= source.duration_s + 1e-3
        assert asset.get("hasVideo") == ("1" if source.has_video else None)
        assert asset.get("format") is None or asset.get("format") in formats
        assert offset + duration <= seconds(sequence.get("duration")) == seconds(gap.get("duration"))
        note = item.find("note")
        if source is not MASTER:
            rest_s = float(note.text.split()[0]) / 1e3
            assert float(offset - zero) + rest_s == pytest.approx(source.start_s, abs=1e-6)
            assert next(iter(item)) is note  # as the structure has it: the note first
    conformed = {item.get("name"): item.find("conform-rate") for item in items}
    assert conformed["c.mp4"] is None
    assert (conformed["b.mp4"] is None) == (rate == "29.97")
    if rate != "29.97":
        assert conformed["b.mp4"].attrib == {"scaleEnabled": "0", "srcFrameRate": "29.97"}


@pytest.mark.parametrize(
    "name",
    [
        "a & b <c> \"d\" 'e'.mp4",
        "한국어 이름.mp4",
        "-x.mp4",
        "two\nlines\r\x00\x1b.mp4",
        "%41#?.mp4",
        "\udcff.mp4",
    ],
)
def test_names_are_escaped_and_lead_to_the_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name.replace("\x00", "")
    film = TimelineClip(path=path, start_s=1.0, duration_s=2.0, rate_hz=25.0)
    root = ET.fromstring(fcpxml_text([film], MASTER).encode())
    address = root.findall("resources/asset/media-rep")[1].get("src")
    assert address is not None
    assert urlsplit(address).scheme == "file"
    assert unquote_to_bytes(urlsplit(address).path) == str(path.resolve()).encode(errors="surrogateescape")
    shown = root.findall(".//asset-clip")[1].get("name")
    assert shown == "".join(letter for letter in name if letter.isprintable())
    (event,) = edl_events(edl_text([film]), "25")
    assert event["FROM CLIP NAME"] == shown


def test_clips_that_follow_each_other_share_a_lane() -> None:
    clips = [clip(f"{number}.mp4", 20.04 * number, 20.0399999) for number in range(5)]
    items = ET.fromstring(fcpxml_text(clips, MASTER, "25").encode()).findall(".//asset-clip")
    assert {item.get("lane") for item in items} == {"-1", "1"}
