"""Permutation test of ADF = 0: does the decision depend on the group, given the truth?

Rows: under the hypothesis groups are exchangeable among images with the same label, so the table of each
label is drawn with its margins held (hypergeometric), which is what shuffling the groups within it does.
Patients: their images share a group and are dependent, so groups are exchanged among *patients* whose images
show the same labels (as many of each). That is exact, whatever the dependence within patients.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fairdx.core.errors import InputError
from fairdx.inference.uncertainty import Number, tail_p_value
from fairdx.metrics import counts as tables
from fairdx.metrics.inputs import Floats, Ints, same_length, to_codes, to_labels


@dataclass(frozen=True)
class PermutationTest:
    """Result of a permutation test.

    Attributes:
        statistic: The plug-in ADF observed, in nats.
        p_value: As `fairdx.inference.uncertainty.tail_p_value`: exact unless fewer than ten permutations
            reach the statistic.
        n_permutations: Number of random permutations.
        exchangeable: What was permuted, in words.
        informative: Share of images in strata with more than one group; the others cannot change.
    """

    statistic: Number
    p_value: Number
    n_permutations: int
    exchangeable: str
    informative: float


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
        n_permutations: Number of random permutations.
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
    return permute_codes(group, truth, decision, patient, n_permutations, seed)


def group_is_constant(group: Ints, patient: Ints) -> bool:
    """Whether every patient is in one group."""
    one = np.empty(int(patient.max()) + 1, dtype=np.int64)
    one[patient] = group
    return bool((one[patient] == group).all())


def permute_codes(
    group: Ints, truth: Ints, decision: Ints, patient: Ints | None, n_permutations: int, seed: int
) -> PermutationTest:
    """As `permutation_test`, on codes; labels and decisions may be different sets."""
    shape = (int(group.max()) + 1, int(truth.max()) + 1, int(decision.max()) + 1)
    observed = tables.count_table(group, truth, decision, shape)
    if patient is None:
        strata = [(observed[:, y], np.eye(shape[2])[:, None] * _row(shape[1], y)) for y in range(shape[1])]
        exchanged = "groups of images with the same label"
    elif not group_is_constant(group, patient):
        raise InputError(
            "A patient is in several groups, so groups cannot be permuted among patients; omit `patients` "
            "to permute images, if these are independent."
        )
    else:
        strata = _patient_strata(group, truth, decision, patient, shape)
        exchanged = "groups of patients whose images show the same labels"
    rng = np.random.default_rng(seed)
    drawn = np.zeros((n_permutations, *shape))
    informative = 0.0
    for table, vectors in strata:
        if (table.sum(1) > 0).sum() > 1:
            informative += float(np.tensordot(table.sum(0), vectors, axes=1).sum())
        drawn += np.tensordot(_with_margins(table.astype(np.int64), n_permutations, rng), vectors, axes=1)
    statistic = float(tables.mutual_information(observed))
    p_value = tail_p_value(tables.mutual_information(drawn), statistic)
    return PermutationTest(statistic, p_value, n_permutations, exchanged, informative / len(group))


def _row(n: int, which: int) -> Floats:
    row = np.zeros((n, 1))
    row[which] = 1.0
    return row


def _patient_strata(
    group: Ints, truth: Ints, decision: Ints, patient: Ints, shape: tuple[int, int, int]
) -> list[tuple[Floats, Floats]]:
    """By label pattern: how many patients of each group have which count vector, and these vectors."""
    n_patients, (n_groups, n_labels, n_decisions) = int(patient.max()) + 1, shape
    cells = n_labels * n_decisions
    if n_patients * cells > 50_000_000:
        raise InputError(
            f"{n_patients} patients with {cells} cells each are too many for a permutation test."
        )
    flat = np.bincount(patient * cells + truth * n_decisions + decision, minlength=n_patients * cells)
    own = np.zeros(n_patients, dtype=np.int64)
    own[patient] = group
    kinds, kind = _unique_rows(flat.reshape(n_patients, cells))
    vectors = kinds.reshape(-1, n_labels, n_decisions).astype(float)
    _, pattern = _unique_rows(kinds.reshape(-1, n_labels, n_decisions).sum(2))
    amounts = np.bincount(own * len(kinds) + kind, minlength=n_groups * len(kinds)).reshape(n_groups, -1)
    return [
        (amounts[:, members].astype(float), vectors[members])
        for members in np.split(np.argsort(pattern, kind="stable"), np.cumsum(np.bincount(pattern))[:-1])
    ]


def _unique_rows(table: Ints) -> tuple[Ints, Ints]:
    """Distinct rows and which of them each row is, by a random linear hash (a sort of rows is slow)."""
    key = np.random.default_rng(0).integers(1, 2**63, size=table.shape[1], dtype=np.uint64)
    hashed = (table.astype(np.uint64) * key).sum(1, dtype=np.uint64)
    _, first, inverse = np.unique(hashed, return_index=True, return_inverse=True)
    return table[first], inverse


def _with_margins(table: Ints, n_draws: int, rng: np.random.Generator) -> Floats:
    """Random tables with the row and column sums of `table` (S, T): shape (n_draws, S, T)."""
    drawn = np.zeros((n_draws, *table.shape))
    left = np.tile(table.sum(0), (n_draws, 1))  # of each column, not yet given to a row
    occupied = np.flatnonzero(table.sum(1))
    for s in occupied[:-1]:
        wanted = np.full(n_draws, table[s].sum())
        others = left.sum(1)
        for t in range(table.shape[1] - 1):
            others = others - left[:, t]
            taken = rng.hypergeometric(left[:, t], others, wanted)
            drawn[:, s, t] = taken
            wanted = wanted - taken
        drawn[:, s, -1] = wanted
        left = left - drawn[:, s].astype(np.int64)
    if len(occupied):
        drawn[:, occupied[-1]] = left
    return drawn
