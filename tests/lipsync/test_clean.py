"""clean.py: clips of one face each, in sync, and a table with the reasons for all that is dropped."""

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bad_media import AWKWARD_NAMES, write_broken_videos, write_silent_video, write_sound_only
from talking_clips import RATE_HZ, make_talking, shifted

from facevox import cli
from facevox.errors import UserError
from facevox.media import iter_frames, probe, read_audio, write_video
from lipsync import clean
from lipsync.cleaning.clean_task import CleanTask, VideoItem, plan_videos
from lipsync.cleaning.clip_writing import face_square
from lipsync.inference import LipSyncInference

# Drawn people are not sharp, and the model of the package has seen none.
DRAWN = ["--min_sharpness", "0", "--min_face_px", "0", "--method", "untrained", "--min_confidence", "0.5"]


def run(videos: Path, output: Path, *options: str) -> int:
    where = () if "--workers" in options else ("--debug",)  # in this process, unless workers are asked for
    return cli.run(clean.main, ["--videos", str(videos), "--output_dir", str(output), *where, *options])


def rows(output: Path, video: str = "") -> list[dict[str, str]]:
    with (output / "clips.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if not video or row["video"] == video]


def pictures(video: Path, max_frames: int | None = None) -> list[np.ndarray]:
    return [frame.image for frame in iter_frames(video, rate_hz=25, max_frames=max_frames)]


def beside(left: list[np.ndarray], right: list[np.ndarray], from_frame: int) -> list[np.ndarray]:
    """Two films side by side; the right one is faded in, which is no cut."""
    images = []
    for number, (first, second) in enumerate(zip(left, right, strict=False)):
        share = min(max((number - from_frame) / 12, 0.0), 1.0)
        images.append(np.hstack([first, (second * share + 90 * (1 - share)).astype(np.uint8)]))
    return images


@pytest.fixture(scope="module")
def talking(load_script: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Two drawn people who talk for 6 s each."""
    return make_talking(load_script, tmp_path_factory)


@pytest.fixture(scope="module")
def cleaned(real_data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Films made of real ones and the folder that they were cleaned into, each clip measured again."""
    samples, folder = real_data_dir / "talking", tmp_path_factory.mktemp("real")
    videos, output = folder / "videos", folder / "out"
    videos.mkdir()
    first, second = samples / "grid_lbbc2a.mpg", samples / "grid_swiz3n.mpg"
    voices = [read_audio(path, RATE_HZ, duration_s=2.96) for path in (first, second)]
    # The sound of the second shot alone is early.
    joined = np.concatenate([voices[0], shifted(voices[1], 200)])
    write_video(videos / "joined.mp4", pictures(first, 74) + pictures(second, 74), 25, joined, RATE_HZ)
    speaker, other = samples / "edtalk_mouth_source.mov", samples / "Obama_clip3.mov"
    images, voice = pictures(speaker, 200), read_audio(speaker, RATE_HZ, duration_s=8)
    foreign = read_audio(other, RATE_HZ, duration_s=8)
    write_video(videos / "foreign.mp4", images, 25, foreign, RATE_HZ)
    write_video(videos / "two.mp4", beside(images, pictures(other, 200), 100), 25, voice, RATE_HZ)
    blurred = [cv2.GaussianBlur(image, (0, 0), 4) for image in images[:100]]
    write_video(videos / "blurred.mp4", blurred, 25, voice[: 4 * RATE_HZ], RATE_HZ)
    assert run(videos, output, "--check", "--workers", "2") == 0
    return videos, output


@pytest.mark.real_data
def test_a_cut_divides_and_each_shot_gets_in_sync_by_its_own_offset(cleaned: tuple[Path, Path]) -> None:
    _, output = cleaned
    found = rows(output, "joined.mp4")
    assert [row["kept"] for row in found] == ["yes", "yes"]
    assert [row["shot"] for row in found] == ["0", "1"]
    assert float(found[0]["end_s"]) <= 2.96 <= float(found[1]["start_s"])
    assert float(found[0]["offset_ms"]) == pytest.approx(0, abs=40)
    assert float(found[1]["offset_ms"]) == pytest.approx(200, abs=40)
    for row in found:
        details = LipSyncInference().compute_sync_score(output / row["file"])[1]
        assert abs(details["offset_ms"]) <= 40
        assert details["offset_ms"] == pytest.approx(float(row["remaining_ms"]), abs=1)
        low_ms, high_ms = float(row["offset_low_ms"]), float(row["offset_high_ms"])
        assert low_ms <= float(row["offset_ms"]) <= high_ms


@pytest.mark.real_data
def test_the_sound_of_somebody_else_is_dropped(cleaned: tuple[Path, Path]) -> None:
    found = rows(cleaned[1], "foreign.mp4")
    assert found
    for row in found:
        assert row["kept"] == "no"
        assert row["file"] == ""
        assert row["reason"].partition(":")[0] in ("no_match", "low_confidence", "cannot_tell")


@pytest.mark.real_data
def test_a_second_person_ends_the_clip(cleaned: tuple[Path, Path]) -> None:
    alone, both = rows(cleaned[1], "two.mp4")
    assert (alone["kept"], both["kept"], both["reason"]) == ("yes", "no", "several_faces")
    assert 3.0 < float(alone["end_s"]) < 4.5  # the second one is whole at 4.5 s
    assert float(both["end_s"]) == 8.0


@pytest.mark.real_data
def test_a_blurred_film_is_dropped(cleaned: tuple[Path, Path]) -> None:
    (row,) = rows(cleaned[1], "blurred.mp4")
    assert (row["kept"], row["reason"].partition(";")[0]) == ("no", "blurred")
    sharp = rows(cleaned[1], "two.mp4")[0]
    assert float(row["sharpness"]) < 40 < float(sharp["sharpness"])


@pytest.mark.real_data
def test_pictures_of_a_clip_are_those_of_the_video_at_its_times(cleaned: tuple[Path, Path]) -> None:
    videos, output = cleaned
    row = rows(output, "joined.mp4")[1]
    clip, source = output / row["file"], videos / row["video"]
    start_s, end_s = float(row["start_s"]), float(row["end_s"])
    written = list(iter_frames(clip))
    originals = [frame for frame in iter_frames(source) if start_s - 1e-3 <= frame.time_s < end_s - 1e-3]
    assert len(written) == len(originals) == round((end_s - start_s) * 25)
    for copy, original in zip(written, originals, strict=True):
        assert copy.time_s == pytest.approx(original.time_s - start_s, abs=1e-3)
        difference = copy.image.astype(np.float32) - original.image
        assert np.abs(difference).mean() < 4
    info = probe(clip)
    assert (info.width, info.height, info.rate_hz) == (360, 288, 25.0)
    assert info.audio_rate_hz == RATE_HZ
    assert len(read_audio(clip, RATE_HZ)) == pytest.approx((end_s - start_s) * RATE_HZ, abs=1024)


@pytest.mark.real_data
def test_the_sound_of_a_clip_is_later_by_the_offset(cleaned: tuple[Path, Path]) -> None:
    videos, output = cleaned
    row = rows(output, "joined.mp4")[1]
    start_s, offset_s = float(row["start_s"]), float(row["offset_ms"]) / 1000
    expected = read_audio(videos / row["video"], RATE_HZ, start_s - offset_s, 2.5)
    sound = read_audio(output / row["file"], RATE_HZ, 0.0, 2.5)
    correlation = [
        float(np.dot(sound[200 + lag : 30_200 + lag], expected[200:30_200])) for lag in range(-160, 161)
    ]
    assert abs(int(np.argmax(correlation)) - 160) <= 8  # half a millisecond


def test_crop_and_rate_are_those_of_the_options(talking: tuple[Path, ...], tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    shutil.copy(talking[0], tmp_path / "v" / "a.mp4")
    options = ["--crop", "face", "--size", "128", "--fps", "20"]
    assert run(tmp_path / "v", tmp_path / "out", *DRAWN, *options) == 0
    (row,) = rows(tmp_path / "out")
    assert row["kept"] == "yes"
    info = probe(tmp_path / "out" / row["file"])
    assert (info.width, info.height, info.rate_hz) == (128, 128, 20.0)
    assert info.num_frames == pytest.approx((float(row["end_s"]) - float(row["start_s"])) * 20, abs=1)


def test_the_square_around_a_face_stays_inside_the_picture_and_holds_the_face() -> None:
    extent = np.array([300.0, 100, 420, 260])
    assert face_square(np.array([310.0, 110, 100, 140]), extent, 640, 480) == (234, 54, 252)
    at_edge = face_square(np.array([0.0, 0, 100, 140]), np.array([0.0, 0, 100, 140]), 640, 480)
    assert at_edge == (0, 0, 252)
    moving = face_square(np.array([300.0, 100, 50, 60]), np.array([10.0, 100, 400, 200]), 640, 480)
    assert moving == (10, 0, 390)
    assert face_square(np.array([0.0, 0, 600, 900]), np.array([0.0, 0, 640, 900]), 640, 900) == (0, 130, 640)


def test_a_table_alone_writes_no_clips(
    talking: tuple[Path, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "v").mkdir()
    shutil.copy(talking[0], tmp_path / "v" / "a.mp4")
    assert run(tmp_path / "v", tmp_path / "out", *DRAWN, "--table_only") == 0
    (row,) = rows(tmp_path / "out")
    assert (row["kept"], row["file"], row["clip"]) == ("yes", "", "a_000")
    assert not (tmp_path / "out" / "clips").exists()
    assert "kept: 1 clips, 6 of 6 s" in capsys.readouterr().out


def test_bad_files_have_a_row_each_and_the_others_are_cleaned(
    talking: tuple[Path, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, output = tmp_path / "v", tmp_path / "out"
    expected = write_broken_videos(videos, talking[0])
    write_silent_video(videos / "silent.mp4")
    write_sound_only(videos / "sound.mp4")
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * RATE_HZ).astype(np.float32)
    write_video(videos / "nobody.mp4", [np.full((96, 96, 3), 90, np.uint8)] * 50, 25, noise, RATE_HZ)
    names = AWKWARD_NAMES[2:4]
    for name in names:
        shutil.copy(talking[0], videos / name)
    assert run(videos, output, *DRAWN, "--max_failed", "1") == 0
    by_video = {row["video"]: row for row in rows(output)}
    for name, reason in (expected | {"silent.mp4": "no sound", "sound.mp4": "no video stream"}).items():
        assert by_video[name]["status"] == "failed"
        assert reason in by_video[name]["reason"]
    assert by_video["nobody.mp4"]["status"] == "no_face"
    for name in names:
        assert by_video[name]["kept"] == "yes"
        assert (output / by_video[name]["file"]).is_file()
    assert "kept: 2 clips, 12 of 12 s" in capsys.readouterr().out
    assert len(list((output / "clips").iterdir())) == 2


def test_nothing_that_is_kept_is_exit_code_1(
    talking: tuple[Path, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "v").mkdir()
    shutil.copy(talking[0], tmp_path / "v" / "a.mp4")
    assert run(tmp_path / "v", tmp_path / "out", *DRAWN, "--min_clip_s", "7", "--max_clip_s", "14") == 1
    assert [row["reason"] for row in rows(tmp_path / "out")] == ["too_short"]
    assert "dropped, by the first reason: too_short 6 s" in capsys.readouterr().out


def test_a_stopped_run_continues_and_other_limits_are_refused(
    talking: tuple[Path, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    videos, output = tmp_path / "v", tmp_path / "out"
    videos.mkdir()
    for name, source in zip(("a.mp4", "b.mp4"), talking, strict=True):
        shutil.copy(source, videos / name)
    process: Callable[..., Any] = CleanTask.process
    items = []

    def once(self: CleanTask, item: VideoItem) -> Any:
        items.append(item.name)
        outcome = process(self, item)
        if len(items) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return outcome

    monkeypatch.setattr(CleanTask, "process", once)
    assert run(videos, output, *DRAWN) == 75
    assert run(videos, output, *DRAWN) == 0
    assert items == ["a.mp4", "b.mp4"]  # neither of them twice
    assert run(tmp_path / "v", tmp_path / "whole", *DRAWN) == 0
    assert rows(output) == rows(tmp_path / "whole")
    for row in rows(output):
        assert (output / row["file"]).read_bytes() == (tmp_path / "whole" / row["file"]).read_bytes()
    capsys.readouterr()
    assert run(videos, output, *DRAWN, "--min_speech_share", "0.9") == 2
    assert "min_speech_share was 0.4, is 0.9" in capsys.readouterr().err


def test_shards_together_are_the_whole(load_script: Any, talking: tuple[Path, ...], tmp_path: Path) -> None:
    videos = talking[0].parents[1]
    for index in range(2):
        shard = ["--num_shards", "2", "--shard_index", str(index)]
        assert run(videos, tmp_path / "parts", *DRAWN, *shard, "--table_only") == 0
    merge = load_script("preprocessing/merge_manifests")
    assert cli.run(merge.main, ["--output_dir", str(tmp_path / "parts")]) == 0
    assert run(videos, tmp_path / "whole", *DRAWN, "--table_only") == 0
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert len(rows(tmp_path / "whole")) == 2


def test_a_video_whose_clips_cannot_all_be_written_leaves_none(
    talking: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "v").mkdir()
    shutil.copy(talking[0], tmp_path / "v" / "a.mp4")
    write = CleanTask._write
    written = []

    def second_fails(self: CleanTask, target: Path, *others: Any) -> None:
        if written:
            raise UserError("the disk is gone")
        written.append(target)
        write(self, target, *others)

    monkeypatch.setattr(CleanTask, "_write", second_fails)
    assert run(tmp_path / "v", tmp_path / "out", *DRAWN, "--max_clip_s", "4") == 1
    assert len(written) == 1
    (row,) = rows(tmp_path / "out")
    assert (row["status"], row["reason"]) == ("failed", "the disk is gone")
    assert not list((tmp_path / "out" / "clips").iterdir())


def test_videos_of_one_stem_and_those_in_the_output_folder(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mov", "sub/b.mp4", "out/clips/a_000.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    items = plan_videos(tmp_path, tmp_path / "out")
    stems = {item.name: item.stem for item in items}
    assert set(stems) == {"a.mp4", "a.mov", "sub/b.mp4"}
    assert stems["sub/b.mp4"] == "sub/b"
    assert len(set(stems.values())) == 3


def test_manifest_names_the_settings(talking: tuple[Path, ...], tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    shutil.copy(talking[0], tmp_path / "v" / "a.mp4")
    assert run(tmp_path / "v", tmp_path / "out", *DRAWN, "--table_only") == 0
    head = (tmp_path / "out/manifests/clean.jsonl").read_text(encoding="utf-8").partition("\n")[0]
    settings = json.loads(head)["settings"]
    assert (settings["min_face_px"], settings["method"], settings["crop"]) == (0, "untrained", "none")
