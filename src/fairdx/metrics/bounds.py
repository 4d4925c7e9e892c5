"""How far a gap may be off because the group or the label of some images is not known (Manski 1990).

Nothing is assumed of these images but that each belongs to one of the groups (Kallus et al. 2022), or has one
of the labels: the bounds are the gaps of the best and the worst way to divide them. They are about these
images, not about a population: sampling comes on top.
"""

from dataclasses import dataclass

import numpy as np

from fairdx.core.schema import Number
from fairdx.metrics.compared import Compared
from fairdx.metrics.counts import ratio
from fairdx.metrics.inputs import Floats


def gap_bounds(known: Floats, missing: Floats, compared: Compared) -> tuple[float, float]:
    """Bounds of the largest gap between two groups.

    Args:
        known: Counts of the groups by label and decision, shape (S, 2, 2).
        missing: Counts of images without a group, shape (2, 2).
        compared: The rates that the gap is the largest difference of.

    Returns:
        The smallest and the largest gap; nan where a group may have no image behind a rate. With more than
        two groups the lower bound is that of the pair for which it is largest.

    Example:
        Two groups of ten with eight and six hits; two images without a group, a hit and a miss:

        >>> from fairdx.metrics.compared import GAP_SHARES
        >>> known, missing = np.zeros((2, 2, 2)), np.zeros((2, 2))
        >>> known[:, 1] = [[2, 8], [4, 6]]
        >>> missing[1] = [1, 1]
        >>> low, high = gap_bounds(known, missing, GAP_SHARES["equal_opportunity_difference"](2))
        >>> round(low, 4) == round(8 / 11 - 7 / 11, 4), round(high, 4) == round(9 / 11 - 6 / 11, 4)
        (True, True)
    """
    sums = compared.images(known), compared.images(missing[None])
    rates = [np.nan_to_num(compared.rates(table)) for table in (known, missing[None])]
    hits, hidden = (rate * size for rate, size in zip(rates, sums, strict=True))
    misses, hidden_misses = sums[0] - hits, sums[1] - hidden
    with np.errstate(divide="ignore", invalid="ignore"):
        most = (hits + hidden) / (hits + hidden + misses)
        least = hits / (hits + misses + hidden_misses)
    return _largest_gap(least, most)


def _largest_gap(least: Floats, most: Floats) -> tuple[float, float]:
    """Bounds of the largest gap between groups whose rates (S, R) lie between bounds of their own."""
    apart = most[:, None] - least[None], least[:, None] - most[None]  # of the first less the second
    pairs = ~np.eye(len(least), dtype=np.bool_)
    if len(least) < 2 or not all(np.isfinite(end[pairs]).all() for end in apart):
        return float("nan"), float("nan")
    return max(float(apart[1][pairs].max()), 0.0), float(apart[0][pairs].max())


@dataclass(frozen=True)
class LabelBounds:
    """What images without a label may do to a gap.

    Attributes:
        at_random: The gap if they have each label as often as the labelled images of their group with the
            same decision.
        low: The smallest gap, whatever their labels are.
        high: The largest.
        turning: The share of them that must have the labels which are worst for the gap at random, the others
            being as at random, for it to turn around; nan if no labels can turn it.
    """

    at_random: Number
    low: Number
    high: Number
    turning: Number


def label_bounds(known: Floats, unlabelled: Floats, compared: Compared) -> LabelBounds:
    """Bounds of the largest gap between two groups, where labels are missing.

    Args:
        known: Counts of the groups by label and decision, shape (S, 2, 2).
        unlabelled: Counts of images without a label by group and decision, shape (S, 2).
        compared: The rates that the gap is the largest difference of.

    Returns:
        The bounds; nan where a group may have no image behind a rate. With more than two groups, or several
        rates, the lower bound is that of the pair and the rate for which it is largest; what turns around is
        the pair and the rate that are furthest apart at random.

    Example:
        Two groups of ten diseased with eight and six hits; the second has two more images without a label,
        which were decided positive:

        >>> from fairdx.metrics.compared import GAP_SHARES
        >>> known, unlabelled = np.zeros((2, 2, 2)), np.array([[0, 0], [0, 2]])
        >>> known[:, 1] = [[2, 8], [4, 6]]
        >>> found = label_bounds(known, unlabelled, GAP_SHARES["equal_opportunity_difference"](2))
        >>> round(found.low, 4) == round(8 / 10 - 8 / 12, 4), round(found.high, 4), found.turning
        (True, 0.2, nan)
    """
    rates = compared.rates(_at_random(known, unlabelled, 1.0))
    low, high = _largest_gap(*_rates_between(known, unlabelled, compared))
    spread = rates.max(0) - rates.min(0)
    if not np.isfinite(spread).all():
        return LabelBounds(float("nan"), low, high, float("nan"))
    rate = int(spread.argmax())
    pair = [int(rates[:, rate].argmax()), int(rates[:, rate].argmin())]
    return LabelBounds(
        float(spread.max()), low, high, _turning(known[pair], unlabelled[pair], compared, rate)
    )


_STEPS = 40  # halvings of the share that turns a gap around


def _turning(known: Floats, unlabelled: Floats, compared: Compared, rate: int) -> float:
    def apart(share: float) -> float:
        """The difference of the first less the second if so many of the labels are the worst for it."""
        table = _at_random(known, unlabelled, 1 - share)
        least, most = _rates_between(table, share * unlabelled, compared)
        return float(least[0, rate] - most[1, rate])

    if not apart(1.0) < 0:
        return float("nan")
    inside, outside = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if apart(middle) > 0 else (inside, middle)
    return outside


def _at_random(known: Floats, unlabelled: Floats, share: float) -> Floats:
    """Counts with a share of the unlabelled images, labelled as those of their group and decision are."""
    total = known.sum(-2, keepdims=True)
    overall = np.nan_to_num(ratio(known.sum(-1, keepdims=True), known.sum((-1, -2), keepdims=True)))
    chance = np.where(total > 0, known / np.where(total > 0, total, 1.0), overall)
    return np.asarray(known + share * unlabelled[:, None, :] * chance)


def _rates_between(known: Floats, unlabelled: Floats, compared: Compared) -> tuple[Floats, Floats]:
    """The least and the largest rates (S, R) that groups may have, whatever labels are missing."""
    # An image that is a hit raises a rate, one outside of its whole leaves it, and a miss lowers it.
    worth = compared.parts - (compared.wholes - compared.parts)  # of each label and decision, (R, Y, D)
    found = []
    for worst_or_best in (worth.min(1), worth.max(1)):  # of the labels, (R, D)
        hits = compared.rates(known) * compared.images(known)
        hits = np.nan_to_num(hits) + unlabelled @ (worst_or_best > 0).T
        images = compared.images(known) + unlabelled @ (worst_or_best != 0).T
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(hits / images)
    return found[0], found[1]
