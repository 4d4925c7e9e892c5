"""Net benefit: what decisions are worth, in true positives per image (Vickers and Elkin 2006)."""

import numpy as np
from numpy.typing import ArrayLike

from fairdx.core.errors import InputError
from fairdx.metrics import counts as tables
from fairdx.metrics.inputs import Floats, same_length, to_scores, to_weights
from fairdx.metrics.scores import binary_truth


def odds(threshold: Floats | float) -> Floats:
    """Weight of a false alarm that a threshold t stands for: t / (1 - t); nan at 1."""
    t = np.asarray(threshold, dtype=float)
    return np.where(t < 1, t / np.where(t < 1, 1 - t, 1.0), np.nan)


def benefit_of_counts(counts: Floats, threshold: Floats | float) -> Floats:
    """Net benefit from counts.

    Args:
        counts: By label and decision, shape (..., 2, 2).
        threshold: Of the decisions; broadcast with (...).

    Returns:
        TP / n - FP / n x t / (1 - t), shape (...); nan where there are no images.
    """
    return tables.ratio(counts[..., 1, 1] - counts[..., 0, 1] * odds(threshold), counts.sum((-1, -2)))


def benefit_of_everybody(prevalence: Floats | float, threshold: Floats | float) -> Floats:
    """Net benefit of deciding everybody positive; that of deciding nobody is 0."""
    share = np.asarray(prevalence, dtype=float)
    return share - (1 - share) * odds(threshold)


def net_benefit(
    y_true: ArrayLike, y_score: ArrayLike, threshold: float, *, sample_weight: ArrayLike | None = None
) -> float:
    """Net benefit of deciding positive from a score on.

    The threshold t says that a missed disease is (1 - t) / t times as bad as a false alarm.

    Args:
        y_true: Labels of two classes, shape (n,).
        y_score: P(Y=1), shape (n,).
        threshold: In [0, 1).
        sample_weight: Weights, shape (n,).

    Returns:
        True positives per image, less false positives per image times t / (1 - t): at most the prevalence.

    Raises:
        InputError: The threshold lies outside [0, 1).

    Example:
        >>> net_benefit([0, 0, 1, 1], [0.1, 0.6, 0.7, 0.9], 0.5)
        0.25
    """
    if not 0 <= threshold < 1:
        raise InputError(f"threshold is {threshold}; net benefit is defined for thresholds in [0, 1).")
    truth, scores = binary_truth(y_true), to_scores(y_score)
    n = same_length(y_true=truth, y_score=scores)
    decided = (scores >= threshold).astype(np.int64)
    weight = to_weights(sample_weight, n)
    table = tables.weighted_table(np.zeros_like(truth), truth, decided, (1, 2, 2), weight)
    return float(benefit_of_counts(table[0], threshold))
