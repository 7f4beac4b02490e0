"""The program extract_voices.py."""

import csv
import re
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from bad_media import AWKWARD_NAMES, write_broken_videos, write_silent_video

from facevox import cli
from facevox.media import read_audio, write_video


@pytest.fixture
def script(load_script) -> ModuleType:  # type: ignore[no-untyped-def]
    return load_script("preprocessing/extract_voices")


def run(script: ModuleType, source: Path, out: Path, *options: str) -> int:
    where = () if "--workers" in options else ("--debug",)  # in this process, unless workers are asked for
    return cli.run(script.main, ["--dataset_path", str(source), "--output_dir", str(out), *where, *options])


def table_of(out: Path) -> dict[str, dict[str, str]]:
    with (out / "voices.csv").open(encoding="utf-8", newline="") as file:
        return {row["video"]: row for row in csv.DictReader(file)}


def test_each_video_gives_a_wav_at_the_same_place(
    script: ModuleType, example_videos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "voices"
    assert run(script, example_videos, out, "--workers", "2") == 0
    videos = sorted(path.relative_to(example_videos) for path in example_videos.rglob("*.mp4"))
    wavs = sorted(path.relative_to(out) for path in out.rglob("*.wav"))
    assert [path.with_suffix(".mp4") for path in wavs] == videos
    assert {row["status"] for row in table_of(out).values()} == {"done"}
    spoken = example_videos.parent / "voices"
    for wav in wavs[:3]:
        original, written = read_audio(spoken / wav), read_audio(out / wav)
        length = min(len(original), len(written))
        lags = range(-160, 161)
        fits = [np.corrcoef(np.roll(written[:length], lag), original[:length])[0, 1] for lag in lags]
        # AAC is not lossless, but it must not move: the wav lies on the original to the sample.
        assert abs(lags[int(np.argmax(fits))]) <= 1
        assert max(fits) > 0.95


def test_trimmed_voice_is_shorter_and_says_where_it_began(
    script: ModuleType, example_videos: Path, tmp_path: Path
) -> None:
    sound = np.zeros(3 * 16000, np.float32)
    speech = read_audio(next(example_videos.rglob("*.mp4")))[:16000]
    sound[16000 : 16000 + len(speech)] = speech
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "x.mp4", [np.zeros((64, 64, 3), np.uint8)] * 75, 25, sound)
    assert run(script, tmp_path / "in", tmp_path / "out", "--trim_silence") == 0
    row = table_of(tmp_path / "out")["x.mp4"]
    assert float(row["duration_s"]) < 1.5
    assert 0.85 < float(row["start_s"]) < 1.6


def test_bad_videos_are_recorded_and_end_nothing(
    script: ModuleType, example_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = next(example_videos.rglob("*.mp4"))
    source = tmp_path / "in"
    reasons = write_broken_videos(source, good) | {"silent.mp4": "no audio stream"}
    write_silent_video(source / "silent.mp4")
    for name in AWKWARD_NAMES:
        shutil.copy(good, source / name)
    (source / "loop").symlink_to(source)
    assert run(script, source, tmp_path / "out") == 1
    table = table_of(tmp_path / "out")
    assert {name for name, row in table.items() if row["status"] == "done"} == set(AWKWARD_NAMES)
    for name, reason in reasons.items():
        assert re.search(reason, table[name]["reason"]), name
    assert f"{len(reasons)} failed" in capsys.readouterr().out


def test_two_videos_of_one_stem_both_keep_their_voice(
    script: ModuleType, example_videos: Path, tmp_path: Path
) -> None:
    first, second = sorted(example_videos.rglob("*.mp4"))[:2]
    (tmp_path / "in").mkdir()
    shutil.copy(first, tmp_path / "in" / "v.mp4")
    shutil.copy(second, tmp_path / "in" / "v.m4v")
    assert run(script, tmp_path / "in", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("*.wav"))) == 2


def test_two_videos_of_the_longest_stem_both_keep_their_voice(
    script: ModuleType, example_videos: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for suffix in (".mp4", ".m4v"):
        shutil.copy(next(example_videos.rglob("*.mp4")), tmp_path / "in" / ("v" * 251 + suffix))
    assert run(script, tmp_path / "in", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("*.wav"))) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset_path", "nowhere"], "no such folder"),
        (["--target_sr", "10"], "4000 to 192000"),
        (["--video_extensions", "*.xyz"], "nothing below"),
        (["--num_shards", "2", "--shard_index", "2"], "numbered 0 to 1"),
    ],
)
def test_bad_usage_is_one_line_with_code_2(
    script: ModuleType,
    example_videos: Path,
    tmp_path: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(script, example_videos, tmp_path / "out", "--workers", "0", *options) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.splitlines()) == 1


def test_output_folder_that_is_a_file_is_refused(
    script: ModuleType, example_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("x", encoding="utf-8")
    assert run(script, example_videos, tmp_path / "out") == 2
    assert "is a file" in capsys.readouterr().err


@pytest.mark.real_data
def test_every_real_clip_with_sound_gives_a_voice(
    script: ModuleType, real_data_dir: Path, tmp_path: Path
) -> None:
    source = real_data_dir / "talking"
    assert run(script, source, tmp_path / "out", "--workers", "2") == 0
    rows = table_of(tmp_path / "out")
    assert len(rows) == 25
    for row in rows.values():
        assert float(row["speech_share"]) > 0.2
        assert float(row["duration_s"]) > 2


def test_folder_filled_with_fewer_suffixes_is_continued(
    script: ModuleType, example_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sorted(example_videos.rglob("*.mp4"))[:2]
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    shutil.copy(first, source / "v.mp4")
    shutil.copy(second, source / "v.3gp")  # sorted before v.mp4, which has had v.wav all along
    assert run(script, source, out, "--video_extensions", "*.mp4", "*.mov", "*.mkv", "*.avi") == 0
    assert "left out: 1 .3gp (--video_extensions takes them)" in capsys.readouterr().out
    before = (out / "v.wav").stat()
    assert run(script, source, out) == 0
    assert "1 done, 1 skipped" in capsys.readouterr().out
    assert (out / "v.wav").stat().st_mtime_ns == before.st_mtime_ns
    rows = table_of(out)
    assert {name: row["voice_file"] for name, row in rows.items()} == {"v.mp4": "v.wav", "v.3gp": "v_3gp.wav"}
    assert (out / "v_3gp.wav").read_bytes() != (out / "v.wav").read_bytes()
