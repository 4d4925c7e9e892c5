"""How far a gap may be off because the group of some images is not known (Manski 1990; Kallus et al. 2022).

Nothing is assumed of these images but that each belongs to one of the groups: the bounds are the gaps of the
best and the worst way to divide them. They are about these images, not about a population: sampling comes on
top.
"""

import numpy as np

from fairdx.metrics.compared import Compared
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
    apart = most[:, None] - least[None], least[:, None] - most[None]  # of the first less the second
    pairs = ~np.eye(len(known), dtype=np.bool_)
    if len(known) < 2 or not all(np.isfinite(end[pairs]).all() for end in apart):
        return float("nan"), float("nan")
    return max(float(apart[1][pairs].max()), 0.0), float(apart[0][pairs].max())
