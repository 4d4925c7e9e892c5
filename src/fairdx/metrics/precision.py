"""Area under the precision-recall curve, as average precision."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fairdx.metrics import counts as tables
from fairdx.metrics.inputs import Floats, same_length, to_codes, to_scores, to_weights
from fairdx.metrics.rates import UndefinedMetricWarning, warn_undefined
from fairdx.metrics.scores import binary_truth, score_histogram


def precision_from_histogram(histogram: Floats) -> Floats:
    """Average precision from a histogram over ascending scores; scores in one bin count as ties.

    Args:
        histogram: Counts by label and bin, shape (..., 2, K).

    Returns:
        Sum over thresholds of precision times the recall that each adds, shape (...); nan without Y=1.
    """
    negative, positive = histogram[..., 0, ::-1], histogram[..., 1, ::-1]
    found, selected = np.cumsum(positive, axis=-1), np.cumsum(negative, axis=-1)
    total = found[..., -1].copy()
    selected += found
    np.divide(found, selected, out=found, where=selected > 0)
    return tables.ratio(np.einsum("...k,...k->...", positive, found), total)


def average_precision(
    y_true: ArrayLike, y_score: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> float:
    """Area under the precision-recall curve, as scikit-learn's `average_precision_score`.

    A score without any use has the prevalence as its area, so groups with other prevalences have other areas
    even if the score serves them equally well.

    Args:
        y_true: Labels of two classes, shape (n,).
        y_score: Scores of any range, shape (n,).
        sample_weight: Weights, shape (n,).

    Returns:
        The area, in [0, 1]; nan with a warning without an image of the positive class.

    Example:
        >>> round(average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
        0.8333
    """
    values, _ = _by_group(y_true, y_score, np.zeros(len(np.asarray(y_score)), dtype=np.int64), sample_weight)
    if np.isnan(values[0]):
        warnings.warn(
            "average_precision is undefined: no image is positive.", UndefinedMetricWarning, stacklevel=2
        )
    return float(values[0])


def average_precision_gap(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    sensitive_features: Any,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Largest difference between two groups in their average precision, in [0, 1]; 0 is fair.

    Args:
        y_true: Labels of two classes, shape (n,).
        y_score: Scores of any range, shape (n,).
        sensitive_features: Groups, shape (n,).
        sample_weight: Weights, shape (n,).

    Returns:
        The gap; nan with a warning if a group has no image of the positive class.
    """
    areas, names = _by_group(y_true, y_score, sensitive_features, sample_weight)
    warn_undefined(areas, names, "average_precision")
    return float(areas.max() - areas.min())


def _by_group(
    y_true: ArrayLike, y_score: ArrayLike, sensitive_features: Any, sample_weight: ArrayLike | None
) -> tuple[Floats, tuple[str, ...]]:
    group = to_codes(sensitive_features, "sensitive_features")
    truth, scores = binary_truth(y_true), to_scores(y_score, bounded=False)
    n = same_length(y_true=truth, y_score=scores, sensitive_features=group.codes)
    weight = None if sample_weight is None else to_weights(sample_weight, n)
    values, place = np.unique(scores, return_inverse=True)
    shape = (len(group.names), 2, len(values))
    return precision_from_histogram(score_histogram(group.codes, truth, place, shape, weight)), group.names
