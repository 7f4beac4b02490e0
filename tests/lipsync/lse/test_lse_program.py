"""inference.py --metric lse, with random weights: the numbers mean nothing, all else is checked."""

import csv
import json
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from bad_media import write_sound_only
from brightness_net import BrightnessNet, flicker, flickering_sound
from talking_clips import RATE_HZ, make_talking, pictures_of, shifted, voice_of

from facevox import cli
from facevox.media import write_video, write_wav
from lipsync import inference
from lipsync.lse import scorer
from lipsync.lse.report import COLUMNS, summary_lines
from lipsync.lse.scorer import LseScorer
from lipsync.settings import load_settings

NUM_FRAMES = 45


@pytest.fixture(scope="module")
def talking(load_script: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 1.8 s of an example person who talks."""
    video = make_talking(load_script, tmp_path_factory)[0]
    path = tmp_path_factory.mktemp("lse") / "a talk.mp4"
    write_video(path, pictures_of(video)[:NUM_FRAMES], 25, voice_of(video)[: NUM_FRAMES * 640], RATE_HZ)
    return path


def run(*arguments: object) -> int:
    return cli.run(inference.main, ["--metric", "lse", *map(str, arguments)])


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    message = capsys.readouterr().err
    assert message.count("\n") == 1, message
    return message


def test_clip_has_numbers_in_json_and_in_lines(
    random_weights: Path, talking: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--video", talking, "--syncnet", random_weights, "--json") == 0
    output = capsys.readouterr().out
    assert output.count("\n") == 1
    details = json.loads(output)
    assert (details["num_frames"], details["num_windows"], details["reason"]) == (45, 40, "")
    assert math.isfinite(details["lse_c"])
    assert details["lse_d"] > 0
    assert details["offset_ms"] == 40 * details["offset_frames"]
    assert len(details["syncnet_sha256"]) == 64
    (face,) = details["faces"]
    assert face["face"] == details["face"]
    assert {key: face[key] for key in ("lse_c", "lse_d", "num_windows")} == {
        key: details[key] for key in ("lse_c", "lse_d", "num_windows")
    }
    assert (face["start_s"], face["end_s"]) == (0.0, 1.8)
    lines = summary_lines(details)
    assert lines[0] == f"LSE-C: {details['lse_c']:.3f} (confidence: higher is better)"
    assert lines[1] == f"LSE-D: {details['lse_d']:.3f} (distance: lower is better)"
    assert lines[3] == "windows: 40"


def test_offset_of_a_face_that_comes_later_is_that_of_its_sound(
    talking: Path, tmp_path: Path, random_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture flickers with the loudness; a network that sees no more than that finds the shift."""
    monkeypatch.setattr(scorer, "load_syncnet", lambda file, device: BrightnessNet())
    brightness = flicker(75)
    images = [
        np.full_like(pictures_of(talking)[0], 90) if number < 15 else flickering_picture
        for number, flickering_picture in enumerate(
            (pictures_of(talking)[0] * value).astype(np.uint8) for value in brightness
        )
    ]
    video, sound = tmp_path / "later.mp4", tmp_path / "early.wav"
    write_video(video, images, 25, np.zeros(75 * 640, np.float32), RATE_HZ)
    write_wav(sound, shifted(flickering_sound(brightness), 120), RATE_HZ)
    faces, details = LseScorer(random_weights).analyse(video, sound)
    assert details["offset_frames"] == 3
    assert details["offset_ms"] == 120
    assert faces[0].boxes.start >= 15
    assert details["num_windows"] == len(faces[0].boxes) - 5


@pytest.mark.slow
def test_batch_writes_a_table_a_json_a_pair_and_resumes(
    random_weights: Path, talking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = [np.full((96, 96, 3), 120, np.uint8)] * 40
    write_video(tmp_path / "grey.mp4", grey, 25, np.zeros(40 * 640, np.float32), RATE_HZ)
    write_sound_only(tmp_path / "sound.mp4")
    (tmp_path / "pairs.csv").write_text(f"video\n{talking}\ngrey.mp4\nsound.mp4\n", encoding="utf-8")
    options = ("--batch", tmp_path / "pairs.csv", "--output_dir", tmp_path / "out", "--workers", "0")
    assert run(*options, "--syncnet", random_weights) == 1
    rows = list(csv.DictReader((tmp_path / "out/lse.csv").open(encoding="utf-8")))
    assert list(rows[0])[: len(COLUMNS)] == list(COLUMNS)
    assert [row["status"] for row in rows] == ["done", "done", "failed"]
    assert [row["num_windows"] for row in rows] == ["40", "0", ""]
    assert (rows[1]["lse_c"], rows[1]["reason"]) == ("", "no face is seen")
    assert "no video stream" in rows[2]["reason"]
    details = json.loads((tmp_path / "out" / rows[0]["json_file"]).read_text(encoding="utf-8"))
    assert float(rows[0]["lse_d"]) == details["lse_d"]
    capsys.readouterr()
    assert run(*options, "--syncnet", random_weights, "--max_failed", "0.5") == 0
    # The folder holds one kind of result.
    code = cli.run(inference.main, [str(option) for option in options])
    assert code == 2
    assert "metric was lse, is sync" in one_line(capsys)


def test_clips_without_an_answer_have_the_reason_and_exit_code_1(
    talking: Path, tmp_path: Path, random_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(scorer, "load_syncnet", lambda file, device: BrightnessNet())
    images, voice = pictures_of(talking), voice_of(talking)
    grey = [np.full_like(images[0], 120)] * NUM_FRAMES
    clips = {
        "no face is seen": (grey, voice),
        "0.80 s of sound; 1.44 s are needed": (images, voice[: 20 * 640]),
        "for 1.44 s on end; the longest: 0.": ([*images[:20], *grey[:25]], voice),
    }
    for reason, (pictures, samples) in clips.items():
        write_video(tmp_path / "x.mp4", pictures, 25, np.zeros(1600, np.float32), RATE_HZ)
        write_wav(tmp_path / "x.wav", samples, RATE_HZ)
        one = ("--video", tmp_path / "x.mp4", "--audio", tmp_path / "x.wav", "--syncnet", random_weights)
        assert run(*one, "--json") == 1
        details = json.loads(capsys.readouterr().out)
        assert reason in details["reason"]
        assert (details["lse_c"], details["lse_d"], details["face"], details["faces"]) == (
            None,
            None,
            None,
            [],
        )
        assert run(*one) == 1
        assert f"LSE-C and LSE-D: unknown: {details['reason']}\n" in capsys.readouterr().out


def test_missing_weights_are_one_line_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FACEVOX_SYNCNET", raising=False)
    for options in (("--video", "no such video.mp4"), ("--batch", "no such table.csv")):
        assert run(*options) == 2
        message = one_line(capsys)
        assert "robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model" in message
        assert "put it at models/syncnet_v2.model" in message
    (tmp_path / "x.model").write_bytes(b"\x80\x02}")
    assert run("--video", "no such video.mp4", "--syncnet", "x.model") == 2
    assert "no file of SyncNet's weights" in one_line(capsys)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--checkpoint", "x.pth"), "--checkpoint does not go with --metric lse"),
        (("--output", "x.mp4"), "--output does not go with --metric lse"),
        (("--plot", "x.png"), "--plot does not go with --metric lse"),
        (("--method", "untrained"), "--method does not go with --metric lse"),
        (("--metric", "sync", "--syncnet", "x.model"), "--syncnet goes with --metric lse"),
        (("--metric", "lse-c"), "invalid choice"),
    ],
)
def test_options_that_exclude_each_other_are_one_line(
    options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--video", "x.mp4", *options) == 2
    assert words in one_line(capsys)


def test_broken_and_soundless_files_are_one_line(
    talking: Path, tmp_path: Path, random_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.mp4").write_bytes(b"no video")
    write_video(tmp_path / "silent.mp4", pictures_of(talking)[:3], 25)
    for name, words in (("x.mp4", "not a readable media file"), ("silent.mp4", "no sound; name a sound")):
        assert run("--video", tmp_path / name, "--syncnet", random_weights) == 2
        assert words in one_line(capsys)


def test_longest_duration_and_end_of_the_search_are_warned_of(
    talking: Path, random_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(BrightnessNet):
        """Sound that is nearer the later it is: its energy is not read."""

        def sound_features(self, mfcc_NKR: Any) -> Any:
            return mfcc_NKR.new_zeros(len(mfcc_NKR), 1024) + 50.0

        def lip_features(self, frames_F3HW: Any) -> Any:
            return frames_F3HW.new_zeros(len(frames_F3HW) - 4, 1024)

    monkeypatch.setattr(scorer, "load_syncnet", lambda file, device: cast(Any, Late()))
    settings = load_settings(None, ["data.max_duration_s=1.5"])
    _, details = LseScorer(random_weights, settings=settings).analyse(talking)
    # The zeros outside are nearest, and most of them are at the ends of the search.
    assert abs(details["offset_frames"]) == 15
    assert details["num_frames"] == 38
    assert any("end of the search" in text for text in details["warnings"])
