"""Files of the kinds that bug reports of this field name, made by ffmpeg from real clips.

The makers come with the real data (`cases/` next to it); they take some minutes, and ffmpeg in the path.
FACEVOX_CASES names a folder in which they have run already. What PyAV can make of these kinds is tested
without them, next to this file.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from facevox.files import ImageError, decode_image, read_image
from facevox.media import MediaError, iter_frames, probe, read_audio, read_first_frame
from facevox.sound_choice import SoundChoice

pytestmark = [pytest.mark.slow, pytest.mark.real_data]
MAKERS = ("make_video", "make_audio", "make_gap", "make_lip", "make_pics", "make_heic", "make_zip")
RATE_HZ = 16000
Image = NDArray[np.uint8]
Samples = NDArray[np.float32]


@pytest.fixture(scope="module")
def cases(real_data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if made := os.environ.get("FACEVOX_CASES"):
        return Path(made)
    makers = real_data_dir.parent / "cases"
    if not (makers / "make_video.py").is_file():
        pytest.skip(f"no makers of cases in {makers}")
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg in the path")
    folder = tmp_path_factory.mktemp("cases")
    variables = {**os.environ, "CASES_OUT": str(folder), "FACEVOX_TEST_DATA": str(real_data_dir)}
    for name in MAKERS:
        # Some need more tools than ffmpeg (heif-enc, 7z); what they cannot make is skipped below.
        subprocess.run(
            [sys.executable, f"{name}.py"], cwd=makers, env=variables, capture_output=True, check=False
        )
    return folder


def existing(path: Path) -> Path:
    if not path.is_file():
        pytest.skip(f"{path.name}: could not be made here")
    return path


def likeness(one: NDArray[np.generic], other: NDArray[np.generic]) -> float:
    return float(np.corrcoef(one.ravel().astype(float), other.ravel().astype(float))[0, 1])


REFERENCE_SIZE = (1280, 720)
# Least correlation with the first picture of the reference.
PICTURES = {
    **dict.fromkeys(("rot90", "rot270", "rot180", "flip_h", "flip_v"), 0.99),
    **dict.fromkeys(("bt709_tagged", "bt601_tagged", "fullrange", "yuv444", "tenbit_hevc", "av1"), 0.99),
    **dict.fromkeys(("hdr_pq", "hdr_hlg"), 0.98),
}
FILES = [f"{name}.mp4" for name in PICTURES] + [
    *("sar_2_1.mp4", "sar_1_2.mp4", "sar_2_1.mkv", "sar_pal_dvd.mpg", "sar_hdv.mkv"),
    *(
        "mjpeg.avi",
        "x264rgb.mkv",
        "vp9.webm",
        "vp9_alpha.webm",
        "prores422.mov",
        "prores4444.mov",
    ),
    *(
        "dnxhd.mxf",
        "ffv1.mkv",
        "huffyuv.avi",
        "qtrle.mov",
        "rawvideo.avi",
        "wmv2.wmv",
        "flv1.flv",
        "theora.ogv",
    ),
    *(
        "camcorder.mts",
        "webm_nodur.webm",
        "frag.mp4",
        "ts_1h.ts",
        "ts_wrap.ts",
        "raw.h264",
        "h264_bframes.avi",
    ),
    *(
        "cover_attached.mp4",
        "cover_plain_first.mkv",
        "two_videos_preview_first.mp4",
        "one_frame.mp4",
        "odd.mkv",
    ),
    *("truncated_faststart.mp4", "garbage_mid.mp4", "ts_joined.ts", "slowmo240.mp4", "vfr.mp4"),
]


@pytest.mark.parametrize("name", FILES)
def test_picture_is_that_of_the_film(cases: Path, name: str) -> None:
    film = read_first_frame(existing(cases / "video" / "ref_b.mp4")).image
    image = read_first_frame(existing(cases / "video" / name)).image
    height, width = image.shape[:2]
    assert width / height == pytest.approx(16 / 9, rel=0.02)
    info = probe(cases / "video" / name)
    assert (info.width, info.height) == (width, height)
    shown = cv2.resize(image, REFERENCE_SIZE, interpolation=cv2.INTER_AREA)
    assert likeness(shown, film) > PICTURES.get(Path(name).stem, 0.97)
    assert np.abs(shown.astype(float).mean(axis=(0, 1)) - film.mean(axis=(0, 1))).max() < 8


def test_interlaced_film_has_no_combs(cases: Path) -> None:
    for frame in list(iter_frames(existing(cases / "video" / "interlaced.mkv")))[2:12]:
        grey = frame.image.astype(float).mean(axis=2)
        between_lines = np.abs(grey[1:-1] - (grey[:-2] + grey[2:]) / 2).mean()
        between_fields = np.abs(grey[2:-2] - (grey[:-4] + grey[4:]) / 2).mean()
        assert between_lines < between_fields  # in a combed picture next but one lines are more alike


@pytest.mark.parametrize(("name", "count", "duration_s"), [("ts_joined.ts", 50, 2.0), ("vfr.mp4", 33, 4.0)])
def test_times_are_those_of_a_player(cases: Path, name: str, count: int, duration_s: float) -> None:
    times_s = [frame.time_s for frame in iter_frames(existing(cases / "video" / name))]
    assert len(times_s) == pytest.approx(count, abs=2)
    assert times_s[-1] - times_s[0] == pytest.approx(duration_s, abs=0.45)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("still_renamed.mp4", "a PNG picture"),
        ("anim.gif", "a GIF"),
        ("truncated_nomoov.mp4", r"no index \(moov\)"),
    ],
)
def test_what_is_no_film_is_said(cases: Path, name: str, text: str) -> None:
    with pytest.raises(MediaError, match=text):
        read_first_frame(existing(cases / "video" / name))


def lag_ms(samples: Samples, reference: Samples) -> tuple[float, float]:
    """Delay behind the reference, and the correlation there."""
    size = 2 ** int(np.ceil(np.log2(len(samples) + len(reference))))
    spectrum = np.fft.rfft(samples, size) * np.conj(np.fft.rfft(reference, size))
    best = int(np.fft.irfft(spectrum, size).argmax())
    shift = best - size if best > size // 2 else best
    moved = samples[max(shift, 0) :]
    wanted = reference[max(-shift, 0) :]
    shared = min(len(moved), len(wanted))
    return 1000 * shift / RATE_HZ, likeness(moved[:shared], wanted[:shared])


# File: delay behind the pictures in ms, tolerance, least correlation.
SOUNDS = {
    **dict.fromkeys(
        ("opus.mp4", "alac.mov", "s24.mov", "f64.mov", "s16be.mov", "flac.mp4", "eac3.mp4"),
        (0.0, 0.2, 0.99),
    ),
    **dict.fromkeys(("aac.mp4", "aac.mkv", "mp3.mp4", "mp3.mkv", "u8.avi", "adpcm.avi"), (0.0, 1.0, 0.95)),
    **dict.fromkeys(("aac.ts", "ac3.ts", "mp2.mpg", "alaw.mov", "mulaw.mov"), (0.0, 1.0, 0.9)),
    **dict.fromkeys(("late500.mkv", "late500.mp4", "late500.mov", "late500.ts"), (500.0, 1.0, 0.95)),
    # In Matroska the delay of Opus is taken out of its stamps, and FFmpeg 5 moves the pictures all the same.
    "opus.webm": (-7.0, 0.5, 0.99),
    "opus_51.mkv": (-7.0, 0.5, 0.95),
    "vorbis.mkv": (0.0, 3.0, 0.95),
    "stereo.mkv": (0.0, 0.2, 0.99),
    "left_only.mkv": (0.0, 0.2, 0.99),
    "anti_phase.mkv": (0.0, 0.2, 0.99),
    "two_tracks.mkv": (0.0, 1.0, 0.95),
    "two_tracks.mp4": (0.0, 1.0, 0.95),
    "ac3_51_centre.mkv": (0.0, 1.0, 0.95),
    "aac_51_centre.mp4": (0.0, 1.0, 0.95),
    "flac_51_lfe.mkv": (0.0, 0.2, 0.99),
    "flac_71_centre.mkv": (0.0, 0.2, 0.99),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_sound_is_in_its_place_and_is_the_speech(cases: Path, name: str) -> None:
    reference = read_audio(existing(cases / "audio" / "_ref48.wav"))
    expected_ms, tolerance_ms, least = SOUNDS[name]
    path = existing(cases / "audio" / name)
    found_ms, correlation = lag_ms(read_audio(path), reference)
    # Some containers have no place for the codec's delay: there both streams begin that much later.
    assert found_ms - 1000 * probe(path).first_picture_s == pytest.approx(expected_ms, abs=tolerance_ms)
    assert correlation > least


def test_centre_under_loud_music_can_be_asked_for(cases: Path) -> None:
    reference = read_audio(existing(cases / "audio" / "_ref48.wav"))
    path = existing(cases / "audio" / "ac3_51_music.mkv")
    mixed, centre = (
        lag_ms(read_audio(path, choice=choice), reference)[1] for choice in (SoundChoice(), SoundChoice("3"))
    )
    assert mixed > 0.3  # the plain mean of the six has 0.2
    assert centre > 0.95


# The gap is from 1.5 to 2.5 s of the stamps; those of the MPEG-TS file begin at 1.46 s.
@pytest.mark.parametrize(("name", "start_s"), [("gap.mkv", 1.5), ("gap.mp4", 1.5), ("gap.ts", 0.05)])
def test_lost_packets_keep_their_place(cases: Path, name: str, start_s: float) -> None:
    reference = read_audio(existing(cases / "audio" / "_ref48.wav"))
    samples = read_audio(existing(cases / "audio" / name))
    assert np.abs(samples[round((start_s + 0.2) * RATE_HZ) : round((start_s + 0.8) * RATE_HZ)]).max() < 0.02
    found_ms, correlation = lag_ms(samples[round(2.6 * RATE_HZ) :], reference[round(2.6 * RATE_HZ) :])
    assert abs(found_ms) < 25
    assert correlation > 0.9


VOICES = {
    **{
        f"{name}.wav": 0.99
        for name in (
            "pcm_s16le",
            "pcm_s24le",
            "pcm_s32le",
            "pcm_f32le",
            "pcm_f64le",
            "pcm_u8",
            "pcm_alaw",
            "pcm_mulaw",
        )
    },
    **{
        f"{name}.wav": 0.99
        for name in ("rf64", "extensible", "hdr_zero", "hdr_ffff", "hdr_7fff", "really_flac")
    },
    "flac.flac": 0.99,
    "aiff.aiff": 0.99,
    "w64.w64": 0.99,
    "rate192k.wav": 0.99,
    "opus.opus": 0.98,
    "ogg.ogg": 0.98,
    "m4a.m4a": 0.98,
    "really_m4a.wav": 0.98,
    "really_mp3.wav": 0.98,
    "vbr_id3.mp3": 0.98,
    "cover.mp3": 0.98,
    "adpcm_ms.wav": 0.99,
    "adpcm_ima_wav.wav": 0.99,
    "g726.wav": 0.95,
    "gsm_ms.wav": 0.9,
}


@pytest.mark.parametrize("name", VOICES)
def test_training_reads_recordings_of_all_kinds(cases: Path, name: str) -> None:
    from lc_pytorch.datasets.face_voice import read_voice

    reference = read_audio(existing(cases / "audio" / "_ref16.wav"))
    path = existing(cases / "audio" / "wav" / name)
    samples = read_voice(path, len(reference), RATE_HZ, lambda total: 0)
    found_ms, correlation = lag_ms(samples, reference)
    assert abs(found_ms) < 0.5
    assert correlation > VOICES[name]


# Tolerance around the offset of base.mkv, in ms; what `ffmpeg -r` shows late is what a player shows.
OFFSETS = {
    **dict.fromkeys(
        ("base.mp4", "sar_2_1.mp4", "sar_hdv.mp4", "sar_1_2.mp4", "rot90.mp4", "flip_v.mp4"), (0.0, 2.0)
    ),
    **dict.fromkeys(
        ("two_tracks.mkv", "s51.mkv", "anti.mkv", "fps60.mp4", "interlaced.mkv", "ts_jump.ts"), (0.0, 2.0)
    ),
    **dict.fromkeys(
        ("cut_copy.mp4", "cut_copy.mkv", "leader3s.mkv", "small_face.mp4", "gray_hevc10.mp4"), (0.0, 2.0)
    ),
    **{f"late500.{suffix}": (-500.0, 2.0) for suffix in ("mkv", "mp4", "mov", "ts")},
    **{f"early300.{suffix}": (320.0, 2.0) for suffix in ("mkv", "mp4", "mov", "ts")},
    "cover_first.mkv": (0.0, 2.0),
    "nodur.webm": (0.0, 4.0),
    "vfr.mkv": (0.0, 10.0),
    "frag.mp4": (
        15.5,
        2.0,
    ),  # without an edit list the codecs' delays are shown: 80 ms of pictures, 64 of sound
}


@pytest.fixture(scope="module")
def base_ms(cases: Path) -> float:
    from lipsync.inference import LipSyncInference

    return float(LipSyncInference().analyse(existing(cases / "lip" / "base.mkv"))[1]["offset_ms"])


@pytest.mark.parametrize("name", OFFSETS)
def test_offset_is_that_of_the_clip(cases: Path, base_ms: float, name: str) -> None:
    from lipsync.inference import LipSyncInference

    expected_ms, tolerance_ms = OFFSETS[name]
    found_ms = LipSyncInference().analyse(existing(cases / "lip" / name))[1]["offset_ms"]
    assert found_ms - base_ms == pytest.approx(expected_ms, abs=tolerance_ms)


@pytest.mark.parametrize("name", ["sar_hdv.mp4", "ts_jump.ts", "cover_first.mkv", "late500.ts"])
def test_corrected_clip_is_in_sync(cases: Path, tmp_path: Path, name: str) -> None:
    from lipsync.inference import LipSyncInference
    from lipsync.repair.shift import shift_audio

    lipsync = LipSyncInference()
    offset_ms = lipsync.analyse(existing(cases / "lip" / name))[1]["offset_ms"]
    shift_audio(cases / "lip" / name, tmp_path / "out.mp4", offset_ms)
    assert abs(lipsync.analyse(tmp_path / "out.mp4")[1]["offset_ms"]) < 2


def pictures() -> list[str]:
    exif = [f"exif{number}.jpg" for number in range(10)]
    exif += [f"exif{number}.{suffix}" for number in (3, 6) for suffix in ("png", "webp")]
    modes = [
        "cmyk.jpg",
        "progressive.jpg",
        "mpo_named.jpg",
        "png_named.jpg",
        "webp_named.jpg",
        "trailing.jpg",
    ]
    modes += [
        "motion_photo.jpg",
        "palette.png",
        "rgba.png",
        "rgb16.png",
        "rgb16.tiff",
        "anim.gif",
        "anim.webp",
    ]
    kinds = ["photo.jfif", "photo.JPG", "photo.tif", "photo.bmp", "photo.gif", "photo.avif", "photo.mpo"]
    heic = ["iphone_tiled.heic", "iphone_small_tiles.heic", "iphone_tiled_portrait.heic"]
    return [*exif, *modes, *kinds, *heic]


@pytest.mark.parametrize("name", pictures())
def test_picture_is_upright(cases: Path, name: str) -> None:
    reference = read_image(existing(cases / "pics" / "ref.png"))
    image = decode_image(existing(cases / "pics" / name).read_bytes(), name)
    assert image.shape[0] / image.shape[1] == pytest.approx(reference.shape[0] / reference.shape[1], rel=0.02)
    same_size = cv2.resize(image, reference.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert likeness(same_size, reference) > 0.97


def test_broken_picture_is_said(cases: Path) -> None:
    with pytest.raises(ImageError, match="broken picture"):
        read_image(existing(cases / "pics" / "truncated.jpg"))


# What is said of an archive; "" where its pictures are read.
ARCHIVES = {
    **dict.fromkeys(
        ("utf8", "cp949", "cp949_backslash", "nfd", "macos", "descriptors", "zip64", "prefix"), ""
    ),
    **dict.fromkeys(("trailing", "deflate", "dup"), ""),
    "split": "zip -s 0",
    "truncated": "cut off",
    "empty": "no file|empty",
    "zero": "empty",
    "html": "web page",
    "nested": "archives in it",
    "d64": "Deflate64",
    "enc": "encrypted",
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archive_is_read_or_told_once_as_what_it_is(cases: Path, name: str) -> None:
    from emotion.landmarks.plan import plan_shards

    archive = existing(cases / "zip" / f"{name}.zip")
    plan = plan_shards((archive, existing(cases / "zip" / "utf8.zip")), (), 0, 1000)
    problems = [item.problem for item in plan.items if item.problem]
    if not ARCHIVES[name]:
        assert problems == []
        assert plan.num_pictures in (2, 3, 4)
        return
    assert plan.num_pictures == 2
    (problem,) = problems
    assert any(word in problem for word in ARCHIVES[name].split("|")), problem


def test_expected_offsets_are_those_of_the_maker(cases: Path) -> None:
    expected = json.loads(existing(cases / "lip" / "expected.json").read_text(encoding="utf-8"))
    for name, (offset_ms, _) in OFFSETS.items():
        if name in expected and name != "frag.mp4":
            assert offset_ms == pytest.approx(expected[name] - expected["base.mkv"], abs=25)
