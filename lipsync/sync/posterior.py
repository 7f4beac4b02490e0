"""One posterior over offsets: score, verdict, interval and curve all come from it, so that they agree.

Similarities are turned into evidence, block by block: how much likelier what is seen of the mouth is with the
sound at a lag than with the sound at any lag, as a logarithm. Blocks add up, as syllables are about
independent of one another; a lag whose sound is outside the recording gets no evidence for or against it.
From the sum E over the blocks come:

    P(lag | match)   softmax of E and the logarithm of `lag_prior`, widened by what differs between speakers
    P(match)         logistic in the logarithm of the mean of exp(E) under that prior: lips that follow
                     another sound have no lag that gains from block to block, so that this falls with each
    score            P(match) times the mass of the lags within IN_SYNC_MS
    offset           the likeliest lag, refined by a parabola through E; its interval holds 90 % of the masses

Four numbers are fitted (`fit_calibration`), on people whom the estimator was not fitted on. Beforehand three
of four clips are taken to match (MATCH_SHARE), and of these two of five to be about in sync (IN_SYNC_SHARE),
the others anywhere in the search.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from facevox.errors import UserError
from lipsync.sync.offset import LAG_MS, PEAK_STEPS, peak_lag

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_FRAMES = 10  # 0.4 s, two syllables
# In sync: from 60 ms late to 60 ms early, the tighter end of EBU R37 (+40/-60) and a frame and a half.
IN_SYNC_MS = 60.0
NEAR_MS = 40.0  # of the offset: a frame
INTERVAL = 0.90
MATCH_SHARE = 0.75
IN_SYNC_SHARE, IN_SYNC_DEVIATION_MS = 0.4, 50.0
LEAST_FRAMES = 20  # with evidence; less gives no answer
LEAST_PART = 0.2  # of the blocks, for the longest part of one offset
SPREAD_REACH = 4  # deviations that the widening goes to each side
MOST_LOGIT = 20.0


@dataclass(frozen=True, kw_only=True)
class SyncCalibration:
    """Four numbers that turn the similarities of an estimator into probabilities.

    Attributes:
        sharpness: Factor on similarities, above 0: frames are not independent of one another.
        weight: Of the evidence for a match in its logit, above 0.
        bias: Of that logit, where match and no match are equally likely beforehand.
        spread_ms: Standard deviation of the offsets of speakers who are all in sync, above 0; a longer
            recording does not reduce it.
    """

    sharpness: float
    weight: float
    bias: float
    spread_ms: float

    def to_plain(self) -> dict[str, float]:
        """Plain numbers, for a checkpoint or a JSON file."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> SyncCalibration:
        """The calibration that `to_plain` was called on.

        Raises:
            UserError: `plain` is something else.
        """
        names = [field.name for field in fields(cls)]
        try:
            values = {name: float(plain[name]) for name in names}
        except (KeyError, TypeError, ValueError):
            raise UserError(f"calibration: numbers named {', '.join(names)} are expected") from None
        is_positive = all(values[name] > 0 for name in ("sharpness", "weight", "spread_ms"))
        if not is_positive or not np.isfinite(list(values.values())).all():
            raise UserError(
                "calibration: finite numbers are expected; sharpness, weight and spread_ms above 0"
            )
        return cls(**values)


@dataclass(frozen=True)
class Posterior:
    """Offsets and their probabilities; see the module.

    Attributes:
        lags: (L,) whole rows.
        evidence: (L,) float64 logarithms.
        grid_ms: (G,) float64 offsets, the lags and what the widening adds at both ends.
        masses: (G,) float64: P(offset | match), of sum 1.
        match: P(match).
        offset_ms: The likeliest; positive: the audio is early.
        interval_ms: Holds it with a probability of 90 %, given a match.
        num_frames: With evidence.
    """

    lags: NDArray[np.int64]
    evidence: NDArray[np.float64]
    grid_ms: NDArray[np.float64]
    masses: NDArray[np.float64]
    match: float
    offset_ms: float
    interval_ms: tuple[float, float]
    num_frames: int

    @property
    def in_sync(self) -> float:
        """The score: probability of a match whose offset is within IN_SYNC_MS."""
        return self.match * self.mass_between(-IN_SYNC_MS, IN_SYNC_MS)

    @property
    def is_at_edge(self) -> bool:
        """True where the likeliest lag is at an end of the search: the true one may be beyond."""
        low_ms, high_ms = LAG_MS * (self.lags[0] + PEAK_STEPS), LAG_MS * (self.lags[-1] - PEAK_STEPS)
        return not low_ms < self.offset_ms < high_ms

    @property
    def near(self) -> float:
        """Probability, given a match, that `offset_ms` is right to a frame."""
        return self.mass_between(self.offset_ms - NEAR_MS, self.offset_ms + NEAR_MS)

    @property
    def confidence(self) -> float:
        """Probability of a match whose offset is that of `offset_ms` to a frame."""
        return self.match * self.near

    def mass_between(self, low_ms: float, high_ms: float) -> float:
        """Probability, given a match, of the offsets from `low_ms` to `high_ms`, both included."""
        low, high = _below(self.grid_ms, self.masses, low_ms), _below(self.grid_ms, self.masses, high_ms)
        return float(min(max(high - low, 0.0), 1.0))


def block_evidence(
    similarities: NDArray[np.float32], sharpness: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Evidence and number of frames of consecutive blocks of BLOCK_FRAMES; the last may be shorter.

    Args:
        similarities: (frames, L), NaN where there is nothing to compare.
        sharpness: As in `SyncCalibration`.

    Returns:
        (blocks, L) logarithms, 0 where a block has nothing at that lag; (blocks,) frames with any value.
    """
    sums, is_tested, counts = _block_sums(similarities)
    return _evidence_of(sums, is_tested, sharpness).astype(np.float32), counts


def _block_sums(
    similarities: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """(blocks, L) sums without the means of frames, and where there are any; (blocks,) frames with any."""
    has_value = np.isfinite(similarities)
    starts = np.arange(0, len(similarities), BLOCK_FRAMES)
    counts = has_value.sum(axis=1)
    values = np.where(has_value, similarities, np.float32(0.0))
    # Without the mean of each frame: a lag that lacks the frame is then neither better nor worse than others.
    means = values.sum(axis=1, dtype=np.float64) / np.maximum(counts, 1)
    centred = np.where(has_value, values - means[:, None], 0.0)
    is_tested = np.add.reduceat(has_value, starts, axis=0, dtype=np.int64) > 0
    num_frames = np.add.reduceat(counts > 0, starts, dtype=np.int64)
    return np.add.reduceat(centred, starts, axis=0), is_tested, num_frames


def _evidence_of(
    sums: NDArray[np.float64], is_tested: NDArray[np.bool_], sharpness: float
) -> NDArray[np.float64]:
    """(blocks, L) evidence of sums of blocks."""
    scaled = np.where(is_tested, sharpness * sums, -np.inf)
    scaled = scaled - _log_mean_exp(scaled, is_tested.sum(axis=1))[:, None]
    return np.where(is_tested, scaled, 0.0)


def lag_prior(lags: NDArray[np.int64]) -> NDArray[np.float64]:
    """(L,) probability of each lag of a match beforehand; see the module."""
    bell = np.exp(-0.5 * (lags * LAG_MS / IN_SYNC_DEVIATION_MS) ** 2)
    even = np.full(len(lags), 1.0 / len(lags))
    prior: NDArray[np.float64] = IN_SYNC_SHARE * bell / bell.sum() + (1 - IN_SYNC_SHARE) * even
    return prior


def _log_mean_exp(values: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Logarithm of the mean of exp over the `counts` finite values of each row; 0 for rows without one."""
    tops = np.where(counts > 0, values.max(axis=1), 0.0)
    totals = np.exp(values - tops[:, None]).sum(axis=1)
    result: NDArray[np.float64] = tops + np.log(np.where(counts > 0, totals / np.maximum(counts, 1), 1.0))
    return result


def find_posterior(
    evidence: NDArray[np.floating[Any]],
    num_frames: int,
    lags: NDArray[np.int64],
    calibration: SyncCalibration,
) -> Posterior | None:
    """The posterior of a stretch, or None where under LEAST_FRAMES can be compared.

    Args:
        evidence: (L,), the sum of blocks of `block_evidence`.
        num_frames: With evidence in these blocks.
        lags: (L,) ascending, without holes.
        calibration: Of the estimator; its sharpness is in the evidence already.
    """
    if num_frames < LEAST_FRAMES:
        return None
    total = np.asarray(evidence, np.float64)
    joint = total + np.log(lag_prior(lags))
    logit = calibration.weight * _log_sum(joint) + calibration.bias + np.log(MATCH_SHARE / (1 - MATCH_SHARE))
    match = float(_sigmoid(logit))
    grid_ms, masses = widened_masses(joint, lags, calibration.spread_ms)
    # The prior chooses between hills; it does not draw the top of one towards 0.
    offset_ms = LAG_MS * peak_lag(total, lags, int(joint.argmax()))
    tail = (1 - INTERVAL) / 2
    low_ms, high_ms = (_quantile(grid_ms, masses, share) for share in (tail, 1 - tail))
    # Of two hills of about the same mass, the interval may end before the top of the higher one.
    interval_ms = (min(low_ms, offset_ms), max(high_ms, offset_ms))
    return Posterior(lags, total, grid_ms, masses, match, offset_ms, interval_ms, num_frames)


def mixed_posterior(
    evidence: NDArray[np.floating[Any]],
    num_frames: int,
    lags: NDArray[np.int64],
    calibration: SyncCalibration,
    offsets_ms: NDArray[np.float64],
) -> Posterior | None:
    """The posterior of a stretch whose offset changes in a known way; None as in `find_posterior`.

    The evidence is summed along the change. The masses are those of the offset at any moment of the stretch;
    `offset_ms` is that of the longest part, or of the middle of a drift.

    Args:
        evidence: (blocks, L).
        num_frames: With evidence.
        lags: (L,).
        calibration: Of the estimator.
        offsets_ms: (blocks,) the change.
    """
    shifts = np.rint(offsets_ms / LAG_MS).astype(np.int64)
    # The offset of the longest part; of a drift, that of its middle.
    values, counts = np.unique(shifts, return_counts=True)
    is_part = counts.max() >= LEAST_PART * len(shifts)
    middle = int(values[counts.argmax()] if is_part else shifts[len(shifts) // 2])
    total = np.zeros(len(lags))
    for row, shift in zip(evidence, (shifts - middle).tolist(), strict=True):
        low, high = max(-shift, 0), min(len(lags), len(lags) - shift)
        total[low:high] += row[low + shift : high + shift]
    steady = find_posterior(total, num_frames, lags, calibration)
    if steady is None:
        return None
    return _over_shifts(steady, shifts - middle, steady.offset_ms)


def over_moments(steady: Posterior, offsets_ms: NDArray[np.float64]) -> Posterior:
    """The posterior of a stretch whose sound was moved by known offsets before it was compared.

    Args:
        steady: Of what is left.
        offsets_ms: (blocks,) of the moments of the stretch; the result's own is that of its middle.
    """
    shifts = np.rint(offsets_ms / LAG_MS).astype(np.int64)
    return _over_shifts(steady, shifts, steady.offset_ms + float(offsets_ms[len(offsets_ms) // 2]))


def _over_shifts(steady: Posterior, shifts: NDArray[np.int64], offset_ms: float) -> Posterior:
    """The same masses around the offset of each moment, `shifts` lags from the steady one."""
    values, counts = np.unique(shifts, return_counts=True)
    masses = np.zeros(len(steady.masses) + int(values[-1] - values[0]))
    for shift, count in zip((values - values[0]).tolist(), counts.tolist(), strict=True):
        masses[shift : shift + len(steady.masses)] += count / len(shifts) * steady.masses
    grid_ms = steady.grid_ms[0] + LAG_MS * (int(values[0]) + np.arange(len(masses)))
    tail = (1 - INTERVAL) / 2
    low_ms, high_ms = (_quantile(grid_ms, masses, share) for share in (tail, 1 - tail))
    interval_ms = (min(low_ms, offset_ms), max(high_ms, offset_ms))
    return replace(steady, grid_ms=grid_ms, masses=masses, interval_ms=interval_ms, offset_ms=offset_ms)


def _log_sum(values: NDArray[np.float64]) -> float:
    """Logarithm of the sum of exp."""
    return float(values.max() + np.log(np.exp(values - values.max()).sum()))


def _sigmoid(logits: NDArray[np.float64] | float) -> NDArray[np.float64]:
    likely: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(logits, -MOST_LOGIT, MOST_LOGIT)))
    return likely


def widened_masses(
    total: NDArray[np.float64], lags: NDArray[np.int64], spread_ms: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P(lag | match) of a sum of evidence, widened by a Gaussian: offsets in ms, and their masses."""
    masses = np.exp(total - total.max())
    masses /= masses.sum()
    reach = max(int(np.ceil(SPREAD_REACH * spread_ms / LAG_MS)), 1)
    widened: NDArray[np.float64] = np.convolve(
        masses, _kernel_at(np.arange(-reach, reach + 1, dtype=np.float64) * LAG_MS, spread_ms)
    )
    grid_ms = LAG_MS * (float(lags[0]) - reach + np.arange(len(widened), dtype=np.float64))
    return grid_ms, widened


def _kernel_at(apart_ms: NDArray[np.float64], spread_ms: float) -> NDArray[np.float64]:
    """The widening Gaussian at distances in whole lags, of sum 1 over SPREAD_REACH deviations each way."""
    reach = max(int(np.ceil(SPREAD_REACH * spread_ms / LAG_MS)), 1)
    whole = np.exp(-0.5 * (np.arange(-reach, reach + 1) * LAG_MS / spread_ms) ** 2).sum()
    inside = np.abs(apart_ms) <= reach * LAG_MS
    kernel: NDArray[np.float64] = np.exp(-0.5 * (apart_ms / spread_ms) ** 2) * inside / whole
    return kernel


def _below(grid_ms: NDArray[np.float64], masses: NDArray[np.float64], limit_ms: float) -> float:
    """Mass below a limit; that of a lag is spread evenly over the LAG_MS around it."""
    return float(np.interp(limit_ms, grid_ms + LAG_MS / 2, np.cumsum(masses), left=0.0, right=1.0))


def _quantile(grid_ms: NDArray[np.float64], masses: NDArray[np.float64], share: float) -> float:
    edges = np.concatenate([[grid_ms[0] - LAG_MS / 2], grid_ms + LAG_MS / 2])
    return float(np.interp(share, np.concatenate([[0.0], np.cumsum(masses)]), edges))


# --- fitting ---------------------------------------------------------------------------------------------

SHARPNESSES = np.geomspace(0.02, 3.0, 41)
SPREADS_MS = (5.0, 7.0, 10.0, 14.0, 20.0, 28.0, 40.0)
PENALTY = 1.0  # of (weight - 1) squared and of the bias: evidence that is right as it is has 1 and 0
NUM_STEPS, STEP_END = 100, 1e-8
LEAST_WEIGHT = 0.05
FAR_BELOW = -30.0  # least logarithm of a mass in the fit: one window far off does not decide


@dataclass(frozen=True)
class Example:
    """A stretch whose answer is known.

    Attributes:
        similarities: (frames, L) of an estimator that was not fitted on this person.
        lag: The true one, in rows; None: face and sound do not belong together.
        person: Whose windows count together as one.
    """

    similarities: NDArray[np.float32]
    lag: int | None
    person: str


def fit_calibration(examples: Iterable[Example], lags: NDArray[np.int64]) -> SyncCalibration:
    """The calibration under which the known answers are likeliest; people weigh the same.

    Raises:
        UserError: No stretch that matches, or none that does not.
    """
    usable = [example for example in examples if np.isfinite(example.similarities).any()]
    matching = [example for example in usable if example.lag is not None]
    if not matching or len(matching) == len(usable):
        raise UserError("stretches that match and others that do not are needed, both, to calibrate on")
    weights = _weights_by_person(matching)
    # What does not depend on the sharpness is computed once.
    blocks = {id(example): _block_sums(example.similarities)[:2] for example in usable}

    def total_of(example: Example, sharpness: float) -> NDArray[np.float64]:
        total: NDArray[np.float64] = _evidence_of(*blocks[id(example)], sharpness).sum(axis=0)
        return total

    best = (-np.inf, 0.0, 0.0)
    for sharpness in SHARPNESSES.tolist():
        totals = [total_of(example, sharpness) for example in matching]
        masses = np.exp(np.stack([total - _log_sum(total) for total in totals]))
        true_lags = np.array([example.lag or 0 for example in matching])
        for spread_ms in SPREADS_MS:
            logs = _log_masses(masses, lags, spread_ms, true_lags)
            best = max(best, (float(weights @ logs), sharpness, spread_ms))
    _, sharpness, spread_ms = best
    log_prior = np.log(lag_prior(lags))
    gains = [_log_sum(total_of(example, sharpness) + log_prior) for example in usable]
    weight, bias = _fit_logit(np.array(gains), usable)
    return SyncCalibration(sharpness=sharpness, weight=weight, bias=bias, spread_ms=spread_ms)


def _log_masses(
    masses_NL: NDArray[np.float64], lags: NDArray[np.int64], spread_ms: float, true_lags_N: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(N,) logarithms of the masses at the true lags, after the widening of `widened_masses`."""
    apart_ms = np.multiply(lags[None, :] - true_lags_N[:, None], LAG_MS, dtype=np.float64)
    kernel = _kernel_at(apart_ms, spread_ms)
    logs: NDArray[np.float64] = np.log(np.maximum((masses_NL * kernel).sum(axis=1), np.exp(FAR_BELOW)))
    return logs


def _weights_by_person(examples: Sequence[Example]) -> NDArray[np.float64]:
    people = [example.person for example in examples]
    counts = {person: people.count(person) for person in set(people)}
    weights = np.array([1.0 / counts[person] for person in people])
    normal: NDArray[np.float64] = weights / weights.sum()
    return normal


def _fit_logit(gains: NDArray[np.float64], examples: Sequence[Example]) -> tuple[float, float]:
    """Weight and bias of the logit of a match: Newton's method; both kinds weigh the same."""
    is_match = np.array([example.lag is not None for example in examples])
    shares = np.zeros(len(examples))
    for kind in (True, False):
        chosen = np.flatnonzero(is_match == kind).tolist()
        shares[chosen] = 0.5 * len(examples) * _weights_by_person([examples[k] for k in chosen])
    inputs = np.column_stack([gains, np.ones(len(gains))])
    start = np.array([1.0, 0.0])

    def cost(values: NDArray[np.float64]) -> float:
        logits = inputs @ values
        losses = shares @ np.logaddexp(0.0, np.where(is_match, -logits, logits))
        return float(losses + PENALTY / 2 * ((values - start) ** 2).sum())

    values = start
    for _ in range(NUM_STEPS):
        likely = _sigmoid(inputs @ values)
        slope = inputs.T @ (shares * (likely - is_match)) + PENALTY * (values - start)
        bend = (inputs * (shares * likely * (1 - likely))[:, None]).T @ inputs + PENALTY * np.eye(2)
        step = np.linalg.solve(bend, slope)
        while cost(values - step) > cost(values) and np.abs(step).max() > STEP_END:
            step = step / 2  # far from the answer a whole step may overshoot it
        values = values - step
        if np.abs(step).max() <= STEP_END:
            break
    return max(float(values[0]), LEAST_WEIGHT), float(values[1])
