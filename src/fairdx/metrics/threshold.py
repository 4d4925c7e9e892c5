"""The operating point: chosen on validation data, stored, and then left alone."""

import numpy as np
from numpy.typing import ArrayLike

from fairdx.core.errors import InputError
from fairdx.metrics.inputs import Floats


def youden_threshold(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Returns the threshold with the highest sensitivity + specificity (Youden, Cancer 1950).

    Unlike the most accurate threshold it does not move with the prevalence, and a rare disease does not push
    it to "never". It lies half-way between two neighbouring scores: rounding does not move decisions.

    Args:
        y_true: Truth, 0 or 1, shape (n,).
        y_score: Scores, shape (n,); a decision is `score >= threshold`.

    Raises:
        InputError: There is only one class.
    """
    truth, score = np.asarray(y_true).astype(bool), np.asarray(y_score, float)
    positives = int(truth.sum())
    if positives in (0, len(truth)):
        raise InputError(
            "a threshold cannot be chosen where all validation labels are equal; use more images"
        )
    order = np.argsort(-score, kind="stable")
    ranked, hits = score[order], truth[order]
    last = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))  # last of each run of equal scores
    sensitivity = np.cumsum(hits)[last] / positives
    false_alarms = np.cumsum(~hits)[last] / (len(truth) - positives)
    best = last[np.argmax(sensitivity - false_alarms)]
    below = ranked[best + 1] if best + 1 < len(ranked) else ranked[best]
    return float((ranked[best] + below) / 2)


def at_precision(y_score: Floats, *thresholds: float) -> Floats:
    """Returns the scores ready to be compared with thresholds in the precision that they were given in.

    A score of 0.7 in single precision is 0.699999988, which is below 0.7, although both say 0.7. Where all
    scores are numbers of a lower precision, those equal to a threshold in that precision become equal to
    it; all others lie on the same side of both.

    Args:
        y_score: Scores as float64, whatever they were given in, any shape.
        *thresholds: One or more.

    Example:
        >>> at_precision(np.float32([0.7]).astype(float), 0.7) >= 0.7
        array([ True])
    """
    for precision in (np.float16, np.float32):
        rounded = {t: float(precision(t)) for t in thresholds}
        moved = {t: r for t, r in rounded.items() if r != t and (y_score == r).any()}
        if moved and (y_score == y_score.astype(precision)).all():
            for threshold, near in moved.items():
                y_score = np.where(y_score == near, threshold, y_score)
            return y_score
    return y_score
