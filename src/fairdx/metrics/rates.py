"""Metrics of decisions, in the argument order of scikit-learn and Fairlearn.

Every function takes truth and decision first and the groups as the keyword `sensitive_features`; more than
two groups and more than two classes are defined throughout. A group in which a rate is undefined (no image
with that label) makes the result nan, with a warning that names the group: no number is invented.
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fairdx.metrics import counts as tables
from fairdx.metrics.inputs import Floats, same_length, to_codes, to_labels, to_weights
from fairdx.metrics.positive import positive_place


class UndefinedMetricWarning(UserWarning):
    """A rate is undefined in a group, so the metric is nan; the message names the group."""


def group_table(
    y_true: ArrayLike, y_pred: ArrayLike, sensitive_features: Any, sample_weight: ArrayLike | None = None
) -> tuple[Floats, tuple[str, ...], tuple[Any, ...]]:
    """Count (or sum the weights of) images by group, label and decision.

    Args:
        y_true: Labels, shape (n,).
        y_pred: Decisions, shape (n,).
        sensitive_features: Groups, shape (n,).
        sample_weight: Weights, shape (n,), or None.

    Returns:
        The table (S, Y, Y), the names of the groups and the classes.

    Raises:
        InputError: If columns differ in length or hold what they must not.
    """
    truth, decision, classes = to_labels(y_true, y_pred)
    group = to_codes(sensitive_features, "sensitive_features")
    n = same_length(y_true=truth, sensitive_features=group.codes)
    weight = None if sample_weight is None else to_weights(sample_weight, n)
    shape = (len(group.names), len(classes), len(classes))
    return tables.weighted_table(group.codes, truth, decision, shape, weight), group.names, classes


def warn_undefined(rates: Floats, names: tuple[str, ...], metric: str) -> None:
    """Warn, naming the groups, if a rate is undefined in some.

    Args:
        rates: Shape (S, ...).
        names: The groups.
        metric: What is undefined there.
    """
    where = np.flatnonzero(np.isnan(rates).reshape(len(names), -1).any(1))
    undefined = [names[s] for s in where]
    if undefined:
        warnings.warn(
            f"{metric} is undefined in group{'s' * (len(undefined) > 1)} "
            f"{', '.join(map(repr, undefined))}: no image there to compute it from.",
            UndefinedMetricWarning,
            stacklevel=3,
        )


def accuracy(y_true: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Share of right decisions, in [0, 1].

    Args:
        y_true: Labels, shape (n,).
        y_pred: Decisions, shape (n,).
        sample_weight: Weights, shape (n,).

    Returns:
        The accuracy.
    """
    truth, decision, _ = to_labels(y_true, y_pred)
    return float(np.average(truth == decision, weights=to_weights(sample_weight, len(truth))))


def balanced_accuracy(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Mean over classes of the share of right decisions, in [0, 1]; unlike accuracy, blind to prevalence.

    Args:
        y_true: Labels, shape (n,).
        y_pred: Decisions, shape (n,).

    Returns:
        The balanced accuracy, over the classes that there are.
    """
    truth, decision, _ = to_labels(y_true, y_pred)
    return float(np.mean([np.mean(decision[truth == label] == label) for label in np.unique(truth)]))


def demographic_parity_difference(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sensitive_features: Any,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Largest difference between two groups in the selection rate P(Y^=1 | s); 0 is fair.

    With more than two classes, the largest over classes c of that in P(Y^=c | s).

    Args:
        y_true: Labels, shape (n,); not used but for the set of classes.
        y_pred: Decisions, shape (n,).
        sensitive_features: Groups, shape (n,).
        sample_weight: Weights, shape (n,).

    Returns:
        The difference, in [0, 1].

    Example:
        >>> demographic_parity_difference([0, 0, 1, 1], [0, 1, 1, 1], sensitive_features=list("aabb"))
        0.5
    """
    counts, names, _ = group_table(y_true, y_pred, sensitive_features, sample_weight)
    return _gap(tables.selection_rates(counts), names, "demographic_parity_difference")


def equal_opportunity_difference(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sensitive_features: Any,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Largest difference between two groups in the true-positive rate (Hardt et al. 2016); 0 is fair.

    With more than two classes, the largest over classes y of that in P(Y^=y | s, Y=y).

    Args:
        y_true: Labels, shape (n,).
        y_pred: Decisions, shape (n,).
        sensitive_features: Groups, shape (n,).
        sample_weight: Weights, shape (n,).

    Returns:
        The difference, in [0, 1]; nan with a warning if a group has no image of the class.

    Raises:
        InputError: If two classes do not say which is the positive one; recode them as 0 and 1.

    Example:
        >>> equal_opportunity_difference([1, 1, 1, 1], [0, 1, 1, 1], sensitive_features=list("aabb"))
        0.5
    """
    counts, names, classes = group_table(y_true, y_pred, sensitive_features, sample_weight)
    if len(classes) == 2:
        positive_place(classes, what="y_true", how="recode them as 0 and 1")
    return _gap(tables.opportunity_rates(counts), names, "equal_opportunity_difference")


def equalized_odds_difference(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sensitive_features: Any,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Largest difference between two groups in P(Y^=c | s, Y=y), over classes c and y; 0 is fair.

    For two classes the larger of the gaps in the true-positive and the false-positive rate.

    Args:
        y_true: Labels, shape (n,).
        y_pred: Decisions, shape (n,).
        sensitive_features: Groups, shape (n,).
        sample_weight: Weights, shape (n,).

    Returns:
        The difference, in [0, 1]; nan with a warning if a group lacks a class.

    Example:
        >>> equalized_odds_difference([0, 1, 0, 1], [0, 1, 1, 1], sensitive_features=list("aabb"))
        1.0
    """
    counts, names, _ = group_table(y_true, y_pred, sensitive_features, sample_weight)
    return _gap(tables.odds_rates(counts), names, "equalized_odds_difference")


def approximate_diagnosis_fairness(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sensitive_features: Any,
    sample_weight: ArrayLike | None = None,
    corrected: bool = False,
) -> float:
    """ADF = I(S; Y^ | Y) in nats (paper, Eq. 24); 0 is fair, and then the direct effect is 0 too.

    Args:
        y_true: Labels, shape (n,).
        y_pred: Decisions, shape (n,).
        sensitive_features: Groups, shape (n,).
        sample_weight: Weights, shape (n,).
        corrected: Subtract the first-order bias of the plug-in estimate, (|S|-1)(|Y^|-1)|Y| / 2n when every
            group and decision occurs with every label (Miller 1955), and truncate at 0. n is Kish's
            effective size when rows are weighted. Rows must be independent; `fairdx.auditing.engine` corrects
            for several images per patient too.

    Returns:
        ADF, in [0, log min(|S|, |Y^|)]. Groups that lack a label contribute nothing to it.

    Example:
        >>> adf = approximate_diagnosis_fairness([1, 1, 1, 1], [0, 0, 1, 1], sensitive_features=list("aabb"))
        >>> round(adf, 4)  # log 2
        0.6931
    """
    counts, _, _ = group_table(y_true, y_pred, sensitive_features, sample_weight)
    information = float(tables.mutual_information(counts))
    if not corrected:
        return information
    weight = to_weights(sample_weight, len(to_codes(y_true, "y_true").codes))
    size = weight.sum() ** 2 / (weight**2).sum()
    return max(0.0, information - float(tables.information_bias(counts, sample_size=size)))


def _gap(rates: Floats, names: tuple[str, ...], metric: str) -> float:
    warn_undefined(rates, names, metric)
    return float(tables.largest_gap(rates))


def _binary_table(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    sensitive_features: Any,
    sample_weight: ArrayLike | None,
    positive_class: Any,
) -> tuple[Floats, tuple[str, ...]]:
    """The table collapsed to positive and rest."""
    counts, names, classes = group_table(y_true, y_pred, sensitive_features, sample_weight)
    return one_vs_rest(counts, positive_place(classes, positive_class, what="y_true")), names


def one_vs_rest(counts: Floats, positive: int) -> Floats:
    """Collapse a table over K classes to (rest, class): shape (..., S, K, K) to (..., S, 2, 2)."""
    member = np.zeros((counts.shape[-1], 2))
    member[:, 0], member[positive] = 1.0, (0.0, 1.0)
    collapsed: Floats = np.einsum("...yd,ya,db->...ab", counts, member, member)
    return collapsed


RATE_NAMES = ("selection_rate", "tpr", "fpr", "ppv", "npv")


def binary_rates(counts: Floats) -> dict[str, Floats]:
    """Rates by group from a table of two classes.

    Args:
        counts: Shape (..., S, 2, 2).

    Returns:
        prevalence, selection_rate, accuracy, tpr, fpr, ppv and npv, each of shape (..., S).
    """
    decided, values = tables.decision_rates(counts), tables.predictive_values(counts)
    return {
        "prevalence": tables.label_rates(counts)[..., 1],
        "selection_rate": tables.selection_rates(counts)[..., 1],
        "accuracy": tables.accuracies(counts),
        "tpr": decided[..., 1, 1],
        "fpr": decided[..., 0, 1],
        "ppv": values[..., 1],
        "npv": values[..., 0],
    }


def group_rates(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    sensitive_features: Any,
    sample_weight: ArrayLike | None = None,
    positive_class: Any = None,
) -> dict[str, dict[str, float]]:
    """Selection rate, TPR, FPR, PPV and NPV of every group.

    Args:
        y_true: Labels, shape (n,).
        y_pred: Decisions, shape (n,).
        sensitive_features: Groups, shape (n,).
        sample_weight: Weights, shape (n,).
        positive_class: The class that counts as positive; not needed for 0 and 1, or classes in known words
            (`fairdx.metrics.positive`).

    Returns:
        {metric: {group: value}}, values in [0, 1]; nan with a warning where a group has no such image.

    Example:
        >>> group_rates([0, 1, 0, 0, 1], [0, 1, 1, 0, 1], sensitive_features=list("aabbb"))["fpr"]
        {'a': 0.0, 'b': 0.5}
    """
    counts, names = _binary_table(y_true, y_pred, sensitive_features, sample_weight, positive_class)
    rates = binary_rates(counts)
    for name in RATE_NAMES:
        warn_undefined(rates[name], names, name)
    return {name: dict(zip(names, rates[name].tolist(), strict=True)) for name in RATE_NAMES}
