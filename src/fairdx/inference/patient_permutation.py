"""Permutation of the groups of patients, whose images share a group and are dependent.

Groups may differ in how many images their patients have, with which labels, and in how much these depend on
each other, none of which is the hypothesis. So the statistic is studentised: each difference is divided by
its standard error from the patients of the groups themselves (Janssen 1997; Chung and Romano 2013). The test
is then exact if groups are alike in all of that, and has the right size with many patients if they are not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fairdx.inference.margins import MOST_NUMBERS, sequential, with_margins
from fairdx.inference.resampling import kinds_of_patients
from fairdx.metrics import counts as tables
from fairdx.metrics.inputs import Floats, Ints

_MOST_KEPT = 10_000_000  # sums of permutations that several tests look at
_MOST_MOMENTS = 200  # of a patient's table, with more of which each test makes sums of its own


@dataclass(frozen=True)
class Patients:
    """Patients of several groups, to permute.

    Attributes:
        amounts: How many patients of each group have which table, shape (S, T).
        kinds: These tables, shape (T, Y, D).
    """

    amounts: Floats
    kinds: Floats

    @classmethod
    def of(cls, group: Ints, cell: Ints, shape: tuple[int, int, int], patient: Ints) -> "Patients":
        """Gather patients, each in one group; `cell` is that of each image in a table of (Y, D)."""
        n_groups, *own = shape
        vectors, kind = kinds_of_patients(cell, own[0] * own[1], patient)
        one = np.zeros(len(kind), dtype=np.int64)
        one[patient] = group
        amounts = np.bincount(one * len(vectors) + kind, minlength=n_groups * len(vectors))
        return cls(amounts.reshape(n_groups, -1).astype(float), vectors.reshape(-1, *own))

    def tables(self, n_draws: int, seed: int) -> Floats:
        """Tables (n_draws, S, Y, D) of permuted patients: those that the tests draw first."""
        if self._shared:
            base, own = self._moments, np.eye(self._moments.shape[1], self._flat.shape[1])
        else:
            base, own = self._flat, np.eye(self._flat.shape[1])
        drawn = _Drawn(self, seed, base, lambda sums: np.asarray(sums @ own))(n_draws)
        return drawn.reshape(n_draws, len(self.amounts), *self.kinds.shape[1:])

    def rates_test(
        self, parts: Floats, wholes: Floats, n_permutations: int, seed: int, *, every: bool = False
    ) -> tuple[float, int]:
        """Test that rates are equal in all groups.

        Args:
            parts: Which cells of a table each rate counts, shape (R, Y, D), 0 or 1.
            wholes: Of which cells it is a share, shape (R, Y, D).
            n_permutations: At least so many.
            seed: Of the permutations.
            every: Whether the statistic is the sum over rates and groups, not the largest.

        Returns:
            The p-value, nan if no two groups can be compared, and the number of permutations.
        """
        parts, wholes = (m.reshape(len(m), -1) for m in (parts, wholes))
        usable = ((self._sums @ wholes.T) > 0).sum(0) > 1
        if not usable.any():
            return float("nan"), 0
        chosen = parts[usable], wholes[usable]
        base, of_base = (
            (self._moments, self._features(*chosen)) if self._shared else (self._own(*chosen), None)
        )

        def statistic(sums: Floats) -> Floats:
            own = sums if of_base is None else sums @ of_base
            squared = _studentised(own.reshape(*sums.shape[:-1], len(chosen[0]), 5))
            return np.asarray(squared.sum((-1, -2)) if every else squared.max((-1, -2)))

        return sequential(
            float(statistic(self.amounts[None] @ base)[0]),
            n_permutations,
            self.amounts.size + 5 * len(chosen[0]) * len(self.amounts),
            _Drawn(self, seed, base, statistic),
        )

    def _own(self, parts: Floats, wholes: Floats) -> Floats:
        """Of each kind x, m, x^2, x m and m^2, (T, 5 R); x images in the part, m in the whole."""
        part, whole = self._flat @ parts.T, self._flat @ wholes.T
        features = np.stack([part, whole, part**2, part * whole, whole**2], axis=-1)
        return features.reshape(len(features), -1)

    def _features(self, parts: Floats, wholes: Floats) -> Floats:
        """What makes the columns of `_own` from moments, (M, 5 R)."""
        first, second = self._pairs

        def product(one: Floats, other: Floats) -> Floats:
            both = one[:, first] * other[:, second] + one[:, second] * other[:, first]
            return np.where(first == second, both / 2, both)

        nothing = np.zeros((len(parts), len(first)))
        columns = [
            np.concatenate([linear, squares], axis=1)
            for linear, squares in (
                (parts, nothing),
                (wholes, nothing),
                (0 * parts, product(parts, parts)),
                (0 * parts, product(parts, wholes)),
                (0 * parts, product(wholes, wholes)),
            )
        ]
        return np.stack(columns, axis=1).reshape(-1, self._moments.shape[1]).T

    @cached_property
    def _flat(self) -> Floats:
        return self.kinds.reshape(len(self.kinds), -1)

    @property
    def _shared(self) -> bool:
        """Whether all tests look at sums of the same moments, so that permutations are drawn once for all."""
        return len(self._pairs[0]) <= _MOST_MOMENTS

    @cached_property
    def _pairs(self) -> tuple[Ints, Ints]:
        """Pairs of cells of which some patient has images in both."""
        held = (self._flat > 0).astype(float)
        first, second = np.nonzero(np.triu(held.T @ held))
        return first, second

    @cached_property
    def _moments(self) -> Floats:
        """Of each kind, its images by cell and their products, (T, M)."""
        first, second = self._pairs
        return np.concatenate([self._flat, self._flat[:, first] * self._flat[:, second]], axis=1)

    @cached_property
    def _sums(self) -> Floats:
        return np.asarray(self.amounts @ self._flat)

    @property
    def block(self) -> int:
        """Permutations that are drawn at once."""
        return int(np.clip(MOST_NUMBERS // self.amounts.size, 1, 1000))

    def permuted(self, number: int, seed: int, base: Floats) -> Floats:
        """Sums over the patients of permuted groups of the rows of `base` (T, M), a block: (block, S, M)."""
        if (number, seed) in self._blocks and base is self._moments:
            return self._blocks[number, seed]
        rng = np.random.default_rng([seed, number])
        found = np.asarray(with_margins(self.amounts, self.block, rng) @ base)
        kept = sum(one.size for one in self._blocks.values())
        if self._shared and kept + found.size <= _MOST_KEPT:
            self._blocks[number, seed] = found
        return found

    @cached_property
    def _blocks(self) -> dict[tuple[int, int], Floats]:
        return {}

    def information_test(self, n_permutations: int, seed: int) -> tuple[float, int]:
        """Test of I(S; D | Y) = 0: all rates of decisions given the truth are equal."""
        n_labels, n_decisions = self.kinds.shape[1:]
        parts = np.eye(n_labels * n_decisions).reshape(-1, n_labels, n_decisions)
        wholes = np.repeat(np.eye(n_labels), n_decisions, axis=0)[:, :, None] * np.ones(n_decisions)
        occurring = (self.kinds * parts[:, None]).any((1, 2, 3))
        return self.rates_test(parts[occurring], wholes[occurring], n_permutations, seed, every=True)


class _Drawn:
    """A statistic of permuted patients, permutation after permutation.

    Args:
        patients: The patients.
        seed: Of the permutations.
        base: What is summed over the patients of each group, (T, M).
        statistic: Of these sums (b, S, M).
    """

    def __init__(
        self, patients: Patients, seed: int, base: Floats, statistic: Callable[[Floats], Floats]
    ) -> None:
        self.patients, self.seed, self.base, self.statistic, self.done = patients, seed, base, statistic, 0

    def __call__(self, size: int) -> Floats:
        """The statistic of the next permutations, (size, ...)."""
        parts, block = list[Floats](), self.patients.block
        while size > 0:
            number, start = divmod(self.done, block)
            some = self.patients.permuted(number, self.seed, self.base)[start : start + size]
            parts.append(self.statistic(some))
            self.done, size = self.done + len(some), size - len(some)
        return np.concatenate(parts)


def _studentised(sums: Floats) -> Floats:
    """Squared difference of each rate of a group from that of the others over its variance: (..., S, R).

    The variance of a rate is that of a share under the hypothesis times the design effect of the group, which
    hardly depends on its rate: the plain variance of a rate near 1 is small by chance just when the rate is
    far off.

    Args:
        sums: Over the patients of each group, of the numbers x of images in the part and m in the whole:
            x, m, x^2, x m and m^2, shape (..., S, R, 5).
    """
    part, whole, part2, both, whole2 = np.moveaxis(sums, -1, 0)
    others = sums.sum(-3, keepdims=True) - sums
    pooled = tables.ratio(part.sum(-2, keepdims=True), whole.sum(-2, keepdims=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = part / whole
        spread = part2 - 2 * rate * both + rate**2 * whole2
        effect = np.where((rate > 0) & (rate < 1), spread / (rate * (1 - rate) * whole), whole2 / whole)
        variance = np.where(whole > 0, pooled * (1 - pooled) * np.maximum(effect, 0.5) / whole, 0.0)
        rest = (variance * whole**2).sum(-2, keepdims=True) - variance * whole**2
        difference = rate - others[..., 0] / others[..., 1]
        total = variance + rest / others[..., 1] ** 2
        return np.nan_to_num(np.where(total > 0, difference**2 / total, 0.0), posinf=0.0)
