"""Memory for films of hours: what is kept is held once, and what is passed on is not held."""

import tracemalloc
from collections.abc import Callable, Iterator
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
from facevox.limits import SPARE_BYTES
from facevox.media import read_audio
from facevox.signals import StopFlag
from lc_pytorch.datasets import face_voice
from lipsync.clips.clip_files import write_clip
from lipsync.clips.clip_task import clip_bytes
from lipsync.clips.features import ClipFeatures, FaceFeatures, FrameFeatures, collect_tracks
from lipsync.clips.sounds import SoundFeatures
from lipsync.settings import DataSettings

RATE_HZ = 16_000


def peak_bytes(work: Callable[[], object]) -> int:
    """Most memory at a time that some work takes (of NumPy's arrays and Python's objects)."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def seen_faces(num_frames: int, num_faces: int) -> Iterator[FrameFeatures]:
    rng = np.random.default_rng(0)
    for index in range(num_frames):
        faces = tuple(
            FaceFeatures(
                track_id=number,
                box_px=np.zeros(4, np.float32),
                mouth=rng.integers(0, 256, (96, 96), np.uint8),
                lips=rng.uniform(-1, 1, (40, 2)).astype(np.float32),
                opening=0.1,
                is_measured=True,
                face_rgb=np.zeros((256, 256, 3), np.uint8),
            )
            for number in range(num_faces)
        )
        yield FrameFeatures(index, index / 25, 0, faces)


def test_faces_are_held_once_and_written_in_parts(tmp_path: Path) -> None:
    num_frames, num_faces = 2000, 2
    held = num_frames * num_faces * 96 * 96
    clips: list[ClipFeatures] = []

    def collect() -> None:
        tracks, count, shots = collect_tracks(seen_faces(num_frames, num_faces))
        sound = SoundFeatures(np.zeros((1, 40), np.float32), np.zeros((1, 13), np.float32))
        clips.append(ClipFeatures(count, shots, tracks, sound))

    assert held < peak_bytes(collect) < 1.3 * held
    assert peak_bytes(lambda: write_clip(tmp_path / "x.npz", clips[0], {}, sync=False)) < held / 2


def test_the_settings_of_clips_stay_within_a_gigabyte() -> None:
    """An ordinary clip takes some 0.3 GB: more faces and ten minutes of them not a gigabyte more."""
    assert SPARE_BYTES <= clip_bytes(DataSettings()) < 1.25e9
    assert clip_bytes(DataSettings(max_duration_s=3600)) > 3 * clip_bytes(DataSettings())


def write_sound(path: Path, seconds: int, codec: str, **options: str) -> None:
    with av.open(str(path), "w", options=options) as container:
        pictures = container.add_stream("mpeg4", rate=25)
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "yuv420p"
        sound = container.add_stream(codec, rate=RATE_HZ)
        sound.layout = "mono"
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        samples = np.random.default_rng(0).integers(-9000, 9000, (1, 1024)).astype(np.int16)
        for start in range(0, seconds * RATE_HZ, 1024):
            block = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            block.sample_rate, block.pts = RATE_HZ, start
            container.mux(sound.encode(block))
        container.mux(sound.encode(None))


def test_sound_of_an_annotated_film_is_not_held(tmp_path: Path) -> None:
    seconds = 60
    write_sound(tmp_path / "x.mkv", seconds, "flac")
    config = SimpleNamespace(
        open=lambda: (
            SimpleNamespace(class_names=("a", "b")),
            SimpleNamespace(analyse=lambda *_, **__: [], close=lambda: None),
            SimpleNamespace(draw=lambda image, faces: image),
        ),
        spreadsheet_safe=False,
    )
    viewer: Any = SimpleNamespace(show=lambda image: None)

    def annotate() -> None:
        annotate_video(
            tmp_path / "x.mkv", tmp_path, cast(RunConfig, config), StopFlag(), cast(Viewer, viewer)
        )

    assert peak_bytes(annotate) < seconds * RATE_HZ * 4 / 4
    assert abs(len(read_audio(tmp_path / "x.mp4", RATE_HZ)) / RATE_HZ - seconds) < 0.5


def test_recording_without_a_length_is_read_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sound(tmp_path / "x.mkv", 20, "flac", live="1")
    monkeypatch.setattr(face_voice, "MOST_SOUND_S", 5.0)
    totals: list[int] = []

    def first(total: int) -> int:
        totals.append(total)
        return 0

    assert len(face_voice.read_voice(tmp_path / "x.mkv", RATE_HZ, RATE_HZ, first)) == RATE_HZ
    assert totals == [5 * RATE_HZ]
