"""The chosen track and channel: measured, corrected, and named."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from talking_clips import make_talking

from facevox.media import probe, read_audio
from facevox.sound_choice import SoundChoice
from lipsync.inference import LipSyncInference
from lipsync.repair.shift import shift_audio
from lipsync.settings import Settings

RATE_HZ = 16000


@pytest.fixture(scope="module")
def early(load_script, tmp_path_factory) -> Path:
    """A clip whose sound is 200 ms early."""
    path = tmp_path_factory.mktemp("early") / "early.mp4"
    shift_audio(make_talking(load_script, tmp_path_factory)[0], path, -200)
    return path


def write_tracks(source: Path, target: Path, tracks: list[NDArray[np.float32]]) -> None:
    """The pictures of `source` with other sounds, each (channels, n); the first one is the default."""
    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        pictures = container.streams.video[0]
        copied = output.add_stream_from_template(pictures)
        sounds = []
        for samples in tracks:
            stream = output.add_stream("aac", rate=RATE_HZ)
            stream.layout = {1: "mono", 2: "stereo"}[len(samples)]
            stream.bit_rate = 128_000
            sounds.append(stream)
        for packet in container.demux(pictures):
            if packet.dts is not None:
                packet.stream = copied
                output.mux(packet)
        for stream, samples in zip(sounds, tracks, strict=True):
            for start in range(0, samples.shape[1], 1024):
                part = np.ascontiguousarray(samples[:, start : start + 1024])
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=stream.layout.name)
                frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, start, Fraction(1, RATE_HZ)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))


def lipsync_of(**audio: str) -> LipSyncInference:
    settings = Settings()
    return LipSyncInference(settings=replace(settings, audio=replace(settings.audio, **audio)))


def likeness(samples: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    shared = min(len(samples), len(other))
    return float(np.corrcoef(samples[:shared], other[:shared])[0, 1])


def test_corrected_file_has_the_track_that_was_measured(tmp_path: Path, early: Path) -> None:
    voice = read_audio(early)
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, len(voice)).astype(np.float32)
    write_tracks(early, tmp_path / "two.mp4", [noise[None], voice[None]])
    lipsync = lipsync_of(track="2")
    score, details = lipsync.analyse(tmp_path / "two.mp4")
    assert details["offset_ms"] == pytest.approx(200, abs=40)
    assert any("2 sound tracks: number 2" in warning for warning in details["warnings"])
    is_done, message = lipsync.sync_video_audio(tmp_path / "two.mp4", None, tmp_path / "out.mp4", score)
    assert is_done, message
    assert "number 2" in message
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len(container.streams.audio) == 1
    delay = round(details["offset_ms"] / 1000 * RATE_HZ)
    assert likeness(read_audio(tmp_path / "out.mp4")[delay:], voice) > 0.9


@pytest.mark.parametrize(("second", "channel"), [(-1.0, "mix"), (0.0, "left")])
def test_channels_that_a_plain_mean_spoils_are_corrected(
    tmp_path: Path, early: Path, second: float, channel: str
) -> None:
    """Opposite channels, and an interpreter on the right."""
    voice = read_audio(early)
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, len(voice)).astype(np.float32)
    other = second * voice if second else noise
    write_tracks(early, tmp_path / "in.mp4", [np.stack([voice, other])])
    lipsync = lipsync_of(channel=channel)
    is_done, message = lipsync.sync_video_audio(tmp_path / "in.mp4", None, tmp_path / "out.mp4")
    assert is_done, message
    left = read_audio(tmp_path / "out.mp4", choice=SoundChoice("left"))  # the layout is kept
    assert left.std() > 0.5 * voice.std()
    assert abs(lipsync.analyse(tmp_path / "out.mp4")[1]["offset_ms"]) < 60


def test_corrected_file_keeps_the_film_and_not_the_cover_before_it(early: Path, tmp_path: Path) -> None:
    with av.open(str(early)) as source, av.open(str(tmp_path / "x.mkv"), "w") as output:
        cover = output.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 600, 600, "yuvj420p"
        streams = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        picture = av.VideoFrame.from_ndarray(np.full((600, 600, 3), 90, np.uint8), format="rgb24")
        picture.pts = 0
        output.mux([*cover.encode(picture), *cover.encode(None)])
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    shifted = shift_audio(tmp_path / "x.mkv", tmp_path / "y.mp4", 100.0)
    info, expected = probe(tmp_path / "y.mp4"), probe(early)
    assert (info.width, info.height) == (expected.width, expected.height)
    assert any(f"2 streams of pictures; number 2 ({info.width} x {info.height})" in n for n in shifted.notes)
