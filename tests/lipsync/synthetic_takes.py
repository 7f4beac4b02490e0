"""Takes whose lips follow the loudness of their sound, made of numbers alone."""

import numpy as np
import torch
from numpy.typing import NDArray

from lipsync.clips.features import FaceTrack
from lipsync.clips.sounds import SoundFeatures
from lipsync.network.evaluation import Measurements, foreign_of, measure_take
from lipsync.network.model import LipSyncNetwork, NetworkConfig
from lipsync.network.takes import Take
from lipsync.sync.estimators import SyncEstimator
from lipsync.sync.offset import rows_of_frames
from lipsync.sync.posterior import BLOCK_FRAMES, SyncCalibration

RNG_RING = np.linspace(0, 2 * np.pi, 20, endpoint=False)


def make_lips(opening: np.ndarray) -> np.ndarray:
    """(n, 40, 2) two ellipses whose heights follow `opening` (n,)."""
    # From the left corner along the lower lip (positive y) to the right one and back.
    x, y = -np.cos(RNG_RING), np.sin(RNG_RING)
    lips = np.empty((len(opening), 40, 2), np.float32)
    for ring, (width, height) in enumerate(((0.5, 0.15), (0.4, 0.02))):
        part = slice(20 * ring, 20 * ring + 20)
        lips[:, part, 0] = width * x
        lips[:, part, 1] = (height + 0.1 * opening)[:, None] * y
    return lips


def make_take(
    seed: int,
    num_frames: int = 200,
    *,
    speaker: str = "",
    start: int = 0,
    offset_rows: int = 0,
    mouth_px: int = 16,
    noise: float = 0.1,
) -> Take:
    """A face that opens its mouth with its voice, the sound early by `offset_rows`."""
    rng = np.random.default_rng(seed)
    num_rows = 4 * (start + num_frames)
    rows = np.arange(num_rows)
    loudness = sum(
        rng.normal() * np.sin(2 * np.pi * rate * rows / 100 + rng.uniform(0, 6))
        for rate in rng.uniform(1.0, 5.0, 8)
    ) / np.sqrt(8)
    shape = rng.normal(0, 1, 40)
    log_mel = -30 + 8 * loudness[:, None] + shape + rng.normal(0, 1, (num_rows, 40))
    heard = np.roll(log_mel, -offset_rows, axis=0).astype(np.float32)
    opening = loudness[4 * start :: 4][:num_frames] + rng.normal(0, noise, num_frames)
    mouths = np.zeros((num_frames, mouth_px, mouth_px), np.uint8)
    mouths[:] = np.clip(128 + 40 * opening, 0, 255).astype(np.uint8)[:, None, None]
    mouths[:, : mouth_px // 2] = rng.integers(0, 255, (mouth_px // 2, mouth_px))
    track = FaceTrack(
        track_id=0,
        start=start,
        shot=0,
        mouths=mouths,
        lips=make_lips(opening),
        opening=opening.astype(np.float32),
        boxes_px=np.zeros((num_frames, 4), np.float32),
        is_measured=np.ones(num_frames, np.bool_),
        face_rgb=np.zeros((8, 8, 3), np.uint8),
    )
    sound = SoundFeatures(heard, heard[:, :13].copy())
    return Take(f"clip{seed}", speaker or f"speaker{seed}", track, sound, 10.0 * offset_rows)


def make_network(frontend: str = "lip_landmarks", temporal: str = "lstm", **sizes: int) -> LipSyncNetwork:
    """A network of fresh weights, for mouth crops of 24 pixels, whose temporal parts count."""
    torch.manual_seed(0)
    network = LipSyncNetwork(
        NetworkConfig(visual_frontend=frontend, temporal=temporal, **({"mouth_px": 24} | sizes))
    )
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith("gain"):  # as large as training may make it
                value.fill_(1.0)
    return network.eval()


class Planted(SyncEstimator):
    """Finds its own sound at `lag`; in foreign ones another lag every 0.4 s, as if words fitted by chance."""

    name = "planted"

    def __init__(self, own: SoundFeatures, lag: int, noise: float, seed: int) -> None:
        self.own, self.lag, self.noise = own, lag, noise
        self.rng = np.random.default_rng(seed)

    def face_vectors(self, track: FaceTrack) -> NDArray[np.float32]:
        raise NotImplementedError("planted similarities are no products")

    def sound_vectors(self, sound: SoundFeatures) -> NDArray[np.float32]:
        raise NotImplementedError("planted similarities are no products")

    def similarities(
        self, track: FaceTrack, sound: SoundFeatures, lags: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        best = np.full(len(track), self.lag)
        if sound is not self.own:
            numbers = np.arange(len(track)) // BLOCK_FRAMES
            best = self.rng.integers(lags[0], lags[-1] + 1, len(track))[numbers]
        values = np.exp(-0.5 * ((lags[None] - best[:, None]) / 3) ** 2)
        values += self.rng.normal(0, self.noise, values.shape)
        _, exists = rows_of_frames(track.start, len(track), len(sound.log_mel), lags)
        return np.where(exists, values, np.nan).astype(np.float32)


PLANTED_CALIBRATION = SyncCalibration(sharpness=2.0, weight=1.0, bias=0.0, spread_ms=7.0)


def measure_planted(
    found: Measurements,
    off_by: int = 0,
    noise: float = 0.02,
    calibration: SyncCalibration | None = PLANTED_CALIBRATION,
) -> None:
    """Adds the windows of four takes of a speaker each, found `off_by` rows beside the right lag."""
    takes = [make_take(seed, 400, offset_rows=5) for seed in range(4)]
    for number, take in enumerate(takes):
        estimator = Planted(take.sound, take.lag + off_by, noise, number)
        rng = np.random.default_rng(number)
        measure_take(found, take, foreign_of(takes, number), estimator, calibration, rng)
