"""Example people who talk for six seconds, made once a session, and files of other shapes made from them."""

import functools
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from facevox import cli
from facevox.media import iter_frames, read_audio
from facevox.native_silence import native_silence
from lipsync.clips.features import ClipFeatures, extract_clip

RATE_HZ = 16_000
CLIP_S = 6.0


_made: dict[Path, tuple[Path, ...]] = {}


def make_talking(load_script: Any, tmp_path_factory: Any) -> tuple[Path, ...]:
    """Two people, one clip each: 6 s, 25 frames a second, in sync; the same files for every module.

    The arguments are the fixtures of these names.
    """
    folder = tmp_path_factory.getbasetemp() / "talking"
    if folder not in _made:
        script = load_script("demo/make_example_data")
        options = {
            "num_people": 2,
            "clips_per_person": 1,
            "clip_s": CLIP_S,
            "seed": 3,
            "workers": 2,
            "shape": "videos",
        }
        arguments = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        assert cli.run(script.main, ["--output_dir", str(folder), *arguments]) == 0
        _made[folder] = tuple(sorted((folder / "videos").rglob("*.mp4")))
    return _made[folder]


@functools.cache
def features_of(video: Path) -> ClipFeatures:
    """The features of a file, read once a session."""
    with native_silence():
        return extract_clip(video)


@functools.cache
def pictures_of(video: Path) -> tuple[np.ndarray, ...]:
    return tuple(frame.image for frame in iter_frames(video))


@functools.cache
def voice_of(video: Path) -> np.ndarray:
    return read_audio(video, RATE_HZ)


def shifted(samples: np.ndarray, early_ms: float) -> np.ndarray:
    """The same number of samples, early by that much (negative: late); silence comes in at the other end."""
    count = round(abs(early_ms) / 1000 * RATE_HZ)
    quiet = np.zeros(count, np.float32)
    if early_ms >= 0:
        return np.concatenate([samples[count:], quiet])
    return np.concatenate([quiet, samples[: len(samples) - count]])


def write_film(
    path: Path,
    images: Sequence[np.ndarray],
    times_s: Sequence[float],
    tracks: Sequence[np.ndarray],
    *,
    sound_from_s: float = 0.0,
) -> None:
    """Pictures at any times and any number of sound tracks, which all begin at `sound_from_s`."""
    base = Fraction(1, 90_000)
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=25)
        video.height, video.width, video.pix_fmt = images[0].shape[0], images[0].shape[1], "yuv420p"
        video.codec_context.time_base = base
        video.options = {"crf": "18", "preset": "veryfast", "bf": "0"}
        sounds: list[Any] = [container.add_stream("aac", rate=RATE_HZ) for _ in tracks]
        for sound in sounds:
            sound.layout = "mono"
        for image, time_s in zip(images, times_s, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = round(time_s / base), base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for sound, samples in zip(sounds, tracks, strict=True):
            for start in range(0, len(samples), 1024):
                block = samples[None, start : start + 1024].astype(np.float32)
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout="mono")
                frame.sample_rate, frame.time_base = RATE_HZ, Fraction(1, RATE_HZ)
                frame.pts = start + round(sound_from_s * RATE_HZ)
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
