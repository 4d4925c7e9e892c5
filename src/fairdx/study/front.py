"""The Pareto front of AUC (higher is better) and ADF (lower is better), and the area it dominates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairdx.core.errors import InputError
from fairdx.study.summary import LEVEL, VANILLA, Line, Summary

AUC, ADF = "auroc", "approximate_diagnosis_fairness"
MARGIN = 0.05
"""The reference has vanilla's AUC less this, and vanilla's ADF."""

Points = NDArray[np.float64]


def pareto_front(points: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other one beats: at least as high an AUC with at most the ADF, and better in one.

    Args:
        points: AUC and ADF, shape (n, 2).

    Returns:
        Shape (n,). Equal points are on the front together; a point that is not finite is not on it.
    """
    p = np.asarray(points, dtype=float).reshape(-1, 2)
    no_worse = (p[None, :, 0] >= p[:, None, 0]) & (p[None, :, 1] <= p[:, None, 1])
    better = (p[None, :, 0] > p[:, None, 0]) | (p[None, :, 1] < p[:, None, 1])
    front: NDArray[np.bool_] = ~(no_worse & better).any(axis=1) & np.isfinite(p).all(axis=1)
    return front


def hypervolume(points: ArrayLike, reference: tuple[float, float]) -> float:
    """The area between a reference and what the points beat.

    Args:
        points: AUC and ADF, shape (n, 2).
        reference: AUC and ADF that a point has to beat in both to count.

    Returns:
        AUC times nats; 0 if no point beats the reference.
    """
    p = np.asarray(points, dtype=float).reshape(-1, 2)
    p = p[np.isfinite(p).all(axis=1) & (p[:, 0] > reference[0]) & (p[:, 1] < reference[1])]
    area, lowest = 0.0, reference[1]
    for auc, adf in p[np.lexsort((p[:, 1], -p[:, 0]))]:
        if adf < lowest:
            area += float((auc - reference[0]) * (lowest - adf))
            lowest = adf
    return area


@dataclass(frozen=True)
class Hypervolume:
    """A method's area over all its strengths.

    Attributes:
        value: Share of the rectangle between the reference and vanilla's AUC at an ADF of 0.
        low: Lower end of the jackknife interval over seeds; nan with fewer than two seeds.
        high: Upper end of it.
        points: Strengths.
        seeds: Seeds that vanilla and all strengths of the method have; others are left out.
    """

    value: float
    low: float
    high: float
    points: int
    seeds: int


def hypervolumes(summary: Summary, *, data: str, margin: float = MARGIN) -> dict[str, Hypervolume]:
    """The hypervolume of each method's points, each the mean of one strength over seeds.

    The reference follows vanilla, so that a jackknife over seeds leaves a seed out of both.

    Args:
        summary: The study.
        data: Name of the data set.
        margin: See `MARGIN`.

    Returns:
        By method; vanilla too.

    Raises:
        InputError: There is not one line of vanilla on this data set.
    """
    lines = summary.of(data)
    vanilla = [line for line in lines if line.method.casefold() == VANILLA]
    if len(vanilla) != 1:
        raise InputError(
            f"the hypervolume needs one line of {VANILLA} on {data}, and there are {len(vanilla)}"
        )
    by_method: dict[str, list[Line]] = {}
    for line in lines:
        by_method.setdefault(line.method, []).append(line)
    return {name: _hypervolume(own, vanilla[0], margin) for name, own in by_method.items()}


def _hypervolume(lines: Sequence[Line], vanilla: Line, margin: float) -> Hypervolume:
    there = [line for line in lines if line.runs]
    scores = [_by_seed(line) for line in (vanilla, *there)]
    common = sorted(set.intersection(*(set(s) for s in scores)), key=str)
    if not common or not there:
        return Hypervolume(nan, nan, nan, len(there), 0)
    cube = np.array([[s[seed] for seed in common] for s in scores])  # (lines, seeds, 2)

    def share(of: NDArray[np.float64]) -> float:
        means = of.mean(axis=1)
        auc, adf = means[0]
        return hypervolume(means[1:], (auc - margin, adf)) / (margin * adf) if adf > 0 else nan

    value, n = share(cube), len(common)
    if n < 2:
        return Hypervolume(value, nan, nan, len(there), n)
    from scipy.special import stdtrit

    left_out = np.array([share(np.delete(cube, i, axis=1)) for i in range(n)])
    error = sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * error
    return Hypervolume(value, value - half, value + half, len(there), n)


def _by_seed(line: Line) -> Mapping[object, tuple[float, float]]:
    if not {AUC, ADF} <= set(line.table):  # as where no run of the study has finished
        return {}
    pairs = zip(line.table.index, line.table[AUC], line.table[ADF], strict=True)
    return {seed: (auc, adf) for seed, auc, adf in pairs if np.isfinite(auc) and np.isfinite(adf)}
