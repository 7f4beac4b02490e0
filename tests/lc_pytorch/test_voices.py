"""Voices: stretches of speech, and the wavs that are written."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from facevox import media
from facevox.batch import FileItem
from facevox.errors import NoSpeechError, UserError
from facevox.media import read_audio, write_video, write_wav
from facevox.speech import frame_levels_db
from lc_pytorch.voices import VoiceConfig, VoiceTask, longest_speech

RATE_HZ = 16000


def sound(*parts: tuple[float, float], noise: float = 0.001, seed: int = 0) -> np.ndarray:
    """(seconds, amplitude) one after the other, over noise; amplitude 0 is a pause."""
    rng = np.random.default_rng(seed)
    pieces = []
    for seconds, amplitude in parts:
        time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
        syllables = 0.6 + 0.4 * np.sin(2 * np.pi * 4 * time_s)
        pieces.append(amplitude * syllables * np.sin(2 * np.pi * 180 * time_s))
    samples = np.concatenate(pieces)
    return (samples + noise * rng.standard_normal(len(samples))).astype(np.float32)


def speech_of(samples: np.ndarray) -> tuple[int, int] | None:
    return longest_speech(frame_levels_db(samples, RATE_HZ // 50), RATE_HZ, len(samples))


def stretch_s(samples: np.ndarray) -> tuple[float, float]:
    stretch = speech_of(samples)
    assert stretch is not None
    return stretch[0] / RATE_HZ, stretch[1] / RATE_HZ


@pytest.mark.parametrize("noise", [0.0, 0.001, 0.03])
def test_longest_of_two_stretches_is_found_at_any_noise(noise: float) -> None:
    samples = sound((1, 0), (1, 0.3), (1.5, 0), (2, 0.3), (0.5, 0), noise=noise)
    assert stretch_s(samples) == pytest.approx((3.5, 5.5), abs=0.15)


def test_short_pause_does_not_part_a_stretch() -> None:
    samples = sound((1, 0), (1, 0.3), (0.4, 0), (1, 0.3), (2, 0), (1.5, 0.3), (0.5, 0))
    assert stretch_s(samples) == pytest.approx((1.0, 3.4), abs=0.15)


def test_speech_without_any_pause_is_all_speech() -> None:
    assert stretch_s(sound((3, 0.3))) == pytest.approx((0.0, 3.0), abs=0.15)


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros(RATE_HZ, np.float32)])
def test_silence_holds_no_speech(samples: np.ndarray) -> None:
    assert speech_of(samples) is None


def run_task(tmp_path: Path, source: Path, **options: object) -> dict[str, object]:
    task = VoiceTask(VoiceConfig(**options))  # type: ignore[arg-type]
    task.open(tmp_path / "out")
    outcome = task.process(FileItem("x.mp4", str(source), "x.wav"))
    assert outcome.outputs == ["x.wav"]
    return outcome.rows[0]


def test_wav_has_the_sound_of_the_video_from_its_beginning(tmp_path: Path) -> None:
    samples = sound((0.5, 0), (1, 0.3), (0.5, 0))
    write_video(tmp_path / "x.mp4", [np.zeros((64, 64, 3), np.uint8)] * 50, 25, samples, RATE_HZ)
    row = run_task(tmp_path, tmp_path / "x.mp4")
    written = read_audio(tmp_path / "out" / "x.wav")[: len(samples)]
    assert np.corrcoef(written, samples[: len(written)])[0, 1] > 0.98
    assert row["rate_hz"] == RATE_HZ
    assert row["duration_s"] == pytest.approx(2.0, abs=0.07)
    assert row["speech_share"] == pytest.approx(0.5, abs=0.1)
    assert row["rms_db"] == pytest.approx(20 * np.log10(np.sqrt(np.mean(samples**2))), abs=0.5)


def test_other_rate_and_trimming(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", sound((1, 0), (2, 0.3), (1, 0)), RATE_HZ)
    row = run_task(tmp_path, tmp_path / "x.wav", target_sr=8000, trim_silence=True)
    assert (row["rate_hz"], row["start_s"]) == (8000, pytest.approx(0.9, abs=0.1))
    assert row["duration_s"] == pytest.approx(2.2, abs=0.15)


def test_trimmed_wav_is_that_stretch_of_the_sound_to_the_sample(tmp_path: Path) -> None:
    samples = sound((1.013, 0), (2, 0.3), (1, 0), (1, 0.3), (0.507, 0))
    write_wav(tmp_path / "x.wav", samples, RATE_HZ)
    row = run_task(tmp_path, tmp_path / "x.wav", trim_silence=True)
    stretch = speech_of(read_audio(tmp_path / "x.wav"))
    assert stretch is not None
    written = read_audio(tmp_path / "out" / "x.wav")
    assert np.array_equal(written, read_audio(tmp_path / "x.wav")[slice(*stretch)])
    assert row["start_s"] == pytest.approx(stretch[0] / RATE_HZ, abs=1e-4)
    assert row["peak"] == pytest.approx(np.abs(written).max(), abs=1e-4)


def test_trimming_needs_little_memory_and_stops_reading_after_the_stretch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    length = 100 * RATE_HZ
    samples = np.zeros(length, np.float32)
    samples[5 * RATE_HZ : 8 * RATE_HZ] = sound((3, 0.3))
    write_wav(tmp_path / "x.wav", samples, RATE_HZ)
    read: list[int] = []
    iter_audio = media.iter_audio

    def counted(*args: object, **options: object) -> "Iterator[np.ndarray]":
        read.append(0)
        for block in iter_audio(*args, **options):  # type: ignore[arg-type]
            read[-1] += len(block)
            yield block

    monkeypatch.setattr(media, "iter_audio", counted)
    tracemalloc.start()
    try:
        run_task(tmp_path, tmp_path / "x.wav", trim_silence=True)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read[0] == length
    assert 8 * RATE_HZ <= read[1] < 9 * RATE_HZ
    assert peak_bytes < samples.nbytes / 4


def test_trimming_silence_alone_fails_and_leaves_no_file(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", np.zeros(RATE_HZ, np.float32), RATE_HZ)
    with pytest.raises(NoSpeechError, match=r"no speech in 1\.0 s"):
        run_task(tmp_path, tmp_path / "x.wav", trim_silence=True)
    assert not (tmp_path / "out").exists()


def test_sample_rate_out_of_range_is_refused() -> None:
    with pytest.raises(UserError, match="4000 to 192000"):
        VoiceConfig(target_sr=16)
