"""The repair of a sound: planned from a score, and the same by a command for ffmpeg."""

import shlex
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from av.filter import Graph
from flash_and_beep import MOMENTS_S, offsets_by_stamps_ms, write_flash_and_beep

from facevox.media import read_audio, write_wav
from lipsync.inference import LipSyncInference
from lipsync.repair.plan import ffmpeg_line, plan_timing, timing_text
from lipsync.repair.shift import shift_audio
from lipsync.sync.changes import Drift, Jumps, Part
from lipsync.sync.scoring import ClipScore, Judgement
from lipsync.sync.timing import Cut, Timing
from lipsync.sync.verdicts import AUDIO_EARLY, NO_MATCH, Verdict

RATE_HZ = 48_000


def score_of(change: Drift | Jumps, level_db: np.ndarray, kind: str = AUDIO_EARLY) -> ClipScore:
    nothing = np.zeros((0, 3), np.float32)
    verdict = Judgement(Verdict(kind, "", band="detectable"))
    return ClipScore(verdict, (), (), change, nothing, np.arange(-1, 2), 500, level_db)


def test_drift_becomes_a_rate() -> None:
    level_db = np.zeros(2000, np.float32)
    score = score_of(Drift(1234.0, -20.0, 300.0), level_db)
    assert plan_timing(score) == Timing(-20.0, 1234.0)
    assert plan_timing(replace(score, judgement=Judgement(Verdict(NO_MATCH, "")))) is None


@pytest.mark.parametrize("by_ms", [240.0, -320.0])
def test_jump_becomes_a_cut_at_a_quiet_place_near(by_ms: float) -> None:
    level_db = np.zeros(2000, np.float32)
    quiet = [905, 1040, 1300]  # of the sound: 0.6 s before, 0.75 s after, and far behind the jump
    for row in quiet:
        level_db[row - 4 : row + 5] = -40
    if by_ms < 0:  # then both ends of what is taken out
        level_db[905 + 28 : 905 + 37] = -40
    jumps = Jumps((Part(0, 10, 350.0), Part(10, 20, 350.0 + by_ms)))
    timing = plan_timing(score_of(jumps, level_db))
    assert timing is not None
    assert timing.offset_ms == 350.0
    assert [cut.by_ms for cut in timing.cuts] == [by_ms]
    assert timing.cuts[0].at_s == pytest.approx(9.05, abs=0.015)
    # Of places that are alike, the nearest to the jump.
    even = plan_timing(score_of(jumps, np.zeros(2000, np.float32)))
    assert even is not None
    assert even.cuts[0].at_s == pytest.approx(10 - 0.35 - max(by_ms, 0) / 2000, abs=0.02)


def test_rest_of_a_repair_adds_to_it() -> None:
    first, rest = Timing(100.0, 30_000.0), Timing(-20.0, 9_000.0)
    both = first.then(rest)
    assert both is not None
    for sound_s in (0.0, 7.0, 100.0):
        once = (sound_s + 0.1) / (1 - 0.03)
        twice = (once - 0.02) / (1 - 0.009)
        at_once = (sound_s + both.offset_ms / 1000) / (1 - both.drift_ppm / 1e6)
        assert at_once == pytest.approx(twice, abs=1e-9)
    cut = Timing(5.0, cuts=(Cut(3.0, 100.0),))
    assert cut.then(Timing(7.0)) == Timing(12.0, cuts=(Cut(3.0, 100.0),))
    assert cut.then(Timing(0.0, 100.0)) is None
    late = Timing(-500.0, 10_000.0).then(cut)
    assert late is not None
    assert late.cuts[0].at_s == pytest.approx(3.0 * 0.99 + 0.5)
    assert cut.then(cut) is None


def test_words_for_a_repair() -> None:
    assert timing_text(Timing(120.0)) == "audio 120 ms early; delay it by 120 ms"
    text = timing_text(Timing(-30.0, cuts=(Cut(3.04, 100.0), Cut(9.0, -60.0))))
    assert text == (
        "audio 30 ms late; move it ahead by 30 ms, at 3.0 s 100 ms of silence is put in, "
        "at 9.0 s 60 ms of sound is taken out"
    )
    assert timing_text(Timing(0.0, 250.0)) == "drift of +250 ppm: the sound is resampled by it"


def follow(words: list[str]) -> np.ndarray:
    """The mono sound that ffmpeg makes by `-filter_complex` of the file behind the second -i.

    Takes the filters apart as ffmpeg's language has them: chains between `;`, filters between `,`, labels in
    brackets.
    """
    graph = Graph()
    samples = read_audio(
        Path([words[place + 1] for place, word in enumerate(words) if word == "-i"][1]), RATE_HZ
    )
    source = graph.add(
        "abuffer", f"sample_rate={RATE_HZ}:sample_fmt=flt:channel_layout=mono:time_base=1/{RATE_HZ}"
    )
    outlets = {"1:a": (source, 0)}
    for chain in words[words.index("-filter_complex") + 1].split(";"):
        inlets = []
        while chain.startswith("["):
            label, _, chain = chain[1:].partition("]")
            inlets.append(outlets.pop(label))
        chain, *labels = chain.replace("]", "").split("[")
        last = None
        for text in chain.split(","):
            name, _, options = text.partition("=")
            each = graph.add(name, options or None)
            if last is None:
                for number, (before, pad) in enumerate(inlets):
                    before.link_to(each, pad, number)
            else:
                last.link_to(each)
            last = each
        assert last is not None
        for pad, label in enumerate(labels):
            outlets[label] = (last, pad)
    (after, pad), sink = outlets.pop("a"), graph.add("abuffersink")
    assert not outlets
    after.link_to(sink, pad, 0)
    graph.configure()
    frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
    frame.sample_rate, frame.pts = RATE_HZ, 0
    graph.push(frame)
    graph.push(None)
    done = []
    while True:
        try:
            done.append(graph.pull().to_ndarray()[0])
        except (av.error.BlockingIOError, av.error.EOFError):
            return np.concatenate(done)


@pytest.mark.parametrize(
    "timing",
    [
        Timing(130.0, 15_000.0),
        Timing(-70.0, -8_000.0),
        Timing(0.0, cuts=(Cut(1.5, 120.0), Cut(2.4, -90.0))),
        Timing(-50.0, cuts=(Cut(1.6, -200.0),)),
        Timing(90.0, cuts=(Cut(2.5, 60.0),)),
    ],
)
def test_command_does_what_the_repair_does(tmp_path: Path, timing: Timing) -> None:
    film = tmp_path / "it's a film.mp4"
    write_flash_and_beep(film, sound_hz=RATE_HZ)
    words = shlex.split(ffmpeg_line(film, None, timing))
    assert words[:3] == ["ffmpeg", "-i", str(film)]
    assert (
        words[-6:]
        == ["-map", "0:v", "-map", "[a]", "-c:v", "copy", str(tmp_path / "it's a film_fixed.mp4")][-6:]
    )
    write_wav(tmp_path / "followed.wav", follow(words), RATE_HZ)
    shift_audio(film, tmp_path / "followed.mp4", 0.0, audio_path=tmp_path / "followed.wav")
    shift_audio(film, tmp_path / "ours.mp4", timing.offset_ms, drift_ppm=timing.drift_ppm, cuts=timing.cuts)
    ours = offsets_by_stamps_ms(tmp_path / "ours.mp4")
    assert len(ours) == len(MOMENTS_S)
    assert np.abs(ours).max() > 20
    assert offsets_by_stamps_ms(tmp_path / "followed.mp4") == pytest.approx(ours, abs=1.5)


SLOWED = 1e6 * (1 - 1 / (1 - 0.01))


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [Timing(-120.0, 10_000.0), Timing(40.0, cuts=(Cut(9.3, -200.0),)), Timing(0.0, cuts=(Cut(11.1, 300.0),))],
)
@pytest.mark.parametrize(("clip", "offset_ms"), [("German_20s.mp4", -40.0), ("Obama_clip2.mov", -96.0)])
def test_real_clip_is_put_right(
    real_data_dir: Path, tmp_path: Path, clip: str, offset_ms: float, damage: Timing
) -> None:
    """A clip in sync, then damaged: what is planned is the opposite, and the file is in sync throughout."""
    bad, output = tmp_path / "bad.mp4", tmp_path / "fixed.mp4"
    shift_audio(
        real_data_dir / "talking" / clip,
        bad,
        offset_ms + damage.offset_ms,
        drift_ppm=damage.drift_ppm,
        cuts=damage.cuts,
    )
    inference = LipSyncInference()
    score, details = inference.analyse(bad)
    timing = plan_timing(score)
    assert timing is not None
    # The 40 ms that the sample list is right to at its ends, and a second between jump and cut.
    assert timing.offset_ms == pytest.approx(-damage.offset_ms, abs=40)
    if damage.drift_ppm:
        assert timing.drift_ppm == pytest.approx(SLOWED, abs=1500)
    for cut, made in zip(timing.cuts, damage.cuts, strict=True):
        assert cut.by_ms == pytest.approx(-made.by_ms, abs=30)
        assert cut.at_s == pytest.approx(made.at_s - damage.offset_ms / 1000, abs=1.6)
    assert "filter_complex" in details["ffmpeg"]
    is_done, message = inference.sync_video_audio(bad, None, output, score)
    assert is_done, message
    after = inference.compute_sync_score(output)[1]
    assert after["verdict"] == "in_sync"
    assert (after["drift_ppm"], after["parts"]) == (None, [])
