"""From similarities to probabilities: by hand, against SciPy, and on planted answers."""

import numpy as np
import pytest
from planted import CALIBRATION, LAGS, similar
from scipy.special import logsumexp

from facevox.errors import UserError
from lipsync.sync.posterior import (
    BLOCK_FRAMES,
    IN_SYNC_MS,
    MATCH_SHARE,
    PENALTY,
    Example,
    Posterior,
    SyncCalibration,
    block_evidence,
    find_posterior,
    fit_calibration,
    lag_prior,
    mixed_posterior,
)


def found_in(similarities: np.ndarray, calibration: SyncCalibration = CALIBRATION) -> Posterior:
    evidence, counts = block_evidence(similarities, calibration.sharpness)
    found = find_posterior(evidence.sum(axis=0, dtype=np.float64), int(counts.sum()), LAGS, calibration)
    assert found is not None
    return found


def test_evidence_of_a_block_is_the_gain_over_its_mean_likelihood() -> None:
    rng = np.random.default_rng(0)
    similarities = rng.normal(size=(23, 7)).astype(np.float32)
    evidence, counts = block_evidence(similarities, 0.7)
    assert counts.tolist() == [10, 10, 3]
    for number, block in enumerate(np.split(similarities.astype(float), [10, 20])):
        sums = 0.7 * (block - block.mean(axis=1, keepdims=True)).sum(axis=0)
        assert evidence[number] == pytest.approx(sums - logsumexp(sums) + np.log(7), abs=1e-5)


def test_lag_without_sound_gets_evidence_neither_for_nor_against() -> None:
    similarities = similar(np.zeros(20), 0.5)
    similarities[:10, :40] = np.nan
    similarities[10:, -3:] = np.nan
    evidence, counts = block_evidence(similarities, 1.0)
    assert (evidence[0, :40] == 0).all()
    assert (evidence[1, -3:] == 0).all()
    assert (evidence[0, 40:] != 0).all()
    assert counts.tolist() == [10, 10]
    nothing, none = block_evidence(np.full((15, 201), np.nan, np.float32), 1.0)
    assert not nothing.any()
    assert none.tolist() == [0, 0]


@pytest.mark.parametrize("offset", [-63.4, 0.0, 12.3])
def test_offset_is_found_between_the_steps(offset: float) -> None:
    found = found_in(similar(np.full(125, offset), 0.1))
    assert found.offset_ms == pytest.approx(10 * offset, abs=5)
    assert found.interval_ms[0] < found.offset_ms < found.interval_ms[1]
    assert found.match > 0.99
    assert found.confidence > 0.99


def test_score_is_the_mass_in_sync_times_the_probability_of_a_match() -> None:
    for offset in (0.0, 5.0, 6.5, 30.0):
        found = found_in(similar(np.full(50, offset), 0.4))
        inside = found.masses[np.abs(found.grid_ms) < IN_SYNC_MS].sum()
        edge = found.masses[np.isclose(np.abs(found.grid_ms), IN_SYNC_MS)].sum() / 2
        assert found.in_sync == pytest.approx(found.match * (inside + edge))
        assert found.masses.sum() == pytest.approx(1.0)
        assert 0 <= found.in_sync <= found.match
    assert found_in(similar(np.zeros(50), 0.1)).in_sync > 0.95
    assert found_in(similar(np.full(50, 30.0), 0.1)).in_sync < 0.01


def test_interval_holds_the_mass_it_says() -> None:
    found = found_in(similar(np.full(60, 8.0), 0.5))
    low_ms, high_ms = found.interval_ms
    assert found.mass_between(low_ms, high_ms) == pytest.approx(0.9, abs=0.02)
    assert found.mass_between(-np.inf, low_ms) == pytest.approx(0.05, abs=0.02)


def test_more_evidence_makes_a_narrower_interval_and_a_surer_match() -> None:
    short, long = (found_in(similar(np.full(count, 20.0), 0.15, height=0.2)) for count in (30, 500))
    assert np.ptp(long.interval_ms) < np.ptp(short.interval_ms)
    assert long.match > short.match


def test_no_match_is_reported_by_blocks_that_agree_on_no_lag() -> None:
    """Each block has its own best lag: that speaks against every offset, the more the longer it lasts."""
    rng = np.random.default_rng(3)
    wander = np.repeat(rng.integers(-90, 91, 25), BLOCK_FRAMES).astype(float)
    matches = [found_in(similar(wander[:count], 0.3)).match for count in (50, 125, 250)]
    assert matches[0] > matches[1] >= matches[2]
    assert matches[1] < 0.001


def test_without_evidence_the_answer_is_what_was_assumed() -> None:
    found = found_in(np.zeros((60, 201), np.float32))
    assert found.match == pytest.approx(MATCH_SHARE)
    assert lag_prior(LAGS).sum() == pytest.approx(1.0)
    assert found.in_sync == pytest.approx(MATCH_SHARE * lag_prior(LAGS)[np.abs(LAGS) <= 6].sum(), abs=0.02)


@pytest.mark.parametrize("num_frames", [0, 5, 19])
def test_too_few_frames_give_nothing(num_frames: int) -> None:
    evidence, counts = block_evidence(similar(np.zeros(max(num_frames, 1)), 0.1), 1.0)
    assert find_posterior(evidence.sum(axis=0), num_frames, LAGS, CALIBRATION) is None
    assert counts.sum() == max(num_frames, 1)


def test_spread_between_speakers_widens_the_interval() -> None:
    similarities = similar(np.zeros(125), 0.05)
    wide = found_in(similarities, SyncCalibration(sharpness=1.0, weight=1.0, bias=0.0, spread_ms=25.0))
    assert np.ptp(wide.interval_ms) > 1.8 * 1.645 * 25 > np.ptp(found_in(similarities).interval_ms)


def test_changing_offset_is_summed_along_and_covers_its_moments() -> None:
    """Masses are those of the offset at any moment: half of them are where half of the time is."""
    offsets = np.repeat([10.0, -20.0], 100)
    evidence, counts = block_evidence(similar(offsets, 0.2), 1.0)
    plain = find_posterior(evidence.sum(axis=0), int(counts.sum()), LAGS, CALIBRATION)
    moved = mixed_posterior(evidence, int(counts.sum()), LAGS, CALIBRATION, 10 * offsets[::BLOCK_FRAMES])
    assert plain is not None
    assert moved is not None
    assert moved.match > 0.99 > plain.match
    assert moved.mass_between(50, 150) == pytest.approx(0.5, abs=0.05)
    assert moved.mass_between(-250, -150) == pytest.approx(0.5, abs=0.05)
    assert moved.masses.sum() == pytest.approx(1.0)
    steady = mixed_posterior(evidence, 200, LAGS, CALIBRATION, np.full(20, 40.0))
    assert steady is not None
    assert steady.masses == pytest.approx(plain.masses, abs=1e-5)


# --- fitting ---------------------------------------------------------------------------------------------


def planted_examples(factor: float, people: int = 6, seed: int = 0) -> list[Example]:
    """Evidence of known strength (`factor` times what it is worth) of people with an offset each."""
    rng = np.random.default_rng(seed)
    examples = []
    for person in range(people):
        own = rng.normal(0, 1.5)
        for number in range(8):
            lag = int(rng.integers(-40, 41))
            place = lag + own + rng.normal(0, 1.0)
            right = similar(np.full(60, place), 0.3, seed=100 * person + number, height=0.6)
            wrong = similar(np.full(60, 900.0), 0.3, seed=100 * person + number + 50)
            examples.append(Example(factor * right, lag, f"person {person}"))
            examples.append(Example(factor * wrong, None, f"person {person}"))
    return examples


def test_fit_undoes_the_scale_of_an_estimator() -> None:
    one, strong = (fit_calibration(planted_examples(factor), LAGS) for factor in (1.0, 4.0))
    assert one.sharpness / strong.sharpness == pytest.approx(4.0, rel=0.3)
    for calibration in (one, strong):
        examples = planted_examples(1.0 if calibration is one else 4.0, seed=9)
        found = [found_in(example.similarities, calibration) for example in examples]
        is_match = np.array([example.lag is not None for example in examples])
        matches = np.array([posterior.match for posterior in found])
        assert np.mean((matches > 0.5) == is_match) > 0.85
        inside = [
            posterior.interval_ms[0] <= 10 * example.lag <= posterior.interval_ms[1]
            for posterior, example in zip(found, examples, strict=True)
            if example.lag is not None
        ]
        assert 0.75 <= np.mean(inside) <= 1.0


def test_logit_of_a_match_is_that_of_a_penalised_regression() -> None:
    """The sum that Newton's method minimises has no slope at its answer."""
    from scipy.optimize import minimize

    examples = planted_examples(1.0)
    fitted = fit_calibration(examples, LAGS)
    totals = [block_evidence(e.similarities, fitted.sharpness)[0].sum(axis=0) for e in examples]
    gains = np.array([logsumexp(total + np.log(lag_prior(LAGS))) for total in totals])
    is_match = np.array([example.lag is not None for example in examples])

    def cost(values: np.ndarray) -> float:
        logits = values[0] * gains + values[1]
        likelihood = np.logaddexp(0, np.where(is_match, -logits, logits)).sum()
        return float(likelihood + PENALTY / 2 * ((values[0] - 1) ** 2 + values[1] ** 2))

    best = minimize(cost, np.array([1.0, 0.0])).x
    assert (fitted.weight, fitted.bias) == pytest.approx(tuple(best), abs=0.02)


def test_fit_wants_both_kinds() -> None:
    matching = [example for example in planted_examples(1.0, people=1) if example.lag is not None]
    for examples in ([], matching, [Example(matching[0].similarities, None, "x")]):
        with pytest.raises(UserError, match="needed, both"):
            fit_calibration(examples, LAGS)


def test_plain_numbers_come_back_and_others_are_refused() -> None:
    plain = CALIBRATION.to_plain()
    assert SyncCalibration.from_plain(plain) == CALIBRATION
    wrong: tuple[dict[str, object], ...] = (
        {}, plain | {"weight": "x"}, plain | {"bias": float("nan")}, plain | {"sharpness": 0.0},
        plain | {"spread_ms": -1.0}, {"features": [], "weights": [1.0], "bias": 0.0},
    )  # fmt: skip
    for content in wrong:
        with pytest.raises(UserError, match="calibration"):
            SyncCalibration.from_plain(content)
