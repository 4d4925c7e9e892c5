"""Total, direct and indirect effect of the group on the decision, estimated from predictions.

In the paper's graph, S → Y and {S, Y} → X → Y^ without confounders, Eqs. 1-3 are identified from the joint
distribution of (S, Y, Y^). For s- the reference group and s+ the group compared with it:

    DE  = sum_y [P(Y^=1 | s+, y) - P(Y^=1 | s-, y)] P(y | s-)
    IE  = sum_y P(Y^=1 | s+, y) [P(y | s+) - P(y | s-)]
    TCE = DE + IE = P(Y^=1 | s+) - P(Y^=1 | s-)

With covariates C (age, scanner) the sums run over strata (y, c) in place of y: what differs between the
groups because C differs then counts as indirect.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fairdx.core.errors import InputError
from fairdx.metrics import counts as tables
from fairdx.metrics.inputs import (
    Codes,
    Floats,
    Ints,
    same_length,
    to_attributes,
    to_codes,
    to_labels,
    to_weights,
)
from fairdx.metrics.positive import positive_place
from fairdx.metrics.rates import UndefinedMetricWarning

IDENTIFICATION = (
    "The effects are causal if the graph S → Y, {S, Y} → X → Ŷ holds: nothing causes both the group and the "
    "disease or the image (no confounding, no selection of images that depends on both), every label occurs "
    "in both groups, and the recorded truth is the disease itself, equally accurate in all groups. With "
    "covariates C the same must hold within their values, and what C carries counts as indirect. Otherwise "
    "they are differences between groups, standardised for the disease, and no more."
)
"""What must be true for the numbers to be causal effects; every report states it."""


@dataclass(frozen=True)
class Effects:
    """Effects of one group against the reference, as fractions in [-1, 1].

    Attributes:
        reference: The reference group, s-.
        group: The group compared with it, s+.
        total_effect: TCE, exactly the sum of the other two.
        direct_effect: DE; nan if a stratum of the reference does not occur in the group.
        indirect_effect: IE.
    """

    reference: str
    group: str
    total_effect: float
    direct_effect: float
    indirect_effect: float


def effects_from_strata(selected: Floats, totals: Floats, reference: int) -> dict[str, Floats]:
    """Effects of every group against the reference, from counts by stratum.

    Args:
        selected: Positive decisions by group and stratum, shape (..., S, Z); a stratum is a label, or a label
            with values of the covariates.
        totals: Images by group and stratum, shape (..., S, Z).
        reference: Index of the reference group.

    Returns:
        total_effect, direct_effect and indirect_effect, each of shape (..., S), 0 for the reference; nan
        where a group has no image in a stratum that the reference has.
    """
    rate = tables.ratio(selected, totals)
    share = tables.ratio(totals, totals.sum(-1, keepdims=True))
    base_rate, base_share = rate[..., reference, None, :], share[..., reference, None, :]
    # A stratum that the reference lacks has weight 0 in DE, and its rate there is not needed.
    direct = np.where(base_share > 0, (rate - base_rate) * base_share, 0.0).sum(-1)
    indirect = np.where((base_share > 0) | (share > 0), rate * (share - base_share), 0.0).sum(-1)
    overall = tables.ratio(selected.sum(-1), totals.sum(-1))
    difference = overall - overall[..., reference, None]  # defined even where its two parts are not
    both = direct + indirect
    total: Floats = np.where(np.isnan(both), difference, both)
    return {"total_effect": total, "direct_effect": direct, "indirect_effect": indirect}


def effects_from_counts(counts: Floats, reference: int, positive: int = 1) -> dict[str, Floats]:
    """Effects from tables of counts, labels being the strata.

    Args:
        counts: Shape (..., S, Y, D).
        reference: Index of the reference group.
        positive: Index of the decision whose probability the effects are of.

    Returns:
        As `effects_from_strata`.
    """
    return effects_from_strata(counts[..., positive], counts.sum(-1), reference)


def strata(label: Ints, covariates: Any | None) -> tuple[Ints, int]:
    """Number the combinations of label and covariates that occur.

    Args:
        label: Label codes, shape (n,).
        covariates: Columns as for `sensitive_features`, or None; numbers with many values must be binned.

    Returns:
        The stratum of every row, shape (n,), and the number of strata.

    Raises:
        InputError: If a covariate takes more than 50 values.
    """
    if covariates is None:
        return label, int(label.max()) + 1
    code = label
    for name, column in to_attributes(covariates).items():
        same_length(y_true=label, **{name: column.codes})
        if len(column.names) > 50:
            raise InputError(
                f"Covariate {name!r} takes {len(column.names)} values; bin it into 50 or fewer first."
            )
        code = code * len(column.names) + column.codes
    occurring, code = np.unique(code, return_inverse=True)
    return code, len(occurring)


def reference_index(group: Codes, reference: Any | None, attribute: str = "sensitive_features") -> int:
    """Index of the reference group: the one named, else the largest.

    Args:
        group: The attribute.
        reference: A group, as text or as given; None for the largest group.
        attribute: What to call it in an error.

    Returns:
        Its index.

    Raises:
        InputError: If there is no such group.
    """
    if reference is None:
        return int(np.argmax(np.bincount(group.codes, minlength=len(group.names))))
    if str(reference) not in group.names:
        known = ", ".join(map(repr, group.names[:10]))
        raise InputError(f"reference {reference!r} is no group of {attribute}; there are {known}.")
    return group.names.index(str(reference))


def effects(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sensitive_features: Any,
    reference: Any = None,
    positive_class: Any = None,
    covariates: Any = None,
    sample_weight: ArrayLike | None = None,
) -> list[Effects]:
    """Effects of each group against the reference (paper, Eqs. 1-3; `IDENTIFICATION` says what is assumed).

    Args:
        y_true: Labels, shape (n,).
        y_pred: Decisions, shape (n,).
        sensitive_features: Groups, shape (n,).
        reference: The reference group s-; the largest one if None.
        positive_class: The decision whose probability the effects are of; not needed for 0 and 1, or for
            classes in known words (`fairdx.metrics.positive`).
        covariates: Columns to standardise over together with the label, or None.
        sample_weight: Weights, shape (n,).

    Returns:
        One entry for each group but the reference; nan with a warning where a group lacks a stratum.

    Raises:
        InputError: If the reference or the class does not exist, or columns do not fit.

    Example:
        >>> effects([0, 1, 0, 1], [0, 1, 1, 1], sensitive_features=list("aabb"), reference="a")
        [Effects(reference='a', group='b', total_effect=0.5, direct_effect=0.5, indirect_effect=0.0)]
    """
    truth, decision, classes = to_labels(y_true, y_pred)
    group = to_codes(sensitive_features, "sensitive_features")
    n = same_length(y_true=truth, sensitive_features=group.codes)
    base = reference_index(group, reference)
    positive = positive_place(classes, positive_class, what="y_true")
    stratum, n_strata = strata(truth, covariates)
    shape = (len(group.names), n_strata, len(classes))
    weight = None if sample_weight is None else to_weights(sample_weight, n)
    counts = tables.weighted_table(group.codes, stratum, decision, shape, weight)
    values = effects_from_counts(counts, base, positive)
    undefined = [group.names[s] for s in np.flatnonzero(np.isnan(values["direct_effect"]))]
    if undefined:
        warnings.warn(
            f"Effects are undefined for {', '.join(map(repr, undefined))}: a label (and covariates) of the "
            f"reference {group.names[base]!r} does not occur there.",
            UndefinedMetricWarning,
            stacklevel=2,
        )
    return [
        Effects(group.names[base], name, *(float(values[key][s]) for key in values))
        for s, name in enumerate(group.names)
        if s != base
    ]


def total_effect(y_true: ArrayLike, y_pred: ArrayLike, **keywords: Any) -> dict[str, float]:
    """TCE of each group against the reference, {group: value}; keywords as for `effects`."""
    return {e.group: e.total_effect for e in effects(y_true, y_pred, **keywords)}


def direct_effect(y_true: ArrayLike, y_pred: ArrayLike, **keywords: Any) -> dict[str, float]:
    """DE of each group against the reference, {group: value}; keywords as for `effects`."""
    return {e.group: e.direct_effect for e in effects(y_true, y_pred, **keywords)}


def indirect_effect(y_true: ArrayLike, y_pred: ArrayLike, **keywords: Any) -> dict[str, float]:
    """IE of each group against the reference, {group: value}; keywords as for `effects`."""
    return {e.group: e.indirect_effect for e in effects(y_true, y_pred, **keywords)}
