"""Correction of many p-values for the family-wise error rate that knows how tests depend on each other.

Holm's correction allows for the worst dependence. The tests of an audit share their images: equal
opportunity, equalized odds and ADF look at the same decisions. Westfall and Young (1993, Algorithm 2.8:
step-down minP) draw all statistics together under the hypotheses, and ask how often the smallest of their
p-values is as small as one that was observed. Tests of which no joint draws exist count as Bonferroni has it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairdx.metrics.inputs import Floats


@dataclass(frozen=True)
class Family:
    """The tests of a family, corrected for each other.

    Attributes:
        p_values: Corrected, shape (m,); nan where given. Never larger than Holm's.
        needed: The largest p-value that a test alone in being true must have to be found at the given level.
    """

    p_values: Floats
    needed: float


def step_down(p_values: Floats, null: Floats, level: float = 0.95) -> Family:
    """Correct p-values by joint draws of their statistics under the hypotheses.

    Args:
        p_values: Shape (m,); nan entries are not part of the family.
        null: Statistics drawn together, larger ones being more extreme, shape (B, m); a column of nan for a
            test whose draws are not known. The p-values may come from other draws, or from no draws at all:
            of these only the dependence is taken.
        level: 1 minus the family-wise error rate of `Family.needed`.

    Returns:
        The corrected p-values.

    Example:
        Two tests that are one and the same need no correction, and two independent ones nearly Bonferroni's:

        >>> z = np.random.default_rng(0).normal(size=(9999, 2))
        >>> step_down(np.array([0.02, 0.02]), z[:, [0, 0]]).p_values.round(3).tolist()
        [0.02, 0.02]
        >>> step_down(np.array([0.02, 0.5]), z).p_values.round(2).tolist()
        [0.04, 0.5]
    """
    p_values = np.asarray(p_values, dtype=float)
    corrected = np.full(len(p_values), np.nan)
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    if len(order) == 0:
        return Family(corrected, float("nan"))
    left = np.arange(len(order), 0, -1)  # tests that are not yet rejected, at each step
    alone: NDArray[np.bool_] = np.asarray(np.isnan(null[:, order]).any(axis=0))
    smallest = np.minimum.accumulate(_ranked(null[:, order], alone)[:, ::-1], axis=1)[:, ::-1]
    unknown = np.cumsum(alone[::-1])[::-1]
    observed = p_values[order]
    step = np.minimum(_share(smallest, observed) + unknown * observed, left * observed)
    step = np.maximum(step, observed)  # draws are not endless
    corrected[order] = np.minimum(np.maximum.accumulate(step), 1.0)
    return Family(corrected, _needed(smallest[:, 0], int(unknown[0]), len(order), 1 - level))


def _ranked(null: Floats, alone: NDArray[np.bool_]) -> Floats:
    """The p-value of every draw among the draws of its own test, (B, m); above 1 where there are none."""
    found = np.full(null.shape, 2.0)
    for column in np.flatnonzero(~alone):
        ordered = np.sort(null[:, column])
        below = np.searchsorted(ordered, null[:, column] - 1e-12 * np.abs(null[:, column]), side="left")
        found[:, column] = 1 - below / len(null)
    return found


def _share(smallest: Floats, observed: Floats) -> Floats:
    """(1 + draws whose smallest p-value reaches each observed one) / (1 + draws), (m,); 0 without draws."""
    reached = (smallest <= observed + 1e-12).sum(0)
    drawn = (smallest <= 1).any(0)
    return np.where(drawn, (1 + reached) / (1 + len(smallest)), 0.0)


def _needed(smallest: Floats, unknown: int, m: int, size: float) -> float:
    tried = np.sort(smallest)
    found = (2 + np.arange(len(tried))) / (1 + len(tried)) + unknown * tried <= size
    return float(max(size / m, tried[found].max(initial=0.0) if (tried <= 1).any() else 0.0))
