"""Shifting the sound of a video: right to the millisecond for every kind of reader, pictures untouched."""

from pathlib import Path

import av
import numpy as np
import pytest
from bad_media import AWKWARD_NAMES, rotate_header, write_broken_videos, write_silent_video, write_sound_only
from flash_and_beep import (
    DURATION_S,
    offsets_by_counting_ms,
    offsets_by_stamps_ms,
    sound_rate_hz,
    write_flash_and_beep,
)

from facevox.errors import UserError
from facevox.media import iter_frames, probe, read_audio, write_wav
from lipsync.repair.shift import shift_audio

TOLERANCE_MS = 1.0
READERS = (offsets_by_stamps_ms, offsets_by_counting_ms)


def assert_offset(path: Path, offset_ms: float, num_beeps: int = 3, readers: tuple = READERS) -> None:
    for reader in readers:
        found = reader(path)
        assert len(found) == num_beeps
        assert np.abs(found - offset_ms).max() <= TOLERANCE_MS, (reader.__name__, found)


def picture_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_flash_and_beep(path)
    assert_offset(path, 0)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("offset_ms", [-500, -120, -33.3, 0, 1, 40, 250, 500])
def test_sound_is_shifted_to_the_millisecond_for_both_readers(
    film: Path, tmp_path: Path, offset_ms: float, suffix: str
) -> None:
    done = shift_audio(film, tmp_path / f"x{suffix}", offset_ms)
    assert done.notes == ()
    assert_offset(tmp_path / f"x{suffix}", offset_ms)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_pictures_are_copied_and_the_clip_stays_as_long(film: Path, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"x{suffix}"
    shift_audio(film, target, -300)
    assert picture_packets(target) == picture_packets(film)
    assert len(read_audio(target)) == pytest.approx(DURATION_S * 16000, abs=1100)
    with av.open(str(target)) as container:
        assert [s.codec_context.name for s in container.streams] == ["h264", "aac"]


def test_there_and_back_ends_in_sync(film: Path, tmp_path: Path) -> None:
    shift_audio(film, tmp_path / "wrong.mp4", -160)
    assert_offset(tmp_path / "wrong.mp4", -160)  # the audio is early by 160 ms
    shift_audio(tmp_path / "wrong.mp4", tmp_path / "right.mp4", 160)
    assert_offset(tmp_path / "right.mp4", 0)


@pytest.mark.parametrize("rate_hz", [24.0, 30000 / 1001, 60.0])
def test_other_frame_rates(tmp_path: Path, rate_hz: float) -> None:
    write_flash_and_beep(tmp_path / "in.mp4", rate_hz=rate_hz, sound_hz=48000)
    for suffix in (".mp4", ".mkv"):
        shift_audio(tmp_path / "in.mp4", tmp_path / f"out{suffix}", 80)
        assert_offset(tmp_path / f"out{suffix}", 80)


def test_variable_frame_rate_is_right_by_time_stamps(tmp_path: Path) -> None:
    steps = np.random.default_rng(0).choice([0.02, 0.04, 0.09], 90)
    times_s = np.round(np.cumsum(steps) - steps[0], 3)
    write_flash_and_beep(tmp_path / "in.mp4", times_s=times_s.tolist())
    for suffix in (".mp4", ".mkv"):
        shift_audio(tmp_path / "in.mp4", tmp_path / f"out{suffix}", -90)
        assert_offset(tmp_path / f"out{suffix}", -90, readers=(offsets_by_stamps_ms,))


@pytest.mark.parametrize("sound_from_s", [0.0, 0.5])
@pytest.mark.parametrize("pictures_from_s", [0.0, 0.8])
def test_streams_that_start_later_are_brought_to_one_start(
    tmp_path: Path, sound_from_s: float, pictures_from_s: float
) -> None:
    write_flash_and_beep(tmp_path / "in.mp4", sound_from_s=sound_from_s, pictures_from_s=pictures_from_s)
    for suffix in (".mp4", ".mkv"):
        done = shift_audio(tmp_path / "in.mp4", tmp_path / f"out{suffix}", 40)
        assert_offset(tmp_path / f"out{suffix}", 40)
        is_late = pictures_from_s > sound_from_s
        assert any("pictures begin" in note for note in done.notes) == is_late


def test_file_whose_stamps_start_at_five_seconds(film: Path, tmp_path: Path) -> None:
    moved(film, tmp_path / "late.ts", 5.0)
    for suffix in (".mp4", ".mkv"):
        shift_audio(tmp_path / "late.ts", tmp_path / f"out{suffix}", -70)
        assert_offset(tmp_path / f"out{suffix}", -70)


def moved(source: Path, target: Path, delay_s: float) -> None:
    """Copies the packets with all stamps moved; in an mp4 what comes before 0 is hidden by an edit list."""
    with av.open(str(source)) as inp, av.open(str(target), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in inp.streams}
        for packet in inp.demux():
            if packet.dts is None:
                continue
            ticks = round(delay_s / packet.time_base)
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
            packet.stream = streams[packet.stream.index]
            out.mux(packet)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_pictures_hidden_by_an_edit_list(film: Path, tmp_path: Path, suffix: str) -> None:
    moved(film, tmp_path / "cut.mp4", -0.6)
    with av.open(str(tmp_path / "cut.mp4")) as container:
        assert any(packet.is_discard for packet in container.demux(video=0))
    assert_offset(tmp_path / "cut.mp4", 0, readers=(offsets_by_stamps_ms,))
    done = shift_audio(tmp_path / "cut.mp4", tmp_path / f"out{suffix}", 50)
    assert any("edit list" in note for note in done.notes)
    assert_offset(tmp_path / f"out{suffix}", 50)


@pytest.mark.parametrize("suffix", [".mov", ".avi", ".mpg", ".mkv"])
def test_other_containers_as_input(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"in{suffix}"
    write_flash_and_beep(source)
    before = offsets_by_stamps_ms(source).mean()  # an mp2 encoder's own delay stays what it was
    for target in (".mp4", ".mkv"):
        shift_audio(source, tmp_path / f"out{target}", 200)
        assert_offset(tmp_path / f"out{target}", 200 + before)
        assert picture_packets(tmp_path / f"out{target}") == picture_packets(source)


def test_pictures_that_mp4_cannot_hold_are_refused_with_advice(tmp_path: Path) -> None:
    write_flash_and_beep(tmp_path / "in.webm", sound_hz=48000)
    with pytest.raises(UserError, match=r"cannot hold vp8 pictures.*\.mkv") as caught:
        shift_audio(tmp_path / "in.webm", tmp_path / "out.mp4", 40)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.mp4").exists()
    shift_audio(tmp_path / "in.webm", tmp_path / "out.mkv", 40)
    assert_offset(tmp_path / "out.mkv", 40 + offsets_by_stamps_ms(tmp_path / "in.webm").mean())


@pytest.mark.parametrize(
    ("sound_hz", "layout"), [(48000, "stereo"), (16000, "mono"), (8000, "mono"), (48000, "5.1")]
)
def test_sample_rate_and_channels_are_kept(tmp_path: Path, sound_hz: int, layout: str) -> None:
    write_flash_and_beep(tmp_path / "in.mp4", sound_hz=sound_hz, layout=layout)
    for suffix in (".mp4", ".mkv"):
        shift_audio(tmp_path / "in.mp4", tmp_path / f"out{suffix}", 60)
        assert_offset(tmp_path / f"out{suffix}", 60)
        with av.open(str(tmp_path / f"out{suffix}")) as container:
            stream = container.streams.audio[0]
            assert (stream.rate, stream.channels) == (sound_hz, len(av.AudioLayout(layout).channels))


@pytest.mark.parametrize("sound_s", [3.2, 6.0])
def test_sound_shorter_or_longer_than_the_pictures(tmp_path: Path, sound_s: float) -> None:
    write_flash_and_beep(tmp_path / "in.mp4", sound_s=sound_s)
    for offset_ms, length_s in ((400, sound_s + 0.4), (-400, sound_s)):
        shift_audio(tmp_path / "in.mp4", tmp_path / "out.mp4", offset_ms)
        assert_offset(tmp_path / "out.mp4", offset_ms)
        # AAC ends on a whole frame of 23 ms, here and in the input.
        assert len(read_audio(tmp_path / "out.mp4")) / 16000 == pytest.approx(length_s, abs=0.05)
        assert len(picture_packets(tmp_path / "out.mp4")) == 100


def test_first_of_two_tracks_is_used_and_said(tmp_path: Path) -> None:
    write_flash_and_beep(tmp_path / "in.mp4", num_tracks=2)
    done = shift_audio(tmp_path / "in.mp4", tmp_path / "out.mp4", 100)
    assert done.num_audio_tracks == 2
    assert any("2 sound tracks" in note for note in done.notes)
    assert_offset(tmp_path / "out.mp4", 100)


def test_sound_of_another_file(film: Path, tmp_path: Path) -> None:
    sound_hz = sound_rate_hz(film)
    write_wav(tmp_path / "voice.wav", read_audio(film, sound_hz), sound_hz)
    write_silent_video(tmp_path / "silent.mp4")
    done = shift_audio(film, tmp_path / "out.mp4", -40, audio_path=tmp_path / "voice.wav")
    assert done.num_audio_tracks == 1
    assert_offset(tmp_path / "out.mp4", -40)
    shift_audio(tmp_path / "silent.mp4", tmp_path / "sounding.mkv", 0, audio_path=tmp_path / "voice.wav")
    assert probe(tmp_path / "sounding.mkv").has_audio


def test_rate_that_aac_does_not_take_is_raised_and_said(film: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "voice.wav", read_audio(film, 20000), 20000)
    done = shift_audio(film, tmp_path / "out.mp4", 30, audio_path=tmp_path / "voice.wav")
    assert any("20000 Hz" in note for note in done.notes)
    assert sound_rate_hz(tmp_path / "out.mp4") == 22050
    assert_offset(tmp_path / "out.mp4", 30)


def test_rotation_stays(film: Path, tmp_path: Path) -> None:
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(film.read_bytes())
    rotate_header(turned, 90)
    assert next(iter_frames(turned)).image.shape == (96, 64, 3)
    for suffix in (".mp4", ".mkv"):
        shift_audio(turned, tmp_path / f"out{suffix}", 20)
        assert next(iter_frames(tmp_path / f"out{suffix}")).image.shape == (96, 64, 3)


@pytest.mark.parametrize("name", AWKWARD_NAMES)
def test_awkward_names(film: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(film.read_bytes())
    shift_audio(name, f"out {name}", 500)
    assert_offset(Path(f"out {name}"), 500)


def test_bad_input_is_one_line_and_leaves_no_file(film: Path, tmp_path: Path) -> None:
    reasons = write_broken_videos(tmp_path / "bad", film)
    write_sound_only(tmp_path / "bad" / "sound.mp4")
    write_silent_video(tmp_path / "bad" / "silent.mp4")
    reasons |= {
        "sound.mp4": "no video stream",
        "silent.mp4": "no audio stream",
        "missing.mp4": "No such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(UserError, match=reason) as caught:
            shift_audio(tmp_path / "bad" / name, tmp_path / "out" / "x.mp4", 40)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
    assert not list(tmp_path.glob("out/*"))


def test_wrong_requests_are_refused(film: Path, tmp_path: Path) -> None:
    for name in ("out.avi", "out"):
        with pytest.raises(UserError, match=r"\.mp4, \.m4v, \.mov, \.mkv"):
            shift_audio(film, tmp_path / name, 40)
    for offset_ms in (float("nan"), float("inf"), 1e9):
        with pytest.raises(UserError, match="offset_ms"):
            shift_audio(film, tmp_path / "out.mp4", offset_ms)
    with pytest.raises(UserError, match="is the input"):
        shift_audio(film, film, 40)
    with pytest.raises(UserError, match="nothing of its sound remains"):
        shift_audio(film, tmp_path / "out.mp4", -5000)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("later_s", [0, 100])
def test_joined_recordings_keep_pictures_and_sound_together(tmp_path: Path, later_s: int) -> None:
    write_flash_and_beep(tmp_path / "a.ts")
    with av.open(str(tmp_path / "a.ts")) as source, av.open(str(tmp_path / "b.ts"), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.pts, packet.dts = (stamp + later_s * 90_000 for stamp in (packet.pts, packet.dts))
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    (tmp_path / "x.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    expected_ms = np.tile(offsets_by_stamps_ms(tmp_path / "a.ts"), 2)
    assert offsets_by_stamps_ms(tmp_path / "x.ts") == pytest.approx(expected_ms, abs=1)
    assert probe(tmp_path / "x.ts").duration_s == pytest.approx(2 * DURATION_S, abs=0.2)
    shift_audio(tmp_path / "x.ts", tmp_path / "out.mp4", 40)
    assert offsets_by_stamps_ms(tmp_path / "out.mp4") == pytest.approx(expected_ms + 40, abs=1)


def test_track_keeps_its_language_and_title(film: Path, tmp_path: Path) -> None:
    with av.open(str(film)) as source, av.open(str(tmp_path / "in.mkv"), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        sound = next(stream for stream in streams.values() if stream.type == "audio")
        sound.metadata.update({"language": "kor", "title": "interview"})
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    shift_audio(tmp_path / "in.mkv", tmp_path / "out.mkv", 40)
    with av.open(str(tmp_path / "out.mkv")) as container:
        metadata = container.streams.audio[0].metadata
        assert (metadata["language"], metadata["title"]) == ("kor", "interview")


def test_truncated_file_gives_what_is_there(film: Path, tmp_path: Path) -> None:
    moved(film, tmp_path / "whole.mkv", 0.0)
    whole = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "half.mkv").write_bytes(whole[: len(whole) * 3 // 4])
    shift_audio(tmp_path / "half.mkv", tmp_path / "out.mp4", 40)
    assert 1 < len(picture_packets(tmp_path / "out.mp4")) <= len(picture_packets(film))


@pytest.mark.real_data
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_real_clips_are_shifted_and_their_pictures_copied(
    real_data_dir: Path, tmp_path: Path, suffix: str
) -> None:
    names = ("grid_swiz3n.mpg", "syncnet_example.avi", "retalking_1.mp4", "multi_short_hamilton_clip.mp4")
    for name in names:
        source, target = real_data_dir / "talking" / name, tmp_path / f"out{suffix}"
        done = shift_audio(source, target, 120)
        first_s = next(iter_frames(source)).time_s
        sound_hz = sound_rate_hz(source)
        before, after = read_audio(source, sound_hz), read_audio(target, sound_hz)
        size = 1 << (len(before) + len(after)).bit_length()
        spectrum = np.fft.rfft(after, size) * np.conj(np.fft.rfft(before, size))
        lag = int(np.argmax(np.fft.irfft(spectrum, size)))
        lag -= size if lag > size // 2 else 0
        assert lag / sound_hz == pytest.approx(0.12 - first_s, abs=0.001), name
        assert bool(done.notes) == (first_s > 0.001)
        pictures = zip(iter_frames(source, max_frames=5), iter_frames(target, max_frames=5), strict=True)
        assert all(np.array_equal(a.image, b.image) for a, b in pictures)
