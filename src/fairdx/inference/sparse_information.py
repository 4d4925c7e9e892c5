"""Interval and estimate of I(S; D | Y) where most cells have few images, by simulation.

The plug-in estimate of a sparse table is too large by several times its spread. By how much depends on how
the groups differ: a group that errs more often, and in more ways, adds to the bias, one that hardly errs
takes away. So tables are drawn whose information is known, from none to more than was observed, and those
sizes of the information are kept at which the observed plug-in estimate is not extreme. It has the same bias
as the drawn ones.

There are many ways to have an information of one size. The tables follow the plainest that the data suggest.
At first groups differ in how often they are right: one shift of the log-odds for each, errors shared out as
in all groups. Then they differ in every cell, towards the rates observed and beyond. Without information the
mean of the drawn tables is set to that of permuted tables, which have the margins observed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairdx.metrics import counts as tables
from fairdx.metrics.inputs import Floats

Path = Callable[[float], Floats]

_SIZES = 10  # of information at which tables are drawn, beside none
_DRAWS, _FEWEST_DRAWS = 100, 20  # tables of each size
_MOST_NUMBERS = 2_000_000  # in all tables that are drawn, if that leaves the fewest draws
_STEPS = 400  # of the root of the information, between which an end is not told apart
_FURTHEST = 3.0  # 1: groups differ in how often they are right; 2: the rates observed; 3: twice as far again
_MOST_SHIFT = 6.0  # of log-odds
_NEWTON = 30


@dataclass(frozen=True)
class Course:
    """What the plug-in estimate is, if the true information is of some size.

    Attributes:
        size: True information, rising from 0, shape (K,).
        low: A plug-in estimate below this is extreme, shape (K,).
        mean: Its mean, shape (K,).
        high: Above this it is extreme; without information the test has this side only.
    """

    size: Floats
    low: Floats
    mean: Floats
    high: Floats

    @classmethod
    def of(cls, counts: Floats, null: Floats, level: float, scale: float, most: float, seed: int) -> "Course":
        """Draw tables.

        Args:
            counts: Square tables (S, K, K) by group, label and decision.
            null: Plug-in estimates of tables without information, shape (N,).
            level: Nominal coverage.
            scale: Of noise, for dependent images: the root of the design effect.
            most: Largest information that has to be looked at, if the rates can have so much.
            seed: Of the draws.

        Returns:
            The course.
        """
        chances = _chances(counts, most)
        size = tables.mutual_information(chances)
        drawn = _drawn(chances, counts.sum(), scale, np.random.default_rng(seed))
        root, spread = np.sqrt(size), drawn.std(0)
        mean = _smooth(root, drawn.mean(0), 3)
        mean += null.mean() - mean[0]
        # The deviations of all sizes are alike up to their spread, so that few draws of each are enough.
        deviations = ((drawn - drawn.mean(0)) / np.maximum(spread, 1e-300)).ravel()
        spread = np.maximum(_smooth(root, spread, 2), spread.min() / 2)
        tail = (1 - level) / 2
        clear = np.sqrt(max(float(np.quantile(null, level) - null.mean()), 1e-300))
        side = tail * np.minimum(root / clear, 1.0)  # of the test, as in `Information.ends`
        lower, upper = np.quantile(deviations, side), np.quantile(deviations, level + side)
        fine = np.linspace(0.0, root[-1], _STEPS)
        low, middle, high = (
            np.interp(fine, root, curve) for curve in (mean + lower * spread, mean, mean + upper * spread)
        )
        return cls(fine**2, low, middle, high)

    def found(self, plug_in: float, rejected: bool) -> tuple[float, float, float]:
        """Lower end, estimate and upper end of the true information.

        Args:
            plug_in: Observed.
            rejected: Whether the test of no information rejects; the lower end is 0 unless it does.

        Returns:
            The three; the estimate is that of which the plug-in estimate is the mean.
        """
        possible = self.high >= plug_in
        possible[0] = not rejected
        low = float(self.size[possible.argmax()] if possible.any() else self.size[-1])
        high = max(_last(self.size, self.low <= plug_in), low)
        return low, float(np.clip(_last(self.size, self.mean <= plug_in), low, high)), high

    def reaches(self, plug_in: float) -> bool:
        """Whether so small a plug-in estimate is extreme at the largest size."""
        return bool(self.low[-1] > plug_in)


def _last(size: Floats, holds: NDArray[np.bool_]) -> float:
    return float(size[np.flatnonzero(holds)[-1]]) if holds.any() else 0.0


def _smooth(root: Floats, values: Floats, degree: int) -> Floats:
    return np.asarray(np.polyval(np.polyfit(root, values, degree), root), dtype=float)


def _drawn(chances: Floats, total: float, scale: float, rng: np.random.Generator) -> Floats:
    """Plug-in estimates of tables of `total` images with such chances (M, S, K, K): shape (B, M)."""
    cells = chances.reshape(len(chances), -1)
    draws = int(np.clip(_MOST_NUMBERS // cells.size, _FEWEST_DRAWS, _DRAWS))
    found = []
    for own, table in zip(cells, chances, strict=True):
        drawn = rng.multinomial(round(total), own, size=draws).reshape(draws, *table.shape).astype(float)
        if scale == 1.0:
            found.append(tables.mutual_information(drawn))
            continue
        root = tables.information_root(table)
        stretched = root + scale * (tables.information_root(drawn) - root)
        found.append((stretched**2).sum((-1, -2, -3)))
    return np.stack(found, axis=1)


def _chances(counts: Floats, most: float) -> Floats:
    """Chances of the cells (M, S, K, K) of which the root of the information rises evenly from 0."""
    path = _path(counts)
    steps = np.concatenate([np.linspace(0, 1, 26), np.linspace(1, _FURTHEST, 40)[1:]])
    size = np.maximum.accumulate([float(tables.mutual_information(path(step))) for step in steps])
    rises = np.concatenate([[True], np.diff(size) > 0])
    wanted = np.linspace(0, np.sqrt(min(most, size[-1])), _SIZES + 1) ** 2
    found = np.stack([path(step) for step in np.interp(wanted, size[rises], steps[rises])])
    # Along the path the information may fall by rounding; the sizes that a course is of must not.
    keep = np.concatenate([[True], np.diff(np.maximum.accumulate(tables.mutual_information(found))) > 0])
    return np.asarray(found[keep])


def _path(counts: Floats) -> Path:
    """Chances of the cells: without information (0), groups right more or less often (1), all rates (2)."""
    images = counts.sum(-1)
    shared = np.broadcast_to(_rates(counts.sum(0))[None], counts.shape)
    own = np.where(images[..., None] > 0, _rates(counts), shared)
    shifted = _shifted(counts, shared)
    first = shifted(1.0)

    def at(step: float) -> Floats:
        rates = shifted(step) if step <= 1 else np.maximum(first + (step - 1) * (own - first), 0.0)
        chances: Floats = _rates(rates) * images[..., None] / images.sum()
        return chances

    return at


def _shifted(counts: Floats, shared: Floats) -> Path:
    """Rates (S, K, K) of groups whose log-odds of being right are moved by a part of what each shows."""
    diagonal = np.arange(counts.shape[-1])
    right = np.clip(shared[:, diagonal, diagonal], 1e-9, 1 - 1e-9)  # (S, K)
    odds, images = np.log(right / (1 - right)), counts.sum(-1)
    total, expected = images.sum(-1), (images * right).sum(-1)
    seen = counts[:, diagonal, diagonal].sum(-1)
    # One more image, right as often as in all groups, so that none is always or never right.
    seen = (seen + tables.ratio(expected, total)) / (total + 1) * total
    shift = np.zeros(len(counts))
    for _ in range(_NEWTON):
        rate = 1 / (1 + np.exp(-(odds + shift[:, None])))
        slope = np.maximum((images * rate * (1 - rate)).sum(-1), 1e-9)
        shift = np.clip(shift - ((images * rate).sum(-1) - seen) / slope, -_MOST_SHIFT, _MOST_SHIFT)

    def at(part: float) -> Floats:
        rate = 1 / (1 + np.exp(-(odds + part * shift[:, None])))
        rates = shared * ((1 - rate) / (1 - right))[..., None]
        rates[:, diagonal, diagonal] = rate
        certain = shared[:, diagonal, diagonal] == 1  # nothing says how they would err
        return np.where(certain[..., None], shared, rates)

    return at


def _rates(weights: Floats) -> Floats:
    return np.nan_to_num(tables.ratio(weights, weights.sum(-1, keepdims=True)))
