"""Similarity of each moment of a mouth and each moment of a sound, without a network.

Every estimator turns the frames of a face and the rows of a sound into vectors whose products are
similarities. Lags count rows of the sound, 10 ms each. A positive lag means that the audio is early by that
much: the frame shown at time t then belongs to the sound at t - lag, and offset_ms = 10 * lag.

`LoudnessEstimator` needs no training: it compares lips that move apart with sound that grows louder.
`RidgeEstimator` maps log-mel bands to six distances of the mouth by a ridge regression that its user fits.
Importing this costs little more than NumPy: SciPy, which takes half a second, waits until it is used.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from facevox.signs import report_progress
from lipsync.clips.clock import ROW_HZ, ROWS_PER_FRAME
from lipsync.sync.chunks import in_chunks
from lipsync.sync.offset import LAG_MS, rows_of_frames
from lipsync.sync.posterior import BLOCK_FRAMES, SyncCalibration, block_evidence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lipsync.clips.features import FaceTrack
    from lipsync.clips.sounds import SoundFeatures

CHUNK_FRAMES = 10 * BLOCK_FRAMES  # compared at once
CHUNK_ROWS = 6000  # of sound, looked at once
# Heads that nod and sentences that rise are no syllables: what is slower than about 1.3 Hz (a Gaussian of
# 0.12 s) is taken out of both sides. Of 2, 3, 4, 6 and 10 frames, 3 found most offsets.
HIGH_PASS_FRAMES = 3.0
HIGH_PASS_REACH = 4  # the Gaussian ends after that many deviations
SOUND_SMOOTH_ROWS = 3.0  # 30 ms: a frame's worth, so that nothing aliases at 25 samples a second
LOUDEST_PERCENTILE = 99.5
QUIET_DB = 50.0  # below the loudest; what is quieter is room
# Positions in `lipsync.clips.mouths.LIP_POINTS`; both rings begin at the left corner, along the lower lip.
OUTER_LOWER, OUTER_RIGHT, OUTER_UPPER, OUTER_LEFT = 5, 10, 15, 0
INNER_LOWER, INNER_RIGHT, INNER_UPPER, INNER_LEFT = 25, 30, 35, 20

Floating = TypeVar("Floating", np.float32, np.float64)


class SyncEstimator(ABC):
    """Estimates how well frames of a face fit rows of a sound.

    Attributes:
        name: Its name in outputs (`details["method"]`).
        rate_hz: Lags are counted in steps of 1 / rate_hz.
        context_frames: Frames on either side of a frame that its similarities depend on.
        needs_mouths: Whether it looks at pictures of mouths; else at lips alone.
    """

    name: str
    rate_hz: float = ROW_HZ
    context_frames: int = 0
    needs_mouths: bool = False

    @abstractmethod
    def face_vectors(self, track: FaceTrack) -> NDArray[np.float32]:
        """(frames, D) of a face; times a row of `sound_vectors`, the similarity of the two."""

    @abstractmethod
    def sound_vectors(self, sound: SoundFeatures) -> NDArray[np.float32]:
        """(rows, D) of a sound."""

    def similarities(
        self, track: FaceTrack, sound: SoundFeatures, lags: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Similarities (frames, lags) of a face and a sound.

        Args:
            track: The face.
            sound: Rows from time 0 on the clock of the track.
            lags: (L,) whole rows; positive: the audio is early.

        Returns:
            (len(track), L) float32; larger is more alike. NaN where the frame was not measured or its
            sound at that lag is outside the recording.
        """
        parts = self.iter_similarities(track, self.sound_vectors(sound), lags)
        return np.concatenate([np.zeros((0, len(lags)), np.float32), *parts])

    def iter_similarities(
        self, track: FaceTrack, sound_RD: NDArray[np.float32], lags: NDArray[np.int64]
    ) -> Iterator[NDArray[np.float32]]:
        """The rows of `similarities`, CHUNK_FRAMES at a time: those of an hour take gigabytes.

        Args:
            track, lags: As `similarities` has them.
            sound_RD: The sound's vectors, which serve all faces.
        """
        face_TD = self.face_vectors(track)
        # Chunks end with blocks of the clip.
        ends = range(CHUNK_FRAMES - track.start % BLOCK_FRAMES, len(track) + CHUNK_FRAMES, CHUNK_FRAMES)
        first = 0
        for end in ends:
            report_progress()
            part_TD = face_TD[first:end]
            if len(part_TD) == 0:
                break
            rows, exists = rows_of_frames(track.start + first, len(part_TD), len(sound_RD), lags)
            usable = exists & track.is_measured[first:end, None]
            first = end
            values = np.full(rows.shape, np.nan, np.float32)
            if len(sound_RD):
                # Only the rows near these frames; most products are of no lag, so chunks are small.
                near = slice(int(rows.min()), int(rows.max()) + 1)
                product_TR = part_TD @ sound_RD[near].T
                values[usable] = np.take_along_axis(product_TR, rows - near.start, axis=1)[usable]
            yield values

    def evidence(
        self, track: FaceTrack, sound_RD: NDArray[np.float32], lags: NDArray[np.int64], sharpness: float
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Evidence and number of frames (`lipsync.sync.posterior.block_evidence`) of the blocks of a face.

        Blocks are those of the clip, so that faces that follow one another share them; the first may begin
        before the face does. The face's own number 0 is block `track.start // BLOCK_FRAMES` of the clip.

        Args:
            track, sound_RD, lags: As `iter_similarities` has them.
            sharpness: Of the calibration.
        """
        before = np.full((track.start % BLOCK_FRAMES, len(lags)), np.nan, np.float32)
        parts = [np.zeros((0, len(lags)), np.float32)]
        counts = [np.zeros(0, np.int64)]
        for values in self.iter_similarities(track, sound_RD, lags):
            of_blocks, frames = block_evidence(np.concatenate([before, values]), sharpness)
            before = before[:0]
            parts.append(of_blocks)
            counts.append(frames)
        return np.concatenate(parts), np.concatenate(counts)


def smoothed(
    values: NDArray[Floating], sigma: float, mode: Literal["nearest", "reflect"] = "nearest"
) -> NDArray[Floating]:
    """`values` (n, ...) after a Gaussian of `sigma` samples along the first axis.

    Beyond the ends, `nearest` repeats the outermost value and `reflect` mirrors the values.
    """
    from scipy.ndimage import gaussian_filter1d

    report_progress()
    if len(values) == 0:
        return values
    smooth: NDArray[Floating] = gaussian_filter1d(values, sigma, axis=0, mode=mode, truncate=HIGH_PASS_REACH)
    return smooth


def high_passed(values: NDArray[Floating], sigma: float) -> NDArray[Floating]:
    """`values` (n, ...) less `smoothed` ones: the changes that are faster than the Gaussian."""
    return values - smoothed(values, sigma)


def lip_distances(lips: NDArray[np.float32]) -> NDArray[np.float64]:
    """Six distances of the mouth, in halves of the crop, from (n, 40, 2) lips: (n, 6).

    Height and width of the outer ring, height and width of the inner ring, lowest and highest point.
    """
    x, y = lips[..., 0].astype(np.float64), lips[..., 1].astype(np.float64)
    return np.stack(
        [
            y[:, OUTER_LOWER] - y[:, OUTER_UPPER],
            x[:, OUTER_RIGHT] - x[:, OUTER_LEFT],
            y[:, INNER_LOWER] - y[:, INNER_UPPER],
            x[:, INNER_RIGHT] - x[:, INNER_LEFT],
            y[:, OUTER_LOWER],
            y[:, OUTER_UPPER],
        ],
        axis=1,
    )


def band_levels(log_mel: NDArray[np.float32], num_groups: int) -> NDArray[np.float64]:
    """Means over groups of neighbouring log-mel bands in dB, (rows, num_groups).

    Bands are raised to QUIET_DB below the loudest of the recording where they are quieter, so that
    differences of the result do not depend on its gain.
    """
    edges = np.linspace(0, log_mel.shape[1], num_groups + 1).round().astype(int)
    loudest_db = float(np.percentile(log_mel.max(axis=1), LOUDEST_PERCENTILE)) if len(log_mel) else 0.0

    def means(part: NDArray[np.float32]) -> NDArray[np.float64]:
        raised = np.maximum(part.astype(np.float64), loudest_db - QUIET_DB)
        groups = [raised[:, low:high].mean(axis=1) for low, high in itertools.pairwise(edges)]
        levels: NDArray[np.float64] = np.stack(groups, axis=1)
        return levels

    return in_chunks(log_mel, CHUNK_ROWS, 0, means)


def loudness_db(log_mel: NDArray[np.float32]) -> NDArray[np.float64]:
    """(rows,) mean of `band_levels`."""
    return band_levels(log_mel, 1)[:, 0]


class _SignalEstimator(SyncEstimator):
    """Compares signals of the mouth with those that are expected from the sound.

    The similarity is how much likelier the mouth is with its expected value p than with an expected value
    of zero, for normal deviations: (v * p - p^2 / 2) / variance, added over the signals.
    """

    context_frames = round(HIGH_PASS_FRAMES * HIGH_PASS_REACH)

    @abstractmethod
    def mouth_signals(self, track: FaceTrack) -> NDArray[np.float64]:
        """(frames, m) of the mouth."""

    @abstractmethod
    def expected_signals(self, sound: SoundFeatures) -> NDArray[np.float64]:
        """(rows, m) expected from the sound."""

    @property
    @abstractmethod
    def variances(self) -> NDArray[np.float64]:
        """(m,) of the deviations."""

    def face_vectors(self, track: FaceTrack) -> NDArray[np.float32]:
        mouth = self.mouth_signals(track)
        return np.column_stack([mouth, np.ones(len(mouth))]).astype(np.float32)

    def sound_vectors(self, sound: SoundFeatures) -> NDArray[np.float32]:
        expected = self.expected_signals(sound)
        gains = expected / self.variances
        return np.column_stack([gains, -0.5 * (gains * expected).sum(axis=1)]).astype(np.float32)


class LoudnessEstimator(_SignalEstimator):
    """Compares the height of the lips with the mean level of the log-mel bands; nothing is fitted.

    Both are brought to deviations of about 1 by fixed numbers, so that the noise of a mouth that does not
    move is not amplified. Tried on real clips and not better: the inner gap, the lower lip, their sum, the
    width of the mouth next to its height, single groups of bands, power instead of dB.
    """

    name = "mouth opening x loudness"
    # Voices grow louder that much after lips part, over 22 clips of known offset (8 ms): counted as 0.
    LATE_ROWS = 1
    MOUTH_DEVIATION = 0.04  # halves of the crop: 2 % of the distance between the eyes
    LOUDNESS_DEVIATION_DB = 4.0
    CORRELATION = 0.5  # of the two in real speech: 0.3 to 0.8

    def mouth_signals(self, track: FaceTrack) -> NDArray[np.float64]:
        height = lip_distances(track.lips)[:, :1]
        return high_passed(height, HIGH_PASS_FRAMES) / self.MOUTH_DEVIATION

    def expected_signals(self, sound: SoundFeatures) -> NDArray[np.float64]:
        level_db = smoothed(loudness_db(sound.log_mel), SOUND_SMOOTH_ROWS)
        fast_db = high_passed(level_db, HIGH_PASS_FRAMES * ROWS_PER_FRAME)
        rows = np.minimum(np.arange(len(fast_db)) + self.LATE_ROWS, max(len(fast_db) - 1, 0))
        return self.CORRELATION * fast_db[rows, None] / self.LOUDNESS_DEVIATION_DB

    @property
    def variances(self) -> NDArray[np.float64]:
        return np.array([1.0 - self.CORRELATION**2])


# Fitted by scripts/setup/make_lipsync_model.py, on the people that the shipped model was not trained on.
UNTRAINED_CALIBRATION = SyncCalibration(sharpness=0.458, weight=1.538, bias=-0.399, spread_ms=5.0)


@dataclass(frozen=True)
class RidgeExample:
    """A face and a sound whose offset is known, to fit on."""

    track: FaceTrack
    sound: SoundFeatures
    offset_ms: float


class RidgeEstimator(_SignalEstimator):
    """A ridge regression from log-mel bands around a moment to six distances of the mouth.

    Args:
        weights: (taps * bands, 6), from `fit`.
        variances: (6,) of the residuals.
    """

    name = "ridge from log-mel bands"
    NUM_BANDS = 20
    TAPS = np.arange(-3, 4) * ROWS_PER_FRAME  # 3 frames on either side
    LOUDNESS_DEVIATION_DB = 6.0
    MIN_DEVIATION = 0.01  # halves of the crop; a mouth that moves less stands still

    context_frames = _SignalEstimator.context_frames + 3

    def __init__(self, weights: NDArray[np.float64], variances: NDArray[np.float64]) -> None:
        self.weights = weights
        self._variances = variances

    @property
    def variances(self) -> NDArray[np.float64]:
        return self._variances

    @classmethod
    def mouth_of(cls, track: FaceTrack) -> NDArray[np.float64]:
        """(frames, 6) distances, fast changes only, in deviations of this face."""
        fast = high_passed(lip_distances(track.lips), HIGH_PASS_FRAMES)
        deviations = fast[track.is_measured].std(axis=0) if track.is_measured.any() else np.zeros(6)
        signals: NDArray[np.float64] = fast / np.maximum(deviations, cls.MIN_DEVIATION)
        return signals

    @classmethod
    def inputs_of(cls, sound: SoundFeatures) -> NDArray[np.float64]:
        """(rows, taps * bands): the fast changes of the bands at the taps around each row."""
        fast = cls._fast_bands(sound)
        rows = np.clip(np.arange(len(fast))[:, None] + cls.TAPS, 0, max(len(fast) - 1, 0))
        inputs: NDArray[np.float64] = fast[rows]
        return inputs.reshape(len(fast), len(cls.TAPS) * cls.NUM_BANDS)

    @classmethod
    def _fast_bands(cls, sound: SoundFeatures) -> NDArray[np.float64]:
        """(rows, bands): their fast changes."""
        levels = band_levels(sound.log_mel, cls.NUM_BANDS)
        slow_rows = HIGH_PASS_FRAMES * ROWS_PER_FRAME
        reach = round((SOUND_SMOOTH_ROWS + slow_rows) * HIGH_PASS_REACH)
        return in_chunks(
            levels,
            CHUNK_ROWS,
            reach,
            lambda part: (
                high_passed(smoothed(part, SOUND_SMOOTH_ROWS), slow_rows) / cls.LOUDNESS_DEVIATION_DB
            ),
        )

    def mouth_signals(self, track: FaceTrack) -> NDArray[np.float64]:
        return self.mouth_of(track)

    def expected_signals(self, sound: SoundFeatures) -> NDArray[np.float64]:
        # Tap by tap: the inputs of all taps at once are seven times the bands.
        fast = self._fast_bands(sound)
        last = max(len(fast) - 1, 0)
        total = np.zeros((len(fast), self.weights.shape[1]))
        for tap, weights in zip(
            self.TAPS, self.weights.reshape(len(self.TAPS), self.NUM_BANDS, -1), strict=True
        ):
            total += fast[np.clip(np.arange(len(fast)) + tap, 0, last)] @ weights
        return total

    @classmethod
    def fit(cls, examples: Iterable[RidgeExample], penalty: float = 1.0) -> RidgeEstimator:
        """The regression over all measured frames of the examples.

        Args:
            examples: At least one with sound; bands must be at least `NUM_BANDS` (log-mel of 40 here).
            penalty: On the squared weights, in units of the mean squared input.

        Raises:
            ValueError: No frame to fit on.
        """
        inputs, outputs = [], []
        for example in examples:
            sound_inputs = cls.inputs_of(example.sound)
            lag = np.array([round(example.offset_ms / LAG_MS)])
            rows, exists = rows_of_frames(example.track.start, len(example.track), len(sound_inputs), lag)
            used = exists[:, 0] & example.track.is_measured
            inputs.append(sound_inputs[rows[used, 0]])
            outputs.append(cls.mouth_of(example.track)[used])
        x_ND, y_NM = np.concatenate(inputs), np.concatenate(outputs)
        if len(x_ND) == 0:
            raise ValueError("no measured frame with sound to fit on")
        gram_DD = x_ND.T @ x_ND
        ridge = penalty * np.trace(gram_DD) / len(gram_DD)
        weights_DM = np.linalg.solve(gram_DD + ridge * np.eye(len(gram_DD)), x_ND.T @ y_NM)
        return cls(weights_DM, np.maximum((y_NM - x_ND @ weights_DM).var(axis=0), 1e-6))
