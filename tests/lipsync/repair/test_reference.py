"""`inference.py --batch DIR --reference master.wav`: the table, the timelines, resuming, and bad usage."""

import csv
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from bad_media import write_silent_video

from facevox import cli
from facevox.media import write_video, write_wav
from facevox_demo.other_recorders import RATE_HZ, Recorder, synthetic_talk
from lipsync import inference

STARTS_S = {"a.mp4": 5.0, "day 2/b, <late>.mp4": 22.52}
PLACES = {"a.mp4": "1", "day 2/b, <late>.mp4": "2"}  # lanes: they overlap
LENGTH_S = 20.0


def run(*arguments: object) -> int:
    return cli.run(inference.main, [str(argument) for argument in arguments])


def write_talk(path: Path, sound: np.ndarray, rate_hz: float = 25.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.zeros((32, 48, 3), np.uint8)
    write_video(path, [picture] * round(len(sound) / RATE_HZ * rate_hz), rate_hz, sound, RATE_HZ)


@pytest.fixture(scope="module")
def shoot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with master.wav, and below `videos` two clips of it, one of other talk, one without sound."""
    folder = tmp_path_factory.mktemp("shoot")
    talk = synthetic_talk(60.0, 0)
    write_wav(folder / "master.wav", talk, RATE_HZ)
    rng = np.random.default_rng(0)
    for name, start_s in STARTS_S.items():
        first = round(start_s * RATE_HZ)
        part = talk[first : first + int(LENGTH_S * RATE_HZ)]
        recorder = Recorder(snr_db=15, has_gain_control=True)
        write_talk(folder / "videos" / name, recorder.record(part, rng), 30000 / 1001)
    write_talk(folder / "videos/other.mp4", synthetic_talk(12.0, 99))
    write_silent_video(folder / "videos/silent.mp4")
    return folder


def rows_of(output_dir: Path) -> dict[str, dict[str, str]]:
    with (output_dir / "alignment.csv").open(encoding="utf-8", newline="") as file:
        return {row["video"]: row for row in csv.DictReader(file)}


def check_results(output_dir: Path) -> None:
    rows = rows_of(output_dir)
    assert set(rows) == {*STARTS_S, "other.mp4", "silent.mp4"}
    for name, start_s in STARTS_S.items():
        row = rows[name]
        assert (row["status"], row["is_aligned"], row["reason"]) == ("done", "1", "")
        assert float(row["start_s"]) == pytest.approx(start_s, abs=0.001)
        assert float(row["end_s"]) == pytest.approx(start_s + float(row["sound_s"]), abs=0.001)
        assert float(row["confidence"]) > 0.99
        assert (row["width"], row["height"]) == ("48", "32")
    other = rows["other.mp4"]
    assert (other["status"], other["is_aligned"], other["start_s"]) == ("done", "0", "")
    assert other["reason"] == "no place in the reference stands out"
    assert (rows["silent.mp4"]["status"], rows["silent.mp4"]["is_aligned"]) == ("failed", "")
    assert "no sound" in rows["silent.mp4"]["reason"]
    edl = (output_dir / "alignment.edl").read_text(encoding="utf-8")
    assert re.findall(r"FROM CLIP NAME: (.*)", edl) == [Path(name).name for name in STARTS_S]
    items = ET.parse(output_dir / "alignment.fcpxml").getroot().findall(".//asset-clip")
    assert [item.get("name") for item in items] == ["master.wav", *(Path(name).name for name in STARTS_S)]
    assert [item.get("lane") for item in items] == ["-1", *PLACES.values()]
    assert items[1].get("offset") == "1001/200s"  # 150 frames of 29.97


def test_folder_is_aligned_and_a_second_run_only_writes_the_timelines(
    shoot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--batch", shoot / "videos", "--reference", shoot / "master.wav", "--max_failed", 0.5)
    assert run(*options, "--output_dir", tmp_path, "--workers", 2) == 0
    check_results(tmp_path)
    first = (tmp_path / "alignment.csv").read_bytes()
    for name in ("alignment.csv", "alignment.edl", "alignment.fcpxml"):
        (tmp_path / name).unlink()
    capsys.readouterr()
    assert run(*options, "--output_dir", tmp_path, "--debug") == 0
    check_results(tmp_path)
    assert (tmp_path / "alignment.csv").read_bytes() == first
    assert "0 done, 3 skipped" in capsys.readouterr().out  # the one that failed is tried again
    assert run(*options, "--output_dir", tmp_path, "--debug", "--timeline_fps", "24") == 0
    assert 'frameDuration="1/24s"' in (tmp_path / "alignment.fcpxml").read_text(encoding="utf-8")


def test_shards_are_joined_by_the_same_command_without_shards(shoot: Path, tmp_path: Path) -> None:
    options = ["--batch", shoot / "videos", "--reference", shoot / "master.wav", "--max_failed", 1]
    options += ["--output_dir", tmp_path, "--debug"]
    for shard in (0, 1):
        assert run(*options, "--num_shards", 2, "--shard_index", shard) == 0
        assert not (tmp_path / "alignment.edl").exists()
    assert run(*options) == 0
    check_results(tmp_path)


def test_other_master_makes_all_again_and_no_clip_on_it_ends_in_1(
    shoot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    master = tmp_path / "master.wav"
    shutil.copy(shoot / "master.wav", master)
    options = ("--batch", shoot / "videos", "--reference", master, "--max_failed", 1, "--debug")
    assert run(*options, "--output_dir", tmp_path / "out") == 0
    assert (tmp_path / "out/alignment.edl").exists()
    write_wav(master, synthetic_talk(50.0, 5), RATE_HZ)
    assert run(*options, "--output_dir", tmp_path / "out") == 1
    assert {row["is_aligned"] for row in rows_of(tmp_path / "out").values()} == {"0", ""}
    assert not (tmp_path / "out/alignment.edl").exists()
    assert not (tmp_path / "out/alignment.fcpxml").exists()
    assert "0 of 4 videos are aligned" in capsys.readouterr().out


def test_dry_run_writes_nothing(shoot: Path, tmp_path: Path) -> None:
    options = ("--batch", shoot / "videos", "--reference", shoot / "master.wav", "--debug", "--dry_run")
    assert run(*options, "--output_dir", tmp_path / "out") == 0
    assert not (tmp_path / "out").exists()


def test_bad_usage_and_bad_files_end_in_one_line_and_2(shoot: Path, tmp_path: Path, capsys) -> None:
    write_wav(tmp_path / "silent.wav", np.zeros(4 * RATE_HZ, np.float32), RATE_HZ)
    (tmp_path / "pairs.csv").write_text(f"video,audio\n{shoot}/videos/a.mp4,{shoot}/master.wav\n")
    (tmp_path / "alone").mkdir()
    shutil.copy(shoot / "videos/a.mp4", tmp_path / "alone")
    folder, master = ("--batch", shoot / "videos"), shoot / "master.wav"
    for arguments, message in (
        (("--video", "a.mp4", "--reference", master), "--reference goes with --batch"),
        ((*folder, "--timeline_fps", "25"), "--timeline_fps goes with --reference"),
        ((*folder, "--reference", master, "--checkpoint", "x"), "--checkpoint does not go with --reference"),
        ((*folder, "--reference", tmp_path / "none.wav"), "none.wav: no such file"),
        ((*folder, "--reference", tmp_path / "silent.wav"), "silent.wav: its sound is silent"),
        ((*folder, "--reference", tmp_path / "pairs.csv"), "pairs.csv: not a readable media file"),
        (("--batch", tmp_path / "pairs.csv", "--reference", master), "leave the column audio empty"),
        (
            ("--batch", tmp_path / "alone", "--reference", tmp_path / "alone/a.mp4"),
            "nothing but the reference",
        ),
    ):
        assert run(*arguments) == 2, arguments
        lines = capsys.readouterr().err
        assert message in lines
        assert lines.count("\n") == 1
