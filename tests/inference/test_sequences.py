"""Confidence sequences beside brute force, and their promise counted over all looks."""

import numpy as np
import pytest
from scipy.stats import norm

from fairdx.inference.score_intervals import Normal
from fairdx.inference.sequences import figures_gap, mixture_critical, share_differences, share_gap
from fairdx.metrics.counts import largest_gap


@pytest.mark.parametrize(
    ("success", "size"),
    [((80, 50), (100, 100)), ((0, 3), (20, 15)), ((15, 0), (15, 0)), ((7.5, 2.25), (9.5, 40.0))],
)
def test_ends_are_those_of_all_pairs_of_shares_that_are_not_excluded(success, size):
    p = np.linspace(0.0005, 0.9995, 1000)
    from scipy.special import betaln

    def log_martingale(k, n):
        return betaln(0.5 + k, 0.5 + n - k) - betaln(0.5, 0.5) - k * np.log(p) - (n - k) * np.log1p(-p)

    both = log_martingale(success[0], size[0])[:, None] + log_martingale(success[1], size[1])
    difference = (p[:, None] - p)[both <= np.log(1 / 0.05)]
    low, high = share_differences(success, size, 0.05)
    assert low == pytest.approx(difference.min(), abs=2.5e-3)
    assert high == pytest.approx(difference.max(), abs=2.5e-3)


def test_a_gap_is_the_largest_of_its_pairs():
    success, size = np.array([[80.0], [50.0], [9.0]]), np.array([[100.0], [100.0], [10.0]])
    low, high = share_gap(success, size, 0.95)
    pairs = [(0, 1), (0, 2), (1, 2)]
    lower = [share_differences(success[[a, b], 0], size[[a, b], 0], 0.05 / 6) for a, b in pairs]
    upper = [share_differences(success[[a, b], 0], size[[a, b], 0], 0.025) for a, b in pairs]
    assert low == pytest.approx(max(max(a, -b) for a, b in lower))
    assert high == pytest.approx(max(max(b, -a) for a, b in upper))
    assert np.isnan(share_gap(success * 0, size * [[1.0], [0.0], [0.0]], 0.95)).all()


def test_looking_every_day_misses_no_more_often_than_promised():
    """1,000 streams, 60 looks: 5 % of intervals may ever miss. Those of a single look do so in a third."""
    rng, streams, looks, rate = np.random.default_rng(0), 1000, 60, np.array([0.8, 0.8])
    size = np.cumsum(np.full((looks, 2), (8, 3)), axis=0).astype(float)
    hits = np.cumsum(rng.binomial([8, 3], rate, size=(streams, looks, 2)), axis=1).astype(float)
    low, high = share_differences((hits[..., 0], hits[..., 1]), (size[:, 0], size[:, 1]), 0.05)
    missed = ((low > 0) | (high < 0)).any(1).mean()
    share = hits / size
    error = np.sqrt((share * (1 - share) / size).sum(-1))
    plain = (np.abs(share[..., 0] - share[..., 1]) > 1.96 * error)[:, 10:].any(1).mean()
    assert missed <= 0.05
    assert plain > 0.2


def test_the_normal_mixture_holds_at_every_look():
    rng, streams, looks = np.random.default_rng(1), 2000, 200
    total = np.cumsum(rng.normal(size=(streams, looks)), axis=1)
    n = np.arange(1, looks + 1)
    bound = np.array([mixture_critical(k, 0.05) for k in n])
    assert (np.abs(total) / np.sqrt(n) > bound).any(1).mean() <= 0.05
    assert (np.abs(total) / np.sqrt(n) > 1.96).any(1).mean() > 0.3
    tightest = min(mixture_critical(k, 0.05) for k in (1, 2, 5))
    assert norm.isf(0.025) < tightest == mixture_critical(1, 0.05)


def test_figures_of_groups_have_the_gap_of_normal_errors():
    value = np.array([[0.9], [0.8], [np.nan]])
    figures = Normal(value, np.array([[0.01], [0.02], [np.nan]]), np.ones((3, 1)))
    low, high = figures_gap(figures, 4.0, 0.95)
    error = np.hypot(0.01, 0.02)
    assert low == pytest.approx(0.1 - mixture_critical(4.0, 0.05 / 6) * error)
    assert high == pytest.approx(0.1 + mixture_critical(4.0, 0.05 / 2) * error)
    assert low < largest_gap(value[:2]) < high
