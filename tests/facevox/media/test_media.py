"""Reading and writing video and sound by presentation time."""

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from bad_media import rotate_header

from facevox import media
from facevox.media import (
    MediaError,
    iter_frames,
    pictures,
    probe,
    read_audio,
    read_first_frame,
    write_video,
    write_wav,
)

RATE_HZ = 16000


def flash_and_beep(path: Path, moments_s: tuple[float, ...] = (0.4, 1.0, 1.6), rate_hz: float = 25.0) -> None:
    """Two seconds of black and silence with a white frame and a tone burst at each of the moments."""
    frames = [np.zeros((64, 96, 3), np.uint8) for _ in range(round(2 * rate_hz))]
    sound = np.zeros(2 * RATE_HZ, np.float32)
    for moment_s in moments_s:
        frames[round(moment_s * rate_hz)][:] = 255
        start = round(moment_s * RATE_HZ)
        sound[start : start + 320] = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(320) / RATE_HZ)
    write_video(path, frames, rate_hz, sound, RATE_HZ)


def flashes_s(path: Path, **options: float) -> list[float]:
    return [f.time_s for f in iter_frames(path, **options) if f.image.mean() > 128]  # type: ignore[arg-type]


def onsets_s(samples: np.ndarray) -> list[float]:
    loud = np.flatnonzero(np.abs(samples) > 0.3)
    firsts = loud[np.concatenate([[True], np.diff(loud) > RATE_HZ // 10])]
    return [float(first) / RATE_HZ for first in firsts]


def remux(source: Path, target: Path, *, audio_delay_s: float = 0.0, both_delay_s: float = 0.0) -> None:
    """Copies the packets into another container with their time stamps moved."""
    with av.open(str(source)) as inp, av.open(str(target), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in inp.streams}
        for packet in inp.demux():
            if packet.dts is None:
                continue
            delay_s = both_delay_s + (audio_delay_s if packet.stream.type == "audio" else 0.0)
            ticks = round(delay_s / packet.time_base)
            packet.pts += ticks
            packet.dts += ticks
            packet.stream = streams[packet.stream.index]
            out.mux(packet)


def test_written_picture_and_sound_come_back_at_their_times(tmp_path: Path) -> None:
    flash_and_beep(tmp_path / "x.mp4")
    assert flashes_s(tmp_path / "x.mp4") == pytest.approx([0.4, 1.0, 1.6])
    assert onsets_s(read_audio(tmp_path / "x.mp4")) == pytest.approx([0.4, 1.0, 1.6], abs=0.001)


def test_streams_are_h264_and_aac(tmp_path: Path) -> None:
    flash_and_beep(tmp_path / "x.mp4")
    with av.open(str(tmp_path / "x.mp4")) as container:
        assert [s.codec_context.name for s in container.streams] == ["h264", "aac"]
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_sound_that_starts_later_is_led_by_silence(tmp_path: Path, suffix: str) -> None:
    flash_and_beep(tmp_path / "x.mp4")
    remux(tmp_path / "x.mp4", tmp_path / f"late{suffix}", audio_delay_s=0.3)
    assert onsets_s(read_audio(tmp_path / f"late{suffix}")) == pytest.approx([0.7, 1.3, 1.9], abs=0.003)
    assert flashes_s(tmp_path / f"late{suffix}") == pytest.approx([0.4, 1.0, 1.6], abs=0.001)


def test_start_time_of_the_file_is_the_zero_of_the_clock(tmp_path: Path) -> None:
    flash_and_beep(tmp_path / "x.mp4")
    remux(tmp_path / "x.mp4", tmp_path / "late.ts", both_delay_s=5.0)
    flashes, onsets = flashes_s(tmp_path / "late.ts"), onsets_s(read_audio(tmp_path / "late.ts"))
    # A transport stream keeps the codec's delay in front, for both alike.
    assert flashes[0] == pytest.approx(0.4, abs=0.1)
    assert np.subtract(onsets, flashes) == pytest.approx(0.0, abs=0.005)


def recode_mpg(source: Path, target: Path) -> None:
    """The pictures (25 Hz) and the sound as an MPEG program stream, as GRID's videos are."""
    samples = read_audio(source)
    with av.open(str(target), "w", format="mpeg") as container:
        video = container.add_stream("mpeg1video", rate=25, options={"g": "100"})
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        sound = container.add_stream("mp2", rate=RATE_HZ, layout="mono")
        for number, picture in enumerate(iter_frames(source)):
            image = av.VideoFrame.from_ndarray(picture.image, format="rgb24")
            image.pts, image.time_base = number, Fraction(1, 25)
            container.mux(video.encode(image))
        container.mux(video.encode(None))
        for start in range(0, len(samples) - 1151, 1152):
            mux_sound(container, sound, samples[start : start + 1152], start, RATE_HZ)
        container.mux(sound.encode(None))


def mux_sound(container: Any, stream: Any, samples: np.ndarray, start: int, rate_hz: int) -> None:
    """Encodes (n,) or (channels, n) samples as one block that starts at sample `start`."""
    pcm = np.atleast_2d(np.rint(samples * 32767).astype(np.int16))
    packed = np.ascontiguousarray(pcm.T.reshape(1, -1))
    frame = av.AudioFrame.from_ndarray(packed, format="s16", layout="stereo" if len(pcm) > 1 else "mono")
    frame.sample_rate, frame.pts, frame.time_base = rate_hz, start, Fraction(1, rate_hz)
    container.mux(stream.encode(frame))


def write_sound(path: Path, codec: str, rate_hz: int) -> None:
    """Half a second of a tone."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate_hz, layout="mono")
        stream.bit_rate = 64000
        stream.codec_context.open()
        size = stream.codec_context.frame_size or 1024
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(-(-rate_hz // 2 // size) * size) / rate_hz)
        for start in range(0, len(tone), size):
            mux_sound(container, stream, tone[start : start + size], start, rate_hz)
        container.mux(stream.encode(None))


def write_packets(path: Path, starts_s: Sequence[float], length_s: float, level: float = 0.1) -> None:
    """PCM packets of one length at the given moments; the last one is loud."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE_HZ, layout="mono")
        for number, start_s in enumerate(starts_s):
            value = 0.5 if number == len(starts_s) - 1 else level
            samples = np.full(round(length_s * RATE_HZ), value, np.float32)
            mux_sound(container, stream, samples, round(start_s * RATE_HZ), RATE_HZ)


@pytest.mark.parametrize("step_s", [0.1009, 0.0991])
def test_differences_too_small_for_a_gap_do_not_add_up(tmp_path: Path, step_s: float) -> None:
    starts_s = [number * step_s for number in range(200)]
    write_packets(tmp_path / "x.mkv", starts_s, 0.1)
    samples = read_audio(tmp_path / "x.mkv")
    assert onsets_s(samples) == pytest.approx([starts_s[-1]], abs=media.GAP_S + 0.001)
    assert len(samples) / RATE_HZ == pytest.approx(starts_s[-1] + 0.1, abs=media.GAP_S + 0.001)


def test_only_the_overlapping_part_of_a_packet_is_cut(tmp_path: Path) -> None:
    write_packets(tmp_path / "x.mkv", [0.0, 0.1, 0.15, 0.25], 0.1)
    samples = read_audio(tmp_path / "x.mkv")
    assert np.abs(samples[: round(0.25 * RATE_HZ)] - 0.1).max() < 0.001
    assert np.abs(samples[round(0.25 * RATE_HZ) :] - 0.5).max() < 0.001
    assert len(samples) == round(0.35 * RATE_HZ)


@pytest.mark.parametrize("suffix", [".mpg", ".ts"])
def test_start_s_loses_nothing_where_there_is_no_index(tmp_path: Path, suffix: str) -> None:
    flash_and_beep(tmp_path / "x.mp4")
    (recode_mpg if suffix == ".mpg" else remux)(tmp_path / "x.mp4", tmp_path / f"x{suffix}")
    path = tmp_path / f"x{suffix}"
    every, whole = list(iter_frames(path)), read_audio(path)
    for start_s in (0.3, 1.0, 1.7):
        late = [f.time_s for f in iter_frames(path, start_s=start_s)]
        assert late == pytest.approx([f.time_s for f in every if f.time_s >= start_s])
        part = read_audio(path, start_s=start_s)
        expected = whole[round(start_s * RATE_HZ) :]
        assert len(part) == pytest.approx(len(expected), abs=1)
        assert np.abs(part[:3000] - expected[:3000]).max() < 0.02


@pytest.mark.parametrize("case", ["mpg", "ts", "ts far below", "ts far ahead"])
def test_joined_recordings_follow_one_another(tmp_path: Path, case: str) -> None:
    flash_and_beep(tmp_path / "x.mp4")
    first, second = tmp_path / "first", tmp_path / "second"
    if case == "mpg":
        recode_mpg(tmp_path / "x.mp4", second.with_suffix(".mpg"))
        parts = [second.with_suffix(".mpg")] * 2
    else:
        parts = [first.with_suffix(".ts"), second.with_suffix(".ts")]
        remux(tmp_path / "x.mp4", parts[0], both_delay_s=200.0 if case == "ts far below" else 0.0)
        remux(tmp_path / "x.mp4", parts[1], both_delay_s=500.0 if case == "ts far ahead" else 0.0)
    joined = tmp_path / f"joined{parts[0].suffix}"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = list(iter_frames(joined))
    assert len(frames) == 100
    *steps_s, joint_s = np.sort(np.diff([frame.time_s for frame in frames]))
    assert steps_s == pytest.approx([0.04] * 98, abs=0.001)
    assert joint_s < 0.2  # at the joint the next pictures wait until the sound before it has ended
    is_ahead = case == "ts far ahead"
    assert media.changed_kinds(joined, pictures=True, sound=True) == ["jumps of the clock"] * is_ahead
    # The pictures start up to 0.1 s late by the codec's delay; a part's sound ends up to 0.1 s later, and in
    # MPEG-TS the next part waits for that.
    moments_s = [0.4, 1.0, 1.6, 2.4, 3.0, 3.6]
    flashes, onsets = flashes_s(joined), onsets_s(read_audio(joined))
    assert flashes == pytest.approx(moments_s, abs=0.2)
    assert np.subtract(onsets, flashes) == pytest.approx([onsets[0] - flashes[0]] * 6, abs=0.03)
    assert len(list(iter_frames(joined, rate_hz=25))) == pytest.approx(100, abs=6)


def test_joined_sound_of_another_format_keeps_its_speed(tmp_path: Path) -> None:
    for name, rate_hz, layout, channels in (("a", RATE_HZ, "mono", 1), ("b", 48000, "stereo", 2)):
        with av.open(str(tmp_path / name), "w", format="mpegts") as container:
            stream = container.add_stream("aac", rate=rate_hz, layout=layout)
            tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz)
            for start in range(0, rate_hz, 1024):
                block = np.repeat(tone[None, start : start + 1024], channels, axis=0)
                mux_sound(container, stream, block, start, rate_hz)
            container.mux(stream.encode(None))
    (tmp_path / "x.ts").write_bytes((tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes())
    samples = read_audio(tmp_path / "x.ts")
    assert len(samples) / RATE_HZ == pytest.approx(2.0, abs=0.2)
    tail = samples[-RATE_HZ // 2 :][:4000]
    assert np.abs(np.fft.rfft(tail)).argmax() * RATE_HZ / 4000 == pytest.approx(440, abs=4)


def test_clock_follows_jumps_back_but_not_single_wrong_stamps() -> None:
    clock = media.Clock("x.ts", SimpleNamespace(start_time=0, format=SimpleNamespace(name="matroska")))
    assert clock.time_s(30.0, 50.0) == 30.0  # a seek lands before what was asked for
    assert clock.time_s(0.0, 31.0, 0.5) == 31.5  # another recording
    assert clock.time_s(1.0, 31.5) == 32.5
    assert clock.time_s(None, 32.5, 0.5) == 33.0
    assert clock.time_s(-90.0, 33.0, 0.5) == 33.5  # one wrong stamp ...
    assert clock.time_s(2.5, 33.5) == 34.0  # ... and the recording goes on


def test_gap_is_filled_in_blocks_of_at_most_a_second(tmp_path: Path) -> None:
    write_packets(tmp_path / "x.mkv", [0.0, 0.1, 600.0], 0.1)
    blocks = list(media.iter_audio(tmp_path / "x.mkv"))
    assert max(len(block) for block in blocks) <= RATE_HZ
    assert sum(len(block) for block in blocks) == pytest.approx(600.1 * RATE_HZ, abs=16)


def test_gap_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    beyond_s = 2 * media.MAX_GAP_S
    write_packets(tmp_path / "sound.mkv", [0.0, 0.1, beyond_s], 0.1)
    with pytest.raises(MediaError, match=r"sound\.mkv: .* gap of 7200 s"):
        sum(len(block) for block in media.iter_audio(tmp_path / "sound.mkv"))
    write_variable(tmp_path / "pictures.mp4", [0, 40, round(beyond_s * 1000)])
    with pytest.raises(MediaError, match=r"pictures\.mp4: .* gap of 7200 s"):
        sum(1 for _ in iter_frames(tmp_path / "pictures.mp4", rate_hz=25))


def test_list_of_other_files_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    flash_and_beep(tmp_path / "x.mp4")
    remux(tmp_path / "x.mp4", tmp_path / "secret" / "v.ts")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile secret/v.ts\n", encoding="utf-8")
    with pytest.raises(MediaError, match=r"list\.mp4: not a readable media file"):
        read_first_frame(tmp_path / "list.mp4")


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("wav", "pcm_s16le"),
        ("w64", "pcm_s16le"),
        ("flac", "flac"),
        ("mp3", "libmp3lame"),
        ("ogg", "libopus"),
        ("opus", "libopus"),
        ("webm", "libopus"),
        ("mkv", "pcm_s16le"),
        ("avi", "pcm_s16le"),
        ("mov", "pcm_s16le"),
        ("m4a", "aac"),
        ("aac", "aac"),
        ("ts", "aac"),
        ("flv", "aac"),
        ("wma", "wmav2"),
        ("ac3", "ac3"),
        ("aiff", "pcm_s16be"),
        ("au", "pcm_s16be"),
        ("caf", "pcm_s16le"),
    ],
)
def test_usual_formats_are_read(tmp_path: Path, suffix: str, codec: str) -> None:
    rate_hz = 44100 if suffix == "flv" else 48000
    write_sound(tmp_path / f"x.{suffix}", codec, rate_hz)
    assert len(read_audio(tmp_path / f"x.{suffix}")) / RATE_HZ == pytest.approx(0.5, abs=0.1)


def write_variable(path: Path, times_ms: list[int]) -> None:
    """A video whose frame k is grey 10 k and shown at times_ms[k]."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time_ms in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 10 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_variable_frame_rate_is_sampled_at_the_nearest_frame(tmp_path: Path) -> None:
    times_ms = [0, 20, 90, 100, 300, 310, 320, 500]
    write_variable(tmp_path / "x.mp4", times_ms)
    frames = list(iter_frames(tmp_path / "x.mp4", rate_hz=25))
    assert [f.index for f in frames] == list(range(len(frames)))
    for frame in frames[:13]:  # up to the last frame
        distances = [abs(frame.time_s * 1000 - t) for t in times_ms]
        shown = round(float(frame.image.mean()) / 10)
        assert distances[shown] == pytest.approx(min(distances), abs=0.5)


@pytest.mark.parametrize(("source_hz", "wanted_hz"), [(25, 25), (30, 25), (24, 25), (29.97, 25), (60, 25)])
def test_flash_stays_within_half_a_frame_at_another_rate(
    tmp_path: Path, source_hz: float, wanted_hz: float
) -> None:
    flash_and_beep(tmp_path / "x.mp4", (1.0,), source_hz)
    frames = list(iter_frames(tmp_path / "x.mp4", rate_hz=wanted_hz))
    assert len(frames) == pytest.approx(2 * wanted_hz, abs=1)
    brightest = max(frames, key=lambda f: float(f.image.mean()))
    assert brightest.time_s == pytest.approx(1.0, abs=0.5 / wanted_hz + 0.5 / source_hz)


def test_start_s_seeks_to_the_same_frames_and_samples(tmp_path: Path) -> None:
    flash_and_beep(tmp_path / "x.mp4")
    every = list(iter_frames(tmp_path / "x.mp4"))
    late = list(iter_frames(tmp_path / "x.mp4", start_s=1.0))
    assert [f.time_s for f in late] == pytest.approx([f.time_s for f in every[25:]])
    assert np.array_equal(late[0].image, every[25].image)
    whole = read_audio(tmp_path / "x.mp4")
    part = read_audio(tmp_path / "x.mp4", start_s=1.2, duration_s=0.5)
    assert len(part) == RATE_HZ // 2
    assert np.abs(part - whole[round(1.2 * RATE_HZ) :][: len(part)]).max() < 0.02


def test_only_what_is_asked_for_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flash_and_beep(tmp_path / "x.mp4")
    count = 0
    original = pictures.PictureMaker.picture

    def counting(*arguments: object) -> object:
        nonlocal count
        count += 1
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pictures.PictureMaker, "picture", counting)
    read_first_frame(tmp_path / "x.mp4")
    assert count == 1


@pytest.mark.parametrize(("degrees", "turns"), [(90, -1), (180, 2), (270, 1)])
def test_rotation_in_the_header_is_applied(tmp_path: Path, degrees: int, turns: int) -> None:
    upright = np.zeros((64, 96, 3), np.uint8)
    upright[:32, :48] = (250, 20, 20)
    upright[32:, 48:] = (20, 20, 250)
    write_video(tmp_path / "x.mp4", [upright] * 3, 25, crf=5)
    rotate_header(tmp_path / "x.mp4", degrees)
    image = read_first_frame(tmp_path / "x.mp4").image
    expected = np.rot90(upright, turns)
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 12
    info = probe(tmp_path / "x.mp4")
    assert (info.height, info.width) == expected.shape[:2]


def test_colour_order(tmp_path: Path) -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 255
    write_video(tmp_path / "x.mp4", [red], 25)
    assert read_first_frame(tmp_path / "x.mp4").image.mean(axis=(0, 1)).argmax() == 0
    assert read_first_frame(tmp_path / "x.mp4", colour="bgr").image.mean(axis=(0, 1)).argmax() == 2


def test_stereo_is_mixed_and_resampled(tmp_path: Path) -> None:
    time_s = np.arange(48000) / 48000
    stereo = np.stack([0.5 * np.sin(2 * np.pi * 440 * time_s), np.zeros(48000)]).astype(np.float32)
    with av.open(str(tmp_path / "x.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=48000, layout="stereo")
        mux_sound(container, stream, stereo, 0, 48000)
        container.mux(stream.encode(None))
    samples = read_audio(tmp_path / "x.wav", RATE_HZ)
    expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ)
    assert len(samples) == pytest.approx(RATE_HZ, abs=2)
    assert np.abs(samples[100:15900] - expected[100:15900]).max() < 0.01


def test_wav_round_trip_in_blocks(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).uniform(-1, 1, 5000).astype(np.float32)
    assert write_wav(tmp_path / "x.wav", iter([sound[:3000], sound[3000:]]), 8000) == 5000
    assert np.abs(read_audio(tmp_path / "x.wav", 8000) - sound).max() < 1 / 16384


@pytest.mark.parametrize(
    "name", ['a "b" c.mp4', "-x.mp4", "한국어.mp4", "줄\n바꿈.mp4", "http:x.mp4", "%03d.mp4"]
)
def test_awkward_file_names_are_opened(tmp_path: Path, name: str) -> None:
    flash_and_beep(tmp_path / name)
    assert probe(tmp_path / name).num_frames == 50
    assert len(read_audio(tmp_path / name)) > 0


def test_relative_name_with_a_leading_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flash_and_beep(tmp_path / "-x.mp4")
    monkeypatch.chdir(tmp_path)
    assert read_first_frame("-x.mp4").index == 0


def make_text(path: Path) -> None:
    path.write_text("this is no video", encoding="utf-8")


def make_playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "No such file"),
        (lambda p: p.write_bytes(b""), "0 bytes"),
        (make_text, "not a readable media file"),
        (make_playlist, "not a readable media file|no frame|no video stream"),
        (lambda p: p.mkdir(), "not a readable media file"),
    ],
)
def test_unreadable_file_is_one_line_with_its_name(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "x.mp4"
    make(path)
    with pytest.raises(MediaError, match=message) as caught:
        read_first_frame(path)
    assert "x.mp4" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_stream_is_named(tmp_path: Path) -> None:
    write_video(tmp_path / "silent.mp4", [np.zeros((64, 64, 3), np.uint8)] * 3, 25)
    write_wav(tmp_path / "x.wav", np.zeros(1600, np.float32), RATE_HZ)
    with pytest.raises(MediaError, match="no audio stream"):
        read_audio(tmp_path / "silent.mp4")
    with pytest.raises(MediaError, match="no video stream"):
        read_first_frame(tmp_path / "x.wav")


def test_truncated_file_gives_what_is_there(tmp_path: Path) -> None:
    flash_and_beep(tmp_path / "x.mp4")
    remux(tmp_path / "x.mp4", tmp_path / "x.mkv")
    data = (tmp_path / "x.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    frames = list(iter_frames(tmp_path / "cut.mkv"))
    assert 1 <= len(frames) < 50
    whole = (tmp_path / "x.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # its index was at the end
    with pytest.raises(MediaError, match="not a readable media file"):
        read_first_frame(tmp_path / "cut.mp4")


def test_damaged_packets_in_the_middle_are_passed_over(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (64, 96, 3), dtype=np.uint8) for _ in range(50)]
    write_video(tmp_path / "x.mp4", noise, 25)
    data = bytearray((tmp_path / "x.mp4").read_bytes())
    start = data.index(b"mdat") + 4
    middle = start + (len(data) - start) // 3
    data[middle : middle + 3000] = os.urandom(3000)
    (tmp_path / "x.mp4").write_bytes(bytes(data))
    assert 20 <= len(list(iter_frames(tmp_path / "x.mp4"))) <= 50


def test_one_frame_and_odd_sizes(tmp_path: Path) -> None:
    grey = np.tile(np.linspace(40, 200, 67, dtype=np.uint8)[:, None], (65, 1, 3))
    write_video(tmp_path / "x.mp4", [grey], 25, crf=5)
    image = read_first_frame(tmp_path / "x.mp4").image
    assert image.shape == (66, 68, 3)  # nothing is cut off
    assert np.abs(image[:65, :67].astype(int) - grey).max() < 8
    assert len(list(iter_frames(tmp_path / "x.mp4", rate_hz=25))) == 1


def test_4k_is_read_and_more_than_8k_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "x.mp4", [np.zeros((2160, 3840, 3), np.uint8)], 25, preset="ultrafast")
    assert read_first_frame(tmp_path / "x.mp4").image.shape == (2160, 3840, 3)
    monkeypatch.setattr(pictures, "MAX_FRAME_PIXELS", 1000 * 1000)
    with pytest.raises(MediaError, match="3840 x 2160"):
        read_first_frame(tmp_path / "x.mp4")


def test_video_without_frames_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / "x.mp4", [], 25)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real_data
def test_every_real_clip_gives_a_frame_and_its_sound(real_data_dir: Path) -> None:
    for path in sorted((real_data_dir / "talking").iterdir()):
        info = probe(path)
        assert read_first_frame(path).image.shape[:2] == (info.height, info.width)
        if info.has_audio:
            assert len(read_audio(path)) / RATE_HZ == pytest.approx(info.duration_s, abs=0.2)


def test_codec_without_a_decoder_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "odd.mp4"
    flash_and_beep(path)
    content = path.read_bytes()
    place = content.rindex(b"avc1")
    path.write_bytes(content[:place] + b"zzzz" + content[place + 4 :])
    with pytest.raises(MediaError, match=r"odd\.mp4: there is no decoder for its video"):
        next(iter_frames(path))
    info = probe(path)
    assert (info.has_video, info.has_audio, info.audio_rate_hz) == (False, True, RATE_HZ)
    assert len(read_audio(path)) == pytest.approx(2 * RATE_HZ, abs=1024)


def test_check_is_called_for_every_packet_and_ends_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    flash_and_beep(path)
    calls = []
    frames = list(iter_frames(path, rate_hz=1.0, check=lambda: calls.append(None)))
    assert len(frames) == 2
    assert len(calls) >= 50  # the frames of the file

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(iter_frames(path, check=stop))
