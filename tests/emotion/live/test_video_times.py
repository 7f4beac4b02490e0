"""Annotated videos: every frame and every sample at its own time, whatever the source's clock is."""

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import av
import numpy as np
import pytest

from emotion.live.annotation import RunConfig
from emotion.live.video_file import annotate_video
from emotion.live.viewer import Viewer
from facevox.media import read_audio
from facevox.signals import StopFlag

RATE_HZ = 16000
SHOWN_S = 0.2  # the longest that a frame may be shown, for the sound's length


def even(rate_hz: Fraction | int, count: int, start_s: Fraction | int = 0) -> list[Fraction]:
    return [start_s + Fraction(number) / rate_hz for number in range(count)]


@dataclass(frozen=True)
class Case:
    """A source: its file, the times of its frames and of the first sample of its sound."""

    name: str
    times_s: list[Fraction]
    sound_s: Fraction | None = None
    tick: Fraction = Fraction(1, 90_000)
    size: tuple[int, int] = (64, 48)
    muxer: tuple[tuple[str, str], ...] = ()


HALF, HOUR = Fraction(1, 2), Fraction(3600)
CASES = {
    "variable": Case("x.mp4", [*even(25, 25), *even(Fraction(5, 2), 5, 1)], Fraction(0)),
    "25": Case("x.mp4", even(25, 30), Fraction(0), Fraction(1, 25)),
    "29.97": Case("x.mp4", even(Fraction(30000, 1001), 30), Fraction(0), Fraction(1001, 30000)),
    "59.94": Case("x.mp4", even(Fraction(60000, 1001), 60), Fraction(0), Fraction(1001, 60000)),
    "60": Case("x.mp4", even(60, 60), Fraction(0), Fraction(1, 60)),
    "240": Case("x.mp4", even(240, 120), Fraction(0), Fraction(1, 240)),
    "late sound": Case("x.mkv", even(25, 50), HALF, Fraction(1, 1000)),
    "late sound mp4": Case("x.mp4", even(25, 50), HALF),
    "early sound": Case("x.mkv", even(25, 50, HALF), Fraction(0), Fraction(1, 1000)),
    "early sound ts": Case("x.ts", even(25, 50, HALF + 1), Fraction(1)),
    "ts at 1 h": Case("x.ts", even(25, 50, HOUR), HOUR),
    "mkv at 21 ms": Case("x.mkv", even(25, 50, Fraction(21, 1000)), Fraction(0), Fraction(1, 1000)),
    "mkv, all later": Case("x.mkv", even(25, 25, 7), Fraction(7), Fraction(1, 1000)),
    "webm": Case("x.webm", even(30, 30), Fraction(0), Fraction(1, 1000)),
    "cut by its edit list": Case(
        "x.mp4", even(25, 50, -HALF), -HALF, muxer=(("avoid_negative_ts", "disabled"),)
    ),
    "avi": Case("x.avi", even(25, 30), None, Fraction(1, 25)),
    "odd size": Case("x.mkv", even(25, 5), None, Fraction(1, 1000), (67, 49)),
}


def chirp(count: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
    seconds = np.arange(count) / RATE_HZ
    return (0.4 * np.sin(2 * np.pi * (200 + 400 * seconds) * seconds)).astype(np.float32)


def grey(number: int) -> int:
    return 40 + number * 37 % 160


def write_case(case: Case, path: Path) -> None:
    """Writes frames of different greys, with B-frames where the codec has them, and a chirp."""
    codec = {".webm": "libvpx", ".avi": "mpeg4"}.get(path.suffix, "libx264")
    codec = "ffv1" if case.size[0] % 2 else codec
    with av.open(str(path), "w", options=dict(case.muxer)) as container:
        video: Any = container.add_stream(codec, rate=25)
        video.width, video.height = case.size
        video.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        video.codec_context.time_base = case.tick
        if codec == "libx264":
            video.options = {"bf": "2", "crf": "10", "b-adapt": "0"}
        sound: Any = None
        if case.sound_s is not None:
            names = {".mkv": "pcm_s16le", ".webm": "libopus"}
            sound = container.add_stream(names.get(path.suffix, "aac"), rate=RATE_HZ)
            sound.layout = "mono"
        for number, time_s in enumerate(case.times_s):
            image = np.full((*case.size[::-1], 3), grey(number), np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time_s / case.tick), case.tick
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None and case.sound_s is not None:
            samples = chirp(round((case.times_s[-1] + Fraction(SHOWN_S) - case.sound_s) * RATE_HZ))
            write_sound(container, sound, samples, round(case.sound_s * RATE_HZ))


def write_sound(container: Any, stream: Any, samples: np.ndarray, start: int) -> None:
    resampler = av.AudioResampler(format=stream.codec_context.format, frame_size=stream.frame_size or 1024)
    frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, start, Fraction(1, RATE_HZ)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))


def raw_times(path: Path) -> tuple[float, list[float], list[float]]:
    """Start of the file and times of the decoded frames, by FFmpeg's own stamps; and their mean levels."""
    with av.open(str(path), options={"correct_ts_overflow": "0"}) as container:
        frames = [(f.time or 0.0, f.to_ndarray(format="gray").mean()) for f in container.decode(video=0)]
        start_s = (container.start_time or 0) / av.time_base
    return start_s, [time_s for time_s, _ in frames], [float(level) for _, level in frames]


def annotate(path: Path, output_dir: Path) -> tuple[Path, dict[str, Any]]:
    """The annotated video, by an analyser that finds nobody and an annotator that draws nothing."""
    analyser = SimpleNamespace(analyse=lambda *_, **__: [], close=lambda: None)
    annotator = SimpleNamespace(draw=lambda image, faces: image)
    classifier = SimpleNamespace(class_names=("a", "b"))
    config = cast(
        RunConfig, SimpleNamespace(open=lambda: (classifier, analyser, annotator), spreadsheet_safe=False)
    )
    viewer = cast(Viewer, SimpleNamespace(show=lambda image: None))
    files = annotate_video(path, output_dir, config, StopFlag(), viewer)
    return Path(files["video"]), json.loads(Path(files["about"]).read_text(encoding="utf-8"))


def lag_ms(samples: np.ndarray, expected: np.ndarray) -> float:
    """The time by which `samples` is later than `expected`."""
    size = 2 * max(len(samples), len(expected))
    spectrum = np.fft.rfft(samples, size) * np.conj(np.fft.rfft(expected, size))
    correlation = np.fft.irfft(spectrum, size)
    best = int(correlation.argmax())
    assert correlation[best] > 0.9 * np.linalg.norm(samples) * np.linalg.norm(expected)
    return 1000 * (best if best < size // 2 else best - size) / RATE_HZ


QUICK = ("variable", "29.97", "late sound", "ts at 1 h", "webm")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_every_frame_and_sample_keeps_its_time(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    source = tmp_path / case.name
    write_case(case, source)
    start_s, before, _ = raw_times(source)
    target, about = annotate(source, tmp_path / "out")
    _, after, levels = raw_times(target)
    shown = [number for number, time_s in enumerate(case.times_s) if time_s >= 0]
    assert len(after) == len(before) == len(shown)
    tick_s = min(float(case.tick), 1 / 90_000)
    assert np.abs(np.array(after) + start_s - before).max() <= tick_s + 1e-6  # the start is known to 1 us
    steps = np.diff(after) - np.diff([float(case.times_s[number]) for number in shown])
    assert np.abs(steps).max() <= max(tick_s, 0.00051 if source.suffix in (".mkv", ".webm") else 0) * 2
    assert [level - grey(number) for number, level in zip(shown, levels, strict=True)] == pytest.approx(
        [levels[0] - grey(shown[0])] * len(shown), abs=8
    )
    assert [frame["time_s"] for frame in about["frames"]] == pytest.approx(after, abs=2e-6)
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == tuple(side + side % 2 for side in case.size)
        assert (about["width"], about["height"]) == (stream.width, stream.height)
        assert stream.sample_aspect_ratio in (None, 0, 1)
    if case.sound_s is not None:
        samples = read_audio(target, RATE_HZ)
        lead = round((float(case.sound_s) - max(start_s, 0.0)) * RATE_HZ)
        truth = chirp(round((float(case.times_s[-1]) + SHOWN_S - float(case.sound_s)) * RATE_HZ))
        expected = np.concatenate([np.zeros(max(lead, 0), np.float32), truth[max(-lead, 0) :]])
        assert lag_ms(samples, expected) == pytest.approx(0, abs=1)
