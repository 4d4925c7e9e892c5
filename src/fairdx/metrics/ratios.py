"""Ratios of rates between groups, beside their differences: 1 is fair, and four fifths is a known bar."""

from typing import Any

from numpy.typing import ArrayLike

from fairdx.metrics import counts as tables
from fairdx.metrics.compared import GAP_SHARES, Compared
from fairdx.metrics.inputs import Floats
from fairdx.metrics.positive import positive_place
from fairdx.metrics.rates import group_table, one_vs_rest, warn_undefined

FOUR_FIFTHS = 0.8
"""A selection rate below four fifths of the highest group's counts as adverse impact in United States hiring
(Uniform Guidelines on Employee Selection Procedures 1978, section 4D)."""

RATIO_OF = {
    "demographic_parity_ratio": "demographic_parity_difference",
    "equal_opportunity_ratio": "equal_opportunity_difference",
    "equalized_odds_ratio": "equalized_odds_difference",
}
"""The gap whose rates each ratio compares."""


def smallest_ratio(rates: Floats) -> Floats:
    """Smallest ratio between two groups, over all rates.

    Args:
        rates: Shape (..., S, R).

    Returns:
        min over r of (min over s / max over s), shape (...); nan if a rate is undefined, or 0 everywhere.
    """
    smallest: Floats = tables.ratio(rates.min(-2), rates.max(-2)).min(-1)
    return smallest


def demographic_parity_ratio(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sensitive_features: Any,
    sample_weight: ArrayLike | None = None,
    positive_class: Any = None,
) -> float:
    """Smallest ratio between two groups of the selection rate P(Y^=1 | s); 1 is fair.

    Args:
        y_true: Labels of two classes, shape (n,).
        y_pred: Decisions, shape (n,).
        sensitive_features: Groups, shape (n,).
        sample_weight: Weights, shape (n,).
        positive_class: The class that counts as positive, as for `fairdx.metrics.group_rates`.

    Returns:
        The ratio, in [0, 1]; nan with a warning where it is undefined.

    Example:
        >>> demographic_parity_ratio([0, 0, 1, 1], [0, 1, 1, 1], sensitive_features=list("aabb"))
        0.5
    """
    given = y_true, y_pred, sensitive_features, sample_weight, positive_class
    return _ratio("demographic_parity_ratio", *given)


def equal_opportunity_ratio(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sensitive_features: Any,
    sample_weight: ArrayLike | None = None,
    positive_class: Any = None,
) -> float:
    """Smallest ratio between two groups of the true-positive rate; as `demographic_parity_ratio`."""
    given = y_true, y_pred, sensitive_features, sample_weight, positive_class
    return _ratio("equal_opportunity_ratio", *given)


def equalized_odds_ratio(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sensitive_features: Any,
    sample_weight: ArrayLike | None = None,
    positive_class: Any = None,
) -> float:
    """The smaller of the ratios of true- and false-positive rates; as `demographic_parity_ratio`."""
    given = y_true, y_pred, sensitive_features, sample_weight, positive_class
    return _ratio("equalized_odds_ratio", *given)


def _ratio(
    name: str,
    y_true: ArrayLike,
    y_pred: ArrayLike,
    sensitive_features: Any,
    sample_weight: ArrayLike | None,
    positive_class: Any,
) -> float:
    counts, names, classes = group_table(y_true, y_pred, sensitive_features, sample_weight)
    table = one_vs_rest(counts, positive_place(classes, positive_class, what="y_true"))
    compared: Compared = GAP_SHARES[RATIO_OF[name]](2)
    rates = compared.rates(table)
    warn_undefined(rates, names, name)
    return float(smallest_ratio(rates))
