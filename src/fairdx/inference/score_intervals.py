"""Intervals of shares and areas from scores, and of the largest gap between groups that is made of them.

A small group in which every decision is the same has a rate of 0 or 1 and no spread to resample, and yet it
is not known exactly. Score intervals (Wilson 1927 for shares, Newcombe 2006 for areas) take the spread that
the figure would have at each end of the interval. The interval of a difference is put together from those of
its parts (Newcombe 1998: the method of variance estimates recovery), whatever kind of figure they are.

The largest gap of several groups is larger in a sample than in truth. Its interval is that of its pairs: the
lower end is the largest of those that hold for all pairs at once (Tukey 1953, Kramer 1956), so that it is
above zero in one null audit of twenty; the upper end is the largest of those of single pairs.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from fairdx.metrics.inputs import Floats

_STEPS = 30  # bisections: to 1e-9 of the range
_FINE_STEPS = 50  # bisections of a cheap function
_MOST = 40.0  # standard errors, beyond which a p-value is 0 in double precision
_SMALLEST = 1e-9  # standard errors, below which it is 1
_AREA_WEIGHT = 5.0  # the weight of the variance function against that of the sample, in images of the fewer


class Figures(Protocol):
    """Figures of groups with intervals at any number of standard errors."""

    @property
    def value(self) -> Floats:
        """Shape (..., S, R); nan where undefined."""

    def ends(self, critical: float) -> tuple[Floats, Floats]:
        """Lower and upper ends at so many standard errors, each of the shape of `value`."""


@dataclass(frozen=True)
class Shares:
    """Shares of images, with Wilson's score interval.

    Attributes:
        value: Shape (..., S, R), in [0, 1].
        size: Effective number of images behind each, shape (..., S, R).
        widen: For few patients, from `fairdx.inference.uncertainty.few_patients_factor`; broadcast.
    """

    value: Floats
    size: Floats
    widen: Floats

    def ends(self, critical: Floats | float) -> tuple[Floats, Floats]:
        """See `Figures`."""
        z2 = (critical * self.widen) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            stretch = 1 + z2 / self.size
            middle = (self.value + z2 / (2 * self.size)) / stretch
            inside = self.value * (1 - self.value) / self.size + z2 / (4 * self.size**2)
            half = np.sqrt(z2 * inside) / stretch
        low = np.where(self.value == 0, 0.0, np.maximum(middle - half, 0.0))
        return low, np.where(self.value == 1, 1.0, np.minimum(middle + half, 1.0))

    @property
    def variance(self) -> Floats:
        """Estimated variance of each share."""
        with np.errstate(divide="ignore", invalid="ignore"):
            variance: Floats = self.value * (1 - self.value) / self.size
        return variance


@dataclass(frozen=True)
class Normal:
    """Figures whose errors are nearly normal.

    Attributes:
        value: Shape (..., S, R).
        error: Standard errors, of the same shape.
        widen: As in `Shares`.
    """

    value: Floats
    error: Floats
    widen: Floats

    def ends(self, critical: float) -> tuple[Floats, Floats]:
        """See `Figures`."""
        reach = critical * self.widen * self.error
        return self.value - reach, self.value + reach


@dataclass(frozen=True)
class Areas:
    """Areas under ROC curves, with Newcombe's score interval (2006, method 5).

    Its variance is that of Hanley and McNeil (1982) as a function of the area, times the ratio by which the
    sample's own (DeLong, or Obuchowski with repeated patients) differs from it. With few images of a label
    the ratio is held near 1. Complete separation has the area at which it has the probability of the tail if
    scores are normal.

    Attributes:
        value: Shape (S, R).
        positives: Patients with Y=1, shape (S, R).
        negatives: Patients with Y=0, shape (S, R).
        variance: From `fairdx.inference.delong.delong`, shape (S, R); 0 where it cannot be estimated.
        widen: As in `Shares`.
    """

    value: Floats
    positives: Floats
    negatives: Floats
    variance: Floats
    widen: Floats

    def ends(self, critical: float) -> tuple[Floats, Floats]:
        """See `Figures`."""
        critical = critical * self.widen  # type: ignore[assignment]
        ratio = self._ratio()
        low, high = self._roots(critical**2 * ratio)
        for place in zip(*np.nonzero((self.value == 0) | (self.value == 1)), strict=True):
            from scipy.special import ndtr

            tail = float(ndtr(-np.broadcast_to(critical, self.value.shape)[place]))
            bound = separated_area(int(self.positives[place]), int(self.negatives[place]), tail)
            low[place], high[place] = (bound, 1.0) if self.value[place] == 1 else (0.0, 1 - bound)
        return low, high

    def _model(self, area: Floats) -> Floats:
        m, n = self.positives, self.negatives
        with np.errstate(divide="ignore", invalid="ignore"):
            paired = (1 - area) / (2 - area) + area / (1 + area)
            variance: Floats = area * (1 - area) / (m * n) * (1 + ((m + n) / 2 - 1) * paired)
        return variance

    def _ratio(self) -> Floats:
        pairs, more = self.positives * self.negatives, np.maximum(self.positives, self.negatives)
        inside = self._model((self.value * pairs + 0.5 * more) / (pairs + more))
        with np.errstate(divide="ignore", invalid="ignore"):
            added = _AREA_WEIGHT / np.minimum(self.positives, self.negatives) * inside
            ratio: Floats = (self.variance + added) / (self._model(self.value) + added)
        return ratio

    def _roots(self, square: Floats) -> Floats:
        """The areas below and above the observed one, (2, ...), off it by `square` of its variance."""
        inner = np.stack([self.value, self.value])
        outer = np.stack([np.zeros_like(self.value), np.ones_like(self.value)])
        for _ in range(_STEPS):
            middle = (inner + outer) / 2
            within = (self.value - middle) ** 2 <= square * self._model(middle)
            inner, outer = np.where(within, middle, inner), np.where(within, outer, middle)
        return np.where(np.isnan(self.value), np.nan, inner)


@lru_cache(maxsize=1024)
def separated_area(positives: int, negatives: int, tail: float) -> float:
    """The AUC at which all positives score above all negatives with probability `tail`, scores being normal.

    Args:
        positives: Number of independent images with Y=1.
        negatives: Number with Y=0.
        tail: A probability.

    Returns:
        The area, at least 1/2.
    """
    from scipy.special import log_ndtr, ndtr

    y = np.linspace(-6.0, 9.0, 3001)  # the highest of the negatives
    highest = np.log(negatives) - y**2 / 2 - np.log(2 * np.pi) / 2 + (negatives - 1) * log_ndtr(y)
    low, high = 0.0, 12.0
    for _ in range(_STEPS):
        shift = (low + high) / 2
        chance = np.trapezoid(np.exp(highest + positives * log_ndtr(shift - y)), y)
        low, high = (shift, high) if chance < tail else (low, shift)
    return float(ndtr(low / np.sqrt(2)))


def critical_value(level: float, comparisons: int = 1) -> float:
    """Standard errors to either side that hold for so many comparisons at once (Sidak 1967)."""
    from scipy.special import ndtri

    return float(ndtri((1 + level ** (1 / max(comparisons, 1))) / 2))


@lru_cache(maxsize=1024)
def range_critical_value(groups: int, rates: int, level: float) -> float:
    """Standard errors that hold for all pairs of groups at once, in each of several rates.

    Args:
        groups: Number of groups compared.
        rates: Number of rates.
        level: Nominal coverage.

    Returns:
        The quantile of the studentised range over the square root of 2.
    """
    if groups < 3:
        return critical_value(level, rates)
    tail, low, high = -np.expm1(np.log(level) / max(rates, 1)), 0.0, _MOST
    for _ in range(_FINE_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _range_exceeds(middle, groups) > tail else (low, middle)
    return float(low / np.sqrt(2))


def _range_exceeds(width: float, groups: int) -> float:
    """Probability that the range of so many standard normal numbers exceeds a width.

    The lowest is at z with density k phi(z) P(all others are above), and all others are within the width with
    P(others within) (David and Nagaraja 2003, section 2.3). SciPy's `studentized_range` is the same with
    infinite degrees of freedom; to import it takes longer than many an audit.
    """
    from scipy.special import ndtr

    z = np.linspace(-9.0, 9.0, 3601)
    above, beyond = ndtr(-z), ndtr(-z - width)
    with np.errstate(divide="ignore"):  # all others lie outside: the logarithm of 0
        outside = -np.expm1((groups - 1) * np.log1p(-beyond / above))
    density = groups * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * above ** (groups - 1)
    return float(np.trapezoid(density * outside, z))


def range_tail(critical: float, groups: int, rates: int) -> float:
    """Probability that some pair differs by more than `critical` standard errors without any difference."""
    from scipy.special import ndtr

    one = 2 * ndtr(-critical) if groups < 3 else _range_exceeds(critical * np.sqrt(2), groups)
    return float(-np.expm1(max(rates, 1) * np.log1p(-min(max(float(one), 0.0), 1 - 1e-16))))


def lowest_gap(figures: Figures, critical: float) -> Floats:
    """The largest lower end of the differences between two groups, over pairs and rates.

    Args:
        figures: Of the groups.
        critical: Standard errors.

    Returns:
        Shape (...), below 0 where no pair differs; nan where fewer than two groups are defined.
    """
    low, high = figures.ends(critical)
    return _largest(figures.value, (figures.value - low) ** 2, (high - figures.value) ** 2, -1.0)


def highest_gap(figures: Figures, critical: float) -> Floats:
    """The largest upper end of the differences between two groups, as `lowest_gap`."""
    low, high = figures.ends(critical)
    return _largest(figures.value, (high - figures.value) ** 2, (figures.value - low) ** 2, 1.0)


def _largest(value: Floats, own: Floats, other: Floats, sign: float) -> Floats:
    """Largest end of all ordered pairs, one group against all at a time: memory stays linear in groups."""
    best = np.full((*value.shape[:-2], value.shape[-1]), -np.inf)
    for s in range(value.shape[-2]):
        one = slice(s, s + 1)
        ends = value[..., one, :] - value + sign * np.sqrt(own[..., one, :] + other)
        ends[..., s, :] = -np.inf
        np.fmax(best, np.fmax.reduce(ends, axis=-2), out=best)
    found = np.fmax.reduce(best, axis=-1)
    return np.where(np.isfinite(found), found, np.nan)


def _compared(figures: Figures) -> tuple[int, int]:
    """The most groups that any rate compares, and the number of rates that compare two or more."""
    known = np.isfinite(figures.value).sum(-2)
    return int(known.max(initial=0)), int((known > 1).any(tuple(range(known.ndim - 1))).sum())


def gap_ends(figures: Figures, level: float) -> tuple[Floats, Floats]:
    """Interval of the largest gap between two groups, over all rates.

    Args:
        figures: Of the groups.
        level: Nominal coverage.

    Returns:
        Lower and upper ends, each of shape (...), at least 0; nan where fewer than two groups are defined.
    """
    if figures.value.shape[-2] == 0:
        return (np.full(figures.value.shape[:-2], np.nan),) * 2
    low = lowest_gap(figures, range_critical_value(*_compared(figures), level))
    return np.maximum(low, 0.0), highest_gap(figures, critical_value(level))


def ratio_ends(figures: Figures, level: float) -> tuple[float, float]:
    """Interval of the smallest ratio of two groups, over all rates.

    That of a pair is put together from the intervals of its parts (Donner and Zou 2012), and those of pairs
    as in `gap_ends`: of data without any difference one upper end in twenty lies below 1.

    Args:
        figures: Of the groups, not negative, shape (S, R).
        level: Nominal coverage.

    Returns:
        Lower and upper end, in [0, 1]; nan where fewer than two groups are defined or all rates are 0.
    """
    value = figures.value
    if _compared(figures)[0] < 2 or not np.nanmax(value) > 0:
        return float("nan"), float("nan")
    single, all_pairs = critical_value(level), range_critical_value(*_compared(figures), level)
    (low, high), (wide_low, wide_high) = figures.ends(single), figures.ends(all_pairs)
    lowest, highest = 1.0, 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        for s in range(len(value)):
            top, both = value[s], value[s] * value
            own = low[s] * (2 * top - low[s])
            root = np.sqrt(np.maximum(both**2 - high * (2 * value - high) * own, 0.0))
            others = np.arange(len(value)) != s
            ends = np.where(own == 0, np.where(np.isnan(both), np.nan, 0.0), own / (both + root))
            lowest = np.nanmin([lowest, *np.ravel(ends[others])])
            own, other = wide_high[s] * (2 * top - wide_high[s]), wide_low * (2 * value - wide_low)
            root = np.sqrt(np.maximum(both**2 - own * other, 0.0))
            highest = np.nanmin([highest, *np.ravel(((both + root) / other)[others])])
    return float(max(lowest, 0.0)), float(max(highest, lowest, 0.0))


def gap_p_value(figures: Figures) -> float:
    """P-value of no gap: the level at which the interval of `gap_ends` leaves out 0.

    Args:
        figures: Of the groups, shape (S, R).

    Returns:
        The p-value; nan where fewer than two groups are defined.
    """
    from scipy.optimize import brentq

    if np.isnan(lowest_gap(figures, 1.0)):
        return float("nan")

    def end(critical: float) -> float:
        return float(lowest_gap(figures, critical))

    if end(_SMALLEST) <= 0:
        return range_tail(0.0, *_compared(figures))
    reached = _MOST if end(_MOST) > 0 else float(brentq(end, _SMALLEST, _MOST, xtol=1e-9))
    return range_tail(reached, *_compared(figures))


def detectable_gap(figures: Figures, level: float, power: float = 0.8) -> float:
    """The smallest gap between the two groups furthest apart that the test finds with the given power.

    Args:
        figures: Of the groups, shape (S, R).
        level: 1 minus the size of the test.
        power: Probability to find it.

    Returns:
        The gap, nan if undefined.
    """
    from scipy.special import ndtri

    critical = range_critical_value(*_compared(figures), level)
    spread = np.fmax.reduce(figures.value, axis=-2) - np.fmin.reduce(figures.value, axis=-2)
    if not np.isfinite(spread).any():
        return float("nan")
    column = int(np.nanargmax(spread))
    low, high = (end[:, column] for end in figures.ends(critical))
    value = figures.value[:, column]
    widest = [int(np.nanargmin(value)), int(np.nanargmax(value))]
    half = (high - low)[widest] / 2
    return float(np.sqrt((half**2).sum()) * (1 + float(ndtri(power)) / critical))
