"""Permutation tests of "the decision does not depend on the group", within strata of the truth or elsewhere.

Rows: under the hypothesis groups are exchangeable within a stratum (images with the same label, for ADF and
the rates given the truth; all images, for the selection rate), so the stratum's table of groups by outcomes
is drawn with its margins held. That is what shuffling the groups does, and the test is exact.

Patients: their images share a group and are dependent, so patients are shuffled. Groups may differ in how
many images their patients have, with which labels, and in how much these depend on each other, none of which
is the hypothesis. So the statistic is studentised: each difference is divided by its standard error from the
patients of the groups themselves (Janssen 1997; Chung and Romano 2013). The test is then exact if groups are
alike in all of that, and has the right size with many patients if they are not.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fairdx.core.errors import InputError
from fairdx.inference.resampling import kinds_of_patients
from fairdx.inference.uncertainty import Number
from fairdx.metrics import counts as tables
from fairdx.metrics.inputs import Floats, Ints, same_length, to_codes, to_labels

ENOUGH = 10
"""Permutations that reach the statistic, with fewer of which more are drawn: a p-value is good to a third."""

_MOST_PERMUTATIONS = 99_999
_MOST_NUMBERS = 3_000_000  # drawn for one test, and held at once
_MOST_FEATURES = 20  # of patients, in one test: five for each of up to four rates
_SMALL = 100  # cells of a table
_TIE = 1e-9  # relative; statistics of equal tables differ by rounding


@dataclass(frozen=True)
class PermutationTest:
    """Result of a permutation test.

    Attributes:
        statistic: The plug-in ADF observed, in nats.
        p_value: (1 + permutations that reach the statistic) / (1 + permutations).
        n_permutations: Number of random permutations: as asked for, more where few reached the statistic.
        exchangeable: What was permuted, in words.
    """

    statistic: Number
    p_value: Number
    n_permutations: int
    exchangeable: str


@dataclass(frozen=True)
class Rates:
    """Shares that are compared between groups: images with one of some outcomes, among those of a stratum.

    Attributes:
        strata: Tables of groups by outcomes, each of shape (S, T).
        outcomes: Of each stratum, the outcomes whose shares are compared.
    """

    strata: Sequence[Floats]
    outcomes: Sequence[Sequence[int]]


def permutation_test(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sensitive_features: Any,
    patients: Any = None,
    n_permutations: int = 999,
    seed: int = 0,
) -> PermutationTest:
    """Test ADF = I(S; Y^ | Y) = 0.

    Args:
        y_true: Labels, shape (n,).
        y_pred: Decisions, shape (n,).
        sensitive_features: Groups, shape (n,).
        patients: Patient of each image, shape (n,), each in one group; images are independent if None.
        n_permutations: Number of random permutations; more are drawn where fewer than ten of them reach what
            was observed.
        seed: Of the permutations.

    Returns:
        The test.

    Raises:
        InputError: If columns do not fit, or a patient is in several groups.
    """
    truth, decision, _ = to_labels(y_true, y_pred)
    group = to_codes(sensitive_features, "sensitive_features").codes
    patient = None if patients is None else to_codes(patients, "patients").codes
    same_length(y_true=truth, sensitive_features=group, patients=truth if patient is None else patient)
    shape = (int(group.max()) + 1, int(truth.max()) + 1, int(decision.max()) + 1)
    counts = tables.count_table(group, truth, decision, shape)
    if patient is None:
        p_value, drawn = information_test(counts, n_permutations, seed)
        exchanged = "groups of images with the same label"
    elif not group_is_constant(group, patient):
        raise InputError(
            "A patient is in several groups, so groups cannot be permuted among patients; omit `patients` "
            "to permute images, if these are independent."
        )
    else:
        cell = truth * shape[2] + decision
        permuted = Patients.of(group, cell, shape, patient)
        p_value, drawn = permuted.information_test(n_permutations, seed)
        exchanged = "groups of patients"
    return PermutationTest(float(tables.mutual_information(counts)), p_value, drawn, exchanged)


def group_is_constant(group: Ints, patient: Ints) -> bool:
    """Whether every patient is in one group."""
    one = np.empty(int(patient.max()) + 1, dtype=np.int64)
    one[patient] = group
    return bool((one[patient] == group).all())


def with_margins(table: Floats, n_draws: int, rng: np.random.Generator) -> Floats:
    """Random tables with the row and column sums of `table` (S, T): shape (n_draws, S, T)."""
    rows, columns = (np.flatnonzero(table.sum(axis)) for axis in (1, 0))
    drawn = np.zeros((n_draws, *table.shape))
    if min(len(rows), len(columns)) < 2:  # one table alone has these margins
        drawn[:] = table
        return drawn
    inner = table[np.ix_(rows, columns)].astype(np.int64)
    if len(columns) == 2:  # one column says all, and NumPy draws it in a time that does not grow with counts
        first = rng.multivariate_hypergeometric(inner.sum(1), inner[:, 0].sum(), n_draws, method="marginals")
        found = np.stack([first, inner.sum(1) - first], axis=-1)
    elif inner.size <= _SMALL:
        found = _dealt(inner, n_draws, rng)
    else:
        from scipy.stats import random_table

        found = random_table(inner.sum(1), inner.sum(0), seed=rng).rvs(n_draws)
    drawn[np.ix_(np.arange(n_draws), rows, columns)] = found.reshape(n_draws, *inner.shape)
    return drawn


def _dealt(table: Ints, n_draws: int, rng: np.random.Generator) -> Ints:
    """Tables (n_draws, S, T) by dealing each column to the rows.

    SciPy's `random_table` is faster for larger ones, but to import it takes longer than many an audit.
    """
    n_rows, n_columns = table.shape
    drawn = np.empty((n_draws, n_rows, n_columns), dtype=np.int64)
    free = np.tile(table.sum(1), (n_draws, 1))
    for column, total in enumerate(table.sum(0)[:-1]):
        left, others = np.full(n_draws, total), free.sum(1)
        for row in range(n_rows - 1):
            others = others - free[:, row]
            taken = rng.hypergeometric(free[:, row], others, left)
            drawn[:, row, column] = taken
            left = left - taken
        drawn[:, -1, column] = left
        free = free - drawn[:, :, column]
    drawn[:, :, -1] = free
    return drawn


def conditional_tables(counts: Floats, n_draws: int, rng: np.random.Generator) -> Floats:
    """Tables (n_draws, S, Y, D) in which groups are permuted among images with the same label."""
    drawn = [with_margins(counts[:, y], n_draws, rng) for y in range(counts.shape[1])]
    return np.stack(drawn, axis=2)


def information_test(counts: Floats, n_permutations: int, seed: int) -> tuple[float, int]:
    """Exact test of I(S; D | Y) = 0 for independent rows.

    Args:
        counts: Shape (S, Y, D).
        n_permutations: At least so many.
        seed: Of the permutations.

    Returns:
        The p-value and the number of permutations.
    """
    rng = np.random.default_rng(seed)
    observed = float(tables.mutual_information(counts))
    return _sequential(
        observed,
        n_permutations,
        counts.size,
        lambda size: tables.mutual_information(conditional_tables(counts, size, rng)),
    )


def rates_test(rates: Rates, n_permutations: int, seed: int) -> tuple[float, int]:
    """Exact test, for independent rows, of the rates of all groups being equal.

    The statistic is the largest standardised difference between one group and all.

    Args:
        rates: What is compared.
        n_permutations: At least so many.
        seed: Of the permutations.

    Returns:
        The p-value, nan if no two groups can be compared, and the number of permutations.
    """
    rng = np.random.default_rng(seed)
    pairs = zip(rates.strata, rates.outcomes, strict=True)
    usable = [(table, list(chosen)) for table, chosen in pairs if (table.sum(1) > 0).sum() > 1]
    if not usable:
        return float("nan"), 0

    def largest(drawn: Sequence[Floats]) -> Floats:
        each = [_standardised(d, t, chosen) for d, (t, chosen) in zip(drawn, usable, strict=True)]
        return np.asarray(np.max(each, axis=0))

    return _sequential(
        float(largest([table[None] for table, _ in usable])[0]),
        n_permutations,
        sum(table.size for table, _ in usable),
        lambda size: largest([with_margins(table, size, rng) for table, _ in usable]),
    )


def _standardised(drawn: Floats, table: Floats, chosen: list[int]) -> Floats:
    """Largest squared difference of a group from all, in its variance under the hypothesis: (B,)."""
    size, share = table.sum(1)[:, None], table.sum(0)[chosen] / table.sum()
    variance = size * share * (1 - share) * (1 - size / table.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        squared = np.where(variance > 0, (drawn[..., chosen] - size * share) ** 2 / variance, 0.0)
    return np.asarray(squared.max((-1, -2)))


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
        """Tables (n_draws, S, Y, D) of permuted patients."""
        rng = np.random.default_rng(seed)
        flat = self.kinds.reshape(len(self.kinds), -1)
        drawn = [self._permuted(size, rng) @ flat for size in self._chunks(n_draws)]
        return np.concatenate(drawn).reshape(n_draws, len(self.amounts), *self.kinds.shape[1:])

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
        part, whole = (np.tensordot(self.kinds, m, axes=([1, 2], [1, 2])) for m in (parts, wholes))
        usable = ((self.amounts @ whole) > 0).sum(0) > 1
        if not usable.any():
            return float("nan"), 0
        part, whole = part[:, usable], whole[:, usable]
        features = np.stack([part, whole, part**2, part * whole, whole**2], axis=-1)
        flat = features.reshape(len(features), -1)

        def statistic(amounts: Floats) -> Floats:
            sums = (amounts @ flat).reshape(*amounts.shape[:-1], *features.shape[1:])
            squared = _studentised(sums)
            return np.asarray(squared.sum((-1, -2)) if every else squared.max((-1, -2)))

        rng = np.random.default_rng(seed)
        return _sequential(
            float(statistic(self.amounts[None])[0]),
            n_permutations,
            self.amounts.size
            + _MOST_FEATURES * len(self.amounts),  # the same for all tests: they share draws
            lambda size: statistic(self._permuted(size, rng)),
        )

    def _permuted(self, size: int, rng: np.random.Generator) -> Floats:
        """Permuted amounts; what every test of these patients draws is drawn once."""
        before = str(rng.bit_generator.state)
        if (size, before) in self._drawn:
            found, rng.bit_generator.state = self._drawn[size, before]
            return found
        found = with_margins(self.amounts, size, rng)
        if sum(kept.size for kept, _ in self._drawn.values()) + found.size <= 2 * _MOST_NUMBERS:
            self._drawn[size, before] = found, rng.bit_generator.state
        return found

    @cached_property
    def _drawn(self) -> dict[tuple[int, str], tuple[Floats, Any]]:
        return {}

    def information_test(self, n_permutations: int, seed: int) -> tuple[float, int]:
        """Test of I(S; D | Y) = 0: all rates of decisions given the truth are equal."""
        n_labels, n_decisions = self.kinds.shape[1:]
        parts = np.eye(n_labels * n_decisions).reshape(-1, n_labels, n_decisions)
        wholes = np.repeat(np.eye(n_labels), n_decisions, axis=0)[:, :, None] * np.ones(n_decisions)
        occurring = (self.kinds * parts[:, None]).any((1, 2, 3))
        return self.rates_test(parts[occurring], wholes[occurring], n_permutations, seed, every=True)

    def _chunks(self, n_draws: int) -> Iterator[int]:
        size = max(1, _MOST_NUMBERS // self.amounts.size)
        for start in range(0, n_draws, size):
            yield min(size, n_draws - start)


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


def _sequential(
    observed: float, n_permutations: int, numbers: int, make: Callable[[int], Floats]
) -> tuple[float, int]:
    """Draw until enough permutations reach what was observed, or as many as there is time for."""
    chunk = max(1, _MOST_NUMBERS // max(numbers, 1))
    most = max(n_permutations, min(_MOST_PERMUTATIONS, chunk))
    bound, reached, done, wanted = observed * (1 - _TIE) - 1e-12, 0, 0, n_permutations
    while done < wanted:
        size = min(wanted - done, chunk)
        reached += int((make(size) >= bound).sum())
        done += size
        if done >= wanted and reached < ENOUGH and wanted < most:
            wanted = min(10 * wanted + 9, most)
    return (1 + reached) / (1 + done), done
