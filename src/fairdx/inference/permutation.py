"""Permutation tests of "the decision does not depend on the group", within strata of the truth or elsewhere.

Rows: under the hypothesis groups are exchangeable within a stratum (images with the same label, for ADF and
the rates given the truth; all images, for the selection rate), so the stratum's table of groups by outcomes
is drawn with its margins held. That is what shuffling the groups does, and the test is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fairdx.core.errors import InputError
from fairdx.core.schema import Number
from fairdx.inference.margins import sequential, with_margins
from fairdx.inference.patient_permutation import Patients
from fairdx.metrics import counts as tables
from fairdx.metrics.inputs import Floats, Ints, same_length, to_codes, to_labels


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
    return sequential(
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

    return sequential(
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
