"""Intervals from bootstrap replicates, tests from the same replicates, and correction for many tests.

Signed quantities (effects, rates) get percentile or BCa intervals. Quantities that cannot be negative (the
largest gap, ADF) cannot: at zero every replicate lies above the truth, so a percentile interval never covers
it. Each of them is a length |v| of a vector v that is smooth and nearly normal at zero (the rates of all
groups; the root of the information), so `length_interval` inverts the test "the length is r" with the
replicates of v - v_hat instead. Its coverage is studied in `tests/fairness/test_coverage.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import WithJsonSchema

from fairdx.errors import InputError
from fairdx.fairness.inputs import Floats

Number = Annotated[float, WithJsonSchema({"type": ["number", "null"]})]
"""A float that is nan where it is not defined; JSON has no nan, so it is null there."""

IntervalMethod = Literal["percentile", "bca"]
Length = Callable[[Floats], Floats]
"""A seminorm: maps (B, ...) to (B,), is not negative, and scales with its argument."""

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


def percentile_interval(replicates: Floats, level: float) -> Interval:
    """Percentile interval (Efron 1979).

    Args:
        replicates: Bootstrap replicates, shape (B,); undefined ones are nan.
        level: Nominal coverage.

    Returns:
        The interval; nan ends if more than 5 % of the replicates are undefined.
    """
    defined = _defined(replicates)
    if defined is None:
        return _no_interval(level)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, "percentile")


def bca_interval(value: float, replicates: Floats, acceleration: float, level: float) -> Interval:
    """Bias-corrected and accelerated interval (Efron 1987).

    Args:
        value: The estimate on the sample.
        replicates: Bootstrap replicates, shape (B,).
        acceleration: From `jackknife_acceleration`.
        level: Nominal coverage.

    Returns:
        The interval; nan ends if more than 5 % of the replicates are undefined.
    """
    from scipy.special import ndtr, ndtri

    defined = _defined(replicates)
    if defined is None or np.isnan(value):
        return _no_interval(level)
    below = np.mean(defined < value) + np.mean(defined == value) / 2
    if below in (0, 1):  # every replicate on one side: nothing to correct with
        return percentile_interval(replicates, level)
    bias = ndtri(below)
    z = bias + ndtri([(1 - level) / 2, (1 + level) / 2])
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


def length_interval(vector: Floats, replicates: Floats, length: Length, level: float) -> Interval:
    """Interval of a length |v| that cannot be negative, by test inversion.

    The radius r is in the interval if the length observed is not extreme among the lengths of
    r u + (v* - v_hat), u the direction of v_hat. Below the detection limit (the `level` quantile at r = 0)
    only lengths that are too large count as extreme, above it both tails do. So each r is rejected with
    probability 1 - level exactly, zero included; the interval leaves out zero just when the test of |v| = 0
    rejects; and a lucky small estimate never gives a short interval.

    Args:
        vector: The estimate v_hat, any shape.
        replicates: Bootstrap replicates of it, shape (B, *vector.shape).
        length: The seminorm.
        level: Nominal coverage.

    Returns:
        The interval, in units of `length`, both ends at least 0.
    """
    spread = _deviations(vector, replicates, length)
    if spread is None:
        return _no_interval(level)
    observed = float(length(vector[None])[0])
    direction = _direction(vector, spread, length)

    def share_up_to(radius: float) -> float:
        return float(np.mean(length(radius * direction + spread) <= observed))

    at_zero = length(spread)
    limit = float(np.quantile(at_zero, level))
    tail = (1 - level) / 2
    reach = observed + limit + 2 * float(at_zero.max()) + 1e-12
    low = 0.0
    if share_up_to(0.0) > level:
        low = _last_radius(lambda r: share_up_to(r) > (level if r < limit else 1 - tail), 0.0, reach)
    high = limit
    if share_up_to(limit) >= tail:
        high = _last_radius(lambda r: share_up_to(r) >= tail, limit, reach)
    return Interval(min(low, high), high, level, "bootstrap test inversion")


def length_p_value(vector: Floats, replicates: Floats, length: Length) -> float:
    """P-value of the hypothesis |v| = 0, from the same replicates as `length_interval`.

    Args:
        vector: The estimate v_hat, any shape.
        replicates: Bootstrap replicates of it, shape (B, *vector.shape).
        length: The seminorm.

    Returns:
        (1 + number of |v* - v_hat| at least |v_hat|) / (B + 1), nan if undefined.
    """
    spread = _deviations(vector, replicates, length)
    if spread is None:
        return float("nan")
    at_zero, observed = length(spread), float(length(vector[None])[0])
    return float((1 + np.sum(at_zero >= observed * (1 - 1e-12))) / (1 + len(at_zero)))


def detectable_length(
    vector: Floats, replicates: Floats, length: Length, level: float, power: float = 0.8
) -> float:
    """The smallest length that the test of |v| = 0 finds with the given power, at this sample size.

    Args:
        vector: The estimate v_hat, any shape (its direction is used).
        replicates: Bootstrap replicates of it, shape (B, *vector.shape).
        length: The seminorm.
        level: 1 minus the size of the test.
        power: Probability to find it.

    Returns:
        The length, nan if undefined.
    """
    spread = _deviations(vector, replicates, length)
    if spread is None:
        return float("nan")
    at_zero = length(spread)
    limit = float(np.quantile(at_zero, level))
    direction = _direction(vector, spread, length)
    return _last_radius(
        lambda r: bool(np.mean(length(r * direction + spread) > limit) < power),
        0.0,
        limit + 2 * float(at_zero.max()) + 1e-12,
    )


def _deviations(vector: Floats, replicates: Floats, length: Length) -> Floats | None:
    """v* - v_hat of the replicates in which the length is defined; None if there is nothing to go by."""
    if not np.isfinite(length(vector[None])[0]):
        return None
    spread = replicates - vector
    defined = np.isfinite(length(spread))
    if defined.mean() < 1 - _UNDEFINED_SHARE:
        return None
    spread = spread[defined]
    return spread if np.ptp(spread, axis=0).max() > 0 else None


def _direction(vector: Floats, spread: Floats, length: Length) -> Floats:
    """The direction of v_hat, of length 1; that of its widest spread if v_hat is zero."""
    size = float(length(vector[None])[0])
    if size > 0:
        return vector / size
    lengths = length(spread)
    longest = int(np.argmax(lengths))
    direction: Floats = spread[longest] / lengths[longest]
    return direction


def _last_radius(holds: Callable[[float], bool], start: float, stop: float) -> float:
    """The largest radius for which a condition that turns false once still holds (bisection)."""
    for _ in range(40):
        middle = (start + stop) / 2
        start, stop = (middle, stop) if holds(middle) else (start, middle)
        if stop - start < 1e-7 * stop:
            break
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
