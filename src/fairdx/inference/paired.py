"""The change of a gap between two tables of predictions of the same images, by test inversion."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fairdx.inference.uncertainty import Interval, Length
from fairdx.metrics.inputs import Floats

_STEPS = 16  # bisections: ends to 2e-5 of the range searched
_LAGRANGE_STEPS, _EDGE = 50, 1e-9
_UNDEFINED_SHARE = 0.05  # of replicates, more than which leave no interval


@dataclass(frozen=True)
class LengthChange:
    """A change of length |v2| - |v1|, with an interval and the test of no change that goes with it.

    Attributes:
        interval: Holds the changes that are not rejected; nan ends where undefined.
        p_value: Of no change, two-sided; nan where undefined.
    """

    interval: Interval
    p_value: float


def length_change(
    vectors: tuple[Floats, Floats],
    replicates: tuple[Floats, Floats],
    length: Length,
    level: float,
    widen: Floats | float = 1.0,
    *,
    squared: bool = False,
) -> LengthChange:
    """Estimate how much a length changed, from paired replicates.

    Percentiles of |v2*| - |v1*| cover too rarely when one of the lengths is near zero, where |v*| is biased
    upward. So each change d is tested: the true lengths are set to those nearest to the observed ones that
    differ by d, the replicates are moved there along the observed directions, and d is rejected if the
    observed change is extreme among theirs.

    Args:
        vectors: The two estimates, each of shape (...).
        replicates: Their replicates, pair by pair from the same resampled patients, each of shape (B, ...).
        length: The seminorm, mapping (..., *v.shape) to (...).
        level: Nominal coverage.
        widen: From `fairdx.inference.uncertainty.few_patients_factor`.
        squared: Whether the change is that of the squared length, |v2|^2 - |v1|^2.

    Returns:
        The interval and the p-value.
    """
    lengths = [float(length(v)) for v in vectors]
    spread = [widen * (r - v) for r, v in zip(replicates, vectors, strict=True)]
    sizes = [length(s) for s in spread]
    defined = np.isfinite(sizes[0]) & np.isfinite(sizes[1])
    longest = [float(s[defined].max(initial=0.0)) for s in sizes]
    if not np.isfinite(lengths).all() or defined.mean() < 1 - _UNDEFINED_SHARE or max(longest) == 0:
        nan = float("nan")
        return LengthChange(Interval(nan, nan, level, "undefined"), nan)
    spread = [s[defined] for s in spread]
    directions = [
        v / size if size > 0 else s[0] / max(float(length(s[0])), 1e-300)
        for v, size, s in zip(vectors, lengths, spread, strict=True)
    ]
    power, nearest = (2, _nearest_squared) if squared else (1, _nearest)
    observed, tail = lengths[1] ** power - lengths[0] ** power, (1 - level) / 2

    def changes(true: float) -> Floats:
        first, second = nearest(lengths[0], lengths[1], true)
        one, two = length(first * directions[0] + spread[0]), length(second * directions[1] + spread[1])
        return two**power - one**power

    def share(true: float, side: int) -> float:
        """Share of changes at least (side 1) or at most (side -1) as large as the observed one."""
        return float(np.mean(side * (changes(true) - observed) >= -1e-12))

    extreme = min(share(0.0, 1), share(0.0, -1)) * len(spread[0])
    p_value = min(1.0, 2 * (1 + extreme) / (1 + len(spread[0])))
    reach = (max(lengths) + 2 * sum(longest)) ** 2 if squared else 2 * sum(longest)
    low, high = (
        _last(lambda d, side=side: share(d, side) >= tail, observed, observed - side * reach)  # type: ignore[misc]
        for side in (1, -1)
    )
    return LengthChange(Interval(low, high, level, "paired test inversion"), p_value)


def _last(holds: Callable[[float], bool], start: float, stop: float) -> float:
    """The last number on the way from start to stop for which a condition still holds (bisection)."""
    for _ in range(_STEPS):
        middle = (start + stop) / 2
        start, stop = (middle, stop) if holds(middle) else (start, middle)
    return start


def _nearest(first: float, second: float, change: float) -> tuple[float, float]:
    """The lengths nearest to two given ones that differ by `change` and are not negative."""
    apart = (change - (second - first)) / 2
    moved = (first - apart, second + apart)
    if min(moved) >= 0:
        return moved
    return max(-change, 0.0), max(change, 0.0)


def _nearest_squared(first: float, second: float, change: float) -> tuple[float, float]:
    """The lengths nearest to two given ones whose squares differ by `change`.

    By Lagrange's rule they are first / (1 + t) and second / (1 - t), whose difference grows with t.
    """
    low, high = -1 + _EDGE, 1 - _EDGE
    for _ in range(_LAGRANGE_STEPS):
        t = (low + high) / 2
        below = (second / (1 - t)) ** 2 - (first / (1 + t)) ** 2 < change
        low, high = (t, high) if below else (low, t)
    one, other = first / (1 + low), second / (1 - low)
    if other**2 - one**2 < change:  # one of the given lengths is 0
        return one, float(np.sqrt(one**2 + change))
    return float(np.sqrt(max(other**2 - change, 0.0))), other
