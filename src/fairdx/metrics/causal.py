"""Total, direct and indirect effect of the group on the decision, estimated from predictions.

In the paper's graph, S → Y and {S, Y} → X → Y^ without confounders, Eqs. 1-3 are identified from the joint
distribution of (S, Y, Y^). For s- the reference group and s+ the group compared with it:

    DE  = sum_y [P(Y^=1 | s+, y) - P(Y^=1 | s-, y)] P(y | s-)
    IE  = sum_y P(Y^=1 | s+, y) [P(y | s+) - P(y | s-)]
    TCE = DE + IE = P(Y^=1 | s+) - P(Y^=1 | s-)

With covariates C (age, scanner) each of them is that within a value of C, averaged over the values as they
are distributed in the reference group (the g-formula of Robins 1986):

    DE  = sum_c P(c | s-) sum_y [P(Y^=1 | s+, y, c) - P(Y^=1 | s-, y, c)] P(y | s-, c)
    IE  = sum_c P(c | s-) sum_y P(Y^=1 | s+, y, c) [P(y | s+, c) - P(y | s-, c)]
    TCE = DE + IE

so that a C which causes both the group and the disease moves none of them. A value of C that lacks a label of
the other group in one of the two says nothing about this pair: it is left out (the sums run over the common
support), and `fairdx.auditing` says how many images that leaves out.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    "The effects are causal only in the graph S → Y, {S, Y} → X → Ŷ, and each needs its own part of it. The "
    "total effect: nothing causes both the group and the disease or the image, and images were not selected "
    "by the group and the disease together. The direct and the indirect effect need that too, and also that "
    "nothing else causes both the disease and the image: severity and age do, and where they differ between "
    "the groups they look like a direct effect. All three need the recorded truth to be the disease itself, "
    "equally accurate in all groups, and every label in both groups. With covariates this must hold within "
    "their values. Otherwise the figures are differences between groups, standardised for the disease, and "
    "no more."
)
"""What must be true for the numbers to be causal effects; every report states it."""


@dataclass(frozen=True)
class Effects:
    """Effects of one group against the reference, as fractions in [-1, 1].

    Attributes:
        reference: The reference group, s-.
        group: The group compared with it, s+.
        total_effect: TCE, exactly the sum of the other two.
        direct_effect: DE; nan if a label of the reference does not occur in the group.
        indirect_effect: IE.
    """

    reference: str
    group: str
    total_effect: float
    direct_effect: float
    indirect_effect: float


def effects_from_strata(
    selected: Floats, totals: Floats, reference: int, covariate: Ints | None = None
) -> dict[str, Floats]:
    """Effects of every group against the reference, from counts by stratum.

    Args:
        selected: Positive decisions by group and stratum, shape (..., S, Z); a stratum is a label, or a label
            with values of the covariates.
        totals: Images by group and stratum, shape (..., S, Z).
        reference: Index of the reference group.
        covariate: The value of the covariates of each stratum, shape (Z,); none if None.

    Returns:
        total_effect, direct_effect and indirect_effect, each of shape (..., S), 0 for the reference; nan
        where a group has no image in a stratum that the reference has. With covariates these are the strata
        of the common support, of which there must be one.
    """
    if covariate is not None:
        rate, kept = tables.ratio(selected, totals), common_support(totals, reference, covariate)
        weight, share, base_share = support_shares(totals, kept, reference, covariate)
        return _decomposed(rate, rate[..., reference, None, :], weight * share, base_share)
    rate = tables.ratio(selected, totals)
    share = tables.ratio(totals, totals.sum(-1, keepdims=True))
    found = _decomposed(rate, rate[..., reference, None, :], share, share[..., reference, None, :])
    overall = tables.ratio(selected.sum(-1), totals.sum(-1))
    difference = overall - overall[..., reference, None]  # defined even where its two parts are not
    total = found["total_effect"]
    return {**found, "total_effect": np.where(np.isnan(total), difference, total)}


def common_support(totals: Floats, reference: int, covariate: Ints) -> NDArray[np.bool_]:
    """Strata whose value of the covariates occurs in a group with every label that it has in the reference.

    Args:
        totals: Images by group and stratum, shape (..., S, Z).
        reference: Index of the reference group.
        covariate: The value of the covariates of each stratum, shape (Z,).

    Returns:
        Shape (..., S, Z): whether the stratum serves the comparison of this group with the reference.
    """
    values = np.eye(int(covariate.max()) + 1)[covariate]
    held = totals > 0
    base = held[..., reference, None, :]
    lacking, both = (base & ~held) @ values, (held @ values > 0) & (base @ values > 0)
    kept: NDArray[np.bool_] = ((lacking == 0) & both)[..., covariate]
    return kept


def support_shares(
    totals: Floats, kept: NDArray[np.bool_], reference: int, covariate: Ints
) -> tuple[Floats, Floats, Floats]:
    """Weights of strata on the common support.

    Args:
        totals: Images by group and stratum, shape (..., S, Z).
        kept: From `common_support`.
        reference: Index of the reference group.
        covariate: The value of the covariates of each stratum, shape (Z,).

    Returns:
        P(c | s-), P(y | s, c) and their product for the reference, P(y, c | s-), each (..., S, Z); nan where
        there is no common support.
    """
    values = np.eye(int(covariate.max()) + 1)[covariate]
    own, base = totals * kept, totals[..., reference, None, :] * kept
    base_share = tables.ratio(base, base.sum(-1, keepdims=True))
    weight = (base_share @ values)[..., covariate]
    within = (own @ values)[..., covariate]
    return weight, np.where(kept, tables.ratio(own, within), 0.0), base_share


def _decomposed(rate: Floats, base_rate: Floats, share: Floats, base_share: Floats) -> dict[str, Floats]:
    """Effects from rates by stratum and the weights of strata, in the group and in the reference."""
    # A stratum that the reference lacks has weight 0 in DE, and its rate there is not needed.
    unknown = np.isnan(base_share)  # no common support
    direct = np.where((base_share > 0) | unknown, (rate - base_rate) * base_share, 0.0).sum(-1)
    used = (base_share > 0) | (share > 0) | unknown
    indirect = np.where(used, rate * (share - base_share), 0.0).sum(-1)
    return {"total_effect": direct + indirect, "direct_effect": direct, "indirect_effect": indirect}


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


def strata(label: Ints, covariates: Any) -> tuple[Ints, Ints]:
    """Number the combinations of label and covariates that occur.

    Args:
        label: Label codes, shape (n,).
        covariates: Columns as for `sensitive_features`; numbers with many values must be binned.

    Returns:
        The stratum of every row, shape (n,), and the value of the covariates of each stratum, shape (Z,).

    Raises:
        InputError: If a covariate takes more than 50 values.
    """
    value = np.zeros_like(label)
    for name, column in to_attributes(covariates).items():
        same_length(y_true=label, **{name: column.codes})
        if len(column.names) > 50:
            raise InputError(
                f"Covariate {name!r} takes {len(column.names)} values; bin it into 50 or fewer first."
            )
        value = value * len(column.names) + column.codes
    value = np.unique(value, return_inverse=True)[1]
    n_labels = int(label.max()) + 1
    occurring, code = np.unique(value * n_labels + label, return_inverse=True)
    return code, occurring // n_labels


def references_by_attribute(reference: Any, groups: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Reference by attribute; a single one must be a group of one, and is that of all that have it.

    Args:
        reference: A group, groups by attribute, or None.
        groups: By attribute.

    Returns:
        Of those attributes for which one is named.

    Raises:
        InputError: There is no such group or attribute.
    """
    if reference is None:
        return {}
    if isinstance(reference, Mapping):
        chosen = {str(name): str(group) for name, group in reference.items()}
    else:
        chosen = {name: str(reference) for name, own in groups.items() if str(reference) in own}
        if not chosen:
            known = "; ".join(f"{name}: {', '.join(own[:10])}" for name, own in groups.items())
            raise InputError(f"reference {str(reference)!r} is no group of {', '.join(groups)} ({known}).")
    for name, group in chosen.items():
        if group not in groups.get(name, ()):
            known = ", ".join(groups[name][:10] if name in groups else groups)
            raise InputError(f"reference {group!r} for {name!r}: there is only {known}.")
    return chosen


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
        covariates: Columns to standardise over besides the label (on their common support), or None.
        sample_weight: Weights, shape (n,).

    Returns:
        One entry for each group but the reference; nan with a warning where a group lacks a label.

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
    stratum, value = (truth, None) if covariates is None else strata(truth, covariates)
    shape = (len(group.names), int(stratum.max()) + 1, len(classes))
    weight = None if sample_weight is None else to_weights(sample_weight, n)
    counts = tables.weighted_table(group.codes, stratum, decision, shape, weight)
    values = effects_from_strata(counts[..., positive], counts.sum(-1), base, value)
    undefined = [group.names[s] for s in np.flatnonzero(np.isnan(values["direct_effect"]))]
    if undefined:
        warnings.warn(
            f"Effects are undefined for {', '.join(map(repr, undefined))}: a label of the reference "
            f"{group.names[base]!r} does not occur there, or occurs with no value of the covariates in both.",
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
