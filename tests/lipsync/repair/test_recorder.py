"""The sound of another recorder: placed by the camera's own sound, then compared with the lips."""

from pathlib import Path

import numpy as np
import pytest

from facevox.media import read_audio, write_wav
from lipsync.clips.sounds import sound_features
from lipsync.inference import LipSyncInference
from lipsync.repair.recorder import place_sound, placed_features
from lipsync.repair.retiming import at_rate
from lipsync.repair.shift import shift_audio
from lipsync.settings import AudioSettings
from lipsync.sync.timing import Timing

pytestmark = pytest.mark.real_data
RATE_HZ = 48_000
OTHERS = ("May_5s.mp4", "retalking_1.mp4", "reagan_clip1.mov")


def other_talk(folder: Path) -> np.ndarray:
    return np.concatenate([read_audio(folder / name, RATE_HZ) for name in OTHERS])


def noisy(samples: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 0.5 * samples.std(), len(samples))
    return (samples + noise).astype(np.float32)


@pytest.mark.parametrize("drift_ppm", [0.0, 400.0])
def test_sound_is_placed_and_read_as_it_is_heard_there(
    real_data_dir: Path, tmp_path: Path, drift_ppm: float
) -> None:
    """The recorder begins before the camera, and its clock runs ahead."""
    folder = real_data_dir / "talking"
    own = read_audio(folder / "syncnet_example.avi", RATE_HZ)
    before = other_talk(folder)
    fast = np.concatenate(list(at_rate([own[None]], RATE_HZ, "mono", drift_ppm)), axis=1)[0]
    write_wav(tmp_path / "recorder.wav", np.concatenate([before, fast, before[:RATE_HZ]]), RATE_HZ)
    write_wav(tmp_path / "noisy.wav", noisy(own), RATE_HZ)
    timing = place_sound(tmp_path / "noisy.wav", tmp_path / "recorder.wav")
    assert timing is not None
    seconds = len(own) / RATE_HZ
    assert timing.drift_ppm == pytest.approx(-drift_ppm, abs=20)
    for video_s in (0.0, seconds):
        at_s = len(before) / RATE_HZ + video_s / (1 - drift_ppm / 1e6)
        placed_s = video_s * (1 - timing.drift_ppm / 1e6) - timing.offset_ms / 1000
        assert placed_s == pytest.approx(at_s, abs=0.001)
    found = placed_features(tmp_path / "recorder.wav", timing, 0.0, seconds, AudioSettings()).log_mel
    expected = sound_features(read_audio(folder / "syncnet_example.avi", 16_000)).log_mel
    assert len(found) == pytest.approx(len(expected), abs=1)
    count = min(len(found), len(expected)) - 5
    loud = expected[5:count] > -60
    assert np.abs(found[5:count] - expected[5:count])[loud].mean() < 1.5


def test_recorder_that_begins_later_is_silent_before(real_data_dir: Path, tmp_path: Path) -> None:
    own = read_audio(real_data_dir / "talking/syncnet_example.avi", RATE_HZ)
    write_wav(tmp_path / "recorder.wav", own[3 * RATE_HZ :], RATE_HZ)
    write_wav(tmp_path / "own.wav", own, RATE_HZ)
    timing = place_sound(tmp_path / "own.wav", tmp_path / "recorder.wav")
    assert timing is not None
    assert timing.offset_ms == pytest.approx(3000, abs=1)
    found = placed_features(tmp_path / "recorder.wav", timing, 0.0, 8.0, AudioSettings()).log_mel
    assert len(found) == 800
    assert (found[:295] == -100).all()
    assert found[310:].max() > -40


def test_sound_of_something_else_has_no_place(real_data_dir: Path, tmp_path: Path) -> None:
    folder = real_data_dir / "talking"
    write_wav(tmp_path / "other.wav", other_talk(folder), RATE_HZ)
    assert place_sound(folder / "syncnet_example.avi", tmp_path / "other.wav") is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clip", "offset_ms"), [("German_20s.mp4", -40.0), ("obama_weekly_edtalk.mp4", -250.0)]
)
def test_file_gets_the_recorders_sound_and_is_in_sync(
    real_data_dir: Path, tmp_path: Path, clip: str, offset_ms: float
) -> None:
    """Sound against sound first; what the camera's own sound was off by is found by the lips."""
    folder = real_data_dir / "talking"
    own, before = read_audio(folder / clip, RATE_HZ), other_talk(folder)
    write_wav(tmp_path / "recorder.wav", np.concatenate([before, own, before[:400_000]]), RATE_HZ)
    write_wav(tmp_path / "noisy.wav", noisy(own), RATE_HZ)
    shift_audio(folder / clip, tmp_path / "camera.mp4", 0.0, audio_path=tmp_path / "noisy.wav")
    inference = LipSyncInference()
    score, details = inference.analyse(tmp_path / "camera.mp4", tmp_path / "recorder.wav")
    assert details["recorder"] == {
        "start_s": pytest.approx(len(before) / RATE_HZ, abs=0.002),
        "drift_ppm": pytest.approx(0, abs=60),
    }
    assert details["offset_ms"] == pytest.approx(offset_ms, abs=25)
    done, message = inference.sync_video_audio(
        tmp_path / "camera.mp4", tmp_path / "recorder.wav", tmp_path / "fixed.mp4", score
    )
    assert done, message
    after = inference.compute_sync_score(tmp_path / "fixed.mp4")[1]
    assert (after["verdict"], after["recorder"]) == ("in_sync", None)
    # The sound is the recorder's, without the camera's noise.
    shift_ms = offset_ms if details["verdict"] != "in_sync" else 0.0
    clean = read_audio(tmp_path / "fixed.mp4", 16_000)[16_000 : 5 * 16_000]
    expected = read_audio(folder / clip, 16_000, 1.0 - shift_ms / 1000, 4.0)
    assert (
        np.corrcoef(sound_features(clean).log_mel.ravel(), sound_features(expected).log_mel.ravel())[0, 1]
        > 0.95
    )


@pytest.mark.slow
def test_sound_of_somebody_else_is_refused_with_the_reason(real_data_dir: Path, tmp_path: Path) -> None:
    folder = real_data_dir / "talking"
    write_wav(tmp_path / "dubbed.wav", other_talk(folder), RATE_HZ)
    inference = LipSyncInference()
    done, message = inference.sync_video_audio(
        folder / "German_20s.mp4", tmp_path / "dubbed.wav", tmp_path / "fixed.mp4"
    )
    assert not done
    assert "other words (dubbed, another language), another person's voice" in message
    assert "nothing was written" in message
    assert not (tmp_path / "fixed.mp4").exists()


def test_timing_of_a_recorder_is_a_timing() -> None:
    assert Timing(-67_000.0, 40.0).then(Timing(-250.0)) == Timing(
        -67_000.0 - 250 * (1 - 40e-6), pytest.approx(40.0)
    )
