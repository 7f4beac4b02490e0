"""Log-mel and MFCC: librosa's numbers, on the clock of the pictures, in blocks or whole."""

import librosa
import numpy as np
import pytest

from lipsync.clips.sounds import FLOOR_DB, HOP, SAMPLE_RATE_HZ, SoundFeatureStream, sound_features

pytestmark = pytest.mark.numeric


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, num_samples).astype(np.float32)


def test_rows_are_those_of_librosa() -> None:
    samples = noise(16001)
    found = sound_features(samples)
    mel = librosa.feature.melspectrogram(
        y=samples, sr=16000, n_fft=512, win_length=400, hop_length=160, center=True, pad_mode="constant",
        n_mels=40, fmin=0, fmax=8000,
    )  # fmt: skip
    log_mel = librosa.power_to_db(mel, top_db=None)
    assert found.log_mel.shape == (101, 40)
    assert np.abs(found.log_mel - log_mel.T).max() < 1e-4
    mfcc = librosa.feature.mfcc(S=log_mel, n_mfcc=13)
    assert np.abs(found.mfcc - mfcc.T).max() < 1e-3


def test_rows_agree_with_a_slow_transform_written_out() -> None:
    samples = noise(3000, 1)
    padded = np.concatenate([np.zeros(256), samples, np.zeros(512)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)  # periodic Hann
    bank = librosa.filters.mel(sr=16000, n_fft=512, n_mels=20, fmin=0, fmax=8000)
    times, bins = np.arange(512), np.arange(257)
    basis = np.exp(-2j * np.pi * np.outer(bins, times) / 512)
    found = sound_features(samples, num_mels=20).log_mel
    for row in (0, 5, 18):
        part = padded[row * HOP : row * HOP + 512].copy()
        part[56:456] *= window
        part[:56] = part[456:] = 0
        power = np.abs(basis @ part) ** 2
        assert np.abs(10 * np.log10(bank @ power) - found[row]).max() < 1e-3


@pytest.mark.parametrize("num_samples", [0, 1, 159, 160, 161, 500, 4001])
@pytest.mark.parametrize("block", [1000, 7, 160])
def test_blocks_give_the_rows_of_the_whole(num_samples: int, block: int) -> None:
    samples = noise(num_samples)
    whole = sound_features(samples)
    assert len(whole.log_mel) == len(whole.mfcc) == -(-num_samples // HOP)
    stream = SoundFeatureStream()
    parts = [stream.push(samples[k : k + block]) for k in range(0, num_samples, block)] + [stream.finish()]
    joined = np.concatenate([part.log_mel for part in parts])
    assert joined.shape == whole.log_mel.shape
    assert np.abs(joined - whole.log_mel).max(initial=0) < 1e-3
    assert np.abs(np.concatenate([p.mfcc for p in parts]) - whole.mfcc).max(initial=0) < 1e-2


def test_row_is_centred_on_its_moment() -> None:
    samples = np.zeros(SAMPLE_RATE_HZ, np.float32)
    samples[5000] = 1.0  # 312.5 ms
    energy = (10 ** (sound_features(samples).log_mel / 10)).sum(axis=1)
    centre = (energy * np.arange(100)).sum() / energy.sum()
    assert centre == pytest.approx(31.25, abs=0.3)


def test_silence_is_at_the_floor_and_finite() -> None:
    found = sound_features(np.zeros(1600, np.float32))
    assert np.all(found.log_mel == pytest.approx(FLOOR_DB))
    assert np.isfinite(found.mfcc).all()


def test_rows_do_not_depend_on_the_rest_of_the_clip() -> None:
    samples = noise(8000)
    loud = samples.copy()
    loud[6000:] *= 100
    assert np.array_equal(sound_features(samples).log_mel[:30], sound_features(loud).log_mel[:30])
