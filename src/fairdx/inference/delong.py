"""Variance of the AUC without resampling: DeLong et al. (1988); Obuchowski (1997) for repeated patients."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fairdx.core.errors import InputError
from fairdx.metrics.inputs import Floats, Ints, same_length, to_codes, to_scores, to_weights
from fairdx.metrics.scores import binary_truth


@dataclass(frozen=True)
class AucVariance:
    """AUCs of one or more scores on the same images, with their covariance.

    Attributes:
        auc: Shape (K,).
        covariance: Shape (K, K).
        n_patients: Number of patients, or of images when these are independent.
    """

    auc: Floats
    covariance: Floats
    n_patients: int


@dataclass(frozen=True)
class AucComparison:
    """Test of two AUCs being equal.

    Attributes:
        difference: Second AUC less the first.
        standard_error: Of the difference.
        p_value: Two-sided, from the normal distribution, or Student's t of the patients less one where there
            are patients; nan if the standard error is 0.
        freedom: Degrees of freedom of that distribution; infinite for the normal one.
    """

    difference: float
    standard_error: float
    p_value: float
    freedom: float


def delong(
    y_true: ArrayLike, *y_scores: ArrayLike, patients: Any = None, sample_weight: ArrayLike | None = None
) -> AucVariance:
    """AUCs and their covariance.

    Args:
        y_true: Labels of two classes, shape (n,).
        *y_scores: One or more scores of any range, each of shape (n,).
        patients: Patient of each image, shape (n,); images are independent if None.
        sample_weight: What each image counts, shape (n,). The covariance is then the linearised one of
            weighted data.

    Returns:
        The AUCs, and DeLong's covariance; Obuchowski's, which reduces to it, with patients.

    Raises:
        InputError: If the truth has a single class, or fewer than two patients have one of them.
    """
    truth = binary_truth(y_true)
    scores = [to_scores(s, bounded=False) for s in y_scores]
    patient = np.arange(len(truth)) if patients is None else to_codes(patients, "patients").codes
    same_length(y_true=truth, patients=patient, **{f"y_score {i}": s for i, s in enumerate(scores)})
    if min(truth.sum(), len(truth) - truth.sum()) == 0:
        raise InputError("The truth has a single class, so the AUC is not defined; give images of both.")
    weight = None if sample_weight is None else to_weights(sample_weight, len(truth))
    placed = [_placements(truth, s, weight) for s in scores]
    positive = truth == 1
    own = None if weight is None else weight[positive]
    auc = np.array([np.average(values[positive], weights=own) for values in placed])
    deviations = np.stack([values - a for values, a in zip(placed, auc, strict=True)])
    return AucVariance(auc, _covariance(deviations, truth, patient, weight), int(patient.max()) + 1)


def _placements(truth: Ints, scores: Floats, weight: Floats | None) -> Floats:
    """Share of negatives below each positive, and of positives above each negative; ties count half."""
    values, place = np.unique(scores, return_inverse=True)
    cell = truth * len(values) + place
    counts = np.bincount(cell, weights=weight, minlength=2 * len(values)).reshape(2, -1)
    below = np.cumsum(counts, axis=1) - counts / 2
    positive = below[0][place] / counts[0].sum()
    negative = 1 - below[1][place] / counts[1].sum()
    placed: Floats = np.where(truth == 1, positive, negative)
    return placed


def _covariance(deviations: Floats, truth: Ints, patient: Ints, weight: Floats | None) -> Floats:
    """Obuchowski's S10 / M + S01 / N + 2 S11 / MN from sums of deviations by patient."""
    n_patients = int(patient.max()) + 1
    weight = np.ones(len(truth)) if weight is None else weight
    sums, holders = [], []
    for label in (1, 0):
        rows = truth == label
        moved = (deviations * weight)[:, rows]
        total = [np.bincount(patient[rows], weights=d, minlength=n_patients) for d in moved]
        sums.append(np.stack(total) / weight[rows].sum())
        holders.append(len(np.unique(patient[rows])))
    if min(holders) < 2:
        raise InputError("Fewer than two patients have one of the labels, so the AUC has no standard error.")
    diseased, healthy = sums
    cross = diseased @ healthy.T * n_patients / (n_patients - 1)
    covariance: Floats = (
        diseased @ diseased.T * holders[0] / (holders[0] - 1)
        + healthy @ healthy.T * holders[1] / (holders[1] - 1)
        + cross
        + cross.T
    )
    return covariance


def delong_test(
    y_true: ArrayLike,
    first_score: ArrayLike,
    second_score: ArrayLike,
    *,
    patients: Any = None,
    sample_weight: ArrayLike | None = None,
) -> AucComparison:
    """Paired test of two scores having the same AUC on the same images.

    Args:
        y_true: Labels of two classes, shape (n,).
        first_score: Scores of any range, shape (n,).
        second_score: Scores of any range, shape (n,).
        patients: Patient of each image, shape (n,); images are independent if None.
        sample_weight: As for `delong`.

    Returns:
        The difference (second less first) and its test.

    Raises:
        InputError: As `delong`.
    """
    both = delong(y_true, first_score, second_score, patients=patients, sample_weight=sample_weight)
    contrast = np.array([-1.0, 1.0])
    freedom = np.inf if patients is None else both.n_patients - 1
    return _compare(float(contrast @ both.auc), float(contrast @ both.covariance @ contrast), freedom)


def _compare(difference: float, variance: float, freedom: float) -> AucComparison:
    from scipy.special import stdtr

    error = float(np.sqrt(max(variance, 0.0)))
    p_value = float(2 * stdtr(freedom, -abs(difference) / error)) if error > 0 else float("nan")
    return AucComparison(difference, error, p_value, freedom)
