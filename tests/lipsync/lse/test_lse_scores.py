"""Distances, their sign and their averages; the features of sound that is shifted; the published answer."""

import os
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
import torch
from brightness_net import BrightnessNet, flicker, flickering_sound
from torch.nn.functional import pairwise_distance

from facevox.media import iter_frames, read_audio
from lipsync.lse.network import SyncNet, load_syncnet
from lipsync.lse.scores import (
    BATCH_WINDOWS,
    MIN_WINDOWS,
    FaceScorer,
    lag_distances,
    num_windows_of,
    score_of,
    sound_features,
)
from lipsync.lse.sound import sound_rows
from lipsync.lse.weights import DEFAULT_FILE, VARIABLE


def slow_distances(lips: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """(windows, 31) as published: the sound between 15 rows of zeros, one window of lips after the other."""
    zeros = torch.zeros(15, lips.shape[1])
    between = torch.cat([zeros, torch.from_numpy(sound), zeros])
    rows = [
        pairwise_distance(torch.from_numpy(lips[[i]]).repeat(31, 1), between[i : i + 31])
        for i in range(len(lips))
    ]
    return torch.stack(rows).numpy()


def planted(num_windows: int, early_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of lips and of sound that is early by so many frames."""
    rng = np.random.default_rng(3)
    sound = rng.normal(0, 1, (num_windows, 1024)).astype(np.float32)
    lips = np.roll(sound, early_frames, axis=0) + rng.normal(0, 0.3, sound.shape).astype(np.float32)
    return lips, sound


def test_distances_are_those_of_torch_one_by_one() -> None:
    lips, sound = planted(40, 2)
    expected = slow_distances(lips, sound)
    np.testing.assert_allclose(lag_distances(lips, sound), expected, rtol=1e-5)
    parts = [lag_distances(lips[start : start + 7], sound, start) for start in range(0, 40, 7)]
    np.testing.assert_allclose(np.concatenate(parts), expected, rtol=1e-5)
    np.testing.assert_allclose(lag_distances(sound[:1], sound[:1])[0, 15], 1e-6 * np.sqrt(1024), rtol=1e-3)


@pytest.mark.parametrize("early_frames", [-15, -4, 0, 3, 15])
def test_offset_is_positive_where_the_sound_is_early(early_frames: int) -> None:
    lips, sound = planted(80, early_frames)
    mean = lag_distances(lips, sound).mean(axis=0)
    score = score_of(mean, 80)
    assert (score.offset_frames, score.num_windows) == (early_frames, 80)
    assert score.lse_d == mean.min()
    assert score.lse_c == sorted(mean)[15] - mean.min() > 10


@pytest.mark.parametrize(
    ("num_frames", "num_samples", "expected"),
    [(317, 317 * 640, 312), (100, 64_000 - 1, 94), (40, 64_000, 35), (5, 64_000, 0), (3, 0, 0)],
)
def test_number_of_windows_is_that_of_the_authors(num_frames: int, num_samples: int, expected: int) -> None:
    assert num_windows_of(num_frames, num_samples) == expected


@pytest.mark.parametrize("early_frames", [-6, 0, 4])
def test_frames_go_with_the_sound_of_their_own_time(early_frames: int) -> None:
    brightness = flicker(90)
    network = cast(SyncNet, BrightnessNet())
    sound = sound_features(network, flickering_sound(np.roll(brightness, -early_frames)), 85)
    scorer = FaceScorer(network, sound)
    for value in brightness:
        scorer.push(np.full((224, 224, 3), round(255 * value), np.uint8))
    score = scorer.finish()
    assert score is not None
    assert (score.offset_frames, score.num_windows) == (early_frames, 85)
    assert score.lse_c > 1


def test_scores_do_not_depend_on_batches_and_no_more_than_a_batch_is_held() -> None:
    num_frames = 77
    network = BrightnessNet()
    lips, sound = planted(num_frames - 5, 3)
    scorer = FaceScorer(cast(SyncNet, network), sound)
    images = np.random.default_rng(1).integers(0, 256, (num_frames, 224, 224, 3)).astype(np.uint8)
    for image in images:
        scorer.push(image)
    score = scorer.finish()
    assert max(network.sizes) == BATCH_WINDOWS + 4
    lips = network.lip_features(torch.from_numpy(images.transpose(0, 3, 1, 2)).float()).numpy()
    expected = slow_distances(lips[: len(sound)], sound).mean(axis=0)
    assert score is not None
    assert score.lse_d == pytest.approx(expected.min(), rel=1e-5)
    assert score.offset_frames == 15 - expected.argmin()


def test_too_few_windows_have_no_score() -> None:
    image = np.zeros((224, 224, 3), np.uint8)
    for num_windows in (MIN_WINDOWS - 1, MIN_WINDOWS):
        scorer = FaceScorer(cast(SyncNet, BrightnessNet()), np.ones((num_windows, 1024), np.float32))
        for _ in range(num_windows + 5):
            scorer.push(image)
        assert (scorer.finish() is None) == (num_windows < MIN_WINDOWS)


@pytest.mark.real_data
def test_features_of_shifted_real_sound_are_shifted(random_weights: Path, real_data_dir: Path) -> None:
    network = load_syncnet(random_weights)
    samples = read_audio(real_data_dir / "talking/syncnet_example.avi", 16_000, 0.0, 2.0)
    features = sound_features(network, samples, 45)
    later = sound_features(network, samples[3 * 640 :], 42)
    # The first row of the shorter one has no sample before it to subtract.
    np.testing.assert_allclose(later[1:], features[4:], rtol=1e-4, atol=1e-4)
    assert np.abs(later[1:] - features[3:-1]).max() > 0.01


@pytest.mark.real_data
def test_window_of_sound_begins_at_the_row_of_its_first_frame(
    random_weights: Path, real_data_dir: Path
) -> None:
    network = load_syncnet(random_weights)
    samples = read_audio(real_data_dir / "talking/syncnet_example.avi", 16_000, 0.0, 1.0)
    features, rows = sound_features(network, samples, 20), sound_rows(samples)
    for window in (0, 7, 19):
        alone = network.sound_features(torch.from_numpy(rows[4 * window : 4 * window + 20].T.copy()[None]))
        np.testing.assert_allclose(features[window], alone[0].numpy(), rtol=1e-4, atol=1e-5)


def saved_as_jpeg(images: list[np.ndarray]) -> list[np.ndarray]:
    """The pictures after FFmpeg's default JPEG, as the authors' program saves them: 200 kbit/s, coarse."""
    encoder, decoder = av.CodecContext.create("mjpeg", "w"), av.CodecContext.create("mjpeg", "r")
    assert isinstance(encoder, av.VideoCodecContext)
    assert isinstance(decoder, av.VideoCodecContext)
    encoder.height, encoder.width = images[0].shape[:2]
    encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuvj420p", Fraction(1, 25), Fraction(25)
    packets = [
        packet
        for image in images
        for packet in encoder.encode(av.VideoFrame.from_ndarray(image, format="bgr24"))
    ]
    packets += encoder.encode(None)
    frames = [frame for packet in packets for frame in decoder.decode(packet)]
    return [frame.to_ndarray(format="bgr24") for frame in [*frames, *decoder.decode(None)]]


@pytest.mark.real_data
@pytest.mark.parametrize(("is_saved", "tolerance"), [(True, 0.2), (False, 1.0)])
def test_published_answer_for_the_authors_example(
    real_data_dir: Path, is_saved: bool, tolerance: float
) -> None:
    """Offset 3, minimum distance 5.353, confidence 10.021, of frames that had been saved as JPEG."""
    file = Path(os.environ.get(VARIABLE) or Path(__file__).resolve().parents[3] / DEFAULT_FILE)
    if not file.is_file():
        pytest.skip(f"no syncnet_v2.model: put it at {DEFAULT_FILE}, or name it by {VARIABLE}")
    network = load_syncnet(file)
    video = real_data_dir / "talking/syncnet_example.avi"
    samples = read_audio(video, 16_000)
    images = [frame.image for frame in iter_frames(video, rate_hz=25, colour="bgr")]
    num_windows = num_windows_of(len(images), len(samples))
    scorer = FaceScorer(network, sound_features(network, samples, num_windows))
    for image in saved_as_jpeg(images) if is_saved else images:
        scorer.push(image)
    score = scorer.finish()
    assert score is not None
    assert (score.offset_frames, score.num_windows) == (3, 312)
    assert score.lse_d == pytest.approx(5.353, abs=tolerance)
    assert score.lse_c == pytest.approx(10.021, abs=tolerance)
