"""Confidence sequences of I(S; D | Y): the ends by another optimiser, and their promise at every look."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import betaln, expit, rel_entr, xlogy
from scipy.stats import binom

from fairdx.inference.information_sequences import information_sequence, radius


def divergence(first, second):
    return rel_entr(first, second) + rel_entr(1 - first, 1 - second)


def information(rate, share):
    common = (share * rate).sum(0) / share.sum(0)
    return float((share * divergence(rate, common)).sum())


def searched(success, size, share, alpha, starts=8):
    """The least and the largest information of the rates that are covered, by sequential least squares."""
    rate, found = success / size, []
    reach = float(radius(success.T[None], size.T[None], alpha)[0])

    def left(x):
        return reach - (size * divergence(rate, expit(x.reshape(rate.shape)))).sum()

    rng = np.random.default_rng(0)
    start = np.log((rate + 0.01) / (1.01 - rate))
    for sign in (1, -1):
        best = []
        for k in range(starts):
            x = (start + 0.3 * min(k, 1) * rng.normal(size=rate.shape)).ravel()
            one = minimize(
                lambda x, sign=sign: sign * 1e3 * information(expit(x.reshape(rate.shape)), share),
                x,
                constraints=[{"type": "ineq", "fun": left}],
                method="SLSQP",
                options={"maxiter": 500, "ftol": 1e-10},
            )
            if left(one.x) > -1e-4:
                best.append(one.fun / 1e3)
        found.append(sign * min(best))
    return found


@pytest.mark.parametrize(("groups", "n", "gap"), [(2, 2000, 0.25), (3, 4000, 0.2), (4, 6000, 0.3)])
def test_the_ends_are_those_of_a_search_over_all_rates(groups, n, gap):
    rng = np.random.default_rng(groups)
    size = np.round(rng.dirichlet(np.full(2 * groups, 5.0)) * n).reshape(groups, 2)
    rate = np.array([0.2, 0.7]) - gap * (np.arange(groups) == 0)[:, None] * np.array([0, 1])
    success = np.round(rate * size)
    share = size / size.sum()
    low, high = (float(end) for end in information_sequence(success, size, share, 0.05))
    least, most = searched(success, size, share, 0.05)
    assert 0 < low <= least * 1.001
    assert low == pytest.approx(least, rel=0.03)
    assert most * 0.999 <= high < most * 1.05  # a bound from above, close to what there is


def test_the_mixture_is_a_martingale():
    """Its mean is 1 whatever the rates: summed over all outcomes of a small table, weighted by chance."""
    size, rate = np.array([[[3.0, 2.0]]]), np.array([0.3, 0.8])
    mean = 0.0
    for first in range(4):
        for second in range(3):
            hits = np.array([[[first, second]]], dtype=float)
            seen = hits / size
            distance = float((size * divergence(seen, rate)).sum())
            chance = binom.pmf(first, 3, rate[0]) * binom.pmf(second, 2, rate[1])
            mean += chance * np.exp(distance - float(radius(hits, size, 1.0)[0]))
    assert mean == pytest.approx(1.0)


def test_groups_that_are_alike_cost_less_than_if_each_had_its_own_prior():
    size = np.full((1, 2, 8), 500.0)
    each = betaln(0.5 + 0.3 * 500, 0.5 + 0.7 * 500) - betaln(0.5, 0.5)
    apart = 16 * (xlogy(0.3 * 500, 0.3) + xlogy(0.7 * 500, 0.7) - each)
    assert float(radius(0.3 * size, size, 1.0)[0]) < apart / 2


def test_groups_without_images_change_nothing():
    size = np.array([[300.0, 200.0], [250.0, 220.0]])
    success = np.array([[30.0, 150.0], [0.0, 120.0]])
    share = size / size.sum()
    alone = information_sequence(success, size, share, 0.05)
    more = [np.vstack([x, np.zeros((1, 2))]) for x in (success, size, share)]
    np.testing.assert_allclose(information_sequence(*more, 0.05), alone, rtol=1e-9)
    assert np.isfinite(alone).all()
