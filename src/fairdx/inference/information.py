"""Intervals of I(S; D | Y), which cannot be negative, by test inversion.

The table is a vector whose squared length is the information (`fairdx.metrics.counts.information_root`), and
its estimate is nearly normal about the true one. What the length of the estimate is, if the true length is r,
has two parts: along the vector, where the spread is that of the bootstrap, and across it, which is noise from
all cells. That noise is not resampled but drawn under independence (groups permuted within labels): the
bootstrap of a sparse table never fills an empty cell, and has too little of it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairdx.inference.uncertainty import Interval
from fairdx.metrics import counts as tables
from fairdx.metrics.inputs import Floats

_STEPS = 20  # bisections: to 1e-6 of the range
_MOST_SPREAD = 10.0  # standard deviations of the bootstrap over those under independence, at most
_TIE = 1e-9  # lengths of equal tables differ by rounding


@dataclass(frozen=True)
class Information:
    """The root of an information, with what it would be at any true length.

    Attributes:
        size: The length observed, shape (...).
        along: Noise along the vector, under independence, shape (N, ...).
        across: Size of the noise across it, shape (N, ...).
        spread: How much larger the noise along is at the observed length, at least 1, shape (...).
    """

    size: Floats
    along: Floats
    across: Floats
    spread: Floats

    @classmethod
    def of(cls, counts: Floats, replicates: Floats, null: Floats, scale: float = 1.0) -> "Information":
        """Split the noise of tables.

        Args:
            counts: Shape (..., S, Y, D).
            replicates: From the bootstrap, shape (B, ..., S, Y, D).
            null: Drawn under independence, shape (N, ..., S, Y, D).
            scale: Of the noise of the drawn tables, for what they leave out.

        Returns:
            The root with its noise.
        """
        root, drawn = tables.information_root(counts), scale * tables.information_root(null)
        size, lengths = _length(root), _length(drawn)
        widest = np.take_along_axis(drawn, lengths.argmax(0)[None, ..., None, None, None], axis=0)[0]
        start = np.where(size[..., None, None, None] > 0, root, widest)
        norm = _length(start)[..., None, None, None]
        direction = start / np.where(norm > 0, norm, 1.0)
        along = np.einsum("...syd,...syd->...", drawn, direction)
        across = np.sqrt(np.maximum(lengths**2 - along**2, 0.0))
        moved = np.einsum("...syd,...syd->...", tables.information_root(replicates) - root, direction)
        ratio = moved.std(0) / np.maximum(along.std(0), 1e-300)
        return cls(size, along, across, np.where(size > 0, np.clip(ratio, 1.0, _MOST_SPREAD), 1.0))

    @property
    def null(self) -> Floats:
        """Lengths under independence, shape (N, ...)."""
        lengths: Floats = np.sqrt(self.along**2 + self.across**2)
        return lengths

    @property
    def known(self) -> NDArray[np.bool_]:
        """Where there is any noise to speak of."""
        known: NDArray[np.bool_] = np.isfinite(self.size) & (self.null.max(0) > 0)
        return known

    def p_value(self) -> Floats:
        """(1 + draws that reach the length) / (1 + draws), shape (...)."""
        reached = (self.null >= self.size - _TIE).sum(0)
        return np.where(self.known, (1 + reached) / (1 + len(self.null)), np.nan)

    def matched(self, p_value: float, level: float) -> "Information":
        """The same, its noise stretched if else it would not agree with a test made otherwise.

        Args:
            p_value: Of that test.
            level: At which both are to reject no information, or neither.
        """
        limit = float(np.quantile(self.null, np.clip(1 - p_value, 0.0, 1.0)))
        agree = (p_value <= 1 - level) == bool(self.p_value() <= 1 - level)
        if agree or limit <= 0 or self.size <= 0:
            return self
        factor = float(np.clip(self.size / limit, 0.5, 2.0))
        return Information(self.size, factor * self.along, factor * self.across, self.spread)

    def share(self, radius: Floats, bound: Floats) -> Floats:
        """Share of lengths up to a bound, if the true length is `radius`."""
        grown = np.minimum(radius / np.where(self.size > 0, self.size, np.inf), 1.0)
        along = radius + (1 + (self.spread - 1) * grown) * self.along
        shares: Floats = (np.sqrt(along**2 + self.across**2) <= bound).mean(0)
        return shares

    def ends(self, level: float) -> tuple[Floats, Floats]:
        """Ends of the interval of the information, shape (...); nan where unknown.

        The lower end is 0 unless the test of no information rejects. There the test has one side only; with
        larger lengths a second side grows, by as much as the first one shrinks. There a length counts as the
        next larger that tables have, and one that is rarely so small, whatever the true one, as the smallest
        that is not rare: else the upper end would be 0, as if a table of 30 images could show that there is
        no information at all.
        """
        tail = (1 - level) / 2
        limit: Floats = np.quantile(self.null, level, axis=0)
        rare: Floats = np.quantile(self.null, tail, axis=0)
        reach = self.size + limit + 2 * self.null.max(0) * self.spread + 1e-12
        longer = np.where(self.null > self.size + _TIE, self.null, np.inf).min(0)
        over = np.maximum(np.where(np.isfinite(longer), longer, self.size), rare) + _TIE
        under = self.size - _TIE
        outside = self.p_value() <= 1 - level

        def side(radius: Floats) -> Floats:
            return tail * np.minimum(radius / np.maximum(limit, 1e-300), 1.0)

        def below(radius: Floats) -> NDArray[np.bool_]:
            return self.share(radius, under) > level + side(radius)

        def within(radius: Floats) -> NDArray[np.bool_]:
            return self.share(radius, over) >= side(radius)

        low = np.where(outside, _last(below, np.zeros_like(limit), reach), 0.0)
        high = _last(within, np.zeros_like(limit), reach)
        high = np.maximum(high, low)
        return np.where(self.known, low**2, np.nan), np.where(self.known, high**2, np.nan)

    def interval(self, level: float) -> Interval:
        """As `ends`, for one table."""
        low, high = (float(end) for end in self.ends(level))
        return Interval(low, high, level, "undefined" if np.isnan(low) else "test inversion")

    def detectable(self, level: float, power: float = 0.8) -> float:
        """The smallest information that the test finds with the given power, nan if undefined."""
        limit = np.quantile(self.null, level, axis=0)
        found = _last(
            lambda radius: self.share(radius, limit) > 1 - power,
            np.zeros_like(limit),
            limit + 2 * self.null.max(0) * self.spread + 1e-12,
        )
        return float(found**2) if self.known else float("nan")


def moved_inside(value: Floats | float, low: Floats | float, high: Floats | float) -> Floats:
    """A value, moved to the nearer end of its interval if it lies outside; a nan end moves nothing."""
    return np.asarray(np.fmin(np.fmax(value, low), high), dtype=float)


def _length(root: Floats) -> Floats:
    flat = root.reshape(*root.shape[:-3], -1)
    lengths: Floats = np.sqrt(np.einsum("...k,...k->...", flat, flat))
    return lengths


def _last(holds: Callable[[Floats], NDArray[np.bool_]], start: Floats, stop: Floats) -> Floats:
    """The largest radii for which a condition that turns false once still holds (bisection)."""
    for _ in range(_STEPS):
        middle = (start + stop) / 2
        held = holds(middle)
        start, stop = np.where(held, middle, start), np.where(held, stop, middle)
    return start
