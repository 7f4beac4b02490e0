"""inference.py: scores, offsets, reasons and corrected files, for good input and for bad."""

import csv
import json
import math
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bad_media import AWKWARD_NAMES, write_broken_videos, write_silent_video, write_sound_only
from program_help import light_help
from talking_clips import (
    CLIP_S,
    RATE_HZ,
    features_of,
    make_talking,
    pictures_of,
    shifted,
    voice_of,
    write_film,
)

from facevox import cli
from facevox.media import read_audio, write_video, write_wav
from lipsync import inference
from lipsync.inference import LipSyncInference
from lipsync.settings import Settings
from lipsync.sync import verdicts

SHORT = 4 * 25  # pictures of the shapes below: enough to judge, quick to read


@pytest.fixture(scope="module")
def talking(load_script, tmp_path_factory) -> tuple[Path, ...]:
    return make_talking(load_script, tmp_path_factory)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, talking: tuple[Path, ...]) -> LipSyncInference:
    """Inference that reads the pictures of the talking clips once a session; the sound each time.

    Untrained: lips of the made-up people follow the loudness of their voices to the frame.
    """
    plain = LipSyncInference.read_clip

    def read_clip(self: LipSyncInference, video: Any, audio: Any = None, **options: Any) -> Any:
        if Path(video) not in talking:
            return plain(self, video, audio, **options)
        from lipsync.clips.sounds import sound_features

        return replace(features_of(Path(video)), sound=sound_features(read_audio(audio or video)))

    monkeypatch.setattr(LipSyncInference, "read_clip", read_clip)
    return LipSyncInference(method="untrained")


def run(*arguments: object) -> int:
    return cli.run(inference.main, [str(argument) for argument in arguments])


def one_line(capsys) -> str:
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


def test_clip_in_sync_scores_high_and_says_so(quick: LipSyncInference, talking: tuple[Path, ...]) -> None:
    score, details = quick.compute_sync_score(talking[0])
    assert score == details["score"] > 0.8
    assert abs(details["offset_ms"]) <= 20
    assert (details["verdict"], details["band"], details["reason"]) == ("in_sync", "not detectable", "")
    assert details["method"] == "untrained: mouth opening x loudness"
    assert (details["fps"], details["num_frames"], details["duration_s"]) == (25.0, 150, CLIP_S)
    assert details["warnings"] == []
    assert [face["is_speaking"] for face in details["faces"]] == [True]
    assert len(details["curve"]) == 6
    assert all(point["score"] > 0.5 for point in details["curve"][1:5])


@pytest.mark.parametrize("early_ms", [-300, -140, 120, 440])
def test_shifted_sound_is_found_to_20_ms(
    quick: LipSyncInference, talking: tuple[Path, ...], tmp_path: Path, early_ms: int
) -> None:
    audio = tmp_path / "voice.wav"
    write_wav(audio, shifted(voice_of(talking[1]), early_ms), RATE_HZ)
    score, details = quick.compute_sync_score(talking[1], audio)
    assert score < 0.2
    assert details["offset_ms"] == pytest.approx(early_ms, abs=20)
    assert details["offset_frames"] == pytest.approx(early_ms / 40, abs=0.5)
    low, high = details["offset_interval_ms"]
    assert low < early_ms < high
    assert details["verdict"] == ("audio_early" if early_ms > 0 else "audio_late")
    assert ("early" if early_ms > 0 else "late") in details["text"]


def test_voice_of_another_is_out_of_sync(quick: LipSyncInference, talking: tuple[Path, ...]) -> None:
    score, details = quick.compute_sync_score(talking[0], talking[1])
    assert score < 0.2
    assert details["verdict"] == "no_match"
    assert math.isnan(details["offset_ms"])
    assert details["reason"]


@pytest.mark.parametrize(
    ("name", "reason"), [("silence", "silent"), ("tone", "hardly changes"), ("moment", "0.50 s of sound")]
)
def test_sound_without_speech_cannot_be_told(
    quick: LipSyncInference, talking: tuple[Path, ...], tmp_path: Path, name: str, reason: str
) -> None:
    time_s = np.arange(round(CLIP_S * RATE_HZ)) / RATE_HZ
    sounds = {
        "silence": np.zeros(len(time_s)),
        "tone": 0.3 * np.sin(2 * np.pi * 300 * time_s),
        "moment": voice_of(talking[0])[: RATE_HZ // 2],
    }
    write_wav(tmp_path / "x.wav", sounds[name].astype(np.float32), RATE_HZ)
    score, details = quick.compute_sync_score(talking[0], tmp_path / "x.wav")
    assert math.isnan(score)
    assert (details["verdict"], details["curve"]) == ("cannot_tell", [])
    assert reason in details["reason"]


def test_no_face_still_mouth_and_a_moment_cannot_be_told(talking: tuple[Path, ...], tmp_path: Path) -> None:
    pictures, voice = pictures_of(talking[0]), voice_of(talking[0])
    grey = np.full_like(pictures[0], 120)
    films = {
        "no face": [grey] * 40,
        "stands still": [pictures[0]] * 40,
        "0.60 s of video": list(pictures[:15]),
    }
    for reason, images in films.items():
        write_video(tmp_path / "x.mp4", images, 25, voice[: 2 * RATE_HZ], RATE_HZ)
        score, details = LipSyncInference(method="untrained").compute_sync_score(tmp_path / "x.mp4")
        assert math.isnan(score)
        assert reason in details["reason"]


def test_longer_and_shorter_sound_is_said_and_does_no_harm(
    quick: LipSyncInference, talking: tuple[Path, ...], tmp_path: Path
) -> None:
    voice = voice_of(talking[0])
    for name, samples in (
        ("long", np.concatenate([voice, voice_of(talking[1])])),
        ("short", voice[: 4 * RATE_HZ]),
    ):
        write_wav(tmp_path / f"{name}.wav", samples, RATE_HZ)
        score, details = quick.compute_sync_score(talking[0], tmp_path / f"{name}.wav")
        assert score > 0.7
        assert abs(details["offset_ms"]) <= 20
        assert any("of sound" in warning for warning in details["warnings"])


def resampled(images: tuple[np.ndarray, ...], times_s: np.ndarray) -> list[np.ndarray]:
    return [images[min(round(time_s * 25), len(images) - 1)] for time_s in times_s]


@pytest.mark.parametrize(
    "rate_hz",
    [30000 / 1001, pytest.param(24.0, marks=pytest.mark.slow), pytest.param(60.0, marks=pytest.mark.slow)],
)
def test_other_frame_rates_give_the_same_offset(
    talking: tuple[Path, ...], tmp_path: Path, rate_hz: float
) -> None:
    times_s = np.arange(int(4 * rate_hz)) / rate_hz
    sound = shifted(voice_of(talking[0]), 160)[: 4 * RATE_HZ]
    write_video(tmp_path / "x.mp4", resampled(pictures_of(talking[0]), times_s), rate_hz, sound, RATE_HZ)
    _, details = LipSyncInference(method="untrained").compute_sync_score(tmp_path / "x.mp4")
    assert details["offset_ms"] == pytest.approx(160, abs=20)
    assert details["fps"] == pytest.approx(rate_hz, abs=0.01)
    assert details["offset_frames"] == pytest.approx(0.160 * rate_hz, abs=0.020 * rate_hz)


def test_uneven_frames_late_start_and_two_tracks_are_read_by_time(
    talking: tuple[Path, ...], tmp_path: Path
) -> None:
    """Variable rate, a start_time that is not 0, and a second sound track that must not be used."""
    times_s = np.cumsum(np.tile([0.033, 0.05, 0.04, 0.06, 0.028], 19))
    voice = voice_of(talking[0])[: round(times_s[-1] * RATE_HZ)]
    late_s = 0.7
    images = resampled(pictures_of(talking[0]), times_s)
    write_film(
        tmp_path / "x.mkv",
        images,
        times_s + late_s,
        [shifted(voice, -200), voice],
        sound_from_s=late_s,
    )
    _, details = LipSyncInference(method="untrained").compute_sync_score(tmp_path / "x.mkv")
    assert details["offset_ms"] == pytest.approx(-200, abs=25)
    assert any("variable frame rate" in warning for warning in details["warnings"])
    assert any("2 sound tracks" in warning for warning in details["warnings"])


def test_cut_between_speakers_is_one_clip(talking: tuple[Path, ...], tmp_path: Path) -> None:
    half = SHORT // 2 + 12
    images = [*pictures_of(talking[0])[:half], *pictures_of(talking[1])[:half]]
    samples = round(half / 25 * RATE_HZ)
    voice = np.concatenate([voice_of(video)[:samples] for video in talking])
    write_video(tmp_path / "cut.mp4", images, 25, shifted(voice, 200), RATE_HZ)
    _, details = LipSyncInference(method="untrained").compute_sync_score(tmp_path / "cut.mp4")
    assert details["offset_ms"] == pytest.approx(200, abs=20)
    assert [(face["start_s"], face["is_speaking"]) for face in details["faces"]] == [
        (0.0, True),
        (half / 25, True),
    ]


def test_the_speaking_one_of_two_faces_is_named(talking: tuple[Path, ...], tmp_path: Path) -> None:
    images = [np.hstack(pair) for pair in zip(*(pictures_of(v)[:SHORT] for v in talking), strict=True)]
    voice = voice_of(talking[1])[: 4 * RATE_HZ]
    write_video(tmp_path / "two.mp4", images, 25, voice, RATE_HZ)
    score, details = LipSyncInference(method="untrained").compute_sync_score(tmp_path / "two.mp4")
    right = next(face for face in details["faces"] if face["box_px"][0] > 256)
    left = next(face for face in details["faces"] if face["box_px"][0] < 256)
    assert (right["is_speaking"], left["is_speaking"]) == (True, False)
    assert details["speaking_face"] == right["face"]
    assert score > 0.7 > left["score"]


def test_jump_is_reported_with_its_place(
    quick: LipSyncInference, talking: tuple[Path, ...], tmp_path: Path, monkeypatch
) -> None:
    voice = [voice_of(video) for video in talking]
    samples = [voice[0], shifted(voice[1], 280)]
    write_wav(tmp_path / "x.wav", np.concatenate(samples), RATE_HZ)
    first, second = (features_of(video) for video in talking)
    track = first.tracks[0]
    joined = replace(
        track,
        lips=np.concatenate([track.lips, second.tracks[0].lips]),
        is_measured=np.concatenate([track.is_measured, second.tracks[0].is_measured]),
        opening=np.concatenate([track.opening, second.tracks[0].opening]),
        boxes_px=np.concatenate([track.boxes_px, second.tracks[0].boxes_px]),
    )
    plain = LipSyncInference.read_clip

    def read_clip(self: LipSyncInference, video: Any, audio: Any = None, **options: Any) -> Any:
        clip = plain(self, video, audio, **options)
        return replace(clip, tracks=(joined,), num_frames=300)

    monkeypatch.setattr(LipSyncInference, "read_clip", read_clip)
    _, details = quick.compute_sync_score(talking[0], tmp_path / "x.wav")
    assert details["jump"]["time_s"] == pytest.approx(6.0, abs=1.0)
    assert details["jump"]["after_ms"] - details["jump"]["before_ms"] == pytest.approx(280, abs=30)
    assert any("jumps" in warning for warning in details["warnings"])
    assert "asplit=2" in details["ffmpeg"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_corrected_file_is_in_sync_for_both_kinds_of_reader(
    quick: LipSyncInference, talking: tuple[Path, ...], tmp_path: Path, suffix: str
) -> None:
    audio, output = tmp_path / "voice.wav", tmp_path / f"fixed{suffix}"
    early_ms = 240 if suffix == ".mp4" else -160
    write_wav(audio, shifted(voice_of(talking[0]), early_ms), RATE_HZ)
    success, message = quick.sync_video_audio(talking[0], audio, output)
    assert success, message
    left = [int(number) for number in re.findall(r"([+-]\d+) ms", message)]
    assert len(left) == 2
    assert max(map(abs, left)) <= 20
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".wav"] == [output.name]
    written, original = read_audio(output, RATE_HZ), voice_of(talking[0])
    lags = np.arange(-800, 801, 4)
    middle = slice(2 * RATE_HZ, 4 * RATE_HZ)
    products = [np.dot(written[middle.start + lag : middle.stop + lag], original[middle]) for lag in lags]
    assert abs(lags[int(np.argmax(products))]) / RATE_HZ <= 0.020


def test_what_would_not_be_better_is_refused_with_the_reason(
    quick: LipSyncInference, talking: tuple[Path, ...], tmp_path: Path
) -> None:
    output = tmp_path / "fixed.mp4"
    success, message = quick.sync_video_audio(talking[0], None, output)
    assert (success, "in sync" in message) == (False, True)
    success, message = quick.sync_video_audio(talking[0], talking[1], output)
    assert (success, "not in sync" in message) == (False, True)
    assert list(tmp_path.iterdir()) == []


def test_correction_that_measures_wrong_is_thrown_away(talking: tuple[Path, ...], tmp_path: Path) -> None:
    from lipsync.repair.correction import NotBetterError, write_corrected
    from lipsync.sync.timing import Timing

    for left_ms, words in ((90.0, r"\+90 ms remain"), (math.nan, "no offset is found")):
        kind = verdicts.NO_MATCH if math.isnan(left_ms) else verdicts.AUDIO_EARLY
        rest = SimpleNamespace(verdict=verdicts.Verdict(kind, ""), offset_ms=left_ms)
        score = SimpleNamespace(judgement=rest, change=None, placed=None)
        with pytest.raises(NotBetterError, match=words):
            write_corrected(
                talking[0], None, tmp_path / "x.mp4", Timing(200.0), features_of, lambda _, s=score: s
            )
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_object_without_nan(
    quick: LipSyncInference, talking: tuple[Path, ...], tmp_path: Path, capsys
) -> None:
    write_wav(tmp_path / "s.wav", np.zeros(6 * RATE_HZ, np.float32), RATE_HZ)
    plot = tmp_path / "sync.png"
    code = run("--video", talking[0], "--audio", tmp_path / "s.wav", "--score-only", "--json", "--plot", plot)
    said = capsys.readouterr().out
    assert code == 1  # nothing can be told
    found = json.loads(said)
    assert said.count("\n") == 1
    assert (found["score"], found["offset_ms"], found["offset_interval_ms"]) == (None, None, [None, None])
    assert "silent" in found["reason"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_command_prints_score_and_writes_plot_and_video(
    quick: LipSyncInference, talking: tuple[Path, ...], tmp_path: Path, capsys
) -> None:
    audio, output, plot = tmp_path / "v.wav", tmp_path / "out.mp4", tmp_path / "sync.svg"
    write_wav(audio, shifted(voice_of(talking[0]), 200), RATE_HZ)
    options = ["--method", "untrained", "--output", output, "--plot", plot]
    assert run("--video", talking[0], "--audio", audio, *options) == 0
    said = capsys.readouterr().out
    assert re.search(r"verdict: audio (19|20|21)\d ms early", said)
    assert "method: untrained: mouth opening x loudness" in said
    assert output.stat().st_size > 10_000
    assert b"<svg" in plot.read_bytes()
    assert (
        run("--video", talking[0], "--audio", audio, "--output", tmp_path / "k.mp4", "--offset_ms", "200")
        == 0
    )
    assert (tmp_path / "k.mp4").exists()
    assert run("--video", talking[0], "--output", tmp_path / "no.mp4") == 1  # in sync already
    assert not (tmp_path / "no.mp4").exists()


def test_batch_writes_table_and_json_and_goes_on_where_it_stopped(
    quick: LipSyncInference, talking: tuple[Path, ...], tmp_path: Path, capsys
) -> None:
    table, output = tmp_path / "pairs.csv", tmp_path / "out"
    name = tmp_path / "보기 'a' \"b\".mp4"
    shutil.copy(talking[0], name)
    rows = [
        ["video", "audio"],
        [str(talking[0]), ""],
        [str(talking[0]), str(talking[1])],
        ["missing.mp4", ""],
    ]
    with table.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, lineterminator="\r\n").writerows(rows)
    options = ("--batch", table, "--output_dir", output, "--debug")
    assert run(*options) == 1
    with (output / "sync.csv").open(newline="", encoding="utf-8") as file:
        found = {row["pair"]: row for row in csv.DictReader(file)}
    assert found["missing.mp4"]["status"] == "failed"
    assert "missing.mp4" in found["missing.mp4"]["reason"]
    good = found[str(talking[0])]
    assert (good["verdict"], good["num_faces"], good["jump_at_s"]) == ("in_sync", "1", "")
    assert json.loads((output / good["json_file"]).read_text())["score"] == float(good["score"]) > 0.8
    swapped = found[json.dumps([str(talking[0]), str(talking[1])])]
    assert (swapped["verdict"], swapped["offset_ms"]) == ("no_match", "")
    capsys.readouterr()
    assert run(*options) == 1
    assert "0 done, 2 skipped" in capsys.readouterr().out


def test_batch_goes_on_with_the_same_model_by_its_other_name(
    talking: tuple[Path, ...], tmp_path: Path, capsys
) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text(f"video\n{talking[0]}\n", encoding="utf-8")
    options = (
        "--batch",
        table,
        "--output_dir",
        tmp_path / "out",
        "--debug",
        "--set",
        "data.max_duration_s=2",
    )
    for method, done in (("auto", "1 done, 0 skipped"), ("shipped", "0 done, 1 skipped")):
        assert run(*options, "--method", method) == 0
        assert done in capsys.readouterr().out
    assert run(*options, "--method", "untrained") == 2


def test_batch_of_a_folder_scores_all_its_videos(
    quick: LipSyncInference, talking: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers as one by one."""
    folder = tmp_path / "videos"
    for number, video in enumerate(talking):
        target = folder / f"person {number}" / "a.mp4"
        target.parent.mkdir(parents=True)
        target.symlink_to(video)
    read_clip = LipSyncInference.read_clip
    monkeypatch.setattr(
        LipSyncInference,
        "read_clip",
        lambda self, path, *a, **o: read_clip(self, Path(path).resolve(), *a, **o),
    )
    options = ("--batch", folder, "--output_dir", tmp_path / "out", "--method", "untrained", "--debug")
    assert run(*options) == 0
    with (tmp_path / "out/sync.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["pair"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["person 0/a.mp4", "person 1/a.mp4"]
    for row, video in zip(rows.values(), talking, strict=True):
        score, details = quick.compute_sync_score(video)
        assert (float(row["score"]), float(row["offset_ms"])) == (score, details["offset_ms"])
    (tmp_path / "empty").mkdir()
    assert run("--batch", tmp_path / "empty", "--output_dir", tmp_path / "none") == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("film,sound\na,b\n", "columns video and audio"),
        ("video,audio\n", "no rows"),
        ("video,audio\na.mp4,b.wav,c\n", "pairs.csv:2: more fields"),
        ("video,audio\n,b.wav\n", "pairs.csv:2: no video"),
        ("\xff", "UTF-8"),
    ],
)
def test_bad_table_is_one_line(tmp_path: Path, capsys, content: str, words: str) -> None:
    (tmp_path / "pairs.csv").write_bytes(content.encode("latin-1"))
    assert run("--batch", tmp_path / "pairs.csv", "--output_dir", tmp_path / "out") == 2
    assert words in one_line(capsys)


def test_bad_videos_are_one_line_and_exit_code_2(talking: tuple[Path, ...], tmp_path: Path, capsys) -> None:
    reasons = write_broken_videos(tmp_path, talking[0])
    write_silent_video(tmp_path / "silent.mp4")
    write_sound_only(tmp_path / "sound.mp4")
    reasons |= {"silent.mp4": "no sound", "sound.mp4": "no video stream", "gone.mp4": "No such file"}
    for name, words in reasons.items():
        assert run("--video", tmp_path / name, "--json") == 2
        said = one_line(capsys)
        assert words in said, said
        assert name in said


def test_bad_usage_names_all_faults(tmp_path: Path, capsys) -> None:
    cases = {
        (): "one of --video and --batch",
        ("--video", "a.mp4", "--batch", "b.csv"): "one of --video and --batch",
        ("--video", "a", "--score-only", "--output", "b.mp4"): "writes no video",
        ("--video", "a", "--offset_ms", "20"): "needs --output",
        ("--video", "a", "--output", "b.mp4", "--offset_ms", "nan"): "not a number",
        ("--batch", "b.csv", "--json", "--plot", "x.png"): "--json does not go with --batch",
        ("--video", "a", "--output_dir", "x"): "goes with --batch",
        ("--video", "a", "--plot", "x.txt"): ".png",
        ("--video", "a", "--checkpoint", str(tmp_path / "none.pth")): "none.pth",
    }
    for options, words in cases.items():
        assert run(*options) == 2, options
        said = one_line(capsys)
        assert words in said, said


def test_checkpoint_of_something_else_is_refused(talking: tuple[Path, ...], tmp_path: Path, capsys) -> None:
    (tmp_path / "text.pth").write_text("this is no checkpoint", encoding="utf-8")
    assert run("--video", talking[0], "--checkpoint", tmp_path / "text.pth") == 2
    assert "text.pth" in one_line(capsys)


def test_output_that_is_the_input_or_no_container_is_refused_before_the_work(
    talking: tuple[Path, ...], tmp_path: Path, capsys
) -> None:
    video = tmp_path / "a.mp4"
    shutil.copy(talking[0], video)
    assert run("--video", video, "--output", video) == 2
    assert "is the input" in one_line(capsys)
    assert run("--video", video, "--output", tmp_path / "b.wmv", "--plot", tmp_path / "b.png") == 2
    assert ".mkv" in one_line(capsys)
    assert list(tmp_path.iterdir()) == [video]


@pytest.mark.parametrize("name", AWKWARD_NAMES)
def test_awkward_names_work(
    quick: LipSyncInference, talking: tuple[Path, ...], tmp_path: Path, name: str, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_wav(Path(name).with_suffix(".wav"), voice_of(talking[0]), RATE_HZ)
    score, _ = quick.compute_sync_score(talking[0], Path(name).with_suffix(".wav"))
    assert score > 0.8
    quick.analyse(talking[0], Path(name).with_suffix(".wav"))


def test_only_the_first_part_of_a_long_video_is_read(talking: tuple[Path, ...]) -> None:
    data = replace(Settings().data, max_duration_s=2.0)
    _, details = LipSyncInference(settings=replace(Settings(), data=data)).compute_sync_score(talking[0])
    assert details["num_frames"] == 50
    assert any("only the first 2 s" in warning for warning in details["warnings"])


def test_signal_while_pictures_are_read_leaves_nothing(
    talking: tuple[Path, ...], tmp_path: Path, monkeypatch, capsys
) -> None:
    from facevox.progress import Progress

    def update(self: Progress, count: int = 1, note: str = "") -> None:
        self.count += count
        if self.count == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Progress, "update", update)
    write_wav(tmp_path / "v.wav", shifted(voice_of(talking[0]), 200), RATE_HZ)
    options = ("--video", talking[0], "--audio", tmp_path / "v.wav", "--output", tmp_path / "x.mp4")
    assert run(*options) == 75
    assert "stopped by SIGTERM; run the same command again" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["v.wav"]


def test_nothing_is_printed_as_minus_zero(
    quick: LipSyncInference, talking: tuple[Path, ...], monkeypatch
) -> None:
    from lipsync.sync.answers import summary_lines
    from lipsync.sync.scoring import Judgement
    from lipsync.sync.verdicts import judge

    score, details = quick.analyse(talking[0])
    assert score.judgement.posterior is not None
    posterior = replace(score.judgement.posterior, offset_ms=-0.03)
    still = replace(score, judgement=Judgement(judge(posterior), posterior))
    monkeypatch.setattr("lipsync.sync.rates.score_clip", lambda *_: still)
    _, details = quick.analyse(talking[0])
    assert not any("-0 " in line or "-0.0" in line for line in summary_lines(details)[:3])
    assert str(details["offset_ms"]) == str(details["offset_frames"]) == "0.0"


def test_program_runs_from_the_root_and_its_help_loads_nothing_heavy() -> None:
    assert "--score-only" in light_help("lipsync/inference.py")


@pytest.mark.real_data
def test_documented_offset_of_the_syncnet_example(real_data_dir: Path) -> None:
    score, details = LipSyncInference().compute_sync_score(real_data_dir / "talking/syncnet_example.avi")
    assert details["offset_ms"] == pytest.approx(120, abs=40)
    assert details["verdict"] == "audio_early"
    assert score < 0.2


@pytest.mark.real_data
@pytest.mark.slow
def test_real_clips_give_their_offsets(real_data_dir: Path) -> None:
    """25 frames a second, estimates that are sure (z of at least 9)."""
    expected = {"German_20s.mp4": -40, "obama_weekly_edtalk.mp4": -240}
    for name, offset_ms in expected.items():
        _, details = LipSyncInference().compute_sync_score(real_data_dir / "talking" / name)
        assert details["offset_ms"] == pytest.approx(offset_ms, abs=40)
