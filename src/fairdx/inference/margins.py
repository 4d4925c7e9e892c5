"""Random tables with given margins, drawn until enough of them reach what was observed."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fairdx.metrics.inputs import Floats, Ints

ENOUGH = 10
"""Permutations that reach the statistic, with fewer of which more are drawn: a p-value is good to a third."""

MOST_NUMBERS = 3_000_000
"""Numbers that are drawn for one test, and held at once."""

_MOST_PERMUTATIONS = 99_999
_SMALL = 100  # cells of a table
_TIE = 1e-9  # relative; statistics of equal tables differ by rounding


def with_margins(table: Floats, n_draws: int, rng: np.random.Generator) -> Floats:
    """Random tables with the row and column sums of `table` (S, T): shape (n_draws, S, T)."""
    rows, columns = (np.flatnonzero(table.sum(axis)) for axis in (1, 0))
    drawn = np.zeros((n_draws, *table.shape))
    if min(len(rows), len(columns)) < 2:  # one table alone has these margins; SciPy 1.17 returns another
        drawn[:] = table
        return drawn
    inner = table[np.ix_(rows, columns)].astype(np.int64)
    drawn[np.ix_(np.arange(n_draws), rows, columns)] = _inner(inner, n_draws, rng)
    return drawn


def _inner(table: Ints, n_draws: int, rng: np.random.Generator) -> Floats:
    """Random tables with the margins of one that has no empty row or column."""
    found: Any
    if table.sum() <= table.size:  # as patients that are all different: shuffling them one by one is faster
        found = _shuffled(table, n_draws, rng)
    elif table.shape[1] == 2:  # one column says all, in a time that does not grow with counts
        first = rng.multivariate_hypergeometric(table.sum(1), table[:, 0].sum(), n_draws, method="marginals")
        found = np.stack([first, table.sum(1) - first], axis=-1)
    elif table.size <= _SMALL:
        found = _dealt(table, n_draws, rng)
    else:
        from scipy.stats import random_table

        found = random_table(table.sum(1), table.sum(0), seed=rng).rvs(n_draws)
    return np.asarray(found, dtype=float).reshape(n_draws, *table.shape)


def _dealt(table: Ints, n_draws: int, rng: np.random.Generator) -> Ints:
    """Deal each column to the rows; SciPy is faster for larger tables, but to import it takes a second."""
    n_rows, n_columns = table.shape
    drawn = np.empty((n_draws, n_rows, n_columns), dtype=np.int64)
    free = np.tile(table.sum(1), (n_draws, 1))
    for column, total in enumerate(table.sum(0)[:-1]):
        left, others = np.full(n_draws, total), free.sum(1)
        for row in range(n_rows - 1):
            others = others - free[:, row]
            drawn[:, row, column] = rng.hypergeometric(free[:, row], others, left)
            left = left - drawn[:, row, column]
        drawn[:, -1, column] = left
        free = free - drawn[:, :, column]
    drawn[:, :, -1] = free
    return drawn


def _shuffled(table: Ints, n_draws: int, rng: np.random.Generator) -> Ints:
    row, column = (
        np.repeat(np.arange(size), table.sum(axis)) for size, axis in zip(table.shape, (1, 0), strict=True)
    )
    shuffled = rng.permuted(np.broadcast_to(row, (n_draws, len(row))), axis=1)
    place = (np.arange(n_draws)[:, None] * len(table) + shuffled) * table.shape[1] + column
    return np.bincount(place.ravel(), minlength=n_draws * table.size)


def sequential(
    observed: float, n_permutations: int, numbers: int, make: Callable[[int], Floats]
) -> tuple[float, int]:
    """Draw until enough permutations reach what was observed, or as many as there is time for.

    Args:
        observed: The statistic.
        n_permutations: At least so many.
        numbers: Numbers that one permutation draws and holds.
        make: The statistic of so many more permutations, shape (size,).

    Returns:
        The p-value, (1 + permutations that reach it) / (1 + permutations), and the number of permutations.
    """
    chunk = max(1, MOST_NUMBERS // max(numbers, 1))
    most = max(n_permutations, min(_MOST_PERMUTATIONS, chunk))
    bound, reached, done, wanted = observed * (1 - _TIE) - 1e-12, 0, 0, n_permutations
    while done < wanted:
        size = min(wanted - done, chunk)
        reached += int((make(size) >= bound).sum())
        done += size
        if done >= wanted and reached < ENOUGH and wanted < most:
            wanted = min(10 * wanted + 9, most)
    return (1 + reached) / (1 + done), done
