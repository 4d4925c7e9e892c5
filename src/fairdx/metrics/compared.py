"""The rates that each gap compares between groups, as shares of the cells of a table of (label, decision).

A gap is the largest difference between two groups in one of its rates. To add one: its name and rates in
`GAP_SHARES`, and its entry in `fairdx.metrics.definitions.METRICS`. Values, intervals, exact tests, changes
between two tables and every table of a report follow from these two.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fairdx.metrics import counts as tables
from fairdx.metrics.inputs import Floats, Ints


@dataclass(frozen=True)
class Compared:
    """Rates as shares of cells.

    Attributes:
        parts: Cells that each rate counts, shape (R, Y, D), 0 or 1.
        wholes: Cells that it is a share of, shape (R, Y, D), 0 or 1.
    """

    parts: Floats
    wholes: Floats

    def rates(self, counts: Floats) -> Floats:
        """The rates of tables (..., S, Y, D): shape (..., S, R), nan where no image is in the whole."""
        return tables.ratio(self._sums(counts, self.parts), self.images(counts))

    def images(self, counts: Floats) -> Floats:
        """Images behind each rate of tables (..., S, Y, D): shape (..., S, R)."""
        return self._sums(counts, self.wholes)

    def of_classes(self, of_class: Ints) -> "Compared":
        """The same rates of tables by class, `of_class` (Z,) being the label of each."""
        return Compared(self.parts[:, of_class], self.wholes[:, of_class])

    def strata(self, counts: Floats) -> Iterator[tuple[Floats, Ints]]:
        """Rates of the same images together: tables of groups by outcomes, and which rates they are of.

        Args:
            counts: Shape (S, Y, D).

        Yields:
            A table (S, T), in which the outcomes of the rates come first, and the rates.
        """
        flat = self.wholes.reshape(len(self.wholes), -1)
        _, kind = np.unique(flat, axis=0, return_inverse=True)
        for one in np.unique(kind):
            members = np.flatnonzero(kind.reshape(-1) == one)
            outcomes = self._sums(counts, self.parts[members])
            rest = self.images(counts)[:, members[:1]] - outcomes.sum(1, keepdims=True)
            yield np.concatenate([outcomes, rest], axis=1), members

    @staticmethod
    def _sums(counts: Floats, masks: Floats) -> Floats:
        summed: Floats = np.tensordot(counts, masks, axes=([-2, -1], [1, 2]))
        return summed


def _parts(n: int, cells: list[tuple[slice | int, slice | int]]) -> Floats:
    masks = np.zeros((len(cells), n, n))
    for mask, cell in zip(masks, cells, strict=True):
        mask[cell] = 1.0
    return masks


_ALL = slice(None)


def _of_interest(n: int) -> range:
    """The classes whose rates are compared: of two the second, whose rate says all about the other."""
    return range(1, 2) if n == 2 else range(n)


def _selection(n: int) -> Compared:
    own = _of_interest(n)
    return Compared(_parts(n, [(_ALL, d) for d in own]), _parts(n, [(_ALL, _ALL) for _ in own]))


def _opportunity(n: int) -> Compared:
    own = _of_interest(n)
    return Compared(_parts(n, [(y, y) for y in own]), _parts(n, [(y, _ALL) for y in own]))


def _odds(n: int) -> Compared:
    both = [(y, d) for y in range(n) for d in _of_interest(n)]
    return Compared(_parts(n, list(both)), _parts(n, [(y, _ALL) for y, _ in both]))


def _right(n: int) -> Compared:
    return Compared(np.eye(n)[None], np.ones((1, n, n)))


def _predictive(n: int) -> Compared:
    own = _of_interest(n)
    return Compared(_parts(n, [(d, d) for d in own]), _parts(n, [(_ALL, d) for d in own]))


GAP_SHARES: dict[str, Callable[[int], Compared]] = {
    "demographic_parity_difference": _selection,
    "equal_opportunity_difference": _opportunity,
    "equalized_odds_difference": _odds,
    "accuracy_difference": _right,
    "predictive_parity_difference": _predictive,
}
"""The rates of every gap that is made of counts, for a number of classes."""
