"""Sound against sound: found to the millisecond through other microphones, rooms, codecs and clocks."""

from pathlib import Path

import numpy as np
import pytest

from facevox.errors import UserError
from facevox.media import MediaError, write_wav
from facevox_demo.other_recorders import Recorder, joined_voices, synthetic_talk, through_codec, voice_files
from lipsync.repair.alignment import SoundAlignment, align_recordings, align_sounds, index_sound
from lipsync.repair.recordings import RATE_HZ, SoundIndex, read_recording, recording_of

MASTER_S = 240.0
ALL = Recorder(snr_db=0, room_s=0.4, is_phone=True, has_gain_control=True, drift_ppm=100, codec="libmp3lame")


@pytest.fixture(scope="module")
def files(real_data_dir: Path) -> list[Path]:
    return voice_files(real_data_dir)


@pytest.fixture(scope="module")
def master(files: list[Path]) -> np.ndarray:
    return joined_voices(files[::2], MASTER_S)


@pytest.fixture(scope="module")
def index(master: np.ndarray) -> SoundIndex:
    return SoundIndex.of(recording_of(master))


def errors_ms(result: SoundAlignment, start_s: float, drift_ppm: float = 0.0) -> np.ndarray:
    """Errors at both ends of a clip that begins at `start_s`."""
    assert result.is_aligned, result.reason
    start_ms = 1e3 * (result.start_s - start_s)
    return np.abs([start_ms, start_ms + 1e-3 * result.duration_s * (result.drift_ppm - drift_ppm)])


@pytest.mark.real_data
@pytest.mark.parametrize("length_s", [4.0, 30.0])
@pytest.mark.parametrize(
    "recorder",
    [
        Recorder(),
        Recorder(room_s=0.5),
        Recorder(snr_db=0),
        Recorder(is_phone=True),
        Recorder(has_gain_control=True),
        Recorder(drift_ppm=200),
        Recorder(drift_ppm=-1000),
        Recorder(codec="aac"),
        ALL,
    ],
    ids=str,
)
def test_clip_of_another_recorder_is_found_to_the_millisecond(
    index: SoundIndex, master: np.ndarray, tmp_path: Path, recorder: Recorder, length_s: float
) -> None:
    rng = np.random.default_rng(4)
    first = 100 * RATE_HZ + 123
    clip = recorder.record(master[first : first + int(length_s * RATE_HZ)], rng)
    recording = recording_of(clip)
    if recorder.codec:
        recording = read_recording(through_codec(clip, recorder.codec, tmp_path))
    result = align_recordings(recording, index)
    assert errors_ms(result, first / RATE_HZ, recorder.drift_ppm).max() < 1.0
    assert result.confidence > 0.99
    assert result.residual_ms < 0.5
    assert result.overlap_share == pytest.approx(1.0, abs=0.02)


@pytest.mark.real_data
def test_unrelated_talk_and_other_sentences_of_the_same_speakers_are_refused(
    index: SoundIndex, files: list[Path]
) -> None:
    others = joined_voices(files[1::2], 200.0, seed=1)
    for length_s in (3.0, 10.0, 40.0):
        for first in range(4):
            start = first * 40 * RATE_HZ
            result = align_recordings(recording_of(others[start : start + int(length_s * RATE_HZ)]), index)
            assert result.reason == "no place in the reference stands out"
            assert np.isnan([result.start_s, result.end_s, result.drift_ppm]).all()


def test_synthetic_talk_is_found_beyond_both_ends_of_the_master() -> None:
    talk = synthetic_talk(90.0, 0)
    index = SoundIndex.of(recording_of(talk[20 * RATE_HZ : 70 * RATE_HZ]))
    early = align_recordings(recording_of(talk[: 30 * RATE_HZ]), index)
    late = align_recordings(recording_of(talk[60 * RATE_HZ :]), index)
    assert errors_ms(early, -20.0).max() < 0.5
    assert errors_ms(late, 40.0).max() < 0.5
    assert early.overlap_s == pytest.approx(10.0, abs=0.01)
    assert late.overlap_share == pytest.approx(1 / 3, abs=0.01)
    assert early.end_s == pytest.approx(10.0, abs=0.001)


def test_clip_that_is_longer_than_the_master_and_runs_fast() -> None:
    talk = synthetic_talk(120.0, 1)
    index = SoundIndex.of(recording_of(talk[50 * RATE_HZ : 80 * RATE_HZ]))
    clip = Recorder(drift_ppm=500, snr_db=10).record(talk, np.random.default_rng(0))
    result = align_recordings(recording_of(clip), index)
    overlap = np.array([50.0, 80.0]) / (1 + 500e-6)  # on the clip's clock
    found = result.start_s + overlap * (1 + result.drift_ppm / 1e6)
    assert np.abs(found - [0.0, 30.0]).max() < 1e-3


def test_inverted_polarity_and_any_level_are_found() -> None:
    talk = synthetic_talk(60.0, 2)
    index = SoundIndex.of(recording_of(talk))
    part = talk[13 * RATE_HZ : 33 * RATE_HZ]
    for factor in (-1.0, 0.003, 300.0):
        result = align_recordings(recording_of(np.asarray(factor * part, np.float32)), index)
        assert errors_ms(result, 13.0).max() < 0.5, factor


def test_repeated_loop_fits_in_several_places_and_the_reason_names_two() -> None:
    loop = synthetic_talk(8.0, 3)
    index = SoundIndex.of(recording_of(np.tile(loop, 8)))
    result = align_recordings(recording_of(np.tile(loop, 2)), index)
    assert not result.is_aligned
    assert result.reason.startswith("it fits at ")
    assert 0.4 < result.confidence < 0.7
    assert result.other_start_s % 8 == pytest.approx(0, abs=0.001) or result.other_start_s % 8 > 7.999


def test_jingle_that_comes_twice_does_not_hide_the_place_of_a_longer_clip() -> None:
    jingle, talk = synthetic_talk(6.0, 4), synthetic_talk(80.0, 5)
    sound = np.concatenate([talk[: 30 * RATE_HZ], jingle, talk[30 * RATE_HZ :], jingle])
    index = SoundIndex.of(recording_of(sound))
    result = align_recordings(recording_of(sound[20 * RATE_HZ : 60 * RATE_HZ]), index)
    assert errors_ms(result, 20.0).max() < 0.5


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros(10 * RATE_HZ), "its sound is silent"),
        (0.3 * np.sin(np.arange(10 * RATE_HZ) * 0.2), "its sound is steady (a tone, a hum or noise)"),
        (synthetic_talk(2.0, 7), "its sound is shorter than 2.5 s"),
        (0.1 * np.random.default_rng(0).standard_normal(10 * RATE_HZ), ""),
    ],
    ids=["silence", "tone", "short", "noise"],
)
def test_sound_without_a_place_is_refused_with_its_reason(samples: np.ndarray, reason: str) -> None:
    index = SoundIndex.of(recording_of(synthetic_talk(60.0, 6)))
    result = align_recordings(recording_of(np.asarray(samples, np.float32)), index)
    assert not result.is_aligned
    assert result.reason.startswith(reason)
    assert np.isnan(result.start_s)


def test_files_and_an_index_read_back_give_the_same_numbers(tmp_path: Path) -> None:
    talk = synthetic_talk(60.0, 8)
    write_wav(tmp_path / "master.wav", talk, RATE_HZ)
    write_wav(tmp_path / "clip.wav", talk[30 * RATE_HZ : 45 * RATE_HZ], RATE_HZ)
    direct = align_sounds(tmp_path / "clip.wav", tmp_path / "master.wav")
    assert errors_ms(direct, 30.0).max() < 0.5
    index_sound(tmp_path / "master.wav").save(tmp_path)
    assert align_sounds(tmp_path / "clip.wav", SoundIndex.load(tmp_path)).start_s == direct.start_s


def test_recording_of_blocks_equals_that_of_one_array(tmp_path: Path) -> None:
    talk = synthetic_talk(5.3, 9)
    write_wav(tmp_path / "talk.wav", talk, RATE_HZ)
    by_blocks = read_recording(tmp_path / "talk.wav")
    at_once = recording_of(np.rint(talk * 32767).astype(np.float32) / 32768)
    assert by_blocks.onsets_TB.shape == at_once.onsets_TB.shape
    assert np.abs(by_blocks.onsets_TB - at_once.onsets_TB).max() < 1e-4


def test_master_without_any_use_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wav(tmp_path / "silent.wav", np.zeros(10 * RATE_HZ, np.float32), RATE_HZ)
    with pytest.raises(UserError, match=r"silent\.wav: its sound is silent; nothing can be aligned to it"):
        index_sound(tmp_path / "silent.wav")
    with pytest.raises(MediaError, match=r"none\.wav"):
        index_sound(tmp_path / "none.wav")
    monkeypatch.setattr("lipsync.repair.recordings.MAX_SOUND_S", 5.0)
    with pytest.raises(MediaError, match="longer than"):
        read_recording(tmp_path / "silent.wav")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.real_data
def test_clip_of_an_hour_is_within_a_millisecond_at_both_ends(files: list[Path], tmp_path: Path) -> None:
    samples = joined_voices(files, 3600.0)
    recorder = Recorder(snr_db=5, room_s=0.3, drift_ppm=150)
    clip = recorder.record(samples[30 * RATE_HZ : -30 * RATE_HZ], np.random.default_rng(3))
    write_wav(tmp_path / "master.wav", samples, RATE_HZ)
    result = align_sounds(through_codec(clip, "aac", tmp_path), tmp_path / "master.wav")
    assert errors_ms(result, 30.0, 150.0).max() < 1.0
