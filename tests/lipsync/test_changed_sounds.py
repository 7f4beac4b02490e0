"""A sound file that is added, replaced or taken away later: its clip, or its pair, is done again."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facevox import cli
from facevox.media import read_audio, write_wav
from lipsync import data_processing, inference
from lipsync.clips import clip_task as preprocessing
from lipsync.clips.clip_files import load_clip
from lipsync.inference import LipSyncInference

RATE_HZ = 16_000


@pytest.fixture
def videos(example_videos: Path, tmp_path: Path) -> Path:
    for person in ("id0001", "id0002"):
        (tmp_path / "v" / person).mkdir(parents=True)
        shutil.copy(example_videos / person / "0001.mp4", tmp_path / "v" / person / "a.mp4")
    return tmp_path / "v"


def process(videos: Path, audios: Path, output: Path) -> int:
    paths = {"videos_dir": videos, "processed_dir": output, "audios_dir": audios}
    settings = [part for key, path in paths.items() for part in ("--set", f"paths.{key}={path}")]
    settings += ["--set", "data.max_faces=1", "--set", "data.min_duration_s=0.5", "--debug"]
    return cli.run(data_processing.main, settings)


def test_sound_that_is_added_replaced_or_taken_away_later_is_noticed(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audios, output = tmp_path / "a", tmp_path / "out"
    quiet = np.zeros(RATE_HZ, np.float32)
    voice = read_audio(videos / "id0002/a.mp4", RATE_HZ)[:RATE_HZ]
    write_wav(audios / "id0002/other.wav", quiet, RATE_HZ)

    def answer() -> tuple[str, str, float]:
        assert process(videos, audios, output) == 0
        said = capsys.readouterr().out.splitlines()[0]
        clip, names = load_clip(output / "id0001/a.npz")
        return said, names["audio"], float(clip.sound.log_mel.max())

    said, name, own_db = answer()
    assert ("2 done, 0 skipped" in said, name) == (True, "")
    write_wav(audios / "id0001/a.wav", quiet, RATE_HZ)
    said, name, loudest_db = answer()
    assert ("1 done, 1 skipped" in said, name) == (True, "id0001/a.wav")
    assert loudest_db < preprocessing.SILENCE_DB < own_db
    write_wav(audios / "id0001/a.wav", voice, RATE_HZ)  # of the same size
    said, _, loudest_db = answer()
    assert "1 done, 1 skipped" in said
    assert loudest_db > preprocessing.SILENCE_DB
    assert "0 done, 2 skipped" in answer()[0]
    (audios / "id0001/a.wav").unlink()
    said, name, loudest_db = answer()
    assert ("1 done, 1 skipped" in said, name) == (True, "")
    assert loudest_db == pytest.approx(own_db, abs=1e-4)


def test_pair_whose_sound_was_replaced_is_scored_again(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scored: list[str] = []
    analyse = LipSyncInference.analyse

    def noted(self: LipSyncInference, video: Any, audio: Any = None) -> Any:
        scored.append(Path(audio or video).name)
        return analyse(self, video, audio)

    monkeypatch.setattr(LipSyncInference, "analyse", noted)
    sound = tmp_path / "말 one.wav"
    voice = read_audio(videos / "id0001/a.mp4", RATE_HZ)
    write_wav(sound, voice, RATE_HZ)
    with (tmp_path / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [["video", "audio"], ["v/id0001/a.mp4", sound.name], ["v/id0002/a.mp4", ""]]
        csv.writer(file).writerows(rows)
    options = [
        "--batch",
        str(tmp_path / "pairs.csv"),
        "--output_dir",
        str(tmp_path / "out"),
        "--debug",
    ]
    assert cli.run(inference.main, options) == 0
    assert scored == [sound.name, "a.mp4"]
    write_wav(sound, np.zeros(len(voice), np.float32), RATE_HZ)
    assert cli.run(inference.main, options) == 0
    assert scored[2:] == [sound.name]
    assert "1 done, 1 skipped" in capsys.readouterr().out
    with (tmp_path / "out/sync.csv").open(newline="", encoding="utf-8") as file:
        assert "silent" in next(csv.DictReader(file))["text"]
