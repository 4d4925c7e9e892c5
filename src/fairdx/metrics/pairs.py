"""AUC by pairs of groups: what of it orders patients within a group, and what orders the groups."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fairdx.metrics.inputs import Floats, same_length, to_codes, to_numpy, to_scores
from fairdx.metrics.rates import UndefinedMetricWarning
from fairdx.metrics.scores import binary_truth, score_histogram


def pair_aurocs(
    y_true: ArrayLike, y_score: ArrayLike, *, sensitive_features: Any
) -> tuple[Floats, tuple[str, ...]]:
    """AUC of the patients with Y=1 of one group against those with Y=0 of another (xAUC).

    Kallus and Zhou, "The fairness of risk scores beyond classification", NeurIPS 2019. The AUC of all
    patients is the mean of these, weighted by pairs. Equal scores within each label in all groups make all of
    them equal, so that a model which gains by telling the groups apart has to lose AUC, though not within
    groups.

    Args:
        y_true: Labels of two classes, shape (n,).
        y_score: Scores of any range, shape (n,).
        sensitive_features: Groups, shape (n,).

    Returns:
        AUCs of shape (S, S): rows are the groups of Y=1, columns those of Y=0; nan where one is empty. And
        the names of the groups.

    Example:
        >>> areas, _ = pair_aurocs([1, 0, 1, 0], [0.4, 0.1, 0.9, 0.6], sensitive_features=list("aabb"))
        >>> areas.tolist()
        [[1.0, 0.0], [1.0, 1.0]]
    """
    histogram, names = _histogram(y_true, y_score, sensitive_features)
    negative, positive = histogram[:, 0], histogram[:, 1]
    below = np.cumsum(negative, axis=-1) - negative / 2
    pairs = np.outer(positive.sum(-1), negative.sum(-1))
    with np.errstate(invalid="ignore"):
        return np.asarray(positive @ below.T / np.where(pairs > 0, pairs, np.nan)), names


def within_group_auroc(y_true: ArrayLike, y_score: ArrayLike, *, sensitive_features: Any) -> float:
    """Probability that of two patients of one group, one with Y=1 and one with Y=0, the former scores higher.

    The mean of the groups' AUCs, weighted by their pairs: what a score is worth for the diagnosis where the
    group is of no use. In [0, 1]; higher is better; ties count half.

    Args:
        y_true: Labels of two classes, shape (n,).
        y_score: Scores of any range, shape (n,).
        sensitive_features: Groups, shape (n,).

    Returns:
        The probability; nan with a warning if no group has both classes.

    Example:
        >>> within_group_auroc([1, 0, 1, 0], [0.4, 0.1, 0.5, 0.6], sensitive_features=list("aabb"))
        0.5
    """
    histogram, _ = _histogram(y_true, y_score, sensitive_features)
    return _within(histogram)


def _within(histogram: Floats) -> float:
    """The same from a histogram of shape (S, 2, K)."""
    negative, positive = histogram[:, 0], histogram[:, 1]
    below = np.cumsum(negative, axis=-1) - negative / 2
    pairs = float((positive.sum(-1) * negative.sum(-1)).sum())
    if pairs == 0:
        warnings.warn(
            "within_group_auroc is undefined: no group has both classes.",
            UndefinedMetricWarning,
            stacklevel=3,
        )
        return float("nan")
    return float((positive * below).sum() / pairs)


def equalized_auroc_bound(y_true: ArrayLike, y_score: ArrayLike, *, sensitive_features: Any) -> float:
    """The largest AUC that decisions by this score and the group can have with equal rates in all groups.

    With randomised thresholds in each group every point under the convex hull of the group's ROC curve can be
    reached; the same false- and true-positive rates in all groups only where all of these meet (Hardt et al.,
    NeurIPS 2016). The bound is the area under the lowest of the hulls. It is one of this score on these
    images: another score from the same images may do better.

    Args:
        y_true: Labels of two classes, shape (n,).
        y_score: Scores of any range, shape (n,).
        sensitive_features: Groups, shape (n,); each has both classes.

    Returns:
        The area, in [0.5, 1]; nan with a warning if a group lacks a class.

    Example:
        >>> equalized_auroc_bound([1, 0, 1, 0], [0.4, 0.1, 0.5, 0.6], sensitive_features=list("aabb"))
        0.5
    """
    histogram, names = _histogram(y_true, y_score, sensitive_features)
    empty = np.flatnonzero((histogram.sum(-1) == 0).any(1))
    if len(empty):
        warnings.warn(
            f"equalized_auroc_bound is undefined: group {names[empty[0]]!r} lacks a class.",
            UndefinedMetricWarning,
            stacklevel=2,
        )
        return float("nan")
    hulls = [_hull(*table) for table in histogram]
    at = np.unique(np.concatenate([false for false, _ in hulls]))
    # Between two points the lowest hull may change from one group to another: such crossings are added.
    at = np.union1d(at, _crossings(at, [np.interp(at, false, true) for false, true in hulls]))
    lowest = np.min([np.interp(at, false, true) for false, true in hulls], axis=0)
    return float(np.trapezoid(lowest, at))


def _hull(negative: Floats, positive: Floats) -> tuple[Floats, Floats]:
    """Upper convex hull of a ROC curve, as false- and true-positive rates in ascending order."""
    false = np.concatenate([[0.0], np.cumsum(negative[::-1]) / negative.sum()])
    true = np.concatenate([[0.0], np.cumsum(positive[::-1]) / positive.sum()])
    kept: list[int] = []
    for i in range(len(false)):
        while len(kept) >= 2 and _left_turn(false, true, kept[-2], kept[-1], i):
            kept.pop()
        kept.append(i)
    x, y = false[kept], true[kept]
    top = np.unique(x)  # of points above each other the highest
    return top, np.array([y[x == value].max() for value in top])


def _left_turn(x: Floats, y: Floats, a: int, b: int, c: int) -> bool:
    return bool((x[b] - x[a]) * (y[c] - y[a]) >= (x[c] - x[a]) * (y[b] - y[a]))


def _crossings(at: Floats, curves: list[Floats]) -> Floats:
    """Where two piecewise linear curves cross between their knots."""
    found = []
    for i, first in enumerate(curves):
        for second in curves[i + 1 :]:
            gap = first - second
            where = np.flatnonzero(gap[:-1] * gap[1:] < 0)
            share = gap[where] / (gap[where] - gap[where + 1])
            found.append(at[where] + share * np.diff(at)[where])
    return np.concatenate(found) if found else np.empty(0)


def _histogram(
    y_true: ArrayLike, y_score: ArrayLike, sensitive_features: Any
) -> tuple[Floats, tuple[str, ...]]:
    """Counts by group, label and distinct score in ascending order, (S, 2, K), and the groups' names."""
    scores, truth = to_scores(y_score, bounded=False), binary_truth(y_true)
    group = to_codes(sensitive_features, "sensitive_features")
    same_length(y_true=to_numpy(truth, "y_true"), y_score=scores, sensitive_features=group.codes)
    values, place = np.unique(scores, return_inverse=True)
    table = score_histogram(group.codes, truth, place, (len(group.names), 2, len(values)))
    return np.asarray(table, dtype=np.float64), group.names
