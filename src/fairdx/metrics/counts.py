"""Everything that depends on the table of (group, label, decision) counts alone, vectorised over replicates.

Arrays of counts have shape (..., S, Y, D): leading batch dimensions (bootstrap replicates, thresholds),
then groups, labels and decisions. Undefined rates are nan here, without a warning;
`fairdx.metrics.rates` warns.
"""

import numpy as np

from fairdx.metrics.inputs import Floats, Ints


def count_table(group: Ints, label: Ints, decision: Ints, shape: tuple[int, int, int]) -> Floats:
    """Count rows by group, label and decision.

    Args:
        group: Group codes, shape (n,).
        label: Label codes, shape (n,).
        decision: Decision codes, shape (n,).
        shape: (S, Y, D).

    Returns:
        Counts of shape (S, Y, D).
    """
    return weighted_table(group, label, decision, shape, None)


def weighted_table(
    group: Ints, label: Ints, decision: Ints, shape: tuple[int, int, int], weight: Floats | None
) -> Floats:
    """As `count_table`, each row counting `weight` (shape (n,), 1 when None)."""
    cell = (group * shape[1] + label) * shape[2] + decision
    return np.bincount(cell, weights=weight, minlength=int(np.prod(shape))).astype(float).reshape(shape)


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide, giving nan where the denominator is zero: an undefined rate is never a number."""
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient: Floats = np.where(denominator > 0, numerator / denominator, np.nan)
    return quotient


def by_label(classes: Floats, of_class: Ints) -> Floats:
    """Sum tables by class (..., Z, D) into tables by label (..., 2, D); `of_class` (Z,) is 0 or 1."""
    if len(of_class) == 2 and of_class.tolist() == [0, 1]:
        return classes
    return np.stack([classes[..., of_class == y, :].sum(-2) for y in (0, 1)], axis=-2)


def decision_rates(counts: Floats) -> Floats:
    """P(decision = d | s, y): shape (..., S, Y, D), nan where a group has no such label."""
    return ratio(counts, counts.sum(-1, keepdims=True))


def selection_rates(counts: Floats) -> Floats:
    """P(decision = d | s): shape (..., S, D)."""
    selected = counts.sum(-2)
    return ratio(selected, selected.sum(-1, keepdims=True))


def label_rates(counts: Floats) -> Floats:
    """P(y | s), the prevalence: shape (..., S, Y)."""
    labels = counts.sum(-1)
    return ratio(labels, labels.sum(-1, keepdims=True))


def true_class_rates(counts: Floats) -> Floats:
    """P(decision = y | s, y): shape (..., S, Y); for two classes [1 - FPR, TPR]."""
    rates: Floats = np.diagonal(decision_rates(counts), axis1=-2, axis2=-1)
    return rates


def opportunity_rates(counts: Floats) -> Floats:
    """The rates that equal opportunity compares: TPR of the second of two classes, of each class if more."""
    rates = true_class_rates(counts)
    return rates[..., 1:] if rates.shape[-1] == 2 else rates


def odds_rates(counts: Floats) -> Floats:
    """The rates that equalized odds compares, P(decision = d | s, y): shape (..., S, Y D)."""
    rates = decision_rates(counts)
    return rates.reshape(*rates.shape[:-2], -1)


def accuracies(counts: Floats) -> Floats:
    """Share of right decisions by group, shape (..., S)."""
    return ratio(np.trace(counts, axis1=-2, axis2=-1), counts.sum((-1, -2)))


def predictive_values(counts: Floats) -> Floats:
    """P(y = d | s, decision = d): shape (..., S, D); for two classes [NPV, PPV]."""
    right: Floats = np.diagonal(counts, axis1=-2, axis2=-1)
    return ratio(right, counts.sum(-2))


def largest_gap(rates: Floats) -> Floats:
    """Largest difference between two groups, over all rates.

    Args:
        rates: Shape (..., S, R).

    Returns:
        max over r of (max over s - min over s), shape (...); nan if a group's rate is undefined.
    """
    gap: Floats = (rates.max(-2) - rates.min(-2)).max(-1)
    return gap


def mutual_information(counts: Floats) -> Floats:
    """Plug-in I(S; D | Y) in nats.

    Args:
        counts: Shape (..., S, Y, D).

    Returns:
        sum over (s, y, d) of p(s,y,d) log[p(s,y,d) p(y) / (p(s,y) p(y,d))], shape (...), at least 0; nan
        for an empty table.
    """
    return _plug_in(counts, independent(counts))


def _plug_in(counts: Floats, expected: Floats) -> Floats:
    terms = np.divide(counts, expected, out=np.ones_like(counts), where=counts > 0)
    np.log(terms, out=terms)
    terms *= counts
    return np.maximum(ratio(_all_cells(terms), _all_cells(counts)), 0.0)


def independent(counts: Floats) -> Floats:
    """Expected counts if the decision did not depend on the group given the label: n(s,y) n(y,d) / n(y)."""
    by_group = _added(counts)[..., None]
    by_decision = counts.sum(-3, keepdims=True)
    both = by_group.sum(-3, keepdims=True)
    expected: Floats = by_group * by_decision / np.where(both > 0, both, 1.0)  # 0 where the label is absent
    return expected


def _added(counts: Floats) -> Floats:
    """Sum over the last axis; over two decisions without NumPy's slow way of adding pairs."""
    added: Floats = counts[..., 0] + counts[..., 1] if counts.shape[-1] == 2 else counts.sum(-1)
    return added


def _all_cells(counts: Floats) -> Floats:
    """Sum over groups, labels and decisions."""
    total: Floats = counts.reshape(*counts.shape[:-3], -1).sum(-1)
    return total


def degrees_of_freedom(counts: Floats) -> Floats:
    """Degrees of freedom of S independent of D given Y: sum over y of (groups - 1)(decisions - 1).

    Only groups and decisions that occur with that label count: one that never occurs there can cause no
    spurious information, so it must not be corrected for. Full tables give (|S|-1)(|D|-1)|Y|.
    """
    groups = (counts.sum(-1) > 0).sum(-2)
    decisions = (counts.sum(-3) > 0).sum(-1)
    free: Floats = (np.maximum(groups - 1, 0) * np.maximum(decisions - 1, 0)).sum(-1).astype(float)
    return free


def information_bias(counts: Floats, *, sample_size: float | Floats, design_effect: float = 1.0) -> Floats:
    """First-order upward bias of the plug-in I(S; D | Y), in nats (Miller 1955).

    Args:
        counts: Shape (..., S, Y, D).
        sample_size: Number of independent rows, n (Kish's effective size when rows are weighted).
        design_effect: How much more the table varies than with independent rows (`design_effect`).

    Returns:
        design_effect x degrees of freedom / (2 n), shape (...).
    """
    return design_effect * degrees_of_freedom(counts) / (2.0 * np.asarray(sample_size))


def information_root(counts: Floats) -> Floats:
    """The table as a vector whose squared length is I(S; D | Y).

    h = (p - q) / sqrt(2 q), q the table under conditional independence, has |h|^2 = I up to third order; it
    is stretched so that the equality is exact. Unlike I itself it is smooth at independence, where its
    estimate is nearly normal: intervals and tests of I are made from it.

    Args:
        counts: Shape (..., S, Y, D).

    Returns:
        h of the same shape.
    """
    total = _all_cells(counts)[..., None, None, None]
    expected = independent(counts)
    root = counts - expected
    np.divide(root, np.sqrt(2.0 * expected * total), out=root, where=expected > 0)  # elsewhere it is 0
    flat = root.reshape(*root.shape[:-3], -1)
    length = np.einsum("...k,...k->...", flat, flat)
    information = np.divide(_plug_in(counts, expected), length, out=np.ones_like(length), where=length > 0)
    root *= np.sqrt(information)[..., None, None, None]
    return root


def design_effect(unit_counts: Floats, multiplicity: Floats) -> float:
    """How much more a patient-wise sample of the table varies than one of independent rows.

    The ratio of the traces of the covariance of `information_root`, linearised at independence: with
    patients resampled, and with rows resampled (first-order correction of Rao and Scott 1981).

    Args:
        unit_counts: Tables of single patients, shape (U, S, Y, D).
        multiplicity: How many patients have this table, shape (U,).

    Returns:
        The ratio; 1 when patients have one row each, or when it is not defined.
    """
    counts = np.tensordot(multiplicity, unit_counts, axes=1)
    n, patients = counts.sum(), multiplicity.sum()
    if patients < 2 or degrees_of_freedom(counts) == 0:
        return 1.0
    share = counts / n
    unit_counts = unit_counts - unit_counts.sum((-1, -2, -3), keepdims=True) * share
    clustered = (_tangent(unit_counts, counts) ** 2).sum((-1, -2, -3)) @ multiplicity
    independent_rows = 0.0
    for cells in np.array_split(np.flatnonzero(counts), counts.size**2 // 4_000_000 + 1):  # memory
        rows = np.zeros((len(cells), counts.size))
        rows[np.arange(len(cells)), cells] = 1.0
        moved = _tangent(rows.reshape(-1, *counts.shape) - share, counts)
        independent_rows += float((moved**2).sum((-1, -2, -3)) @ counts.ravel()[cells])
    if independent_rows <= 0:
        return 1.0
    return float(clustered / independent_rows * patients / (patients - 1) * (n - 1) / n)


def _tangent(direction: Floats, counts: Floats) -> Floats:
    """First-order change of n h (h unstretched, its scale held) when `direction` is added to the counts."""
    expected = independent(counts)

    def relative(axes: tuple[int, ...]) -> Floats:
        return np.nan_to_num(ratio(direction.sum(axes, keepdims=True), counts.sum(axes, keepdims=True)))

    moved = expected * (relative((-1,)) + relative((-3,)) - relative((-1, -3)))
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.where(expected > 0, (direction - moved) / np.sqrt(2.0 * expected * counts.sum()), 0.0)
    scaled: Floats = change * np.sqrt(counts.sum())
    return scaled
