"""The program extract_faces.py: its files, bad input, shards, and being killed."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bad_media import AWKWARD_NAMES, rotate_header, write_broken_videos, write_silent_video, write_sound_only
from program_help import light_help

from facevox import cli
from facevox.files import read_image
from facevox.media import iter_frames, write_video


@pytest.fixture
def script(load_script):
    return load_script("preprocessing/extract_faces")


def run(script, source: Path, out: Path, *options: str) -> int:
    arguments = ["--dataset_path", str(source), "--output_dir", str(out), "--detector_backend", "mediapipe"]
    where = () if "--workers" in options else ("--debug",)  # in this process, unless workers are asked for
    return cli.run(script.main, [*arguments, *where, *options])


def table_of(out: Path) -> "dict[str, dict[str, str]]":
    with (out / "faces.csv").open(encoding="utf-8", newline="") as file:
        return {row["video"]: row for row in csv.DictReader(file)}


def pictures_of(out: Path) -> "dict[str, bytes]":
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*.jpg"))}


def only_line(capsys) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.fixture
def video(example_videos: Path) -> Path:
    return sorted(example_videos.rglob("*.mp4"))[0]


def test_each_video_gives_a_face_at_the_same_place(script, example_videos: Path, tmp_path: Path):
    out = tmp_path / "faces"
    assert run(script, example_videos, out, "--workers", "2") == 0
    videos = sorted(path.relative_to(example_videos) for path in example_videos.rglob("*.mp4"))
    assert [Path(name).with_suffix(".mp4") for name in pictures_of(out)] == videos
    for name, row in table_of(out).items():
        assert row["status"] == "done"
        assert row["face_file"] == str(Path(name).with_suffix(".jpg"))
        image = read_image(out / row["face_file"])
        assert abs(image.shape[1] - int(row["box_w_px"])) <= 1
        assert 0.5 <= float(row["confidence"]) <= 1
        assert float(row["sharpness"]) > 0
        assert 0 < float(row["left_eye_x_px"]) < float(row["right_eye_x_px"]) < image.shape[1]
    assert run(script, example_videos, out) == 0  # a second call has nothing to do


def test_opencv_runs_without_any_weights(script, video: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path / "home"))
    assert run(script, video.parent, tmp_path / "out", "--detector_backend", "opencv") == 0
    assert not (tmp_path / "home").exists()


def test_bad_videos_fail_with_their_reason_and_the_good_ones_are_done(script, video: Path, tmp_path: Path):
    source, out = tmp_path / "videos", tmp_path / "out"
    reasons = write_broken_videos(source, video)
    write_sound_only(source / "sound.mp4")
    write_silent_video(source / "nobody.mp4")
    frame = next(iter_frames(video)).image
    write_video(source / "one_frame.mp4", [frame], 25)  # and without sound
    (source / "good.MP4").write_bytes(video.read_bytes())
    assert run(script, source, out) == 1
    table = table_of(out)
    assert len(table) == len(reasons) + 4
    for name, reason in reasons.items():
        assert table[name]["status"] == "failed"
        assert reason in table[name]["reason"]
    assert "no video stream" in table["sound.mp4"]["reason"]
    assert table["nobody.mp4"]["status"] == "no_face"
    assert "no face in 5 frames tried" in table["nobody.mp4"]["reason"]
    assert {name for name, row in table.items() if row["status"] == "done"} == {"one_frame.mp4", "good.MP4"}
    assert set(pictures_of(out)) == {"one_frame.jpg", "good.jpg"}


def test_awkward_names_keep_their_names(script, video: Path, tmp_path: Path):
    source, out = tmp_path / "my videos", tmp_path / "결과"
    source.mkdir()
    for name in AWKWARD_NAMES:
        (source / name).write_bytes(video.read_bytes())
    (source / "loop").symlink_to(source, target_is_directory=True)
    (source / "self.mp4").symlink_to("self.mp4")
    assert run(script, source, out) == 0
    assert {row["face_file"] for row in table_of(out).values()} == {
        str(Path(name).with_suffix(".jpg")) for name in AWKWARD_NAMES
    }
    assert len(pictures_of(out)) == len(AWKWARD_NAMES)


def test_portrait_with_rotation_comes_out_upright(script, video: Path, tmp_path: Path):
    source = tmp_path / "videos"
    frames = [frame.image for frame in iter_frames(video, max_frames=3)]
    write_video(source / "turned.mp4", [np.ascontiguousarray(np.rot90(f)) for f in frames], 25)
    rotate_header(source / "turned.mp4", 90)
    write_video(source / "upright.mp4", frames, 25)
    assert run(script, source, tmp_path / "out") == 0
    turned, upright = (table_of(tmp_path / "out")[f"{name}.mp4"] for name in ("turned", "upright"))
    for column in ("box_x_px", "box_y_px", "left_eye_x_px", "left_eye_y_px", "nose_y_px"):
        assert float(turned[column]) == pytest.approx(float(upright[column]), abs=4)


def test_4k_is_read(script, video: Path, tmp_path: Path):
    import cv2

    frame = cv2.resize(next(iter_frames(video)).image, (2160, 2160))
    wide = cv2.copyMakeBorder(frame, 0, 0, 840, 840, cv2.BORDER_REPLICATE)
    write_video(tmp_path / "videos" / "4k.mp4", [wide], 25, preset="ultrafast")
    assert run(script, tmp_path / "videos", tmp_path / "out") == 0
    row = table_of(tmp_path / "out")["4k.mp4"]
    assert (row["frame_width_px"], row["frame_height_px"]) == ("3840", "2160")
    assert int(row["box_w_px"]) > 600


def test_folders_without_videos_are_usage_errors(script, video: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    for source, options, words in [
        (tmp_path / "gone", (), ("--dataset_path", "no such folder")),
        (tmp_path / "empty", (), ("--dataset_path", "empty")),
        (video.parent, ("--video_extensions", "*.webm"), ("*.webm", "other files")),
        (video, (), ("--dataset_path", "not a folder")),
    ]:
        assert run(script, source, out, "--workers", "0", *options) == 2
        line = only_line(capsys)
        assert all(word in line for word in words), line
    assert not out.exists()


def test_an_output_folder_that_cannot_be_written_is_said(script, video: Path, tmp_path: Path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert run(script, video.parent, tmp_path / "file", "--workers", "0") == 2
    assert "file" in only_line(capsys)
    assert (
        run(script, video.parent, Path("/proc/faces"), "--workers", "0") == 2
    )  # not even root may write there
    assert "/proc/faces" in only_line(capsys)


@pytest.mark.parametrize(
    "options",
    [
        ("--max_frames", "0"),
        ("--min_confidence", "1.5"),
        ("--expand_percentage", "-1"),
        ("--detector_backend", "centerface"),
        ("--shard_index", "1"),
    ],
)
def test_bad_options_are_usage_errors(script, video: Path, tmp_path: Path, capsys, options):
    assert run(script, video.parent, tmp_path / "out", "--workers", "0", *options) == 2
    assert options[0].lstrip("-") in only_line(capsys)


def test_missing_weights_end_at_once_with_the_way_on(script, video: Path, tmp_path, monkeypatch, capsys):
    from lc_pytorch.faces import weights

    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(weights, "answers", lambda url: False)
    options = ("--detector_backend", "retinaface", "--workers", "0")
    assert run(script, video.parent, tmp_path / "out", *options) == 2
    line = only_line(capsys)
    for word in ("retinaface.pth", str(tmp_path / "home"), "make weights", "--detector_backend mediapipe"):
        assert word in line
    assert not (tmp_path / "out").exists()


def test_four_shards_joined_equal_one_run(script, load_script, example_videos: Path, tmp_path: Path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(script, example_videos, whole, "--all_faces") == 0
    for index in (2, 0, 3, 1):
        shard = ("--num_shards", "4", "--shard_index", str(index))
        assert run(script, example_videos, parts, "--all_faces", *shard) == 0
    merge = load_script("preprocessing/merge_manifests")
    assert cli.run(merge.main, ["--output_dir", str(parts)]) == 0
    assert (parts / "faces.csv").read_bytes() == (whole / "faces.csv").read_bytes()
    assert pictures_of(parts) == pictures_of(whole)


def test_killed_and_started_again_every_video_once(repository: Path, example_videos: Path, tmp_path: Path):
    source, out = tmp_path / "videos", tmp_path / "out"
    source.mkdir()
    videos = sorted(example_videos.rglob("*.mp4"))
    num_videos = 120
    for number in range(num_videos):
        os.link(videos[number % len(videos)], source / f"{number:03d}.mp4")
    command = [sys.executable, str(repository / "scripts/preprocessing/extract_faces.py")]
    command += ["--dataset_path", str(source), "--output_dir", str(out)]
    command += ["--detector_backend", "mediapipe", "--workers", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline_s = time.monotonic() + 120
    while len(list(out.glob("*.jpg"))) < 10 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 10 <= len(list(out.glob("*.jpg"))) < num_videos
    for path in out.glob("*.jpg"):
        read_image(path)  # whole, each of them
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    with (out / "faces.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows] == [f"{number:03d}.mp4" for number in range(num_videos)]
    assert {path.name for path in out.iterdir()} == {
        "faces.csv",
        "manifests",
        *(row["face_file"] for row in rows),
    }


def test_help_loads_nothing_heavy():
    assert "--enforce_detection" in light_help("scripts/preprocessing/extract_faces.py")


@pytest.mark.real_data
def test_mediapipe_finds_a_face_in_every_talking_clip(script, real_data_dir: Path, tmp_path: Path):
    assert run(script, real_data_dir / "talking", tmp_path / "out", "--workers", "2") == 0
    assert len(pictures_of(tmp_path / "out")) == 25


@pytest.mark.real_data
@pytest.mark.slow
def test_mtcnn_finds_a_face_in_every_talking_clip(script, real_data_dir: Path, tmp_path: Path):
    pytest.importorskip("mtcnn", exc_type=ImportError)
    options = ("--detector_backend", "mtcnn", "--workers", "2")
    assert run(script, real_data_dir / "talking", tmp_path / "out", *options) == 0
    assert len(pictures_of(tmp_path / "out")) == 25
