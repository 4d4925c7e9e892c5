"""The calibration curve without bins: logistic regression on a spline of the score's logit, with a band.

Van Calster et al. (2019) call it the flexible calibration curve; the spline is the natural one of Harrell
(2015) with four knots. Its band is that of the regression with a variance by patient (Liang and Zeger 1986).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from fairdx.metrics.inputs import Floats, Ints
from fairdx.metrics.parametric import fit_logistic
from fairdx.metrics.reliability import logit

POINTS = 41
"""Scores at which the curve is given, evenly from the 1st to the 99th percentile."""

FEWEST = 20
"""Images with a label, of the rarer one, with fewer of which there is no curve."""

_KNOTS = (0.05, 0.35, 0.65, 0.95)
_APART = 1e-6  # knots nearer than this, on the logit, are one


@dataclass(frozen=True)
class SmoothCurve:
    """Share with Y=1 at scores; empty where there are too few images.

    Attributes:
        score: Shape (POINTS,), ascending.
        observed: Shape (POINTS,), in (0, 1).
        low: Lower end of the pointwise band.
        high: Upper end.
    """

    score: Floats
    observed: Floats
    low: Floats
    high: Floats


def smooth_calibration(
    scores: Floats,
    place: Ints,
    label: Ints,
    patient: Ints | None,
    level: float = 0.95,
    *,
    weight: Floats | None = None,
) -> SmoothCurve:
    """The curve of one group.

    Args:
        scores: Scores that occur (or the mean score of each bin), shape (K,), ascending.
        place: Which of them each image has, shape (n,).
        label: 0 or 1, shape (n,).
        patient: Patient codes, shape (n,); images are independent if None.
        level: Nominal coverage of the band at each score.
        weight: What each image counts, shape (n,); 1 if None. Give patient codes beside it.

    Returns:
        The curve and its band; without points if a label is too rare, or all images are of one score or of
        one patient. With patients Student's t takes the place of the normal distribution.
    """
    from scipy.special import stdtrit

    counted = np.ones(len(label)) if weight is None else weight
    positive = np.bincount(place, weights=label * counted, minlength=len(scores))
    total = np.bincount(place, weights=counted, minlength=len(scores))
    n = len(label) if patient is None else len(np.unique(patient))
    if min(label.sum(), len(label) - label.sum()) < FEWEST or (total > 0).sum() < 2 or n < 2:
        nothing = np.zeros(0)
        return SmoothCurve(nothing, nothing, nothing, nothing)
    cumulative = np.cumsum(total) / total.sum()
    ends = scores[np.searchsorted(cumulative, (0.01, 0.99))]
    at = np.linspace(ends[0], ends[1], POINTS)
    knots = _distinct(logit(scores[np.searchsorted(cumulative, _KNOTS)]))
    design, wanted = natural_spline(logit(scores), knots), natural_spline(logit(at), knots)
    beta = fit_logistic(design, np.stack([total - positive, positive], axis=1))
    p = expit(design @ beta)
    bend = np.linalg.pinv((design * (total * p * (1 - p))[:, None]).T @ design)
    residual = counted * (label - p[place])
    if patient is None:
        squares = np.bincount(place, weights=residual**2, minlength=len(scores))
        spread = np.asarray((design * squares[:, None]).T @ design)
    else:
        sums = np.stack([np.bincount(patient, weights=c[place] * residual) for c in design.T]).astype(float)
        spread = np.asarray(sums @ sums.T)
    covariance = bend @ spread @ bend * n / (n - 1)
    linear = wanted @ beta
    error = np.sqrt(np.maximum(((wanted @ covariance) * wanted).sum(1), 0.0))
    freedom = np.inf if patient is None else max(n - len(beta), 1)
    reach = float(stdtrit(freedom, (1 + level) / 2)) * error
    return SmoothCurve(at, expit(linear), expit(linear - reach), expit(linear + reach))


def _distinct(knots: Floats) -> Floats:
    kept = np.concatenate([[True], np.diff(knots) > _APART])
    return np.asarray(knots[kept])


def natural_spline(x: Floats, knots: Floats) -> Floats:
    """Basis of cubic splines that are straight lines beyond the outer knots (Harrell 2015, 2.4.5).

    Args:
        x: Shape (n,).
        knots: Ascending, shape (k,).

    Returns:
        Shape (n, k), the first columns being 1 and x; (n, 2) with fewer than three knots.
    """
    columns = [np.ones_like(x), x]
    if len(knots) > 2:
        last, before = knots[-1], knots[-2]
        for knot in knots[:-2]:
            bent = np.maximum(x - knot, 0.0) ** 3
            bent -= np.maximum(x - before, 0.0) ** 3 * (last - knot) / (last - before)
            bent += np.maximum(x - last, 0.0) ** 3 * (before - knot) / (last - before)
            columns.append(bent / (last - knots[0]) ** 2)
    return np.stack(columns, axis=1)
