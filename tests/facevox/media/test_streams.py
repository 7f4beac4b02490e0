"""Of several streams the one that a player plays: films and covers, tracks of sound, channels."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from numpy.typing import NDArray

from facevox.media import MediaError, changed_kinds, iter_audio, iter_frames, probe, read_audio
from facevox.sound_choice import SoundChoice

Samples = NDArray[np.float32]
RATE_HZ = 16000
DEFAULT, NOTHING = Disposition.default, Disposition(0)
LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 6: "5.1", 8: "7.1", 12: "7.1.4", 16: "hexadecagonal", 24: "22.2"}


def voice(seconds: float = 3.0) -> Samples:
    """Noise whose loudness changes, as speech does."""
    rng = np.random.default_rng(7)
    loudness = np.repeat(rng.uniform(0, 0.3, round(seconds * 8)), RATE_HZ // 8)
    return (loudness * rng.uniform(-1, 1, len(loudness))).astype(np.float32)


def noise(seed: int) -> Samples:
    return np.random.default_rng(seed).uniform(-0.1, 0.1, len(voice())).astype(np.float32)


def write_sounds(path: Path, tracks: Sequence[tuple[Samples, Disposition, str]], codec: str = "flac") -> None:
    """A file of sound tracks, each (channels, n) with its disposition and language."""
    with av.open(path, "w") as container:
        streams = []
        for samples, disposition, language in tracks:
            stream = container.add_stream(codec, rate=RATE_HZ)
            stream.layout = LAYOUTS[len(samples)]
            stream.format = "s16" if codec in ("flac", "pcm_s16le") else "fltp"
            stream.disposition = disposition
            if language:
                stream.metadata["language"] = language
            streams.append(stream)
        for stream, (samples, _, _) in zip(streams, tracks, strict=True):
            packed = np.ascontiguousarray((samples.T * 32767).astype(np.int16).reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=LAYOUTS[len(samples)])
            frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
            resampler = av.AudioResampler(stream.format, stream.layout, RATE_HZ, frame_size=1024)
            for part in (*resampler.resample(frame), *resampler.resample(None)):
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))


def likeness(samples: Samples, other: Samples) -> float:
    shared = min(len(samples), len(other))
    return float(np.corrcoef(samples[:shared], other[:shared])[0, 1])


def film(size: int, num_frames: int) -> list[NDArray[np.uint8]]:
    return [np.full((size, size, 3), 40 + 5 * number, np.uint8) for number in range(num_frames)]


def write_films(path: Path, streams: Sequence[tuple[str, int, int, Disposition]]) -> None:
    """A file of video streams: codec, side, number of frames, disposition."""
    with av.open(path, "w") as container:
        made = []
        for codec, size, num_frames, disposition in streams:
            stream = container.add_stream(codec, rate=25)
            stream.width = stream.height = size
            stream.pix_fmt = {"png": "rgb24", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
            stream.disposition = disposition
            made.append((stream, film(size, num_frames)))
        for stream, images in made:
            for number, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("name", "streams"),
    [
        ("cover.mkv", [("mjpeg", 600, 1, NOTHING), ("libx264", 320, 10, DEFAULT)]),
        ("cover of equal right.mkv", [("mjpeg", 600, 1, NOTHING), ("libx264", 320, 10, NOTHING)]),
        ("attached.mp4", [("png", 600, 1, Disposition.attached_pic), ("libx264", 320, 10, NOTHING)]),
        ("larger still.mkv", [("libx264", 640, 1, NOTHING), ("libx264", 320, 10, NOTHING)]),
        ("larger still.ts", [("mpeg2video", 640, 1, NOTHING), ("mpeg2video", 320, 10, NOTHING)]),
        ("preview.mp4", [("libx264", 64, 10, NOTHING), ("libx264", 320, 10, NOTHING)]),
        ("preview.mkv", [("libx264", 64, 10, DEFAULT), ("libx264", 320, 10, DEFAULT)]),
        ("second is default.mkv", [("libx264", 640, 10, NOTHING), ("libx264", 320, 10, DEFAULT)]),
    ],
)
def test_film_is_taken_and_not_what_lies_beside_it(
    tmp_path: Path, name: str, streams: list[tuple[str, int, int, Disposition]]
) -> None:
    write_films(tmp_path / name, streams)
    frames = list(iter_frames(tmp_path / name))
    assert len(frames) == 10
    assert frames[0].image.shape == (320, 320, 3)
    info = probe(tmp_path / name)
    assert (info.width, info.height) == (320, 320)
    is_later = streams[0][1] != 320 and not streams[0][3] & Disposition.attached_pic
    assert changed_kinds(tmp_path / name, pictures=True) == ["several tracks of pictures"] * is_later


def test_film_of_single_pictures_is_a_film(tmp_path: Path) -> None:
    write_films(tmp_path / "x.mkv", [("mjpeg", 320, 10, NOTHING), ("libx264", 64, 10, NOTHING)])
    assert next(iter_frames(tmp_path / "x.mkv")).image.shape == (320, 320, 3)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_default_track_is_played_and_others_are_named(tmp_path: Path, suffix: str) -> None:
    tracks = [(noise(1)[None], NOTHING, "eng"), (voice()[None], DEFAULT, "kor")]
    write_sounds(tmp_path / f"x{suffix}", tracks)
    notes: list[str] = []
    assert likeness(np.concatenate(list(iter_audio(tmp_path / f"x{suffix}", notes=notes))), voice()) > 0.99
    assert notes == ["2 sound tracks: number 2 (kor) is taken"]
    assert changed_kinds(tmp_path / f"x{suffix}", sound=True) == ["several tracks of sound"]
    for track, expected in (("1", noise(1)), ("eng", noise(1)), ("2", voice()), ("KOR", voice())):
        assert likeness(read_audio(tmp_path / f"x{suffix}", choice=SoundChoice(track=track)), expected) > 0.99


def test_commentary_does_not_count_where_both_are_default(tmp_path: Path) -> None:
    tracks = [(noise(1)[None], DEFAULT | Disposition.comment, ""), (voice()[None], DEFAULT, "")]
    write_sounds(tmp_path / "x.mkv", tracks)
    assert likeness(read_audio(tmp_path / "x.mkv"), voice()) > 0.99


@pytest.mark.parametrize("track", ["0", "3", "fra", "-1"])
def test_track_that_is_not_there_is_told_with_those_that_are(tmp_path: Path, track: str) -> None:
    write_sounds(tmp_path / "x.mkv", [(noise(1)[None], NOTHING, "eng"), (voice()[None], DEFAULT, "")])
    text = rf"no sound track {track}; it has 1 \(eng\), 2 \(language unknown\)"
    with pytest.raises(MediaError, match=text):
        read_audio(tmp_path / "x.mkv", choice=SoundChoice(track=track))


@pytest.mark.parametrize(("suffix", "codec"), [(".wav", "pcm_s16le"), (".mkv", "flac"), (".m4a", "aac")])
@pytest.mark.parametrize("num_channels", [1, 2, 3, 6, 8, 12, 16, 24])
def test_sound_of_any_number_of_channels_is_read(
    tmp_path: Path, suffix: str, codec: str, num_channels: int
) -> None:
    if num_channels > 8 and codec != "pcm_s16le":
        pytest.skip("this codec has at most eight channels")
    path = tmp_path / f"x{suffix}"
    write_sounds(path, [(np.repeat(voice()[None], num_channels, axis=0), DEFAULT, "")], codec)
    samples = read_audio(path)
    assert changed_kinds(path, sound=True) == ["more than two channels"] * (num_channels > 2)
    is_exact = codec != "aac"
    assert likeness(samples, voice()) > (0.99 if is_exact else 0.85)
    assert np.abs(samples).max() <= (1.02 if is_exact else 1.5) * np.abs(voice()).max()


@pytest.mark.parametrize("num_channels", [6, 8])
def test_centre_is_kept_and_low_effects_are_left_out(tmp_path: Path, num_channels: int) -> None:
    channels = np.zeros((num_channels, len(voice())), np.float32)
    channels[2] = voice()  # FL FR FC LFE …
    channels[3] = 0.9 * np.sin(2 * np.pi * 60 * np.arange(len(voice())) / RATE_HZ)
    write_sounds(tmp_path / "x.mkv", [(channels, DEFAULT, "")])
    samples = read_audio(tmp_path / "x.mkv")
    assert likeness(samples, voice()) > 0.99
    behind = {6: 2, 8: 4}[num_channels]
    weight = 1 / (1 + 2 * np.sqrt(0.5) + behind * 0.5)  # FFmpeg's: it adds up to full scale
    assert samples.std() / voice().std() == pytest.approx(weight, rel=0.01)


def test_opposite_channels_are_no_silence(tmp_path: Path) -> None:
    silent = np.zeros(RATE_HZ, np.float32)
    sound = np.concatenate([silent, voice(), silent])
    write_sounds(tmp_path / "x.mkv", [(np.stack([sound, -0.9 * sound]), DEFAULT, "")])
    notes: list[str] = []
    samples = np.concatenate(list(iter_audio(tmp_path / "x.mkv", notes=notes)))
    assert notes == ["the channels cancel each other out: FL, the loudest, is taken"]
    assert len(samples) == len(sound)
    assert changed_kinds(tmp_path / "x.mkv", sound=True) == ["channels that cancel out"]
    assert likeness(samples, sound) > 0.99


def test_channels_that_become_opposite_later_are_no_silence(tmp_path: Path) -> None:
    room = np.stack([0.3 * noise(1)] * 2)
    speech = np.stack([voice(), -voice()])
    write_sounds(tmp_path / "x.mkv", [(np.concatenate([room, speech], axis=1), DEFAULT, "")])
    notes: list[str] = []
    samples = np.concatenate(list(iter_audio(tmp_path / "x.mkv", notes=notes)))
    assert notes == ["the channels cancel each other out: FL, the loudest, is taken"]
    tail = samples[room.shape[1] + RATE_HZ :]
    assert likeness(tail, voice()[RATE_HZ:]) > 0.99
    assert changed_kinds(tmp_path / "x.mkv", sound=True) == ["channels that cancel out"]


def test_low_effects_are_never_the_channel_that_is_taken(tmp_path: Path) -> None:
    channels = np.zeros((6, len(voice())), np.float32)
    channels[0], channels[1] = voice(), -voice()
    channels[3] = 0.9 * np.sin(2 * np.pi * 50 * np.arange(len(voice())) / RATE_HZ)
    write_sounds(tmp_path / "x.mkv", [(channels, DEFAULT, "")])
    assert likeness(read_audio(tmp_path / "x.mkv"), voice()) > 0.99


@pytest.mark.parametrize("channel", ["left", "right", "1"])
def test_mono_is_both_sides(tmp_path: Path, channel: str) -> None:
    write_sounds(tmp_path / "x.mkv", [(voice()[None], DEFAULT, "")])
    assert likeness(read_audio(tmp_path / "x.mkv", choice=SoundChoice(channel)), voice()) > 0.99


def test_wide_stereo_is_mixed(tmp_path: Path) -> None:
    write_sounds(tmp_path / "x.mkv", [(np.stack([voice() + noise(1), voice() + noise(2)]), DEFAULT, "")])
    notes: list[str] = []
    assert likeness(np.concatenate(list(iter_audio(tmp_path / "x.mkv", notes=notes))), voice()) > 0.85
    assert not notes
    assert changed_kinds(tmp_path / "x.mkv", sound=True) == []


@pytest.mark.parametrize(("channel", "seed"), [("left", 1), ("right", 2), ("1", 1), ("2", 2)])
def test_one_channel_can_be_asked_for(tmp_path: Path, channel: str, seed: int) -> None:
    write_sounds(tmp_path / "x.mkv", [(np.stack([noise(1), noise(2)]), DEFAULT, "")])
    samples = read_audio(tmp_path / "x.mkv", choice=SoundChoice(channel=channel))
    assert likeness(samples, noise(seed)) > 0.99


@pytest.mark.parametrize("channel", ["3", "0"])
def test_channel_that_is_not_there_is_told(tmp_path: Path, channel: str) -> None:
    write_sounds(tmp_path / "x.mkv", [(noise(1)[None], DEFAULT, "")])
    with pytest.raises(MediaError, match=rf"no channel {channel} in its sound; it has 1 \(FC\)"):
        read_audio(tmp_path / "x.mkv", choice=SoundChoice(channel=channel))


def test_sound_is_the_same_whatever_part_is_asked_for(tmp_path: Path) -> None:
    write_sounds(tmp_path / "x.mkv", [(np.stack([voice(), noise(3)]), DEFAULT, "")])
    whole = read_audio(tmp_path / "x.mkv")
    part = read_audio(tmp_path / "x.mkv", start_s=1.0, duration_s=0.5)
    assert len(part) == RATE_HZ // 2
    assert np.abs(part - whole[RATE_HZ:][: len(part)]).max() < 0.02


@pytest.mark.parametrize("num_channels", [6, 8])
def test_channels_without_names_are_those_of_a_film(tmp_path: Path, num_channels: int) -> None:
    channels = np.zeros((num_channels, len(voice())), np.float32)
    channels[2] = voice()
    channels[3] = 0.9 * np.sin(2 * np.pi * 60 * np.arange(len(voice())) / RATE_HZ)
    write_sounds(tmp_path / "x.mkv", [(channels, DEFAULT, "")], "pcm_s16le")  # Matroska has no place for them
    with av.open(tmp_path / "x.mkv") as container:
        assert container.streams.audio[0].layout.name == f"{num_channels} channels"
    assert likeness(read_audio(tmp_path / "x.mkv"), voice()) > 0.99


@pytest.mark.parametrize("place", range(6))
def test_channels_without_names_are_microphones_where_the_fourth_speaks(tmp_path: Path, place: int) -> None:
    channels = np.stack([0.01 * noise(seed) for seed in range(6)])
    channels[place] += voice()
    write_sounds(tmp_path / "x.mkv", [(channels, DEFAULT, "")], "pcm_s16le")
    samples = read_audio(tmp_path / "x.mkv")
    assert likeness(samples, voice()) > 0.97
    assert samples.std() / voice().std() == pytest.approx(1 / 6, rel=0.05)
