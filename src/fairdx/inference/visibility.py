"""What so many images can show: the smallest gap that is more than chance, and whether a model knows them."""

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from fairdx.inference.delong import delong

BY_HEART: Final = 2.0
"""From how many standard errors on a higher AUC on training images means that they were learnt by heart."""
MARGIN: Final = 0.02
"""And from what difference on: every model does a little better on the images that it was trained on."""


def within_chance(groups: int, classes: int, images: int) -> float:
    """The ADF below which a model is as fair as so many images can tell, in nats.

    For a fair model 2n times the plug-in ADF is about chi-squared with (|S| - 1)(|Y^| - 1)|Y| degrees of
    freedom (Miller 1955); this is its mean and one standard deviation. Of several models below it the lowest
    would be the luckiest, not the fairest.

    Args:
        groups: |S|.
        classes: |Y| = |Y^|.
        images: n.
    """
    freedom = (groups - 1) * (classes - 1) * classes
    return (freedom + math.sqrt(2 * freedom)) / (2 * images)


def images_to_see(gap: float, groups: int, classes: int) -> int:
    """How many images it takes until chance alone shows less than a gap.

    Args:
        gap: ADF in nats, above 0.
        groups: |S|.
        classes: |Y| = |Y^|.
    """
    return math.ceil(within_chance(groups, classes, 1) / gap)


def what_can_be_seen(unfairness: float, groups: int, classes: int, images: int) -> str:
    """Says in words how a gap compares with what so many images can show.

    Args:
        unfairness: ADF that was found, in nats.
        groups: |S|.
        classes: |Y| = |Y^|.
        images: n.
    """
    chance = within_chance(groups, classes, images)
    text = (
        f"on the {images:,} images that it is judged on, the model's ADF is {1e3 * unfairness:.1f}e-3 nats; "
        f"chance alone shows {1e3 * chance:.1f}e-3"
    )
    if 0 < unfairness <= chance:
        text += f", and less than that gap on {images_to_see(unfairness, groups, classes):,} images or more"
    return text


def learnt_by_heart(
    train_label: ArrayLike, train_score: ArrayLike, label: ArrayLike, score: ArrayLike
) -> bool:
    """Whether a model orders the images that it was trained on clearly better than others.

    Where it does, what it makes of the former says little of the latter: on them it errs less, and otherwise.

    Args:
        train_label: Y of training images, of two classes, shape (n,).
        train_score: Their scores, shape (n,).
        label: Y of other images, shape (m,).
        score: Their scores, shape (m,).

    Returns:
        Whether the AUC is higher by more than 0.02 and two standard errors; False where it is not defined.
    """
    for given in (train_label, label):
        if np.bincount(np.asarray(given, dtype=np.int64), minlength=2).min() < 2:
            return False
    known, other = delong(train_label, train_score), delong(label, score)
    error = math.sqrt(known.covariance[0, 0] + other.covariance[0, 0])
    return bool(known.auc[0] - other.auc[0] > max(MARGIN, BY_HEART * error))
