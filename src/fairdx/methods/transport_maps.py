"""Maps along which each group's scores move to the distribution in the middle.

Chzhen et al., "Fair regression with Wasserstein barycenters", NeurIPS 2020, on scores whose groups are first
weighted to the same prevalence: what they differ in through the disease stays.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

KNOTS: Final = 65
"""Quantiles at which a map is known."""


def transport_maps(
    odds: NDArray[np.float64],
    label: NDArray[np.int64],
    group: NDArray[np.int64],
    groups: int,
    *,
    strength: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Computes each group's map to the middle.

    Args:
        odds: Log-odds, shape (n,).
        label: Y, shape (n,).
        group: S, shape (n,).
        groups: Number of groups.
        strength: How far to move: 0 not at all, 1 the whole way.

    Returns:
        Ascending log-odds, shape (knots,), and what they become in each group, shape (groups, knots).
    """
    levels = (np.arange(KNOTS) + 0.5) / KNOTS
    shares = np.bincount(label) / len(label)
    quantiles = np.empty((groups, KNOTS))
    for s in range(groups):
        member = group == s
        if not member.any():
            quantiles[s] = np.quantile(odds, levels)
            continue
        own = np.bincount(label[member], minlength=len(shares)) / member.sum()
        weight = shares[label[member]] / own[label[member]]
        quantiles[s] = _weighted_quantiles(odds[member], weight, levels)
    sizes = np.bincount(group, minlength=groups) / len(group)
    middle = sizes @ quantiles
    at = np.unique(np.quantile(quantiles, np.linspace(0, 1, KNOTS)))
    at = np.interp(np.linspace(0, 1, KNOTS), np.linspace(0, 1, len(at)), at)
    at = at + np.arange(KNOTS) * 1e-9  # strictly ascending
    maps = np.stack([_along(at, row, middle) for row in quantiles])
    return at, (1 - strength) * at + strength * maps


def _along(
    at: NDArray[np.float64], own: NDArray[np.float64], middle: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Q(F_s(x)): linear between quantiles, shifted beyond them."""
    inside = np.clip(at, own[0], own[-1])
    moved: NDArray[np.float64] = np.interp(inside, own, middle) + at - inside
    return moved


def _weighted_quantiles(
    values: NDArray[np.float64], weight: NDArray[np.float64], levels: NDArray[np.float64]
) -> NDArray[np.float64]:
    order = np.argsort(values, kind="stable")
    passed = np.cumsum(weight[order]) - weight[order] / 2
    found: NDArray[np.float64] = np.interp(levels, passed / weight.sum(), values[order])
    return found
