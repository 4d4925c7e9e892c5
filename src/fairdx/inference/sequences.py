"""Confidence sequences: intervals that hold at all looks at once, however often and whenever one looks.

An interval of 95 % that is computed every month misses the truth in one month or another far more often than
once in twenty. A confidence sequence does not: with probability 95 % all of its intervals hold.

Shares: the likelihood of any other share, mixed over a Beta distribution, over that of the true one is a
martingale that starts at 1 (Robbins 1970; Howard, Ramdas, McAuliffe and Sekhon 2021), so it ever reaches
1 / alpha with probability alpha at most (Ville 1939). Images of two groups are different images, so the
product of both martingales is one as well; a difference is covered by the differences of all pairs of shares
at which the product stays below 1 / alpha. This is exact for independent images at any sample size. Where the
share itself changes with time the sequence covers its mean so far.

Other figures: Robbins' normal mixture with an estimated variance, an asymptotic confidence sequence (Waudby-
Smith, Arbour, Sinha, Kennedy and Ramdas 2024). It holds from a first look on that has enough images.
"""

from typing import Any

import numpy as np
from scipy.special import betaln, lambertw, xlog1py, xlogy

from fairdx.inference.score_intervals import Figures, highest_gap, lowest_gap
from fairdx.metrics.inputs import Floats

_PRIOR = 0.5  # of both parameters of the Beta distribution
_STEPS = 45  # bisections of the slope, on a logarithmic scale
_FLATTEST, _STEEPEST = -30.0, 60.0  # of the slope, as powers of e


def share_differences(
    success: tuple[Any, Any], size: tuple[Any, Any], alpha: Floats | float
) -> tuple[Floats, Floats]:
    """Ends of confidence sequences of the differences of two shares, at one look.

    Args:
        success: Images with the outcome so far, in the first and in the second group, each of shape (...).
        size: Images so far; 0 where there are none yet. Both may be effective numbers.
        alpha: Probability that an end is ever wrong, broadcast against the shares.

    Returns:
        Lower and upper ends of first less second, each of shape (...), in [-1, 1].

    Example:
        >>> low, high = share_differences((np.array(80.0), np.array(50.0)), (np.array(100.0),) * 2, 0.05)
        >>> round(float(low), 2), round(float(high), 2)
        (0.03, 0.54)
    """
    shape = np.broadcast_shapes(*(np.shape(x) for x in (*success, *size, alpha)))
    hits, images = (
        np.stack([np.broadcast_to(np.asarray(x, dtype=float), shape) for x in pair])
        for pair in (success, size)
    )
    # Both ends at once: what is small is slow one after the other.
    farthest = _farthest(_Share(hits, images), _Share(hits[::-1], images[::-1]), -np.log(alpha))
    return -farthest[1], farthest[0]


class _Share:
    """The logarithm of the mixture martingale of one share, which is convex in the share."""

    def __init__(self, success: Floats, size: Floats) -> None:
        self.success, self.size = success, size
        self.failure = size - success
        self.mixed = betaln(_PRIOR + success, _PRIOR + self.failure) - betaln(_PRIOR, _PRIOR)

    def log(self, share: Floats) -> Floats:
        value: Floats = self.mixed - xlogy(self.success, share) - xlog1py(self.failure, -share)
        return value

    def sloped(self, slope: Floats) -> Floats:
        """The share at which the logarithm has a slope, which may be negative."""
        root = np.sqrt(np.maximum((self.size - slope) ** 2 + 4 * slope * self.success, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            steep = (slope - self.size + root) / (2 * slope)
            flat = 2 * self.success / (self.size - slope + root)
        share = np.where(slope > self.size, steep, flat)
        return np.asarray(np.clip(np.where(np.isnan(share), 0.0, share), 0.0, 1.0))


def _farthest(first: _Share, second: _Share, limit: Floats | float) -> Floats:
    """The largest difference of two shares at which the product of their martingales is below exp(limit)."""

    def at(slope: Floats) -> tuple[Floats, Floats]:
        return first.sloped(slope), second.sloped(-slope)

    shape = np.broadcast_shapes(first.size.shape, second.size.shape)
    low, high = np.full(shape, _FLATTEST), np.full(shape, _STEEPEST)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        one, other = at(np.exp(middle))
        inside = first.log(one) + second.log(other) <= limit
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    one, other = at(np.exp(low))
    return np.asarray(one - other)


def share_gap(success: Floats, size: Floats, level: float) -> tuple[Floats, Floats]:
    """Intervals of the largest gap between two groups, a confidence sequence.

    Args:
        success: Images with the outcome so far, shape (..., S, R) for R rates of S groups, look by look.
        size: Images so far, (..., S, R); 0 in a group that is not compared yet.
        level: Probability that all intervals of the sequence hold.

    Returns:
        Lower and upper ends, (...); nan where fewer than two groups are compared. The lower one is the
        largest of those that hold for all pairs and rates, the upper one the largest of those of single
        pairs; each misses with half the probability.
    """
    number = size.shape[-2] * (size.shape[-2] - 1) // 2 * size.shape[-1]
    parts = (1.0, 1.0) if number == 1 else (2.0 * number, 2.0)
    one, other = np.triu_indices(size.shape[-2], 1)
    hits, sizes = ((x[..., one, :], x[..., other, :]) for x in (success, size))
    compared = (sizes[0] > 0) & (sizes[1] > 0)
    alpha = (1 - level) / np.reshape(parts, (2, *(1 for _ in compared.shape)))
    ends = share_differences(hits, sizes, alpha)
    low = np.where(compared, np.maximum(ends[0][0], -ends[1][0]), np.nan)
    high = np.where(compared, np.maximum(ends[1][1], -ends[0][1]), np.nan)
    low, high = (np.fmax.reduce(end, axis=(-1, -2), initial=np.nan) for end in (low, high))
    return np.maximum(low, 0.0), high


def mixture_critical(growth: float, alpha: float) -> float:
    """Standard errors to either side at one look of an asymptotic confidence sequence.

    Args:
        growth: Information now over that at the first look (1 / variance of the estimate), at least 1.
        alpha: Probability that an interval ever misses.

    Returns:
        Robbins' boundary for a mixture that is narrowest at the first look.

    Example:
        >>> [round(mixture_critical(g, 0.05), 2) for g in (1, 10, 100)]
        [3.04, 3.25, 3.57]
    """
    scale = float(-lambertw(-(alpha**2) / np.e, -1).real) - 1
    ratio = max(growth, 1.0) * scale
    return float(np.sqrt((1 + 1 / ratio) * (np.log1p(ratio) - 2 * np.log(alpha))))


def figures_gap(figures: Figures, growth: float, level: float) -> tuple[float, float]:
    """As `share_gap`, for other figures of groups with intervals at any number of standard errors.

    Args:
        figures: Shape (S, R), nan in a group that is not compared yet.
        growth: As for `mixture_critical`.
        level: Probability that all intervals of the sequence hold.
    """
    every = len(figures.value)
    number = every * (every - 1) // 2 * figures.value.shape[1]
    if int(np.isfinite(figures.value).sum(0).max(initial=0)) < 2:
        return float("nan"), float("nan")
    parts = (1.0, 1.0) if number == 1 else (2.0 * number, 2.0)
    low, high = (mixture_critical(growth, (1 - level) / part) for part in parts)
    return max(float(lowest_gap(figures, low)), 0.0), min(float(highest_gap(figures, high)), 1.0)
