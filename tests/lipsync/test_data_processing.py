"""data_processing.py: clip files and a manifest that says what was used, what was left out and why."""

import csv
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from bad_media import AWKWARD_NAMES, write_broken_videos, write_silent_video, write_sound_only

from facevox import cli
from facevox.batch import Item, Outcome
from facevox.files import read_json
from facevox.media import iter_frames, probe, read_audio, write_video, write_wav
from lipsync import data_processing
from lipsync.clips.clip_files import load_clip
from lipsync.clips.clip_task import ClipTask, speaker_of

FAST = ["--set", "data.max_faces=1", "--set", "data.min_duration_s=0.5"]


def run(videos: Path, output: Path, *options: str, audios: Path | None = None) -> int:
    paths = {"videos_dir": videos, "processed_dir": output, "audios_dir": audios or videos / "none"}
    settings = [part for key, path in paths.items() for part in ("--set", f"paths.{key}={path}")]
    where = () if "--workers" in options else ("--debug",)  # in this process, unless workers are asked for
    return cli.run(data_processing.main, [*settings, *FAST, *where, *options])


def rows(output: Path) -> dict[str, dict[str, str]]:
    with (output / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return {row["video"]: row for row in csv.DictReader(file)}


def short_clip(source: Path, target: Path, num_frames: int = 13, rate_hz: float = 25.0) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    frames = [frame.image for frame in iter_frames(source, max_frames=num_frames)]
    write_video(target, frames, rate_hz, read_audio(source, duration_s=num_frames / rate_hz), 16000)


def test_clip_holds_face_and_sound_on_one_clock(example_videos: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for person in ("id0001", "id0002"):
        short_clip(example_videos / person / "0001.mp4", videos / person / "a.mp4")
    assert run(videos, tmp_path / "out") == 0
    found = rows(tmp_path / "out")
    assert set(found) == {"id0001/a.mp4", "id0002/a.mp4"}
    row = found["id0001/a.mp4"]
    assert (row["status"], row["speaker"], row["clip_file"]) == ("done", "id0001", "id0001/a.npz")
    assert (row["num_frames"], row["num_tracks"], row["num_shots"], row["face_share"]) == (
        "13",
        "1",
        "1",
        "1.0",
    )
    clip, names = load_clip(tmp_path / "out" / "id0001/a.npz")
    assert names == {
        "video": "id0001/a.mp4",
        "audio": "",
        "speaker": "id0001",
        "features": "numpy",
        "mesh": "face_mesh",
        "clock": "2",
    }
    assert clip.tracks[0].mouths.shape == (13, 96, 96)
    assert len(clip.sound.log_mel) == pytest.approx(52, abs=8)  # AAC ends on a whole frame of 64 ms


def test_again_skips_and_other_settings_are_refused(
    example_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short_clip(example_videos / "id0001/0001.mp4", tmp_path / "v/a.mp4")
    assert run(tmp_path / "v", tmp_path / "out") == 0
    before = (tmp_path / "out/a.npz").read_bytes()
    short_clip(example_videos / "id0002/0001.mp4", tmp_path / "v/b.mp4")
    assert run(tmp_path / "v", tmp_path / "out") == 0
    assert "1 done, 1 skipped" in capsys.readouterr().out
    assert (tmp_path / "out/a.npz").read_bytes() == before
    assert run(tmp_path / "v", tmp_path / "out", "--set", "audio.num_mels=20") == 2
    assert "other settings" in capsys.readouterr().err


def test_sound_of_the_same_name_goes_before_the_own_track(example_videos: Path, tmp_path: Path) -> None:
    videos, audios = tmp_path / "v", tmp_path / "a"
    short_clip(example_videos / "id0001/0001.mp4", videos / "p/one.mp4")
    write_video(videos / "p/mute.mp4", [f.image for f in iter_frames(videos / "p/one.mp4")], 25)
    write_wav(audios / "p/one.wav", np.zeros(44100, np.float32), 44100)
    stereo_hz = 8000
    write_wav(audios / "p/mute.wav", read_audio(videos / "p/one.mp4", stereo_hz), stereo_hz)
    write_wav(audios / "p/mute.flac.wav", np.zeros(100, np.float32), stereo_hz)
    shutil.copy(audios / "p/mute.wav", audios / "p/mute.aiff")  # a second one of that stem
    shutil.copy(
        audios / "p/mute.wav", audios / "p/mute.ac3"
    )  # of a suffix that was not searched for at first
    assert run(videos, tmp_path / "out", audios=audios) == 0
    found = rows(tmp_path / "out")
    assert found["p/one.mp4"]["audio"] == "p/one.wav"
    assert "silent" in found["p/one.mp4"]["note"]
    assert "3 sounds of this name, p/mute.aiff is used" in found["p/mute.mp4"]["note"]
    assert load_clip(tmp_path / "out/p/mute.npz")[0].sound.log_mel.max() > -40


def test_what_is_left_out_is_named_with_its_reason(example_videos: Path, tmp_path: Path) -> None:
    videos, good = tmp_path / "v", example_videos / "id0001/0001.mp4"
    expected = write_broken_videos(videos, good)
    write_sound_only(videos / "sound.mp4")
    write_silent_video(videos / "mute.mp4")
    write_video(
        videos / "faceless.mp4", [np.full((64, 96, 3), 90, np.uint8)] * 20, 25, np.zeros(16000, np.float32)
    )
    short_clip(good, videos / "short.mp4", num_frames=6)
    write_video(videos / "one_frame.mp4", [np.zeros((64, 64, 3), np.uint8)], 25, np.zeros(16000, np.float32))
    frames = [f.image for f in iter_frames(good, max_frames=6)] + [np.zeros((256, 256, 3), np.uint8)] * 12
    write_video(videos / "brief_face.mp4", frames, 25, np.zeros(16000, np.float32))
    short_clip(good, videos / "good.mp4")
    expected |= {
        "sound.mp4": "no video stream",
        "mute.mp4": "no audio",
        "faceless.mp4": "no face in 20 frames",
        "short.mp4": "too short: 0.24 s of video",
        "one_frame.mp4": "too short",
        "brief_face.mp4": "no face is seen for 0.5 s on end",
    }
    assert run(videos, tmp_path / "out") == 1
    found = rows(tmp_path / "out")
    assert found.pop("good.mp4")["status"] == "done"
    assert set(found) == set(expected)
    for name, row in found.items():
        assert row["status"] == ("no_face" if "face" in name else "failed")
        assert expected[name] in row["reason"], name
    assert [path.name for path in (tmp_path / "out").glob("*.npz")] == ["good.npz"]


def test_awkward_names_and_two_of_one_stem(example_videos: Path, tmp_path: Path) -> None:
    short_clip(example_videos / "id0001/0001.mp4", tmp_path / "clip.mp4")
    names = [*AWKWARD_NAMES, "a b.mov"]
    (tmp_path / "v").mkdir()
    for name in names:
        os.link(tmp_path / "clip.mp4", tmp_path / "v" / name)
    assert run(tmp_path / "v", tmp_path / "out") == 0
    found = rows(tmp_path / "out")
    assert set(found) == set(names)
    files = [row["clip_file"] for row in found.values()]
    assert len(set(files)) == len(names)
    assert all((tmp_path / "out" / file).is_file() for file in files)


def test_shards_split_the_work(example_videos: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        short_clip(example_videos / "id0001/0001.mp4", tmp_path / f"v/{name}.mp4")
    assert run(tmp_path / "v", tmp_path / "out", "--num_shards", "2", "--shard_index", "1") == 0
    assert [path.name for path in (tmp_path / "out").glob("*.npz")] == ["b.npz"]


def test_variable_rate_is_repaired_and_said(example_videos: Path, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    steps_ms = [20, 60, 40, 30, 50] * 5
    with av.open(str(tmp_path / "v/vfr.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 256
        stream.pix_fmt, time_ms = "yuv420p", 0
        stream.codec_context.time_base = Fraction(1, 1000)
        for frame, step_ms in zip(iter_frames(example_videos / "id0001/0001.mp4"), steps_ms, strict=True):
            picture = av.VideoFrame.from_ndarray(frame.image, format="rgb24")
            picture.pts, picture.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(picture))
            time_ms += step_ms
        container.mux(stream.encode(None))
    assert probe(tmp_path / "v/vfr.mkv", with_times=True).is_variable_rate is True
    assert probe(tmp_path / "v/vfr.mkv").is_variable_rate is None
    write_wav(tmp_path / "a/vfr.wav", np.zeros(16000, np.float32), 16000)
    assert run(tmp_path / "v", tmp_path / "out", audios=tmp_path / "a") == 0
    row = rows(tmp_path / "out")["vfr.mkv"]
    assert "variable frame rate repaired" in row["note"]
    assert int(row["num_frames"]) == pytest.approx(25, abs=1)


@pytest.mark.parametrize("rate_hz", [24.0, 30000 / 1001, 60.0])
def test_constant_rates_are_not_called_variable(tmp_path: Path, rate_hz: float) -> None:
    write_video(tmp_path / "x.mp4", [np.zeros((32, 32, 3), np.uint8)] * 50, rate_hz)
    assert probe(tmp_path / "x.mp4", with_times=True).is_variable_rate is False
    with av.open(str(tmp_path / "x.mp4")) as inp, av.open(str(tmp_path / "x.mkv"), "w") as out:
        stream = out.add_stream_from_template(inp.streams.video[0])
        for packet in inp.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    info = probe(tmp_path / "x.mkv", with_times=True)
    assert info.is_variable_rate is False  # times rounded to the millisecond


@pytest.mark.parametrize(
    ("name", "pattern", "speaker"),
    [
        ("p1/day/a.mp4", "", "p1"),
        ("a.mp4", "", ""),
        ("p1/s3_a.mp4", r"/(s\d)_", "s3"),
        ("a.mp4", "(x)?a", ""),
    ],
)
def test_speaker_comes_from_folder_or_expression(name: str, pattern: str, speaker: str) -> None:
    assert speaker_of(name, pattern) == speaker


def test_dry_run_writes_nothing(
    example_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short_clip(example_videos / "id0001/0001.mp4", tmp_path / "v/a.mp4")
    assert run(tmp_path / "v", tmp_path / "out", "--dry_run") == 0
    assert "1 to do" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_bad_folders_and_settings_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "v").mkdir()
    shutil.copy(tmp_path / "file", tmp_path / "v/a.mp4")
    cases = [
        (tmp_path / "none", tmp_path / "out", [], "no such folder"),
        (tmp_path / "empty", tmp_path / "out", [], "nothing below"),
        (tmp_path / "v", tmp_path / "file", [], "is a file"),
        (tmp_path / "v", tmp_path / "out", ["--set", "data.max_faces=0"], "data.max_faces"),
        (tmp_path / "v", tmp_path / "out", ["--config", str(tmp_path / "no.yaml")], "no.yaml"),
    ]
    for videos, output, options, reason in cases:
        assert run(videos, output, "--workers", "0", *options) == 2
        error = capsys.readouterr().err
        assert reason in error
        assert error.count("\n") == 1


def test_program_runs_as_a_script_with_a_worker_process(
    example_videos: Path, repository: Path, tmp_path: Path
) -> None:
    for person in ("id0001", "id0002"):
        short_clip(example_videos / person / "0001.mp4", tmp_path / f"data/videos/{person}.mp4")
    command = [sys.executable, str(repository / "lipsync/data_processing.py"), *FAST, "--workers", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "data/processed").glob("*.npz"))) == 2
    assert not list((tmp_path / "data/processed").glob("**/*.tmp"))


@pytest.mark.real_data
def test_real_clips_are_all_used(real_data_dir: Path, tmp_path: Path) -> None:
    names = ("grid_swiz3n.mpg", "retalking_1.mp4", "multi_short_hamilton_clip.mp4")
    (tmp_path / "v").mkdir()
    for name in names:
        (tmp_path / "v" / name).symlink_to(real_data_dir / "talking" / name)
    assert run(tmp_path / "v", tmp_path / "out", "--set", "data.max_duration_s=4") == 0
    found = rows(tmp_path / "out")
    assert all(row["status"] == "done" for row in found.values())
    assert all(float(found[name]["face_share"]) == 1 for name in names[:2])
    assert "variable" in found["retalking_1.mp4"]["note"]
    assert "the first 4 s of" in found["retalking_1.mp4"]["note"]
    assert int(found["multi_short_hamilton_clip.mp4"]["num_shots"]) > 3  # an edited scene
    size_mb = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.npz")) / 1e6
    minutes = sum(float(row["duration_s"]) for row in found.values()) / 60
    assert size_mb / minutes < 15  # 1,000 clips of half a minute: below 8 GB


def test_summary_is_in_the_manifest(example_videos: Path, tmp_path: Path) -> None:
    short_clip(example_videos / "id0001/0001.mp4", tmp_path / "v/a.mp4")
    assert run(tmp_path / "v", tmp_path / "out") == 0
    lines = (tmp_path / "out/manifests/data_processing.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "last.json").write_text(lines[-1], encoding="utf-8")
    assert read_json(tmp_path / "last.json")["run"]["done"] == 1


def test_second_run_into_the_folder_is_refused_and_the_first_goes_on(
    example_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(example_videos / "id0001", tmp_path / "v")
    process, codes = ClipTask.process, []

    def meanwhile(self: ClipTask, item: Item) -> Outcome:
        if not codes:
            codes.append(run(tmp_path / "v", tmp_path / "out", "--workers", "0"))
        return process(self, item)

    monkeypatch.setattr(ClipTask, "process", meanwhile)
    assert run(tmp_path / "v", tmp_path / "out") == 0
    assert codes == [2]
    said = capsys.readouterr().err
    assert f"{tmp_path / 'out'}: another run is writing there" in said
    assert said.count("error") == said.count("\n") == 1
    assert rows(tmp_path / "out")["0001.mp4"]["status"] == "done"


@pytest.mark.parametrize("folder", ["below a file", "/proc/clips", "full"])
def test_folder_that_cannot_be_written_is_one_line(
    example_videos: Path,
    tmp_path: Path,
    fill_disk: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
    folder: str,
) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    shutil.copytree(example_videos / "id0001", tmp_path / "v")
    places = {"below a file": tmp_path / "file" / "out", "full": tmp_path / "out"}
    output = places.get(folder, Path(folder))
    if folder == "full":
        fill_disk(output)
    assert run(tmp_path / "v", output, "--workers", "0") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "fault of facevox" not in error
    if folder == "full":
        assert "No space left on device" in error
        assert not list(output.rglob("*.npz"))
    else:
        assert str(output) in error


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_disk_that_is_full_in_the_middle_is_one_line_and_the_next_run_goes_on(
    example_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for person in ("id0001", "id0002"):
        (tmp_path / "v").mkdir(exist_ok=True)
        shutil.copy(example_videos / person / "0001.mp4", tmp_path / "v" / f"{person}.mp4")
    plain, full = Path.open, []

    def opened(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        is_clip = self.suffix == ".tmp" and mode == "wb" and self.parent == tmp_path / "out"
        if is_clip and (tmp_path / "out/id0001.npz").exists() and not full:
            full.append(self)
            return plain(Path("/dev/full"), mode)
        return plain(self, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", opened)
    assert run(tmp_path / "v", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert "run the same command again to continue" in error
    assert error.count("error:") == 1
    gc.collect()  # whatever was left open would complain now
    assert capsys.readouterr().err == ""
    assert run(tmp_path / "v", tmp_path / "out") == 0
    assert "1 done, 1 skipped" in capsys.readouterr().out
