"""How often inference.py opens a file: each look at a long video costs its reading or its decoding anew."""

from collections import Counter
from pathlib import Path
from typing import Any

import av
import pytest
from talking_clips import RATE_HZ, make_talking, shifted, voice_of

from facevox import cli
from facevox.media import write_wav
from lipsync import inference
from lipsync.clips.tracks import FaceTracker


@pytest.fixture(scope="module")
def talking(load_script, tmp_path_factory) -> tuple[Path, ...]:
    return make_talking(load_script, tmp_path_factory)


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was opened for reading, by name, and how many pictures were looked at for faces."""
    counts: Counter[str] = Counter()
    plain_open, plain_update = av.open, FaceTracker.update

    def counted_open(file: Any, mode: str = "r", **options: Any) -> Any:
        if mode == "r":
            counts[Path(file).name] += 1
        return plain_open(file, mode, **options)

    def counted_update(self: FaceTracker, *image: Any) -> Any:
        counts["pictures"] += 1
        return plain_update(self, *image)

    monkeypatch.setattr(av, "open", counted_open)
    monkeypatch.setattr(FaceTracker, "update", counted_update)
    return counts


def run(*arguments: object) -> int:
    return cli.run(inference.main, [str(argument) for argument in arguments])


SHORT = ("--set", "data.max_duration_s=2")


def test_score_looks_at_headers_sound_and_pictures_once_each(
    talking: tuple[Path, ...], tmp_path: Path, opens: Counter[str]
) -> None:
    video, sound = talking[0], tmp_path / "voice.wav"
    write_wav(sound, voice_of(video), RATE_HZ)
    opens.clear()
    assert run("--video", video, "--json", *SHORT) == 0
    assert opens == {video.name: 3, "pictures": 50}
    opens.clear()
    assert run("--video", video, "--audio", sound, *SHORT) == 0
    assert opens == {video.name: 2, sound.name: 1, "pictures": 50}


def test_batch_looks_at_headers_sound_and_pictures_once_each(
    talking: tuple[Path, ...], tmp_path: Path, opens: Counter[str]
) -> None:
    (tmp_path / "pairs.csv").write_text(f"video\n{talking[0]}\n", encoding="utf-8")
    options = ("--batch", tmp_path / "pairs.csv", "--output_dir", tmp_path / "out", "--debug")
    assert run(*options, *SHORT) == 0
    assert opens == {talking[0].name: 3, "pictures": 50}


def test_repair_with_a_plot_follows_the_faces_of_input_and_result_once(
    talking: tuple[Path, ...], tmp_path: Path, opens: Counter[str]
) -> None:
    video, sound = talking[0], tmp_path / "voice.wav"
    write_wav(sound, shifted(voice_of(video), 200), RATE_HZ)
    opens.clear()
    options = ("--output", tmp_path / "fixed.mp4", "--plot", tmp_path / "sync.svg")
    assert run("--video", video, "--audio", sound, *options) == 0
    assert opens == {
        video.name: 4,  # headers, pictures; the first picture's time, the copy of its packets
        sound.name: 2,  # sound; the sound that is shifted
        "corrected.mp4": 5,  # headers, sound, pictures; the last two counted as well
        "pictures": 300,
    }
