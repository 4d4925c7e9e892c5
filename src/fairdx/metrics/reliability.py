"""Calibration of P(Y=1): slope, intercept and expected calibration error."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fairdx.core.errors import InputError
from fairdx.metrics.inputs import Floats, Ints, same_length, to_scores, to_weights
from fairdx.metrics.scores import binary_truth, equal_frequency, score_histogram


@dataclass(frozen=True)
class Bins:
    """Bins of the score for the expected calibration error and the calibration plot.

    Attributes:
        number: How many, at most.
        kind: "quantile": each holds equally many images of a group; "uniform": each is equally wide.
    """

    number: int = 10
    kind: Literal["quantile", "uniform"] = "quantile"

    @classmethod
    def of(cls, given: "int | str | Bins") -> "Bins":
        """Read `15`, `quantile:15` or `uniform:15`.

        Raises:
            InputError: It is none of these.
        """
        if isinstance(given, Bins):
            return given
        kind, separator, number = str(given).rpartition(":")
        known = kind in ("quantile", "uniform") or not separator
        if not (known and number.strip().isdigit() and 2 <= int(number) <= MOST_BINS):
            raise InputError(
                f"calibration bins are {given!r}; give a number from 2 to {MOST_BINS}, or one as in "
                "quantile:15 or uniform:15."
            )
        return cls(int(number), kind or "quantile")  # type: ignore[arg-type]

    @property
    def edges(self) -> Floats:
        """Scores at which a bin begins, but for the first; none if they depend on the images."""
        return np.arange(1, self.number) / self.number if self.kind == "uniform" else np.empty(0)

    def place(self, counts: Floats, scores: Floats) -> Ints:
        """The bin of each of ascending scores, from 0 without holes.

        Args:
            counts: Weight of each score, shape (K,).
            scores: Shape (K,).
        """
        if self.kind == "quantile":
            return equal_frequency(counts, self.number)
        found = np.searchsorted(self.edges, scores, side="right")
        return np.unique(found, return_inverse=True)[1].astype(np.int64)


MOST_BINS = 100
"""More bins of calibration than this hold too few images to say anything."""

TEN = Bins()
"""Ten bins of equal frequency."""

_SCORE_MARGIN = 1e-6  # logit of a score of exactly 0 or 1 is infinite; pull it in this far


def logit(scores: Floats) -> Floats:
    """log(p / (1 - p)), scores of 0 and 1 pulled in by 1e-6."""
    inside = np.clip(scores, _SCORE_MARGIN, 1 - _SCORE_MARGIN)
    return np.log(inside / (1 - inside))


def fit_calibration(x: Floats, positive: Floats, negative: Floats) -> tuple[float, float, float]:
    """Logistic regression of Y on x, and its intercept with the slope held at 1.

    Args:
        x: Logits of the scores (or of bins), shape (K,).
        positive: Weight of Y=1 at each, shape (K,).
        negative: Weight of Y=0 at each, shape (K,).

    Returns:
        (slope, the intercept that goes with it, the intercept at slope 1); nan if a class is absent, the
        first two also if x separates the classes.
    """
    from scipy.special import expit

    total = positive + negative
    if positive.sum() == 0 or negative.sum() == 0:
        return (float("nan"),) * 3
    intercept = 0.0
    for _ in range(100):
        p = expit(x + intercept)
        step = (positive - total * p).sum() / max((total * p * (1 - p)).sum(), 1e-300)
        intercept += float(np.clip(step, -2, 2))
        if abs(step) < 1e-10:
            break
    return *_regression(x, positive, total), intercept


def _regression(x: Floats, positive: Floats, total: Floats) -> tuple[float, float]:
    """Slope and intercept by Newton's method, halving steps; nan where there is no maximum."""
    from scipy.special import expit, log_expit

    design = np.stack([np.ones_like(x), x])
    negative, beta = total - positive, np.zeros(2)

    def log_likelihood(b: Floats) -> float:
        linear = b @ design
        return float(positive @ log_expit(linear) + negative @ log_expit(-linear))

    current = log_likelihood(beta)
    for _ in range(100):
        p = expit(beta @ design)
        information = (design * (total * p * (1 - p))) @ design.T
        if np.linalg.cond(information) > 1e12:
            return float("nan"), float("nan")
        step = np.linalg.solve(information, design @ (positive - total * p))
        while (proposed := log_likelihood(beta + step)) < current - 1e-9:
            step = step / 2
        beta, current = beta + step, proposed
        if np.abs(step).max() < 1e-10:
            return float(beta[1]), float(beta[0])
    return float("nan"), float("nan")


def calibration(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    bins: int | str | Bins = TEN,
) -> dict[str, float]:
    """Calibration of P(Y=1): slope, intercept and expected calibration error (Van Calster et al. 2019).

    Args:
        y_true: Labels of two classes, shape (n,).
        y_score: P(Y=1), shape (n,), in [0, 1].
        sample_weight: Weights, shape (n,).
        bins: Of the error: a number, or one as in "uniform:15".

    Returns:
        calibration_slope (ideal 1), calibration_intercept (ideal 0, at slope 1), and
        expected_calibration_error (ideal 0, see `expected_calibration_error`); nan where undefined.
    """
    scores, truth = to_scores(y_score), binary_truth(y_true)
    weight = to_weights(sample_weight, same_length(y_true=truth, y_score=scores))
    slope, _, intercept = fit_calibration(logit(scores), weight * truth, weight * (1 - truth))
    return {
        "calibration_slope": slope,
        "calibration_intercept": intercept,
        "expected_calibration_error": expected_calibration_error(truth, scores, weight, Bins.of(bins)),
    }


def expected_calibration_error(
    label: Ints, scores: Floats, weight: Floats | None = None, bins: Bins = TEN
) -> float:
    """Mean over bins of |share with Y=1 - mean score|, less what chance adds to it.

    The plain mean is far above 0 for a calibrated score: 0.056 with 250 images. What chance adds to a bin is
    E|d + e| - |d| for a normal error e of the bin's binomial variance v, at d^2 = max(observed^2 - v, 0).

    Args:
        label: 0 or 1, shape (n,).
        scores: P(Y=1), shape (n,).
        weight: Shape (n,), or None.
        bins: Of the score.

    Returns:
        The error, at least 0; nan without images.
    """
    from scipy.special import ndtr

    weight = np.ones(len(label)) if weight is None else weight
    if weight.sum() <= 0:
        return float("nan")
    values, place = np.unique(scores, return_inverse=True)
    shape = (1, 2, len(values))
    histogram = score_histogram(np.zeros_like(label), label, place, shape, weight)[0]
    own = bins.place(histogram.sum(0), values)
    table = calibration_table(histogram, values, own)
    residual = np.abs(table["residual"])
    chance = np.bincount(own[place], weights=weight**2 * scores * (1 - scores), minlength=len(residual))
    true, error = np.sqrt(np.maximum(residual**2 - chance, 0.0)), np.sqrt(np.maximum(chance, 1e-300))
    z = true / error
    added = 2 * error * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) - 2 * true * ndtr(-z)
    return float(max((residual - added).sum(), 0.0) / weight.sum())


def calibration_table(histogram: Floats, mean_score: Floats, bins: Ints) -> dict[str, Floats]:
    """Sums by calibration bin.

    Args:
        histogram: Counts by label and fine bin, shape (..., 2, K).
        mean_score: Mean score in each fine bin, shape (K,).
        bins: Calibration bin of each fine bin, shape (K,).

    Returns:
        count, positive, score (the sum of scores) and residual = positive - score, each (..., bins).
    """
    member = np.eye(int(bins.max()) + 1)[bins]
    total = histogram.sum(-2)
    score = (total * mean_score) @ member
    positive = histogram[..., 1, :] @ member
    return {"count": total @ member, "positive": positive, "score": score, "residual": positive - score}
