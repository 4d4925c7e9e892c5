"""Partial pooling: what a small group's rate probably is, knowing those of the other groups.

Of many small groups the one with the lowest rate in a sample is hardly ever as bad as it looks. A
hierarchical model says by how much: true figures are normal about a common mean on the logit,
y_s ~ N(theta_s, v_s) and theta_s ~ N(mu, tau^2), with a flat prior of mu and a half-Cauchy one of tau (Gelman
2006). Given tau all of it is closed (Gelman et al. 2013, 5.4); tau is summed over a grid. So how much groups
differ is learnt from the groups, and its own uncertainty is part of the intervals.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, ndtr

from fairdx.core.schema import Number
from fairdx.metrics.inputs import Floats

FEWEST_GROUPS = 3
"""With fewer groups than this nothing is known of how much groups differ."""

_PRIOR_SCALE = 1.0  # of tau, on the logit: odds ratios of e between groups are nothing unusual
_GRID = np.exp(np.linspace(np.log(1e-3), np.log(5.0), 60))
_DRAWS = 4000  # for the probability of being the worst
_STEPS = 30


@dataclass(frozen=True)
class Pooled:
    """A figure of a group after partial pooling with the other groups.

    Attributes:
        raw: The group's own figure.
        value: What it probably is, given all groups (posterior median).
        low: Lower end of the credible interval.
        high: Upper end.
        worst: Probability that no other group is worse in truth.
    """

    raw: Number
    value: Number
    low: Number
    high: Number
    worst: Number


@dataclass(frozen=True)
class PooledFigures:
    """Figures of groups after partial pooling, each of shape (S,); nan for groups without a figure.

    Attributes:
        value: Posterior median, in (0, 1).
        low: Lower end of the credible interval.
        high: Upper end.
        lowest: Probability that the group's true figure is the lowest of all.
        highest: Probability that it is the highest.
    """

    value: Floats
    low: Floats
    high: Floats
    lowest: Floats
    highest: Floats


def pooled_rates(value: Floats, size: Floats, level: float) -> PooledFigures:
    """Pool rates of groups.

    Args:
        value: Shape (S,), nan where undefined.
        size: (Effective) number of images behind each, shape (S,).
        level: Of the credible intervals.

    Returns:
        The rates; their logits have the variance of counts with half an image of either outcome added.
    """
    hits, misses = value * size + 0.5, (1 - value) * size + 0.5
    return pooled(np.log(hits / misses), 1 / hits + 1 / misses, level)


def pooled_areas(value: Floats, variance: Floats, level: float) -> PooledFigures:
    """Pool AUCs of groups with their variances, each of shape (S,); of 0 and 1 nothing is made."""
    inside = (value > 0) & (value < 1) & (variance > 0)
    area = np.where(inside, value, np.nan)
    return pooled(np.log(area / (1 - area)), variance / (area * (1 - area)) ** 2, level)


def pooled(estimate: Floats, variance: Floats, level: float) -> PooledFigures:
    """Pool figures on the logit.

    Args:
        estimate: Shape (S,), nan where undefined.
        variance: Shape (S,).
        level: Of the credible intervals.

    Returns:
        The figures; all nan with fewer than three groups.
    """
    known = np.flatnonzero(np.isfinite(estimate) & np.isfinite(variance))
    columns = np.full((5, len(estimate)), np.nan)
    if len(known) >= FEWEST_GROUPS:
        weight, mean, spread = _posterior(estimate[known], variance[known])
        tails = ((1 - level) / 2, 0.5, (1 + level) / 2)
        low, middle, high = (_quantile(weight, mean, spread, tail) for tail in tails)
        columns[:3, known] = expit(np.stack([middle, low, high]))
        columns[3:, known] = _extreme(weight, estimate[known], variance[known])
    return PooledFigures(*columns)


def _posterior(y: Floats, v: Floats) -> tuple[Floats, Floats, Floats]:
    """Weights of the grid of tau (T,), and mean and spread of every theta given tau, (T, S)."""
    tau2 = _GRID[:, None] ** 2
    precision = 1 / (v + tau2)
    total = precision.sum(1)
    centre = (precision * y).sum(1) / total
    fit = -0.5 * (precision * (y - centre[:, None]) ** 2).sum(1) + 0.5 * np.log(precision).sum(1)
    prior = -np.log1p((_GRID / _PRIOR_SCALE) ** 2) + np.log(_GRID)  # the grid is even on the logarithm
    log = fit - 0.5 * np.log(total) + prior
    weight = np.exp(log - log.max())
    own = tau2 / (v + tau2)  # how much of the group's own figure is kept
    mean = own * y + (1 - own) * centre[:, None]
    spread = np.sqrt(own * v + (1 - own) ** 2 / total[:, None])
    return weight / weight.sum(), mean, spread


def _quantile(weight: Floats, mean: Floats, spread: Floats, tail: float) -> Floats:
    low, high = (mean - 12 * spread).min(0), (mean + 12 * spread).max(0)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        below = weight @ ndtr((middle - mean) / spread) < tail
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray((low + high) / 2)


def _extreme(weight: Floats, y: Floats, v: Floats) -> Floats:
    """Probabilities of being the lowest and the highest, (2, S), from draws of all groups at once."""
    rng = np.random.default_rng(0)
    tau2 = _GRID[rng.choice(len(_GRID), _DRAWS, p=weight)][:, None] ** 2
    precision = 1 / (v + tau2)
    total = precision.sum(1, keepdims=True)
    centre = (precision * y).sum(1, keepdims=True) / total + rng.normal(size=(_DRAWS, 1)) / np.sqrt(total)
    own = tau2 / (v + tau2)
    theta = own * y + (1 - own) * centre + np.sqrt(own * v) * rng.normal(size=(_DRAWS, len(y)))
    places = (theta.argmin(1), theta.argmax(1))
    return np.stack([np.bincount(place, minlength=len(y)) / _DRAWS for place in places])
