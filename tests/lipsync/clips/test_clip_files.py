"""Clip files: what is written comes back, and other files are refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest

from facevox.errors import UserError
from lipsync.clips.clip_files import load_clip, write_clip
from lipsync.clips.features import ClipFeatures, FaceTrack
from lipsync.clips.sounds import SoundFeatures


def make_clip(lengths: tuple[int, ...] = (7, 4)) -> ClipFeatures:
    rng = np.random.default_rng(0)
    tracks = tuple(
        FaceTrack(
            track_id=number * 2,
            start=number,
            shot=number,
            mouths=rng.integers(0, 256, (length, 12, 12), dtype=np.uint8),
            lips=rng.uniform(-1, 1, (length, 40, 2)).astype(np.float32),
            opening=rng.uniform(0, 1, length).astype(np.float32),
            boxes_px=rng.uniform(0, 4000, (length, 4)).astype(np.float32),
            is_measured=rng.uniform(size=length) > 0.5,
            face_rgb=rng.integers(0, 256, (16, 16, 3), dtype=np.uint8),
        )
        for number, length in enumerate(lengths)
    )
    sound = SoundFeatures(
        rng.uniform(-100, 30, (31, 8)).astype(np.float32), rng.uniform(-600, 200, (31, 5)).astype(np.float32)
    )
    return ClipFeatures(9, (0, 5), tracks, sound)


def test_clip_comes_back(tmp_path: Path) -> None:
    clip, names = make_clip(), {"video": "a\n한국어.mp4", "audio": "", "speaker": 'it\'s "me"'}
    write_clip(tmp_path / "x.npz", clip, names)
    back, found = load_clip(tmp_path / "x.npz")
    assert found == names
    assert (back.num_frames, back.shot_starts) == (9, (0, 5))
    assert len(back.tracks) == 2
    for one, other in zip(back.tracks, clip.tracks, strict=True):
        assert (one.track_id, one.start, one.shot, len(one)) == (
            other.track_id, other.start, other.shot, len(other),
        )  # fmt: skip
        for name in ("mouths", "opening", "boxes_px", "is_measured", "face_rgb"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert one.lips.dtype == np.float32
        assert np.abs(one.lips - other.lips).max() < 0.001
    assert np.abs(back.sound.log_mel - clip.sound.log_mel).max() < 0.06
    assert np.abs(back.sound.mfcc - clip.sound.mfcc).max() < 0.3
    with np.load(tmp_path / "x.npz", allow_pickle=False) as archive:
        assert all(array.dtype != object for array in archive.values())


def test_clip_of_another_mesh_is_refused_and_one_without_a_mark_is_facemeshs(tmp_path: Path) -> None:
    for mesh in ({}, {"mesh": "face_mesh"}):
        write_clip(tmp_path / "x.npz", make_clip(), mesh)
        assert load_clip(tmp_path / "x.npz")[1] == mesh
    write_clip(tmp_path / "x.npz", make_clip(), {"mesh": "face_landmarker"})
    with pytest.raises(UserError, match="made with the mesh face_landmarker"):
        load_clip(tmp_path / "x.npz")


def test_clip_without_a_face_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no face in this clip"):
        write_clip(tmp_path / "x.npz", make_clip(()), {})
    assert not list(tmp_path.iterdir())


def rewritten(path: Path, **changes: np.ndarray | None) -> None:
    with np.load(path) as archive:
        content = {name: archive[name] for name in archive.files} | changes
    np.savez(path, **{name: array for name, array in content.items() if array is not None})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lips": None}, "without lips"),
        ({"lips": np.zeros((11, 20, 2), np.float16)}, "lips is float16 of shape"),
        ({"mouths": np.zeros((11, 12, 12))}, "mouths is float64"),
        ({"format": np.int64(2)}, "format 2"),
        ({"opening": np.zeros(3, np.float32)}, "differ in number"),
        ({"tracks": np.array([[0, 0, 0, -1], [1, 0, 0, 12]])}, "differ in number"),
        ({"mfcc": np.zeros((2, 5), np.float16)}, "differ in length"),
        ({"source": np.frombuffer(json.dumps([1]).encode(), np.uint8)}, "not a table of names"),
        ({"source": np.frombuffer(b"\xff{", np.uint8)}, "not a clip"),
        ({"opening": np.array([{}] * 11, object)}, "not a clip"),
    ],
)
def test_other_content_is_refused_in_one_line(tmp_path: Path, changes: dict, reason: str) -> None:
    write_clip(tmp_path / "x.npz", make_clip(), {})
    rewritten(tmp_path / "x.npz", **changes)
    with pytest.raises(UserError, match=reason) as caught:
        load_clip(tmp_path / "x.npz")
    assert "\n" not in str(caught.value)
    assert "x.npz" in str(caught.value)


def test_other_files_are_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "good.npz", make_clip(), {})
    whole = (tmp_path / "good.npz").read_bytes()
    np.save(tmp_path / "array.npy", np.zeros(3))
    cases = {
        "missing.npz": None, "empty.npz": b"", "text.npz": b"hello", "half.npz": whole[: len(whole) // 2],
        "array.npz": (tmp_path / "array.npy").read_bytes(),
        "damaged.npz": whole[:300] + bytes(200) + whole[500:],
    }  # fmt: skip
    for name, data in cases.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError) as caught:
            load_clip(tmp_path / name)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr("lipsync.clips.clip_files.MAX_CLIP_BYTES", 1000)
    with pytest.raises(UserError, match="bytes unpacked"):
        load_clip(tmp_path / "good.npz")
