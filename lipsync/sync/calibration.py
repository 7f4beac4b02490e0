"""The probability that a clip is in sync, from its curve of similarities by lag.

A logistic regression on how far lags stand out in the curve, fitted by `python lipsync/calibration.py` (for
the untrained estimator, on example data) or by training (for a network, on people held out; in the
checkpoint).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from facevox.errors import UserError
from lipsync.clips.clock import FRAME_HZ
from lipsync.sync.estimators import SyncEstimator
from lipsync.sync.offset import LAG_MS, MAX_OFFSET_MS, LagCurve, lag_curve, search_lags
from lipsync.sync.verdicts import IN_SYNC_MS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lipsync.clips.features import ClipFeatures

FEATURE_NAMES = ("height in sync", "shortfall in sync", "log seconds")
PENALTY = 1e-2  # on squared weights of standardised features: keeps separable sets finite
NUM_STEPS = 100
MOST_LOGIT = 20.0


def curve_features(curve: LagCurve) -> NDArray[np.float64]:
    """(3,) FEATURE_NAMES of a curve.

    The height of the best lag in sync above the median, and by how much the best of all lags exceeds it,
    both in deviations of the curve; and the logarithm of the seconds that the curve rests on.

    Raises:
        ValueError: The curve is empty, or no lag in sync can be compared.
    """
    in_sync = curve.values[np.abs(curve.lags) * LAG_MS <= IN_SYNC_MS]
    if curve.is_empty or not np.isfinite(in_sync).any():
        raise ValueError("no lag in sync can be compared")
    best = float(np.nanmax(in_sync))
    height = (best - curve.middle) / curve.spread
    shortfall = (float(np.nanmax(curve.values)) - best) / curve.spread
    return np.array([height, shortfall, np.log(curve.num_frames.max() / FRAME_HZ)])


@dataclass(frozen=True)
class SyncCalibration:
    """A logistic regression on `curve_features`.

    Attributes:
        weights: One for each feature, as it comes.
        bias: Of the logit.
    """

    weights: tuple[float, ...]
    bias: float

    def probabilities(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) probabilities of being in sync from (N, 3) features."""
        logits = np.clip(features @ np.array(self.weights) + self.bias, -MOST_LOGIT, MOST_LOGIT)
        likely: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
        return likely

    def probability(self, curve: LagCurve) -> float:
        """The probability that the clip of this curve is in sync. Raises ValueError as `curve_features`."""
        return float(self.probabilities(curve_features(curve)[None])[0])

    @classmethod
    def fit(cls, features: NDArray[np.float64], labels: NDArray[np.bool_]) -> SyncCalibration:
        """Newton's method on the penalised log-likelihood; both kinds weigh the same.

        Args:
            features: (N, F).
            labels: (N,) true: in sync.

        Raises:
            ValueError: One of the kinds is missing.
        """
        is_sync = np.asarray(labels, np.bool_)
        if is_sync.all() or not is_sync.any():
            raise ValueError("clips in sync and clips out of sync are needed, both")
        means, scales = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-9)
        x_NF = np.column_stack([(features - means) / scales, np.ones(len(features))])
        shares = np.where(is_sync, 0.5 / is_sync.sum(), 0.5 / (~is_sync).sum())
        penalty = np.diag([PENALTY] * features.shape[1] + [0.0])
        w_F = np.zeros(x_NF.shape[1])
        for _ in range(NUM_STEPS):
            likely = 1 / (1 + np.exp(-np.clip(x_NF @ w_F, -MOST_LOGIT, MOST_LOGIT)))
            slope = x_NF.T @ (shares * (likely - is_sync)) + penalty @ w_F
            bend = (x_NF * (shares * likely * (1 - likely))[:, None]).T @ x_NF + penalty
            step = np.linalg.solve(bend + 1e-9 * np.eye(len(bend)), slope)
            w_F = w_F - step
            if np.abs(step).max() < 1e-8:
                break
        weights = w_F[:-1] / scales  # from here on for features that are not standardised
        return cls(tuple(weights.tolist()), float(w_F[-1] - weights @ means))

    def to_plain(self) -> dict[str, object]:
        """Plain numbers, for a checkpoint or a JSON file."""
        return {"features": list(FEATURE_NAMES), "weights": list(self.weights), "bias": self.bias}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> SyncCalibration:
        """The calibration that `to_plain` was called on.

        Raises:
            UserError: `plain` is something else.
        """
        try:
            values = np.array([*plain["weights"], plain["bias"]], float)
            fits = tuple(plain["features"]) == FEATURE_NAMES and len(values) == len(FEATURE_NAMES) + 1
        except (KeyError, TypeError, ValueError):
            raise UserError("calibration: features, weights and a bias are expected") from None
        if not fits or not np.isfinite(values).all():
            raise UserError(f"calibration: numbers for {', '.join(FEATURE_NAMES)} are expected")
        return cls(tuple(values[:-1].tolist()), float(values[-1]))


# Of `LoudnessEstimator`, see above.
LOUDNESS_CALIBRATION = SyncCalibration((1.1128, -1.0550, -0.4461), -1.1805)


# Lengths of the stretches that are fitted on, and the least share of a person's own voice in their
# similarities. The lips of example people follow their voice far better than real ones, so that similarities
# with another person's voice are mixed in; the share of their own is drawn evenly from this to 1.
WINDOW_FRAMES = (50, 125, 250)
LEAST_SHARE = 0.25
# Shifts that are out of sync; smaller ones belong to neither kind. Half of them are at most CLOSE_MS: those
# are hard to distinguish, and real files are off by as much.
NEAR_MS, CLOSE_MS, FAR_MS = 100.0, 200.0, 800.0


def calibration_examples(
    clips: Sequence[ClipFeatures], estimator: SyncEstimator, *, num_each: int = 4, seed: int = 0
) -> Iterator[tuple[NDArray[np.float64], bool]]:
    """Features of stretches in sync, shifted, and with another clip's sound; (features, is in sync).

    Args:
        clips: In sync, of at least two.
        estimator: Its similarities.
        num_each: Stretches of each length and clip.
        seed: Of positions, shifts and shares.
    """
    rng = np.random.default_rng(seed)
    most = round((MAX_OFFSET_MS + FAR_MS) / LAG_MS)
    wide = np.arange(-most, most + 1, dtype=np.int64)
    lags = search_lags()
    for number, clip in enumerate(clips):
        track = clip.tracks[0]
        matching = estimator.similarities(track, clip.sound, wide)
        other = clips[(number + 1 + int(rng.integers(len(clips) - 1))) % len(clips)]
        foreign = estimator.similarities(track, other.sound, wide)
        for length in WINDOW_FRAMES:
            for _ in range(num_each):
                start = int(rng.integers(max(len(track) - length, 0) + 1))
                part = slice(start, start + length)
                share = rng.uniform(LEAST_SHARE, 1.0)
                mixed = share * matching[part] + (1 - share) * foreign[part]
                most_ms = CLOSE_MS if rng.random() < 0.5 else FAR_MS
                steps = rng.integers(round(NEAR_MS / LAG_MS), round(most_ms / LAG_MS) + 1)
                steps *= rng.choice((-1, 1))
                shifts = {"in sync": int(rng.integers(-2, 3)), "shifted": int(steps), "swapped": 0}
                for kind, shift in shifts.items():
                    values = foreign[part] if kind == "swapped" else mixed
                    first = len(wide) // 2 - len(lags) // 2 - shift
                    curve = lag_curve(values[:, first : first + len(lags)], lags)
                    try:
                        yield curve_features(curve), kind == "in sync"
                    except ValueError:  # too short to compare the lags in sync
                        continue


def fit_calibration(clips: Sequence[ClipFeatures], estimator: SyncEstimator) -> SyncCalibration:
    """The calibration of an estimator on clips that are in sync.

    Raises:
        UserError: Fewer than two clips, or none long enough.
    """
    if len(clips) < 2:
        raise UserError(f"{len(clips)} clips; at least two are needed, to swap their sounds")
    examples = list(calibration_examples(clips, estimator))
    if not examples:
        raise UserError("no stretch with a face and sound is long enough to calibrate on")
    features, labels = zip(*examples, strict=True)
    return SyncCalibration.fit(np.stack(features), np.array(labels))
