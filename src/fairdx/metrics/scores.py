"""Metrics of scores: discrimination, and what the score tells about the group.

All of them are computed from a histogram of the scores by group and label, so that they too can be resampled
from counts. On its distinct values the histogram is exact; the bootstrap uses a few hundred bins.
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fairdx.core.errors import InputError
from fairdx.metrics import counts as tables
from fairdx.metrics.inputs import (
    Floats,
    Ints,
    same_length,
    to_codes,
    to_numpy,
    to_scores,
    to_weights,
)
from fairdx.metrics.positive import positive_place
from fairdx.metrics.rates import UndefinedMetricWarning, approximate_diagnosis_fairness, warn_undefined

INFORMATION_BINS = 10
"""Bins of equal frequency within each label for I(S; score | Y)."""


def binary_truth(y_true: ArrayLike, positive_class: Any = None) -> Ints:
    """Encode a truth as 0 and 1.

    Args:
        y_true: Shape (n,).
        positive_class: The class that is 1, all others being 0. If None it is 1, or of two classes the one
            that `fairdx.metrics.positive` recognises.

    Returns:
        Codes, shape (n,).

    Raises:
        InputError: If there is no such class, or none is named and the classes do not tell.
    """
    column = to_codes(y_true, "y_true")
    if positive_class is None and set(column.values) <= {0, 1}:
        return np.array([int(v) for v in column.values], dtype=np.int64)[column.codes]
    positive = positive_place(column.values, positive_class, what="y_true")
    return np.asarray(column.codes == positive, dtype=np.int64)


def auc_from_histogram(histogram: Floats) -> Floats:
    """AUC by group from a histogram over ascending scores; scores in one bin count as ties.

    Args:
        histogram: Counts by label and bin, shape (..., 2, K).

    Returns:
        Shape (...); nan where a label does not occur.
    """
    negative, positive = histogram[..., 0, :], histogram[..., 1, :]
    wins = np.einsum("...k,...k->...", positive, np.cumsum(negative, axis=-1))
    wins -= np.einsum("...k,...k->...", positive, negative) / 2
    return tables.ratio(wins, negative.sum(-1) * positive.sum(-1))


def auc_by_group(label: Ints, scores: Floats, group: Ints, n_groups: int) -> Floats:
    """Exact AUC within each group, from one sort per group.

    Args:
        label: Shape (n,), 0 or 1.
        scores: Shape (n,), of any range.
        group: Codes, shape (n,).
        n_groups: Number of groups, S.

    Returns:
        Shape (S,); nan where a group lacks a label.
    """
    areas = np.empty(n_groups)
    for s in range(n_groups):
        rows = group == s
        values, place = np.unique(scores[rows], return_inverse=True)
        if len(values) == 0:
            areas[s] = np.nan
            continue
        table = score_histogram(np.zeros_like(place), label[rows], place, (1, 2, len(values)))
        areas[s] = auc_from_histogram(table)[0]
    return areas


def score_histogram(
    group: Ints, label: Ints, bin_index: Ints, shape: tuple[int, int, int], weight: Floats | None = None
) -> Floats:
    """Histogram of shape (S, 2, K) from codes; see `fairdx.metrics.counts.weighted_table`."""
    return tables.weighted_table(group, label, bin_index, shape, weight)


def auroc(y_true: ArrayLike, y_score: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Area under the ROC curve, from one sort; ties count half.

    Args:
        y_true: Labels, shape (n,).
        y_score: Scores of any range, shape (n,); or (n, K), one column per class in sorted order, for the
            mean over classes of one against the rest.
        sample_weight: Weights, shape (n,).

    Returns:
        The area, in [0, 1]; nan with a warning if a class does not occur, or is alone.

    Example:
        >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        0.75
    """
    values = group_auroc(y_true, y_score, np.zeros(len(to_numpy(y_true, "y_true")), int), sample_weight)[0]
    if np.isnan(values[0]):
        warnings.warn(
            "auroc is undefined: the truth has a single class.", UndefinedMetricWarning, stacklevel=2
        )
    return float(values[0])


def group_auroc(
    y_true: ArrayLike, y_score: ArrayLike, sensitive_features: Any, sample_weight: ArrayLike | None = None
) -> tuple[Floats, tuple[str, ...]]:
    """AUC within every group.

    Args:
        y_true: Labels, shape (n,).
        y_score: Scores of any range, shape (n,) or (n, K).
        sensitive_features: Groups, shape (n,).
        sample_weight: Weights, shape (n,).

    Returns:
        AUCs of shape (S,), nan where undefined, and the names of the groups.
    """
    group = to_codes(sensitive_features, "sensitive_features")
    scores = to_scores(y_score, bounded=False)
    n = same_length(y_true=to_numpy(y_true, "y_true"), y_score=scores, sensitive_features=group.codes)
    weight = None if sample_weight is None else to_weights(sample_weight, n)
    if scores.ndim == 1:
        truths, columns = [binary_truth(y_true)], [scores]
    else:
        codes = class_codes(y_true, scores.shape[1])
        truths, columns = [(codes == k).astype(np.int64) for k in range(scores.shape[1])], list(scores.T)
    areas = []
    for truth, column in zip(truths, columns, strict=True):
        values, place = np.unique(column, return_inverse=True)
        shape = (len(group.names), 2, len(values))
        areas.append(auc_from_histogram(score_histogram(group.codes, truth, place, shape, weight)))
    return np.mean(areas, axis=0), group.names


def class_codes(y_true: ArrayLike, n_classes: int) -> Ints:
    """Codes 0 to K - 1 of a truth that goes with K columns of scores.

    Args:
        y_true: Shape (n,): whole numbers 0 to K - 1, or K names, whose sorted order is that of the columns.
        n_classes: K.

    Returns:
        Codes, shape (n,).

    Raises:
        InputError: If it can be neither.
    """
    column = to_codes(y_true, "y_true")
    if all(isinstance(v, int) and 0 <= v < n_classes for v in column.values):
        return np.array(column.values, dtype=np.int64)[column.codes]
    if len(column.names) != n_classes:
        raise InputError(
            f"y_true has {len(column.names)} classes but y_score {n_classes} columns; "
            f"number the classes 0 to {n_classes - 1} in the order of the columns."
        )
    return column.codes


def auroc_gap(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    sensitive_features: Any,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Largest difference between two groups in their AUC within group, in [0, 1]; 0 is fair.

    Args:
        y_true: Labels, shape (n,).
        y_score: Scores of any range, shape (n,) or (n, K).
        sensitive_features: Groups, shape (n,).
        sample_weight: Weights, shape (n,).

    Returns:
        The gap; nan with a warning if a group has one class only.
    """
    areas, names = group_auroc(y_true, y_score, sensitive_features, sample_weight)
    warn_undefined(areas, names, "auroc")
    return float(areas.max() - areas.min())


def equity_scaled(overall: Floats, by_group: Floats) -> Floats:
    """AUC / (1 + sum over groups of |AUC of the group - AUC|): shapes (...) and (..., S) to (...)."""
    scaled: Floats = overall / (1.0 + np.abs(by_group - overall[..., None]).sum(-1))
    return scaled


def equity_scaled_auroc(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    sensitive_features: Any,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Equity-scaled AUC (FairVision, Luo et al. 2024), in [0, 1]; higher is better.

    Args:
        y_true: Labels, shape (n,).
        y_score: Scores of any range, shape (n,) or (n, K).
        sensitive_features: Groups, shape (n,).
        sample_weight: Weights, shape (n,).

    Returns:
        AUC / (1 + sum over groups of |AUC of the group - AUC|).
    """
    areas, names = group_auroc(y_true, y_score, sensitive_features, sample_weight)
    warn_undefined(areas, names, "auroc")
    overall = auroc(y_true, y_score, sample_weight=sample_weight)
    return float(equity_scaled(np.array(overall), areas))


def brier_score(y_true: ArrayLike, y_score: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Mean of (score - Y)^2, in [0, 1]; lower is better.

    Args:
        y_true: Labels of two classes, shape (n,).
        y_score: P(Y=1), shape (n,).
        sample_weight: Weights, shape (n,).

    Returns:
        The score.
    """
    scores, truth = to_scores(y_score), binary_truth(y_true)
    n = same_length(y_true=truth, y_score=scores)
    return float(np.average((scores - truth) ** 2, weights=to_weights(sample_weight, n)))


def equal_frequency(counts: Floats, n_bins: int) -> Ints:
    """Group consecutive values into bins of nearly equal weight; equal values stay together.

    Args:
        counts: Weight of each value in ascending order, shape (K,).
        n_bins: Most bins to make.

    Returns:
        The bin of each value, shape (K,), ascending from 0 without holes.
    """
    middle = np.cumsum(counts) - counts / 2
    bins = np.minimum((middle / max(counts.sum(), 1e-300) * n_bins).astype(int), n_bins - 1)
    return np.unique(bins, return_inverse=True)[1].astype(np.int64)


def information_bins(histogram: Floats) -> Ints:
    """Bins for I(S; score | Y): ten of equal frequency within each label.

    Args:
        histogram: Counts, shape (S, 2, K).

    Returns:
        Bin of each fine bin for each label, shape (2, K).
    """
    return np.stack([equal_frequency(by_label, INFORMATION_BINS) for by_label in histogram.sum(0)])


def score_table(histogram: Floats, bins: Ints) -> Floats:
    """Counts by group, label and information bin: (..., S, 2, K) to (..., S, 2, B)."""
    members, shape = np.eye(int(bins.max()) + 1)[bins], histogram.shape
    flat = histogram.reshape(-1, *shape[-2:])
    tables_of = np.stack([flat[:, y] @ members[y] for y in range(len(bins))], axis=-2)
    return tables_of.reshape(*shape[:-1], -1)


def score_mutual_information(y_true: ArrayLike, y_score: ArrayLike, *, sensitive_features: Any) -> float:
    """I(S; score | Y) in nats: ADF without a threshold; 0 is fair.

    The score enters in ten bins of equal frequency within each label, pooled over groups: fine enough to see
    shifts of location and shape, coarse enough for an estimate from some hundred images. By the data
    processing inequality the binned information is at most the full one. The plug-in estimate is corrected
    for its first-order bias (Miller 1955) and truncated at 0; rows must be independent.

    Args:
        y_true: Labels of two classes, shape (n,).
        y_score: Scores of any range, shape (n,).
        sensitive_features: Groups, shape (n,).

    Returns:
        The information, at least 0.
    """
    scores, truth = to_scores(y_score, bounded=False), binary_truth(y_true)
    group = to_codes(sensitive_features, "sensitive_features")
    n = same_length(y_true=truth, y_score=scores, sensitive_features=group.codes)
    values, place = np.unique(scores, return_inverse=True)
    histogram = score_histogram(group.codes, truth, place, (len(group.names), 2, len(values)))
    table = score_table(histogram, information_bins(histogram))
    return max(
        0.0, float(tables.mutual_information(table) - tables.information_bias(table, sample_size=float(n)))
    )


def mean_approximate_diagnosis_fairness(
    y_true: ArrayLike, y_score: ArrayLike, *, sensitive_features: Any, thresholds: int = 15
) -> float:
    """ADF averaged over operating points, in nats: steadier than at one, and no threshold can be lucky.

    The operating points are the quantiles of the scores from 0.2 to 0.9, where diagnoses are usually decided.
    What makes it steady: it uses where every score lies, and not only on which side of a threshold.

    Args:
        y_true: Labels of two classes, shape (n,).
        y_score: Scores of any range, shape (n,).
        sensitive_features: Groups, shape (n,).
        thresholds: Number of operating points.

    Returns:
        The mean, at least 0; without any dependence about ADF's floor, 1/n for two groups.
    """
    scores = to_scores(y_score, bounded=False)
    cuts = np.quantile(scores, np.linspace(0.2, 0.9, thresholds))
    each = [
        approximate_diagnosis_fairness(
            y_true, (scores >= cut).astype(np.int64), sensitive_features=sensitive_features
        )
        for cut in cuts
    ]
    return float(np.mean(each))
