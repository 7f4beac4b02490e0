"""Live scores: within five seconds, the numbers of the same stretch of a file, in bounded memory."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from talking_clips import RATE_HZ, features_of, make_talking, pictures_of, shifted, voice_of

from facevox import cli
from facevox.media import write_wav
from facevox.mesh.face_mesh import FaceMesh
from lipsync import realtime
from lipsync.clips import sounds, tracks
from lipsync.clips.cutting import cut_clip
from lipsync.clips.features import FaceFeatures, FaceFeatureStream, FrameFeatures
from lipsync.sync import streaming
from lipsync.sync.methods import UNTRAINED
from lipsync.sync.opening import open_method
from lipsync.sync.scoring import score_clip
from lipsync.sync.streaming import LiveScore, SyncStream, live_text

# Lips of the made-up people follow the loudness of their voices; the model of the package knows real ones.
METHOD = open_method(UNTRAINED)
# What a verdict of the stream may differ by from that of the whole clip, cut at the same places.
SCORE_TOLERANCE = 1e-6
OFFSET_TOLERANCE_MS = 0.01
# And by from a file that holds more before and behind (tested on clips in sync and shifted ones).
FILE_OFFSET_TOLERANCE_MS = 20.0


@pytest.fixture(scope="module")
def talking(load_script, tmp_path_factory) -> tuple[Path, ...]:
    return make_talking(load_script, tmp_path_factory)


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch, talking: tuple[Path, ...]) -> None:
    """Pictures are looked at once a session: a stream gets the faces that were found then, as late."""
    track = features_of(talking[0]).tracks[0]

    def finished(index: int) -> FrameFeatures:
        place = index % len(track)
        face = FaceFeatures(
            track.track_id,
            track.boxes_px[place],
            track.mouths[place],
            track.lips[place],
            float(track.opening[place]),
            bool(track.is_measured[place]),
            track.face_rgb,
        )
        return FrameFeatures(index, index / 25, 0, (face,))

    count = {}

    def push(self: FaceFeatureStream, image: np.ndarray, time_s: float | None = None) -> list[FrameFeatures]:
        count[id(self)] = count.get(id(self), 0) + 1
        return [finished(count[id(self)] - 6)] if count[id(self)] > 5 else []

    def finish(self: FaceFeatureStream) -> list[FrameFeatures]:
        num = count[id(self)]
        return [finished(index) for index in range(max(num - 5, 0), num)]

    monkeypatch.setattr(FaceFeatureStream, "push", push)
    monkeypatch.setattr(FaceFeatureStream, "finish", finish)


def streamed(
    stream: SyncStream, images: list[np.ndarray], samples: np.ndarray, block: int = 1600, late_s: float = 0.0
) -> list[LiveScore]:
    """Pictures and sound in the order of their times; the sound in blocks of its own, so much behind."""
    found = []
    heard = 0
    late_frames = round(late_s * 25)
    for number in range(len(images) + late_frames):
        while heard < min((number + 1 - late_frames) * RATE_HZ // 25, len(samples)):
            found += stream.push_sound(samples[heard : heard + block])
            heard += block
        if number < len(images):
            found += stream.push_frame(images[number])
    return found + stream.finish()


def test_stream_gives_the_numbers_of_the_file_within_five_seconds(talking: tuple[Path, ...]) -> None:
    clip = features_of(talking[0])
    images, voice = list(pictures_of(talking[0])), voice_of(talking[0])
    with SyncStream(METHOD) as stream:
        found, heard = [], 0
        for number, image in enumerate(images):
            found += stream.push_sound(voice[heard : heard + 640])
            heard += 640
            before = len(found)
            found += stream.push_frame(image)
            if len(found) > before and before == 0:
                assert (number + 1) / 25 <= 5.0
        found += stream.finish()
    assert [(live.start_s, live.end_s) for live in found] == [(0.0, 4.48), (1.0, 5.48), (1.52, 6.0)]
    for live in found:
        start, end = round(live.start_s * 25), round(live.end_s * 25)
        whole = score_clip(cut_clip(clip, start, end), METHOD.estimator, METHOD.calibration)
        now = live.score.judgement
        assert now.score == pytest.approx(whole.judgement.score, abs=SCORE_TOLERANCE)
        assert now.verdict.kind == whole.judgement.verdict.kind == "in_sync"
        assert live.offset_ms == pytest.approx(whole.judgement.offset_ms, abs=OFFSET_TOLERANCE_MS)


@pytest.mark.parametrize("early_ms", [0, 200, -320])
def test_stream_agrees_with_the_score_of_the_file(
    talking: tuple[Path, ...], replayed: None, early_ms: int
) -> None:
    voice = shifted(voice_of(talking[0]), early_ms)
    with SyncStream(METHOD) as stream:
        found = streamed(stream, list(pictures_of(talking[0])), voice)
    for live in found:
        assert live.offset_ms == pytest.approx(early_ms, abs=FILE_OFFSET_TOLERANCE_MS)
        assert (live.score.judgement.score > 0.5) == (early_ms == 0)
        assert live.score.judgement.verdict.text in live_text(live)


def test_blocks_of_sound_change_nothing(talking: tuple[Path, ...], replayed: None) -> None:
    images, voice = list(pictures_of(talking[0])), voice_of(talking[0])
    answers = []
    for block in (160, 1111, 32_000):
        with SyncStream(METHOD) as stream:
            answers.append([live.offset_ms for live in streamed(stream, images, voice, block)])
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)
    assert answers[0] == pytest.approx(answers[2], abs=1e-6)


@pytest.mark.parametrize(
    ("late_s", "step_s"), [(1.5, 1.0), (1.96, 1.0), pytest.param(1.96, 0.2, marks=pytest.mark.slow)]
)
def test_sound_that_comes_late_changes_nothing(
    talking: tuple[Path, ...], replayed: None, late_s: float, step_s: float
) -> None:
    images = list(pictures_of(talking[0])) * 2
    voice = np.tile(shifted(voice_of(talking[0]), 120), 2)
    answers = []
    for late in (0.0, late_s):
        with SyncStream(METHOD, step_s=step_s) as stream:
            found = streamed(stream, images, voice, late_s=late)
        verdicts = [live.score.judgement.verdict.kind for live in found]
        numbers = [(live.start_s, live.end_s, live.score.judgement.score, live.offset_ms) for live in found]
        answers.append((verdicts, numbers))
    assert answers[1][0] == answers[0][0]
    assert set(answers[0][0]) == {"audio_early"}
    np.testing.assert_allclose(answers[1][1], answers[0][1], atol=1e-6)


def test_last_pictures_may_come_at_once_while_the_sound_is_behind(
    talking: tuple[Path, ...], replayed: None
) -> None:
    """`finish` brings the pictures of the look-ahead together: none that a waiting verdict wants is lost."""
    with SyncStream(METHOD, step_s=0.2) as stream:
        found = streamed(stream, list(pictures_of(talking[0])) * 2, voice_of(talking[0])[: 4 * RATE_HZ])
    # A verdict has waited for 50 pictures when it is made without its sound; at the end the last one is made.
    assert [round(live.end_s * 25) for live in found] == [*range(112, 300 - 50 + 1, 5), 300]
    assert {live.score.judgement.verdict.kind for live in found} <= {"in_sync", "cannot_tell"}


def test_memory_does_not_grow_and_the_step_is_kept(talking: tuple[Path, ...], replayed: None) -> None:
    images = [pictures_of(talking[0])[0]] * 150 * 5
    with SyncStream(METHOD, step_s=2.0) as stream:
        found = streamed(stream, images, np.tile(voice_of(talking[0])[: 6 * RATE_HZ], 5))
        assert len(stream._rows.log_mel) < 4 * 25 * 12
        assert len(stream._frames) < 25 * 8
    assert np.diff([live.end_s for live in found[:-1]]) == pytest.approx(2.0)
    assert all(abs(live.offset_ms) < 20 for live in found)


def test_sound_that_stays_away_does_not_stop_the_verdicts(talking: tuple[Path, ...], replayed: None) -> None:
    with SyncStream(METHOD) as stream:
        found = [live for image in pictures_of(talking[0]) * 2 for live in stream.push_frame(image)]
    assert len(found) >= 4
    assert {live.score.judgement.verdict.kind for live in found} == {"cannot_tell"}
    assert "0.00 s of sound" in found[0].score.judgement.verdict.reason


def test_each_picture_and_each_sound_is_worked_on_once(
    talking: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lets a stream keep up with its source."""
    counts = Counter[str]()

    def count(owner: Any, name: str, amount: Callable[..., int]) -> None:
        plain = getattr(owner, name)

        def counted(*values: Any, **options: Any) -> Any:
            result = plain(*values, **options)
            counts[f"{owner.__name__}.{name}"] += amount(result, *values)
            return result

        monkeypatch.setattr(owner, name, counted)

    count(FaceMesh, "find", lambda *_: 1)
    count(tracks.FaceFinder, "find", lambda *_: 1)
    count(sounds, "mel_power", lambda rows, *_: len(rows))
    count(streaming, "score_clip", lambda _, clip, *rest: clip.num_frames)
    images, voice = list(pictures_of(talking[0])), voice_of(talking[0])
    with SyncStream(METHOD) as stream:
        found = streamed(stream, images, voice)
    assert len(found) == 3
    # One face; where it is lost for a moment, it is looked for again.
    assert len(images) <= counts["FaceMesh.find"] <= 1.1 * len(images)
    assert 1 <= counts["FaceFinder.find"] <= 2 * len(images) / tracks.DETECT_EVERY
    assert counts["lipsync.clips.sounds.mel_power"] == 4 * len(images)
    assert counts["lipsync.sync.streaming.score_clip"] == len(found) * round(streaming.WINDOW_S * 25)


def test_program_prints_a_line_a_second(
    talking: tuple[Path, ...], replayed: None, tmp_path: Path, capsys
) -> None:
    write_wav(tmp_path / "v.wav", shifted(voice_of(talking[0]), 160), RATE_HZ)
    options = [
        "--video",
        str(talking[0]),
        "--audio",
        str(tmp_path / "v.wav"),
        "--method",
        "untrained",
        "--json",
    ]
    assert cli.run(realtime.main, options) == 0
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [line["end_s"] for line in lines] == [4.48, 5.48, 6.0]
    assert all(line["offset_ms"] == pytest.approx(160, abs=20) for line in lines)
    assert "x real time" in said.err
    assert cli.run(realtime.main, ["--video", str(talking[0]), "--max_duration_s", "2"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_program_says_when_nothing_can_be_told(
    talking: tuple[Path, ...], replayed: None, tmp_path: Path, capsys
) -> None:
    write_wav(tmp_path / "s.wav", np.zeros(6 * RATE_HZ, np.float32), RATE_HZ)
    assert cli.run(realtime.main, ["--video", str(talking[0]), "--audio", str(tmp_path / "s.wav")]) == 1
    assert "cannot tell: the sound is silent" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "one of --video and --camera"),
        (["--camera", "/dev/no-such-camera"], "/dev/no-such-camera"),
        (["--camera", "x", "--audio", "y"], "--audio goes with --video"),
        (["--video", "gone.mp4"], "gone.mp4"),
    ],
)
def test_bad_usage_is_one_line(options: list[str], words: str, capsys) -> None:
    assert cli.run(realtime.main, options) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
