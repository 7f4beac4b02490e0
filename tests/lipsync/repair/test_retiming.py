"""Sound at another rate and with cuts: right to the sample, by any size of blocks."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flash_and_beep import MOMENTS_S, offsets_by_counting_ms, offsets_by_stamps_ms, write_flash_and_beep

from facevox.errors import UserError
from facevox.media import read_audio, write_wav
from lipsync.repair.retiming import at_rate, with_cuts
from lipsync.repair.shift import shift_audio
from lipsync.sync.timing import Cut

RATE_HZ = 8000


def in_blocks(samples: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, samples.shape[1], size):
        yield samples[:, start : start + size]


@pytest.mark.parametrize("size", [160, 1000, 100_000])
@pytest.mark.parametrize("drift_ppm", [3.0, -250.0, 10_000.0, 41_667.0, -41_667.0])
def test_tone_at_another_rate_is_that_tone_all_along(drift_ppm: float, size: int) -> None:
    seconds = np.arange(10 * RATE_HZ) / RATE_HZ
    tones = np.stack([np.sin(2 * np.pi * hz * seconds) for hz in (440.0, 1000.0)]).astype(np.float32)
    done = np.concatenate(list(at_rate(in_blocks(tones, size), RATE_HZ, "stereo", drift_ppm)), axis=1)
    rate = 1 - drift_ppm / 1e6
    assert done.shape[1] == pytest.approx(tones.shape[1] / rate, abs=2)
    later = np.arange(done.shape[1]) / RATE_HZ * rate
    for row, hz in zip(done, (440.0, 1000.0), strict=True):
        # 0.01 ppm of ten seconds is a ten-millionth of a second.
        inside = slice(500, -500)
        assert np.abs(row - np.sin(2 * np.pi * hz * later))[inside].max() < 2e-3


def cut_slowly(samples: np.ndarray, first_s: float, cuts: list[Cut]) -> np.ndarray:
    """Sample by sample, without fades."""
    done, skipped, number = [], 0, 0
    for place, column in enumerate(samples.T):
        while number < len(cuts) and place >= max(round((cuts[number].at_s - first_s) * RATE_HZ), 0):
            count = round(cuts[number].by_ms / 1000 * RATE_HZ)
            done += [np.zeros(len(samples))] * max(count, 0)
            skipped += max(-count, 0)
            number += 1
        if skipped:
            skipped -= 1
        else:
            done.append(column)
    return np.array(done).T


@pytest.mark.parametrize("size", [1, 37, 500, 10_000])
def test_cuts_put_silence_in_and_take_sound_out(size: int) -> None:
    rng = np.random.default_rng(0)
    samples = rng.uniform(0.5, 1, (2, 4000)).astype(np.float32)
    cuts = [Cut(2.0, 30.0), Cut(2.1, -25.0), Cut(2.2, -55.5), Cut(2.3, 12.3), Cut(2.4, -1000.0)]
    done = np.concatenate(list(with_cuts(in_blocks(samples, size), RATE_HZ, 1.95, cuts)), axis=1)
    slow = cut_slowly(samples, 1.95, cuts)
    assert done.shape == slow.shape
    is_faded = np.abs(done - slow).max(axis=0) > 1e-6
    # 5 ms on either side of each.
    assert 0 < is_faded.sum() <= len(cuts) * 2 * 0.005 * RATE_HZ
    assert (done <= slow + 1e-6).all()
    assert (done[:, is_faded] >= 0).all()


def test_cut_before_the_sound_counts_at_its_start() -> None:
    samples = np.ones((1, 800), np.float32)
    done = np.concatenate(list(with_cuts([samples], RATE_HZ, 5.0, [Cut(1.0, 50.0)])), axis=1)
    assert not done[0, :400].any()
    assert done.shape[1] == 1200


@pytest.mark.parametrize("reader", [offsets_by_stamps_ms, offsets_by_counting_ms])
def test_sound_that_drifts_is_put_right_for_both_readers(tmp_path: Path, reader) -> None:
    """The sound of a file that was recorded 2 % too slowly: beeps come too late, more and more."""
    write_flash_and_beep(tmp_path / "film.mp4", sound_hz=48_000)
    shift_audio(tmp_path / "film.mp4", tmp_path / "late.mp4", 0.0, drift_ppm=20_000.0)
    late = np.array([20.4 * moment for moment in MOMENTS_S])
    assert reader(tmp_path / "late.mp4") == pytest.approx(late, abs=1.0)
    rest_ppm = 1e6 * (1 - 1 / (1 - 0.02))
    shift_audio(tmp_path / "late.mp4", tmp_path / "right.mp4", 0.0, drift_ppm=rest_ppm)
    assert reader(tmp_path / "right.mp4") == pytest.approx(np.zeros(3), abs=1.0)


@pytest.mark.parametrize("reader", [offsets_by_stamps_ms, offsets_by_counting_ms])
def test_sound_with_a_hole_is_put_right_behind_it(tmp_path: Path, reader) -> None:
    write_flash_and_beep(tmp_path / "film.mp4", sound_hz=48_000)
    shift_audio(tmp_path / "film.mp4", tmp_path / "hole.mp4", 0.0, cuts=[Cut(1.5, -150.0), Cut(2.5, 80.0)])
    assert reader(tmp_path / "hole.mp4") == pytest.approx([0, -150, -70], abs=1.0)
    shift_audio(tmp_path / "hole.mp4", tmp_path / "right.mp4", 0.0, cuts=[Cut(1.5, 150.0), Cut(2.4, -80.0)])
    assert reader(tmp_path / "right.mp4") == pytest.approx([0, 0, 0], abs=1.0)
    # As long as before: what was taken out is made up for at the end.
    lengths = [len(read_audio(tmp_path / name)) / 16_000 for name in ("film.mp4", "right.mp4")]
    assert lengths[1] >= lengths[0] - 0.05


def test_rates_beyond_the_largest_are_refused(tmp_path: Path) -> None:
    write_flash_and_beep(tmp_path / "film.mp4")
    for drift_ppm in (70_000.0, float("nan"), -1e9):
        with pytest.raises(UserError, match="a number from -60000 to 60000 is expected"):
            shift_audio(tmp_path / "film.mp4", tmp_path / "x.mp4", 0.0, drift_ppm=drift_ppm)
    assert not (tmp_path / "x.mp4").exists()


def test_drift_and_offset_count_from_the_start_of_the_file(tmp_path: Path) -> None:
    """Another sound file, whose time is s where the film's is (s + 0.3) / (1 - 0.01)."""
    write_flash_and_beep(tmp_path / "film.mp4", sound_hz=48_000)
    samples = np.zeros(48_000 * 4, np.float32)
    for moment in MOMENTS_S:
        start = round((moment * 0.99 - 0.3) * 48_000)
        samples[start : start + 960] = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(960) / 48_000)
    write_wav(tmp_path / "other.wav", samples, 48_000)
    shift_audio(
        tmp_path / "film.mp4",
        tmp_path / "right.mp4",
        300.0,
        audio_path=tmp_path / "other.wav",
        drift_ppm=10_000.0,
    )
    assert offsets_by_stamps_ms(tmp_path / "right.mp4") == pytest.approx(np.zeros(3), abs=1.0)
