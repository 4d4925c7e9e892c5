"""Intervals from bootstrap replicates, tests from the same replicates, and correction for many tests.

Signed quantities get percentile or BCa intervals. Quantities that cannot be negative (a calibration error, a
sum of deviations) cannot: at zero every replicate lies above the truth, so a percentile interval never covers
it. Each of them is a length |v| of a vector v that is smooth and nearly normal at zero, so `length_interval`
inverts the test "the length is r" with the replicates of v - v_hat instead. Rates, areas and the gaps between
them are in `fairdx.inference.score_intervals`, information in `fairdx.inference.information`.

With few patients a bootstrap is too narrow, as a normal interval is beside Student's; `few_patients_factor`
is the widening that makes up for it (Hesterberg 2015, "expanded percentile interval").
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairdx.core.errors import InputError
from fairdx.core.schema import Number
from fairdx.metrics.inputs import Floats

Length = Callable[[Floats], Floats]
"""A seminorm: maps (..., *v.shape) to (...), is not negative, and scales with its argument."""

_UNDEFINED_SHARE = 0.05  # more undefined replicates than this and an interval would describe the rest only


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: Lower end; nan when it cannot be computed.
        high: Upper end; nan when it cannot be computed.
        level: Nominal coverage, such as 0.95.
        method: How it was computed.
    """

    low: Number
    high: Number
    level: float
    method: str


@dataclass(frozen=True)
class Estimate:
    """An estimated value with its interval.

    Attributes:
        value: The estimate; nan when undefined.
        low: Lower end of the interval; nan when it cannot be computed.
        high: Upper end of the interval; nan when it cannot be computed.
        level: Nominal coverage of the interval.
        method: How the interval was computed.
        n: Number of images (rows) the value rests on.
    """

    value: Number
    low: Number
    high: Number
    level: float
    method: str
    n: int

    @classmethod
    def of(cls, value: float, interval: Interval, n: int) -> "Estimate":
        """Join a value and its interval."""
        return cls(float(value), interval.low, interval.high, interval.level, interval.method, int(n))


def check_level(level: float) -> float:
    """Return the level if it is a probability strictly between 0 and 1.

    Raises:
        InputError: Otherwise.
    """
    if not 0 < level < 1:
        raise InputError(f"level is {level}; give a probability between 0 and 1, such as 0.95.")
    return level


def check_group_size(least: int) -> int:
    """Return the size of the smallest group that is compared, if a group can have it.

    Raises:
        InputError: Otherwise.
    """
    if least < 1:
        raise InputError(f"min_group_size is {least}; give a number of images from 1 on.")
    return least


def few_patients_factor(patients: Floats | float, level: float) -> Floats:
    """How much wider than the bootstrap says deviations are, with few patients.

    Args:
        patients: Effective number of patients in each group, (sum m)^2 / sum m^2 for m images each.
        level: Nominal coverage.

    Returns:
        sqrt(N / (N - 1)) times the ratio of the quantiles of Student's t with N - 1 degrees of freedom and
        the normal distribution, of the shape of `patients`; at least 1, that of two patients at most.
    """
    from scipy.special import ndtri, stdtrit

    n, tail = np.maximum(patients, 2.0), (1 + level) / 2
    return np.asarray(np.sqrt(n / (n - 1)) * stdtrit(n - 1, tail) / ndtri(tail))


def percentile_interval(replicates: Floats, level: float, widen: float = 1.0) -> Interval:
    """Percentile interval (Efron 1979), expanded for few patients (Hesterberg 2015).

    Args:
        replicates: Bootstrap replicates, shape (B,); undefined ones are nan.
        level: Nominal coverage.
        widen: From `few_patients_factor`.

    Returns:
        The interval; nan ends if more than 5 % of the replicates are undefined.
    """
    defined = _defined(replicates)
    if defined is None:
        return _no_interval(level)
    from scipy.special import ndtr, ndtri

    tail = ndtr(widen * ndtri((1 - level) / 2))
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(low), float(high), level, "percentile")


def bca_interval(
    value: float, replicates: Floats, acceleration: float, level: float, widen: float = 1.0
) -> Interval:
    """Bias-corrected and accelerated interval (Efron 1987).

    Args:
        value: The estimate on the sample.
        replicates: Bootstrap replicates, shape (B,).
        acceleration: From `jackknife_acceleration`.
        level: Nominal coverage.
        widen: From `few_patients_factor`.

    Returns:
        The interval; nan ends if more than 5 % of the replicates are undefined.
    """
    from scipy.special import ndtr, ndtri

    defined = _defined(replicates)
    if defined is None or np.isnan(value):
        return _no_interval(level)
    below = np.mean(defined < value) + np.mean(defined == value) / 2
    if below in (0, 1):  # every replicate on one side: nothing to correct with
        return percentile_interval(replicates, level, widen)
    bias = ndtri(below)
    z = bias + widen * ndtri([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(defined, ndtr(bias + z / (1 - acceleration * z)))
    return Interval(float(low), float(high), level, "bca")


def jackknife_acceleration(left_out: Floats, multiplicity: Floats) -> float:
    """Acceleration of the BCa interval.

    Args:
        left_out: The statistic with one patient of each distinct kind left out, shape (U,).
        multiplicity: How many patients are of that kind, shape (U,).

    Returns:
        sum d^3 / (6 (sum d^2)^1.5) over patients, d the deviations from the jackknife mean; 0 if constant.
    """
    keep = np.isfinite(left_out)
    left_out, multiplicity = left_out[keep], multiplicity[keep]
    if multiplicity.sum() == 0:
        return 0.0
    deviation = np.average(left_out, weights=multiplicity) - left_out
    spread = float(multiplicity @ deviation**2)
    return float(multiplicity @ deviation**3) / (6 * spread**1.5) if spread > 0 else 0.0


def length_intervals(
    vectors: Floats, replicates: Floats, length: Length, level: float, widen: Floats | float = 1.0
) -> tuple[Floats, Floats]:
    """Intervals of lengths |v| that cannot be negative, by test inversion, for G vectors at once.

    The radius r is in the interval if the length observed is not extreme among the lengths of
    r u + (v* - v_hat), u the direction of v_hat. Below the detection limit (the `level` quantile at r = 0)
    only lengths that are too large count as extreme, above it both tails do. So each r is rejected with
    probability 1 - level exactly, zero included; the interval leaves out zero just when the test of |v| = 0
    rejects; and a lucky small estimate never gives a short interval.

    Args:
        vectors: The estimates v_hat, shape (G, ...).
        replicates: Bootstrap replicates of them, shape (B, G, ...).
        length: The seminorm, mapping (..., *v.shape) to (...).
        level: Nominal coverage.
        widen: From `few_patients_factor`.

    Returns:
        Lower and upper ends, each of shape (G,), in units of `length`, at least 0; nan where undefined.
    """
    null = _Null.of(vectors, replicates, length, widen)
    limit, tail = null.quantile(level), (1 - level) / 2
    reach = null.observed + limit + 2 * null.longest + 1e-12
    outside = null.share_up_to(np.zeros_like(limit)) > level
    low = _last_radius(
        lambda r: null.share_up_to(r) > np.where(r < limit, level, 1 - tail), np.zeros_like(limit), reach
    )
    beyond = null.share_up_to(limit) >= tail
    high = _last_radius(lambda r: null.share_up_to(r) >= tail, limit, reach)
    low, high = np.where(outside, low, 0.0), np.where(beyond, high, limit)
    return np.where(null.known, np.minimum(low, high), np.nan), np.where(null.known, high, np.nan)


def length_interval(
    vector: Floats, replicates: Floats, length: Length, level: float, widen: Floats | float = 1.0
) -> Interval:
    """As `length_intervals`, for one vector and replicates of shape (B, *vector.shape)."""
    low, high = length_intervals(vector[None], replicates[:, None], length, level, widen)
    method = "undefined" if np.isnan(low[0]) else "bootstrap test inversion"
    return Interval(float(low[0]), float(high[0]), level, method)


def length_p_value(vector: Floats, replicates: Floats, length: Length, widen: Floats | float = 1.0) -> float:
    """P-value of the hypothesis |v| = 0, from the same replicates as `length_interval`.

    Args:
        vector: The estimate v_hat, any shape.
        replicates: Bootstrap replicates of it, shape (B, *vector.shape).
        length: The seminorm.
        widen: From `few_patients_factor`.

    Returns:
        The share of |v* - v_hat| at least |v_hat|, as `tail_p_value`; nan if undefined.
    """
    null = _Null.of(vector[None], replicates[:, None], length, widen)
    if not null.known[0]:
        return float("nan")
    return tail_p_value(null.at_zero[null.defined] ** 2, float(null.observed[0]) ** 2)


def tail_p_value(draws: Floats, observed: float) -> float:
    """P-value of a statistic from draws under the hypothesis: (1 + draws that reach it) / (1 + draws).

    Args:
        draws: Shape (B,).
        observed: The statistic.

    Returns:
        The p-value, at least 1 / (1 + B): what is smaller was not measured.
    """
    return float((1 + np.sum(draws >= observed * (1 - 1e-12) - 1e-15)) / (1 + len(draws)))


@dataclass(frozen=True)
class _Null:
    """Replicates of v* - v_hat, from which the length at any true radius is simulated."""

    length: Length
    spread: Floats  # (B, G, ...)
    direction: Floats  # (G, ...), of length 1
    observed: Floats  # (G,)
    at_zero: Floats  # (B, G)
    defined: NDArray[np.bool_]  # (B, G)
    known: NDArray[np.bool_]  # (G,)

    @classmethod
    def of(cls, vectors: Floats, replicates: Floats, length: Length, widen: Floats | float) -> "_Null":
        observed, spread = length(vectors), widen * (replicates - vectors)
        at_zero = length(spread)
        defined = np.isfinite(at_zero)
        # A table without spread (every rate 0 or 1) has no bootstrap distribution to speak of.
        known = np.isfinite(observed) & (defined.mean(0) >= 1 - _UNDEFINED_SHARE)
        known &= np.where(defined, at_zero, 0.0).max(0) > 0
        size = np.where(observed > 0, observed, 1.0).reshape(-1, *(1,) * (vectors.ndim - 1))
        widest = np.argmax(np.where(defined, at_zero, -1.0), axis=0)
        places = np.arange(len(widest))
        across = spread[widest, places] / np.maximum(at_zero[widest, places], 1e-300).reshape(size.shape)
        is_zero = (observed == 0).reshape(size.shape)
        return cls(
            length, spread, np.where(is_zero, across, vectors / size), observed, at_zero, defined, known
        )

    @property
    def longest(self) -> Floats:
        longest: Floats = np.where(self.defined, self.at_zero, 0.0).max(0)
        return longest

    def quantile(self, level: float) -> Floats:
        if self.defined.all():
            limit: Floats = np.quantile(self.at_zero, level, axis=0)
        else:
            filled = np.where(self.known, np.where(self.defined, self.at_zero, np.nan), 0.0)
            limit = np.nanquantile(filled, level, axis=0)
        return np.where(self.known, limit, 0.0)

    def share_up_to(self, radius: Floats, bound: Floats | None = None) -> Floats:
        """Share of replicates whose length at the true radius is at most the bound (default: observed)."""
        steps = radius.reshape(-1, *(1,) * (self.direction.ndim - 1)) * self.direction
        below = self.length(steps + self.spread) <= (self.observed if bound is None else bound)
        share: Floats = (below & self.defined).sum(0) / np.maximum(self.defined.sum(0), 1)
        return share


def _last_radius(holds: Callable[[Floats], NDArray[np.bool_]], start: Floats, stop: Floats) -> Floats:
    """The largest radii for which a condition that turns false once still holds (bisection)."""
    for _ in range(18):  # to 4e-6 of the range
        middle = (start + stop) / 2
        held = holds(middle)
        start, stop = np.where(held, middle, start), np.where(held, stop, middle)
    return start


def _defined(replicates: Floats) -> Floats | None:
    defined = replicates[np.isfinite(replicates)]
    return defined if len(defined) and len(defined) >= (1 - _UNDEFINED_SHARE) * len(replicates) else None


def _no_interval(level: float) -> Interval:
    return Interval(float("nan"), float("nan"), level, "undefined")


def holm(p_values: Floats) -> Floats:
    """P-values corrected for the family-wise error rate (Holm 1979).

    Args:
        p_values: Shape (m,); nan entries are not part of the family.

    Returns:
        Corrected p-values, shape (m,), nan where given.
    """
    return _step(p_values, lambda ordered: np.maximum.accumulate(ordered * np.arange(len(ordered), 0, -1)))


def benjamini_hochberg(p_values: Floats) -> Floats:
    """P-values corrected for the false discovery rate (Benjamini and Hochberg 1995).

    Args:
        p_values: Shape (m,); nan entries are not part of the family.

    Returns:
        Corrected p-values, shape (m,), nan where given.
    """

    def step_up(ordered: Floats) -> Floats:
        m = len(ordered)
        return np.minimum.accumulate((ordered * m / np.arange(1, m + 1))[::-1])[::-1]

    return _step(p_values, step_up)


def _step(p_values: Floats, correct: Callable[[Floats], Floats]) -> Floats:
    p_values = np.asarray(p_values, dtype=float)
    corrected = np.full(len(p_values), np.nan)
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    corrected[order] = np.minimum(correct(p_values[order]), 1.0)
    return corrected
