"""MixUp and CutMix: shares as Beta says, one of them or neither, pixels and labels by a slow loop."""

import numpy as np
import pytest
from scipy import stats

from emotion.classifier.mixing import CUTMIX, MIXUP, NEITHER, MixConfig, mix_batch, plan_mixing

CONFIG = MixConfig(mixup_alpha=0.2, cutmix_alpha=0.7, p_mixup=0.5, p_cutmix=0.3)


def test_a_batch_gets_one_of_them_or_neither_with_their_probabilities() -> None:
    plan = plan_mixing(CONFIG, 20_000, 2, 32, np.random.default_rng(0))
    shares = np.bincount(plan.kinds, minlength=3) / 20_000
    np.testing.assert_allclose(shares[[NEITHER, MIXUP, CUTMIX]], [0.2, 0.5, 0.3], atol=0.012)
    assert (plan.shares[plan.kinds == NEITHER] == 1).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixup_shares_are_drawn_from_beta(alpha: float) -> None:
    config = MixConfig(mixup_alpha=alpha, cutmix_alpha=1, p_mixup=1.0, p_cutmix=0.0)
    plan = plan_mixing(config, 4000, 2, 32, np.random.default_rng(1))
    assert stats.kstest(plan.shares, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_cutmix_boxes_have_the_area_of_beta_where_they_reach_no_border() -> None:
    config = MixConfig(mixup_alpha=1, cutmix_alpha=1.0, p_mixup=0.0, p_cutmix=1.0)
    size = 2000
    plan = plan_mixing(config, 20_000, 2, size, np.random.default_rng(2))
    top, left, bottom, right = plan.boxes.T
    areas = (bottom - top) * (right - left) / size**2
    np.testing.assert_allclose(plan.shares, 1 - areas, atol=1e-6)
    # A box of side s about an even point touches no border with probability (1 - s)^2: the others tell all
    # of Beta(1, 1) when weighted by that.
    inside = (top > 0) & (left > 0) & (bottom < size) & (right < size)
    side = np.sqrt(areas[inside])
    weights = 1 / (1 - side) ** 2
    order = np.argsort(areas[inside])
    share = np.cumsum(weights[order]) / 20_000
    small = areas[inside][order] < 0.5
    np.testing.assert_allclose(share[small], areas[inside][order][small], atol=0.03)


def test_tiny_alpha_gives_numbers() -> None:
    config = MixConfig(mixup_alpha=1e-6, cutmix_alpha=1e-6, p_mixup=0.5, p_cutmix=0.5)
    plan = plan_mixing(config, 1000, 2, 32, np.random.default_rng(0))
    assert np.isfinite(plan.shares).all()


@pytest.mark.parametrize("kind", [NEITHER, MIXUP, CUTMIX])
def test_mixed_batch_is_that_of_a_slow_loop(kind: int) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(5)
    images = rng.uniform(0, 255, (4, 8, 8, 3)).astype(np.float32)
    targets = rng.dirichlet(np.ones(5), 4).astype(np.float32)
    config = MixConfig(
        mixup_alpha=1, cutmix_alpha=1, p_mixup=float(kind == MIXUP), p_cutmix=float(kind == CUTMIX)
    )
    plan = plan_mixing(config, 3, 4, 8, rng)
    for row in zip(plan.shares, plan.boxes, plan.partners, plan.kinds, strict=True):
        share, (top, left, bottom, right), partner, _ = row
        expected, expected_targets = images.copy(), targets.copy()
        for index in range(4):
            other = partner[index]
            expected_targets[index] = share * targets[index] + (1 - share) * targets[other]
            for y in range(8):
                for x in range(8):
                    if kind == MIXUP:
                        expected[index, y, x] = (
                            share * images[index, y, x] + (1 - share) * images[other, y, x]
                        )
                    elif kind == CUTMIX and top <= y < bottom and left <= x < right:
                        expected[index, y, x] = images[other, y, x]
        mixed, mixed_targets = mix_batch(images, targets, *(tf.constant(value) for value in row))
        np.testing.assert_allclose(np.asarray(mixed), expected, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(np.asarray(mixed_targets), expected_targets, rtol=1e-5, atol=1e-6)
        assert sorted(partner) == [0, 1, 2, 3]
