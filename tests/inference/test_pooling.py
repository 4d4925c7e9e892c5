"""Partial pooling beside brute-force quadrature, and its promise over simulated groups."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from fairdx.inference.pooling import pooled, pooled_areas, pooled_rates


def test_the_posterior_is_that_of_a_sum_over_mean_and_spread():
    """Three groups: integrate mu, tau and the others on a grid, without any closed form."""
    y, v = np.array([0.2, 1.1, 2.0]), np.array([0.3, 0.1, 0.5])
    mu, tau = np.linspace(-6, 9, 501)[:, None], np.exp(np.linspace(np.log(1e-3), np.log(5), 60))
    prior = tau / (1 + tau**2)
    weight = (
        np.prod([norm.pdf(a, mu, np.sqrt(b + tau**2)) for a, b in zip(y, v, strict=True)], axis=0) * prior
    )
    weight /= weight.sum()
    grid = np.linspace(-2, 4, 121)
    keep = tau**2 / (v[2] + tau**2)
    centre, spread = keep * y[2] + (1 - keep) * mu, np.sqrt(keep * v[2])
    cdf = np.array([(weight * norm.cdf((t - centre) / spread)).sum() for t in grid])
    found = pooled(y, v, 0.9)
    expected = expit(np.interp([0.05, 0.5, 0.95], cdf, grid))
    assert (found.low[2], found.value[2], found.high[2]) == pytest.approx(tuple(expected), abs=2e-3)
    assert found.lowest.sum() == pytest.approx(1)
    assert found.highest.argmax() == 2


def test_small_groups_are_pulled_more_and_undefined_ones_left_out():
    value = np.array([0.8, 0.75, 0.86, 0.4, np.nan])
    found = pooled_rates(value, np.array([500.0, 500, 500, 10, 0]), 0.95)
    moved = np.abs(found.value - value)
    assert moved[3] > 0.1
    assert (moved[:3] < 0.02).all()
    assert value[3] < found.value[3] < found.value[1]
    assert np.isnan(found.value[4])
    assert found.lowest[3] == found.lowest[:4].max() > 0.5
    assert np.isnan(pooled_rates(np.array([0.8, 0.5]), np.array([50.0, 50.0]), 0.95).value).all()


@pytest.mark.parametrize("spread", [0.0, 0.3, 0.8])
def test_pooled_rates_are_nearer_to_the_truth_and_their_intervals_hold(spread):
    """Twelve groups of 12 to 120 images, 100 times."""
    rng, size = np.random.default_rng(int(10 * spread)), np.repeat([12, 25, 50, 120], 3)
    pulled, raw, held = 0.0, 0.0, 0
    for _ in range(100):
        truth = expit(1.2 + spread * rng.normal(size=12))
        rate = rng.binomial(size, truth) / size
        found = pooled_rates(rate, size.astype(float), 0.95)
        pulled += ((found.value - truth) ** 2).sum()
        raw += ((rate - truth) ** 2).sum()
        held += ((found.low <= truth) & (truth <= found.high)).sum()
    assert pulled < 0.85 * raw
    assert held / (100 * 12) >= 0.92  # 1,200 of them, good to 0.006; logits of 12 images are not quite normal


def test_areas_are_pooled_by_their_variances():
    value, variance = np.array([0.9, 0.9, 0.6, 1.0]), np.array([1e-4, 1e-4, 0.02, 0.0])
    found = pooled_areas(value, variance, 0.95)
    assert 0.62 < found.value[2] < 0.9
    assert found.value[0] == pytest.approx(0.9, abs=0.01)
    assert np.isnan(found.value[3])
